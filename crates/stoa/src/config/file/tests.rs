use super::*;

fn parse_text(text: &str) -> (Document, Vec<String>) {
    let mut out = Collector::default();
    let document = parse(Path::new("stoa.toml"), text, &mut out);
    (document, out.mistakes.iter().map(ToString::to_string).collect())
}

#[test]
fn values_keep_their_kind_and_line() {
    let (document, mistakes) = parse_text(
        "# a comment\n\n[server]\nlisten = ':80'\noffline = true\nmax-connections = 0x10\n\n\
         [upstream]\nca-files = [\n  'a',\n  'b',\n]\ntries = 1.5\n",
    );
    assert_eq!(mistakes, Vec::<String>::new());
    let at = |raw, line| (raw, Origin::File { path: "stoa.toml".into(), line });
    let expected = BTreeMap::from([
        ("server.listen", at(Raw::Text(":80".to_owned()), 4)),
        ("server.offline", at(Raw::Bool(true), 5)),
        ("server.max-connections", at(Raw::Integer(16), 6)),
        ("upstream.ca-files", at(Raw::List(vec!["a".to_owned(), "b".to_owned()]), 9)),
        ("upstream.tries", at(Raw::Other("a fraction"), 13)),
    ]);
    assert_eq!(document.values, expected);
}

#[test]
fn sections_may_be_written_in_any_way_that_toml_knows() {
    for text in [
        "[server]\nlisten = ':80'",
        "server.listen = ':80'",
        "server = { listen = ':80' }",
        "\"server\".'listen' = ':80'",
        "[ server ]\r\nlisten = ':80'\r\n",
    ] {
        let (document, mistakes) = parse_text(text);
        assert_eq!(mistakes, Vec::<String>::new(), "{text}");
        assert_eq!(document.values["server.listen"].0, Raw::Text(":80".to_owned()), "{text}");
    }
}

#[test]
fn unknown_keys_are_mistakes() {
    let check = |text: &str, expected: &str| {
        let (_, mistakes) = parse_text(text);
        assert_eq!(mistakes, [format!("stoa.toml:{expected}")], "{text}");
    };
    check(
        "[server]\nlisten = ':80'\nlisen = ':80'",
        "3: server.lisen: unknown key; did you mean server.listen?",
    );
    check(
        "[server]\nheader_timeout = '1s'",
        "2: server.header_timeout: unknown key; did you mean server.header-timeout?",
    );
    check(
        "[upstream]\ngosumdb = 'off'",
        "2: upstream.gosumdb: unknown key; did you mean sumdb.gosumdb?",
    );
    check(
        "[server]\nweather = 'fair'",
        "2: server.weather: unknown key; `stoa config reference` lists all",
    );
    check("listen = ':80'", "1: listen: unknown key; did you mean server.listen?");
    check(
        "\n'server.listen' = ':80'",
        "2: server.listen: unknown key; `stoa config reference` lists all",
    );
    check(
        "[sever]\nlisten = ':80'\noffline = true",
        "1: sever: unknown section; did you mean server?",
    );
    check("[[routes]]\npattern = 'x'", "1: routes: unknown section; did you mean route?");
    check("[weather]", "1: weather: unknown key; `stoa config reference` lists all");
    check("server = true", "1: server: is a section: write [server]");
    check("[[server]]\nlisten = ':80'", "1: server: is a section: write [server]");
    check(
        "[[upstream.credentials]]",
        "1: upstream.credentials: unknown key; did you mean upstream.credential?",
    );
    check("[[route]]\npatern = 'x'", "2: route.patern: unknown key; did you mean pattern?");
    check("[route]\npattern = 'x'", "1: route: there may be several: write [[route]], not [route]");
    check("route = 'x'", "1: route: write [[route]]");
    check(
        "[[upstream.credential]]\npassword_file = 'x'",
        "2: upstream.credential.password_file: unknown key; did you mean password-file?",
    );
}

#[test]
fn routes_and_credentials_are_entries_with_their_lines() {
    let (document, mistakes) = parse_text(
        "[[route]]\npattern = 'a'\n\n[[route]]\npattern = 'b'\n\n[[upstream.credential]]\n\
         token = 'x'\n",
    );
    assert_eq!(mistakes, Vec::<String>::new());
    let lines = |entries: &[Entry]| -> Vec<String> {
        entries.iter().map(|entry| entry.origin.to_string()).collect()
    };
    assert_eq!(lines(&document.routes), ["stoa.toml:1", "stoa.toml:4"]);
    assert_eq!(lines(&document.credentials), ["stoa.toml:7"]);
    let (raw, origin) = &document.routes[1].fields["pattern"];
    assert_eq!((raw, origin.to_string().as_str()), (&Raw::Text("b".to_owned()), "stoa.toml:5"));
}

#[test]
fn what_is_not_toml_is_reported_by_line_and_not_used() {
    let check = |text: &str, lines: &[usize]| {
        let (document, mistakes) = parse_text(text);
        assert_eq!(mistakes.len(), lines.len(), "{text}: {mistakes:?}");
        for (mistake, line) in mistakes.iter().zip(lines) {
            assert!(mistake.starts_with(&format!("stoa.toml:{line}: not TOML: ")), "{mistake}");
        }
        assert!(document.values.is_empty() && document.routes.is_empty());
    };
    check("[server\nlisten = ':80'\n", &[1]);
    check("[server]\nlisten = :80\noffline = true\nmax-connections = = 3\n", &[2, 4]);
    check("[server]\noffline = true\noffline = false\n", &[3]);
    check("[server]\nlisten = ':80", &[2]);
    check("listen ':80'", &[1]);
    check("\u{0}", &[1]);
}

#[test]
fn the_file_is_the_one_named_or_the_first_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let system = root.join("etc.toml");
    let check = |flag: Option<&str>,
                 variable: Option<&str>,
                 expected: Result<Option<&str>, &str>| {
        let args = cli::Settings { config: flag.map(str::to_owned), ..cli::Settings::default() };
        let env = variable.map(|path| ("STOA_CONFIG".to_owned(), path.to_owned()));
        let env = env.into_iter().collect();
        let mut out = Collector::default();
        let found = read(&args, &Places::new(&env, root), &system, &mut out);
        match expected {
            Ok(expected) => {
                assert_eq!(out.mistakes, []);
                assert_eq!(found.map(|(_, text)| text).as_deref(), expected);
            }
            Err(expected) => {
                let mistake = out.mistakes[0].to_string();
                assert!(mistake.starts_with(expected), "{mistake}");
                assert_eq!((out.mistakes.len(), found), (1, None));
            }
        }
    };
    let write = |name: &str| fs_err::write(root.join(name), name).unwrap();
    check(None, None, Ok(None));
    write("etc.toml");
    check(None, None, Ok(Some("etc.toml")));
    write("stoa.toml");
    check(None, None, Ok(Some("stoa.toml")));
    write("variable.toml");
    check(None, Some("variable.toml"), Ok(Some("variable.toml")));
    check(None, Some(""), Ok(Some("stoa.toml")));
    write("flag.toml");
    check(Some("flag.toml"), Some("variable.toml"), Ok(Some("flag.toml")));
    check(Some("gone.toml"), Some("variable.toml"), Err("--config: "));
    check(None, Some("gone.toml"), Err("STOA_CONFIG: "));
    check(Some(""), None, Err("--config: must be a path"));
    // One that is there and cannot be read is not passed over.
    fs_err::remove_file(root.join("stoa.toml")).unwrap();
    fs_err::create_dir(root.join("stoa.toml")).unwrap();
    check(None, None, Err("stoa.toml:1: "));
}
