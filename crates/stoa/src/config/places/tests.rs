use super::*;

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn paths_start_from_the_working_directory_or_from_home() {
    let check = |text: &str, expected: Result<&str, &str>| {
        let env = environment(&[("HOME", "/home/gopher")]);
        let found = Places::new(&env, Path::new("/work")).path(text);
        let found = found.as_deref().map(|path| path.to_str().unwrap()).map_err(String::as_str);
        assert_eq!(found, expected, "{text}");
    };
    check("data", Ok("/work/data"));
    check("./data", Ok("/work/./data"));
    check("/var/lib/stoa", Ok("/var/lib/stoa"));
    check("~/data", Ok("/home/gopher/data"));
    check("~", Ok("/home/gopher/"));
    check("~gopher/data", Ok("/work/~gopher/data"));
    check("a/~/b", Ok("/work/a/~/b"));
    check("", Err("must be a path, not empty"));

    let env = environment(&[("HOME", "")]);
    let found = Places::new(&env, Path::new("/work")).path("~/data");
    assert_eq!(found.unwrap_err(), "\"~/data\": HOME is not set");
}

#[test]
fn the_data_directory_follows_the_xdg_rules() {
    let check = |pairs: &[(&str, &str)], expected: Option<&str>| {
        let env = environment(pairs);
        let found = Places::new(&env, Path::new("/work")).data_directory();
        assert_eq!(found.as_deref().ok(), expected, "{pairs:?}: {found:?}");
    };
    check(&[("XDG_DATA_HOME", "/data"), ("HOME", "/home/gopher")], Some("/data/stoa"));
    check(&[("XDG_DATA_HOME", "/data/")], Some("/data/stoa"));
    check(&[("HOME", "/home/gopher")], Some("~/.local/share/stoa"));
    check(&[("XDG_DATA_HOME", ""), ("HOME", "/home/gopher")], Some("~/.local/share/stoa"));
    check(&[("XDG_DATA_HOME", "data"), ("HOME", "/home/gopher")], Some("~/.local/share/stoa"));
    check(&[("XDG_DATA_HOME", "data")], None);
    check(&[("HOME", "")], None);
    check(&[], None);
}

#[test]
fn netrc_is_named_usual_or_off() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let check = |pairs: &[(&str, &str)], text: &str, expected: Option<&str>, warned: bool| {
        let env = environment(pairs);
        let mut places = Places::new(&env, root);
        let expected = expected.map(|name| root.join(name));
        assert_eq!(places.netrc(text).unwrap(), expected, "{pairs:?} {text}");
        assert_eq!(!places.warnings.is_empty(), warned, "{:?}", places.warnings);
    };
    let home = root.to_str().unwrap();
    check(&[("HOME", home)], "auto", None, false);
    check(&[], "auto", None, false);
    check(&[("HOME", home), ("NETRC", "gone")], "auto", None, true);
    fs::write(root.join(".netrc"), "").unwrap();
    fs::write(root.join("other"), "").unwrap();
    check(&[("HOME", home)], "auto", Some(".netrc"), false);
    check(&[("HOME", home), ("NETRC", "")], "auto", Some(".netrc"), false);
    check(&[("HOME", home), ("NETRC", "other")], "auto", Some("other"), false);
    check(&[("HOME", home), ("NETRC", "other")], "off", None, false);
    check(&[("HOME", home)], "~/other", Some("other"), false);
    check(&[], "other", Some("other"), false);

    let env = environment(&[]);
    assert!(Places::new(&env, root).netrc("gone").unwrap_err().contains("gone"));
}

#[test]
fn named_files_must_be_readable_files() {
    let dir = tempfile::tempdir().unwrap();
    let env = environment(&[]);
    let places = Places::new(&env, dir.path());
    assert!(places.readable_file("gone.pem").unwrap_err().contains("gone.pem"));
    assert!(places.readable_file(".").unwrap_err().contains("is a directory"));
    fs::write(dir.path().join("ca.pem"), "").unwrap();
    assert_eq!(places.readable_file("ca.pem"), Ok(dir.path().join("ca.pem")));
}

#[test]
fn a_secret_loses_one_newline_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let check = |content: &str, expected: &str| {
        let path = dir.path().join("secret");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let env = environment(&[]);
        let mut places = Places::new(&env, dir.path());
        assert_eq!(places.secret("secret"), Ok(expected.to_owned()));
        assert_eq!(places.warnings, Vec::<String>::new());
    };
    check("hunter2", "hunter2");
    check("hunter2\n", "hunter2");
    check("hunter2\r\n", "hunter2");
    check("hunter2\n\n", "hunter2\n");
    check(" hunter2 \n", " hunter2 ");
    check("", "");
}

#[test]
fn a_secret_that_everyone_can_read_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    fs::write(&path, "hunter2").unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let env = environment(&[]);
    let mut places = Places::new(&env, dir.path());
    assert_eq!(places.secret("secret"), Ok("hunter2".to_owned()));
    let warning = places.warnings.concat();
    assert!(warning.contains("every user of this machine can read this secret"), "{warning}");
    assert!(!warning.contains("hunter2"), "{warning}");
}

#[test]
fn a_file_that_cannot_be_text_is_refused_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let check = |content: &[u8], expected: &str| {
        fs::write(&path, content).unwrap();
        let problem = read_text(&path).unwrap_err().to_string();
        assert!(problem.contains(expected) && problem.contains("file"), "{problem}");
    };
    check(b"\xff\xfe", "is not UTF-8 text");
    check(&vec![b' '; 4 * 1024 * 1024 + 1], "is larger than 4 MiB");
    fs::write(&path, vec![b' '; 4 * 1024 * 1024]).unwrap();
    assert_eq!(read_text(&path).unwrap().len(), 4 * 1024 * 1024);
    assert!(read_text(Path::new("/dev/zero")).unwrap_err().to_string().contains("4 MiB"));
    assert_eq!(read_text(&dir.path().join("gone")).unwrap_err().kind(), io::ErrorKind::NotFound);
}
