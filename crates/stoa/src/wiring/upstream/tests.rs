use std::collections::BTreeMap;

use super::*;
use crate::cli;

fn config(text: &str, env: &[(&str, &str)]) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settings.toml");
    fs_err::write(&file, text).unwrap();
    fs_err::write(dir.path().join("key"), "").unwrap();
    fs_err::set_permissions(dir.path().join("key"), PermissionsExt::from_mode(0o600)).unwrap();
    let mut env: BTreeMap<String, String> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    env.insert("HOME".to_owned(), dir.path().to_str().unwrap().to_owned());
    let args = cli::Settings {
        config: Some(file.to_str().unwrap().to_owned()),
        ..cli::Settings::default()
    };
    Config::load(&args, &env, dir.path()).unwrap()
}

#[test]
fn keys_and_secrets_are_told_apart() {
    let config = config(
        "[upstream]\ngoprivate = 'a.example.com'\ngovcs = 'public:off'\n\
         [[upstream.credential]]\nprefix = 'ssh://git@b.example.com'\nssh-key-file = 'key'\n\
         [[upstream.credential]]\nprefix = 'https://c.example.com'\ntoken = 'x'\n\
         [[route]]\npattern = 'd.example.com'\ngoproxy = 'direct'\n\
         [git]\nmax-refs = 7\n",
        &[("STOA_GIT_TOKEN", "hunter2")],
    );
    let settings = settings(&config, Some("/data/git".into()));
    let prefixes: Vec<&str> = settings.credentials.iter().map(|c| c.prefix.as_str()).collect();
    assert_eq!(prefixes, ["https://c.example.com/", "https://a.example.com/"]);
    assert_eq!(settings.ssh_keys[0].prefix.as_str(), "ssh://git@b.example.com");
    assert_eq!((settings.ssh_keys.len(), &settings.ssh_keys[0].known_hosts_file), (1, &None));
    assert_eq!(settings.git_dir, Some("/data/git".into()));
    let rules = &settings.rules;
    let private = (rules.goprivate.to_string(), rules.gonoproxy.to_string());
    assert_eq!(private, ("a.example.com".to_owned(), "a.example.com".to_owned()));
    assert_eq!(rules.govcs, stoa_upstream::GoVcs::parse("public:off").unwrap());
    assert_eq!(rules.routed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["d.example.com"]);
    assert_eq!(settings.git.max_refs, 7);
}

#[test]
fn git_is_looked_for_in_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let (with, without) = (dir.path().join("with"), dir.path().join("without"));
    for dir in [&with, &without] {
        fs_err::create_dir(dir).unwrap();
        fs_err::write(dir.join("git"), "").unwrap();
    }
    fs_err::set_permissions(with.join("git"), PermissionsExt::from_mode(0o755)).unwrap();
    fs_err::create_dir(dir.path().join("git")).unwrap();
    let check = |dirs: &[&PathBuf], expected: bool| {
        let path = std::env::join_paths(dirs).unwrap();
        assert_eq!(is_installed("git", Some(&path)), expected, "{path:?}");
    };
    let root = dir.path().to_owned();
    check(&[&without, &with], true);
    check(&[&without, &root], false);
    assert!(!is_installed("git", Some(OsStr::new(""))) && !is_installed("git", None));
}
