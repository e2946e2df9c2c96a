use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::ExposeSecret;

use super::super::file;
use super::*;

const PREFIX: &str = "prefix = 'https://goproxy.corp.example.com/go/'\n";

struct Read {
    credentials: Vec<Credential>,
    mistakes: Vec<String>,
    warnings: Vec<String>,
}

/// Reads a settings file of credentials; the environment has TOKEN and EMPTY, the directory a
/// files `secret`, `key`, `open-key` and `hosts`.
fn read_text(text: &str) -> Read {
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join("secret"), "from a file\n").unwrap();
    for (name, mode) in [("key", 0o600), ("open-key", 0o640), ("hosts", 0o644)] {
        fs_err::write(dir.path().join(name), "").unwrap();
        fs_err::set_permissions(dir.path().join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    let env: BTreeMap<String, String> = [("TOKEN", "from the environment"), ("EMPTY", "")]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut out = Collector::default();
    let document = file::parse(Path::new("stoa.toml"), text, &mut out);
    let mut places = Places::new(&env, dir.path());
    let credentials = read(&document.credentials, &mut places, &mut out);
    let mistakes = out.mistakes.iter().map(ToString::to_string).collect();
    let warnings = out.warnings.into_iter().chain(places.warnings).collect();
    let warnings = warnings_without(dir.path(), warnings);
    Read { credentials, mistakes, warnings }
}

fn warnings_without(dir: &Path, warnings: Vec<String>) -> Vec<String> {
    let dir = format!("{}/", dir.display());
    warnings.iter().map(|warning| warning.replace(&dir, "")).collect()
}

#[test]
fn a_secret_is_given_in_one_of_six_ways() {
    let check = |fields: &str, username: Option<&str>, secret: &str| {
        let read = read_text(&format!("[[upstream.credential]]\n{PREFIX}{fields}"));
        assert_eq!(read.mistakes, Vec::<String>::new(), "{fields}");
        let [credential] = &read.credentials[..] else { panic!("{:?}", read.credentials) };
        assert_eq!(credential.prefix.as_str(), "https://goproxy.corp.example.com/go/");
        let found = match &credential.secret {
            Secret::Basic { username, password } => (Some(username.as_str()), password),
            Secret::Bearer(token) => (None, token),
            Secret::SshKey { .. } => panic!("{credential:?}"),
        };
        assert_eq!((found.0, found.1.expose_secret()), (username, secret));
        assert!(!format!("{credential:?}").contains(secret), "{credential:?}");
        assert!(!format!("{:?}", credential.shown()).contains(secret), "{:?}", credential.shown());
    };
    check("username = 'ci'\npassword = ' hunter2 '", Some("ci"), " hunter2 ");
    check("username = 'ci'\npassword-file = 'secret'", Some("ci"), "from a file");
    check("username = 'ci'\npassword-env = 'TOKEN'", Some("ci"), "from the environment");
    check("token = 'hunter2'", None, "hunter2");
    check("token-file = 'secret'", None, "from a file");
    check("token-env = 'TOKEN'", None, "from the environment");
}

#[test]
fn wrong_credentials_are_mistakes_that_hold_no_secret() {
    let check = |fields: &str, expected: &[&str]| {
        let read = read_text(&format!("[[upstream.credential]]\n{fields}"));
        assert_eq!(read.mistakes.len(), expected.len(), "{fields}: {:?}", read.mistakes);
        for (mistake, expected) in read.mistakes.iter().zip(expected) {
            assert!(mistake.starts_with(&format!("stoa.toml:{expected}")), "{mistake}");
            assert!(!mistake.contains("hunter2"), "{mistake}");
        }
        assert_eq!(read.credentials.len(), 0);
    };
    let with_prefix = |fields: &str, expected: &str| {
        check(&format!("{PREFIX}{fields}"), &[expected]);
    };
    check(
        "",
        &[
            "1: upstream.credential.prefix: is missing",
            "1: upstream.credential: needs exactly one of password, ",
        ],
    );
    with_prefix(
        "",
        "1: upstream.credential: needs exactly one of password, password-file, password-env, token, token-file, token-env, ssh-key-file; it has none",
    );
    with_prefix("username = 'ci'", "1: upstream.credential: needs exactly one of");
    with_prefix(
        "username = 'ci'\npassword = 'hunter2'\npassword-file = 'secret'",
        "1: upstream.credential: needs exactly one of password, password-file, password-env, token, token-file, token-env, ssh-key-file; it has password and password-file",
    );
    with_prefix("password = 'hunter2'", "1: upstream.credential.username: is missing");
    with_prefix(
        "username = 'ci'\ntoken = 'hunter2'",
        "1: upstream.credential.username: does not go with a token",
    );
    with_prefix("username = ''\npassword = 'hunter2'", "3: upstream.credential.username: is empty");
    with_prefix(
        "username = 'a:b'\npassword = 'hunter2'",
        "3: upstream.credential.username: holds a colon",
    );
    with_prefix(
        "username = 5\npassword = 'hunter2'",
        "3: upstream.credential.username: must be text",
    );
    with_prefix("token = ''", "3: upstream.credential.token: the secret is empty");
    with_prefix("token = 12345", "3: upstream.credential.token: must be text in quotes");
    with_prefix(
        "token = \"hunter2\\nHost: x\"",
        "3: upstream.credential.token: the secret holds a control character",
    );
    with_prefix(
        "token-env = 'GONE'",
        "3: upstream.credential.token-env: the environment variable GONE is not set",
    );
    with_prefix(
        "token-env = 'EMPTY'",
        "3: upstream.credential.token-env: the environment variable EMPTY is not set",
    );
    with_prefix("token-file = 'gone'", "3: upstream.credential.token-file: failed to open file");
    with_prefix("token-file = ''", "3: upstream.credential.token-file: must be a path");

    let prefix = |prefix: &str, expected: &str| {
        let fields = format!("prefix = {prefix}\ntoken = 'hunter2'");
        check(&fields, &[&format!("2: upstream.credential.prefix: {expected}")]);
    };
    prefix("'goproxy.corp.example.com'", "is not a URL (relative URL without a base)");
    prefix("'https://'", "is not a URL (empty host)");
    prefix("'ftp://goproxy.corp.example.com'", "is none of http, https and ssh");
    prefix("'goproxy.corp.example.com:8080'", "is none of http, https and ssh");
    prefix("'git+ssh://git.example.com'", "is none of http, https and ssh");
    prefix("'git@git.example.com:team'", "is not a URL (relative URL without a base)");
    prefix("'ssh://git.example.com'", "is for ssh, which takes a key");
    prefix("'ssh://git:hunter2@git.example.com'", "holds a password, which ssh is not given");
    prefix("'ssh:git.example.com'", "has no host");
    prefix("'ssh:///team'", "has no host");
    prefix("'ssh://git.example.com/a?x'", "has more than a path");
    prefix("'https://ci:hunter2@goproxy.corp.example.com'", "holds a user or password");
    prefix("'https://hunter2@goproxy.corp.example.com'", "holds a user or password");
    prefix("'https://goproxy.corp.example.com?x'", "has more than a path");
    prefix("'https://goproxy.corp.example.com#x'", "has more than a path");
    prefix("5", "must be text");
}

#[test]
fn a_prefix_has_one_credential() {
    let one = |url: &str| format!("[[upstream.credential]]\nprefix = '{url}'\ntoken = 'x'\n");
    let read = read_text(&[one("https://a.example.com"), one("https://A.example.com/")].concat());
    assert_eq!(
        read.mistakes,
        [
            "stoa.toml:4: upstream.credential.prefix: this prefix has a credential already (stoa.toml:1)"
        ]
    );
    let read = read_text(&[one("https://a.example.com"), one("https://a.example.com/go")].concat());
    assert_eq!((read.credentials.len(), read.mistakes.len()), (2, 0));
}

#[test]
fn a_secret_over_http_is_a_warning() {
    let text = "[[upstream.credential]]\nprefix = 'http://a.example.com'\ntoken = 'hunter2'\n";
    let read = read_text(text);
    assert_eq!(
        read.warnings,
        [
            "stoa.toml:1: upstream.credential.prefix: over http the secret for http://a.example.com/ \
          can be read on its way; use https"
        ]
    );
}

#[test]
fn a_key_is_for_ssh() {
    let read = read_text(
        "[[upstream.credential]]\nprefix = 'ssh://git@Git.example.com:2222/team'\n\
         ssh-key-file = 'key'\nknown-hosts-file = 'hosts'\n",
    );
    assert_eq!((read.mistakes, read.warnings), (Vec::new(), Vec::new()));
    let [credential] = &read.credentials[..] else { panic!("{:?}", read.credentials) };
    assert_eq!(credential.prefix.as_str(), "ssh://git@git.example.com:2222/team");
    let Secret::SshKey { key_file, known_hosts_file } = &credential.secret else {
        panic!("{credential:?}")
    };
    assert!(key_file.is_absolute() && key_file.ends_with("key"), "{key_file:?}");
    assert!(known_hosts_file.as_ref().is_some_and(|file| file.ends_with("hosts")));
    assert_eq!(
        credential.shown(),
        [
            ("prefix", "\"ssh://git@git.example.com:2222/team\""),
            ("ssh-key-file", "\"key\""),
            ("known-hosts-file", "\"hosts\""),
        ]
        .map(|(name, value)| (name, value.to_owned()))
    );
    let read = read_text(
        "[[upstream.credential]]\nprefix = 'ssh://git.example.com'\nssh-key-file = 'open-key'\n",
    );
    assert_eq!(read.mistakes, Vec::<String>::new());
    assert_eq!(
        read.warnings,
        [
            "open-key: ssh refuses a key that others than its owner may read; chmod 600 makes it usable, in a \
          Kubernetes volume defaultMode 0400"
        ]
    );
}

#[test]
fn what_does_not_go_with_a_key_is_a_mistake() {
    let check = |fields: &str, expected: &[&str]| {
        let read = read_text(&format!("[[upstream.credential]]\n{fields}"));
        assert_eq!(read.mistakes.len(), expected.len(), "{fields}: {:?}", read.mistakes);
        for (mistake, expected) in read.mistakes.iter().zip(expected) {
            assert!(mistake.starts_with(&format!("stoa.toml:{expected}")), "{mistake}");
        }
        assert_eq!(read.credentials.len(), 0);
    };
    check(
        "prefix = 'https://git.example.com'\nssh-key-file = 'key'",
        &[
            "2: upstream.credential.prefix: is for a password or token: with ssh-key-file write ssh://git@HOST/",
        ],
    );
    let check = |fields: &str, expected: &[&str]| {
        check(&format!("prefix = 'ssh://git@git.example.com/'\n{fields}"), expected);
    };
    check("ssh-key-file = 'gone'", &["3: upstream.credential.ssh-key-file: failed to "]);
    check("ssh-key-file = '.'", &["3: upstream.credential.ssh-key-file: "]);
    check("ssh-key-file = ''", &["3: upstream.credential.ssh-key-file: must be a path"]);
    check("ssh-key-file = 5", &["3: upstream.credential.ssh-key-file: must be text"]);
    check(
        "known-hosts-file = 'hosts'",
        &["3: upstream.credential.known-hosts-file: goes with ssh-key-file, which is missing"],
    );
    check(
        "token-file = 'secret'\nusername = 'git'\nssh-key-file = 'key'\nknown-hosts-file = 'gone'",
        &[
            "1: upstream.credential: an ssh key is all that ssh is given; leave token-file and username out",
            "6: upstream.credential.known-hosts-file: failed to ",
        ],
    );
}

#[test]
fn a_place_has_one_key() {
    let one =
        |url: &str| format!("[[upstream.credential]]\nprefix = '{url}'\nssh-key-file = 'key'\n");
    let check = |first: &str, second: &str, fits: bool| {
        let read = read_text(&[one(first), one(second)].concat());
        assert_eq!(read.mistakes.is_empty(), fits, "{first} {second}: {:?}", read.mistakes);
    };
    check("ssh://git@a.example.com", "ssh://other@A.example.com:22/", false);
    check("ssh://git@a.example.com/x", "ssh://git@a.example.com/x/", false);
    check("ssh://git@a.example.com/x", "ssh://git@a.example.com/y", true);
    check("ssh://git@a.example.com", "ssh://git@a.example.com:2222", true);
}
