//! The settings as text: in effect (`config show`), explained (`config reference`, which is
//! `docs/configuration.md`) and as a file to start from (`config/stoa.toml`).

use std::fmt::Write as _;

use super::table::{SECTIONS, SETTINGS, Setting};
use super::{Config, credential, route};

/// A TOML string.
pub(super) fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A TOML list of strings.
pub(super) fn quote_list(items: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| quote(item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

/// The text with the user and password of each URL in it masked.
pub(super) fn redact(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        let end = after.find(char::is_whitespace).unwrap_or(after.len());
        let (url, behind) = after.split_at(end);
        shown.push_str(before);
        match url.rfind('@') {
            Some(at) => {
                shown.push_str("xxxxx");
                shown.push_str(&url[at..]);
            }
            None => shown.push_str(url),
        }
        rest = behind;
    }
    shown.push_str(rest);
    shown
}

/// The settings in effect as TOML, each with its origin behind it.
pub(super) fn show(config: &Config) -> String {
    let mut text = match &config.file {
        Some(path) => format!("# settings file: {}\n", path.display()),
        None => "# settings file: none\n".to_owned(),
    };
    for (section, _) in SECTIONS {
        let _ = write!(text, "\n[{section}]\n");
        let lines = config.effective.iter().filter_map(|effective| {
            let name = effective.key.strip_prefix(section)?.strip_prefix('.')?;
            Some((format!("{name} = {}", effective.value), effective.origin.to_string()))
        });
        aligned(&mut text, lines.collect());
    }
    for credential in &config.credentials {
        text.push_str("\n[[upstream.credential]]\n");
        entry(&mut text, credential.shown(), &credential.origin.to_string());
    }
    for route in &config.routes {
        text.push_str("\n[[route]]\n");
        entry(&mut text, route.shown(), &route.origin.to_string());
    }
    text
}

fn entry(
    text: &mut String,
    fields: impl IntoIterator<Item = (&'static str, String)>,
    origin: &str,
) {
    let fields = fields.into_iter().enumerate();
    let lines = fields.map(|(i, (name, value))| {
        (format!("{name} = {value}"), if i == 0 { origin.to_owned() } else { String::new() })
    });
    aligned(text, lines.collect());
}

/// Lines with a comment each, in a column unless a line is very long.
fn aligned(text: &mut String, lines: Vec<(String, String)>) {
    let lengths = lines.iter().map(|(line, _)| line.chars().count());
    let column = lengths.filter(|length| *length <= 60).max().unwrap_or(0);
    for (line, comment) in lines {
        let _ = match comment.as_str() {
            "" => writeln!(text, "{line}"),
            comment => writeln!(text, "{line:column$}  # {comment}"),
        };
    }
}

/// `config/stoa.toml`: every key, commented out, holding its default.
pub fn template() -> String {
    let mut text = "\
# The settings of stoa: every key, commented out, holding its default.
# Written by `stoa config reference --toml`; docs/configuration.md says more.
#
# This file is read from the working directory or from /etc/stoa/stoa.toml, or name one with
# --config or STOA_CONFIG. Flags and STOA_ variables are stronger than this file.
# A duration is written 10s, 5m or 1h30m; a size 500MiB, 8KiB or as a number of bytes.
# A relative path starts from the working directory of the server; ~/ is the home directory.
# `stoa config check` finds what is wrong here.
"
    .to_owned();
    for (section, about) in SECTIONS {
        let _ = write!(text, "\n# {about}.\n[{section}]\n");
        for setting in SETTINGS.iter().filter(|setting| setting.section() == *section) {
            let names = match &setting.short {
                Some(short) => format!("{}, {}", short.flag, short.env),
                None => setting.env(),
            };
            let _ = write!(
                text,
                "\n# {} [{names}]\n#{} = {}\n",
                setting.doc,
                setting.name(),
                setting.kind.literal(setting.default)
            );
        }
    }
    text.push_str(
        "
# Who the server is towards an upstream or a repository; there may be several of these.
#[[upstream.credential]]
#prefix = \"https://goproxy.corp.example.com/\"
#username = \"stoa\"
#password-file = \"/run/secrets/goproxy\"  # or password-env, password; or, without a username, token-file, token-env, token
#[[upstream.credential]]
#prefix = \"ssh://git@git.corp.example.com/\"
#ssh-key-file = \"/run/secrets/git-key\"
#known-hosts-file = \"/run/secrets/known-hosts\"  # else those of the user and the system

# Another chain for some modules; the first route whose pattern matches wins.
#[[route]]
#pattern = \"corp.example.com/*\"
#goproxy = \"https://goproxy.corp.example.com\"
",
    );
    text
}

/// `docs/configuration.md`: what each setting means.
pub fn reference() -> String {
    let mut text = "\
# Configuration

<!-- Written by `stoa config reference`; a test compares it. Change crates/stoa/src/config/table.rs. -->

A setting is taken from its flag, else from its environment variable, else from the settings file,
else its default holds. `stoa config show` prints what is in effect and where each value came from;
`stoa config check` says `ok` or lists every mistake at once. A wrong setting ends any command with
status 2.

- **The settings file** is TOML: the one that `--config` or `STOA_CONFIG` names, which must then be
  there; otherwise `stoa.toml` in the working directory or `/etc/stoa/stoa.toml`, if there.
  [config/stoa.toml](../config/stoa.toml) holds every key with its default, and
  [config/examples](../config/examples) whole files for some situations. An unknown key is a mistake.
- **The environment**: every key has a variable, `STOA_` and the key in capitals with `_` for `.` and
  `-`: `server.max-connections` is `STOA_SERVER_MAX_CONNECTIONS`. Where the table gives a shorter name,
  both work. An empty variable is not set. An unknown `STOA_` variable is a mistake, but for those that
  Kubernetes makes for a service called `stoa` or `stoa-…` (`STOA_SERVICE_HOST`, `STOA_PORT_3000_TCP`, …)
  and those that a credential names. The server's own `GOPROXY` and its kin are not read.
- **Durations** are whole numbers with units (`ms`, `s`, `m`, `h`, `d`), like `10s` or `1h30m`.
  **Sizes** are a whole number and a unit (`KiB`, `MiB`, `GiB`; also `KB`, `MB`, `GB` for powers of
  1000), or a number of bytes. **Lists** are TOML lists, or one text with commas.
- **Paths**: a relative one starts from the server's working directory, in the settings file too; `~/`
  is the home directory.
- **Patterns** are those of Go's GOPRIVATE: `*.corp.example.com,github.com/org`. A malformed one is a
  mistake, because to pass over it would send private names to a public host.
"
    .to_owned();
    for (section, about) in SECTIONS {
        let _ = write!(
            text,
            "\n## {section}\n\n{about}.\n\n| key | default | form | flag | environment | |\n|---|---|---|---|---|---|\n",
        );
        for setting in SETTINGS.iter().filter(|setting| setting.section() == *section) {
            row(&mut text, setting);
        }
    }
    fields(
        &mut text,
        "[[upstream.credential]]",
        "Who the server is towards an upstream or a repository. There may be several; only the \
         settings file has them. Each has\nexactly one of the password and token keys, or an ssh \
         key. A password in the URL of `upstream.goproxy` works too, and so\ndoes netrc. For one \
         host of repositories `git.token` is shorter.",
        credential::FIELDS,
    );
    fields(
        &mut text,
        "[[route]]",
        "Another chain for some modules. There may be several; only the settings file has them. \
         The first whose pattern\nmatches wins, before `upstream.gonoproxy` and \
         `upstream.goproxy`.",
        route::FIELDS,
    );
    text
}

fn row(text: &mut String, setting: &Setting) {
    let code = |text: &str| {
        if text.is_empty() { String::new() } else { format!("`{}`", text.replace('|', "\\|")) }
    };
    let (flag, env) = match &setting.short {
        Some(short) => (short.flag, short.env.to_owned()),
        None => ("", setting.env()),
    };
    let _ = writeln!(
        text,
        "| `{}` | {} | {} | {} | `{env}` | {} |",
        setting.key,
        code(setting.default),
        setting.kind.form(),
        code(flag),
        setting.doc.replace('|', "\\|").replace('*', "\\*"),
    );
}

fn fields(text: &mut String, title: &str, about: &str, fields: &[(&str, &str)]) {
    let _ = write!(text, "\n## {title}\n\n{about}\n\n| key | |\n|---|---|\n");
    for (name, doc) in fields {
        let _ = writeln!(text, "| `{name}` | {doc} |");
    }
}

/// The flags of the table, each with its variable: `--listen STOA_LISTEN`.
#[cfg(test)]
pub(crate) fn flags() -> std::collections::BTreeSet<String> {
    let shorts = SETTINGS.iter().filter_map(|setting| setting.short.as_ref());
    shorts.map(|short| format!("{} {}", short.flag, short.env)).collect()
}
