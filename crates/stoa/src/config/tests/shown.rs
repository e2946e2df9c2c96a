//! What is printed of the settings, and the files that are made from their table.

use super::*;

#[test]
fn no_secret_is_shown() {
    let text = "upstream.goproxy = 'https://ci:hunter2@a.example.com,https://hunter2@b.example.com'\n\
         sumdb.gosumdb = 'sum.golang.org https://ci:hunter2@c.example.com/x'\n\
         [[route]]\npattern = 'a'\ngoproxy = 'https://ci:hunter2@d.example.com'\n\
         [[upstream.credential]]\nprefix = 'https://e.example.com'\nusername = 'ci'\npassword = 'hunter2'\n\
         [[upstream.credential]]\nprefix = 'https://f.example.com'\ntoken-env = 'F_TOKEN'\n\
         [git]\nhost = 'g.example.com'\n";
    let config = Given::file(text)
        .env("F_TOKEN", "hunter2")
        .env("STOA_GIT_TOKEN", "hunter2")
        .whole()
        .unwrap();
    for shown in [config.show(), format!("{config:?}"), format!("{config:#?}")] {
        assert!(!shown.contains("hunter2"), "{shown}");
        for host in ["a", "b", "c", "d", "e", "f", "g"] {
            assert!(shown.contains(&format!("{host}.example.com")), "{shown}");
        }
    }
    assert!(config.show().contains("password = \"***\""), "{}", config.show());
    assert!(config.show().contains("token-env = \"F_TOKEN\""), "{}", config.show());

    for wrong in [
        "upstream.goproxy = 'ftp://ci:hunter2@a.example.com'",
        "upstream.goproxy = 'https://ci:hunter2@a b.example.com'",
        "upstream.goproxy = 'https://ci:hunter2@a.example.com:x'",
        "sumdb.gosumdb = 'sum.golang.org ftp://ci:hunter2@c.example.com'",
        "sumdb.gosumdb = 'x ftp://ci:hunter2@c.example.com'",
        "git.token = \"hunter2\\nhunter2\"",
        "git.token = ['hunter2']",
        "git.host = 'https://ci:hunter2@a.example.com'",
    ] {
        let mistakes = Given::file(wrong).mistakes().concat();
        assert!(!mistakes.contains("hunter2"), "{mistakes}");
    }
}

/// What is shown is itself a settings file that means the same.
#[test]
fn show_is_toml_that_means_the_same() {
    let given = Given::file(
        "[server]\nlisten = ':80'\noffline = true\n[upstream]\nca-files = ['a.pem']\n\
         goprivate = 'corp.example.com'\nnetrc = 'b.pem'\nconnect-timeout = '1m30s'\n\
         [[route]]\npattern = 'a\"b'\ngoproxy = 'off'\n\
         [[upstream.credential]]\nprefix = 'https://e.example.com'\ntoken-env = 'HOME'\n",
    );
    let first = given.load().unwrap();
    let text = first.show();
    fs::write(given.dir.path().join("stoa.toml"), &text).unwrap();
    let second = given.load().unwrap();
    let without_origins = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("  #").next().unwrap().trim().to_owned()).collect()
    };
    assert_eq!(without_origins(&second.show()), without_origins(&text));
    assert!(text.starts_with("# settings file: stoa.toml\n"), "{text}");
    for setting in SETTINGS {
        let name = format!("{} ", setting.name());
        assert!(text.lines().any(|line| line.starts_with(&name)), "{name}");
    }
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

#[test]
fn the_files_made_from_the_table_are_up_to_date() {
    let check = |path: &str, expected: &str, command: &str| {
        let found = fs::read_to_string(in_repository(path)).unwrap();
        assert!(found == expected, "{path} is old: `cargo run -- {command} > {path}`");
    };
    check("config/stoa.toml", &template(), "config reference --toml");
    check("docs/configuration.md", &reference(), "config reference");
}

/// config/stoa.toml as it is changes nothing; with every key uncommented it is what it says.
#[test]
fn the_template_holds_the_defaults() {
    let values_of = |text: &str| {
        let config = Given::file(text).load().unwrap();
        (config.effective.into_iter().map(|e| (e.key, e.value)).collect::<Vec<_>>(), config.routes)
    };
    let (defaults, _) = values_of("");
    assert_eq!(values_of(&template()).0, defaults);
    let uncommented: String = template()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with([' ', '[']) && !rest.is_empty() => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let (settings, entries) = uncommented.split_once("\n# Who the server is").unwrap();
    assert_eq!(values_of(settings).0, defaults);
    assert_eq!(settings.lines().filter(|line| line.contains(" = ")).count(), SETTINGS.len());

    let entries = entries.split_once('\n').unwrap().1.replace("#[[", "[[");
    let entries = ["goproxy", "git-key", "known-hosts"]
        .iter()
        .fold(entries, |text, name| text.replace(&format!("/run/secrets/{name}"), "a.pem"));
    let config = Given::file(&entries).load().unwrap();
    assert_eq!((config.routes.len(), config.credentials.len()), (1, 2));
}

#[test]
fn the_examples_have_no_mistakes() {
    let mut names = Vec::new();
    for entry in fs::read_dir(in_repository("config/examples")).unwrap() {
        let path = entry.unwrap().path();
        let mut given = Given::nothing().env("CORP_GOPROXY_TOKEN", "hunter2");
        given.args.config = Some(path.to_str().unwrap().to_owned());
        let config = given.load().unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert_eq!(config.warnings, Vec::<String>::new(), "{}", path.display());
        let set = config.effective.iter().any(|e| matches!(e.origin, Origin::File { .. }));
        assert!(set, "{} sets nothing", path.display());
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    let expected = [
        "behind-nginx.toml",
        "blocked-region.toml",
        "cut-off-network.toml",
        "office.toml",
        "offline-vm.toml",
        "private-routes.toml",
    ];
    assert_eq!(names, expected);
}
