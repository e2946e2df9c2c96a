mod shown;

use std::collections::BTreeSet;

use fs_err as fs;

use super::kind::Kind;
use super::table::SECTIONS;
use super::*;

/// A directory with settings files and what is passed in.
pub(super) struct Given {
    pub(super) dir: tempfile::TempDir,
    args: cli::Settings,
    env: BTreeMap<String, String>,
}

impl Given {
    pub(super) fn nothing() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a.pem", "b.pem", "c.pem"] {
            fs::write(dir.path().join(file), "hunter2\n").unwrap();
        }
        let env = BTreeMap::from([("HOME".to_owned(), "/home/gopher".to_owned())]);
        Self { dir, args: cli::Settings::default(), env }
    }

    pub(super) fn file(text: &str) -> Self {
        let given = Self::nothing();
        fs::write(given.dir.path().join("stoa.toml"), text).unwrap();
        given
    }

    pub(super) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The settings as a server gets them.
    pub(super) fn whole(&self) -> Result<Config, Mistakes> {
        self.load().and_then(Config::together)
    }

    fn load(&self) -> Result<Config, Mistakes> {
        let system = self.dir.path().join("system.toml");
        Config::load_with(&self.args, &self.env, self.dir.path(), &system)
    }

    fn mistakes(&self) -> Vec<String> {
        self.load().unwrap_err().iter().map(ToString::to_string).collect()
    }
}

pub(super) fn effective(config: &Config, key: &str) -> (String, String) {
    let found = config.effective.iter().find(|effective| effective.key == key).unwrap();
    (found.value.clone(), found.origin.to_string())
}

/// Three values that are neither the default nor each other.
fn samples(setting: &Setting) -> [&'static str; 3] {
    match setting.kind {
        Kind::Listen(_) | Kind::OptionalListen(_) => ["127.0.0.1:1", "unix:/run/2", "[::1]:3"],
        Kind::UnixMode(_) => ["0600", "0666", "0777"],
        Kind::PathPrefix(_) => ["/a", "/b/c", "/d"],
        Kind::TrustedProxies(_) => ["10.0.0.0/8", "fd00::/8", "unix"],
        // There are only two; the middle one is the default.
        Kind::Bool(_) => ["true", "false", "true"],
        Kind::Count { .. } | Kind::Cores(_) => ["5", "6", "7"],
        Kind::Timeout(_) | Kind::Age(_) => ["11s", "12s", "13s"],
        Kind::Size { .. } => ["11KiB", "12KiB", "13KiB"],
        Kind::DataDirectory(_) => ["/a", "/b", "/c"],
        Kind::Files(_) | Kind::OptionalFile(_) | Kind::SecretFile(_) | Kind::Netrc(_) => {
            ["a.pem", "b.pem", "c.pem"]
        }
        Kind::ProxyList(_) => ["https://a.example.com/", "https://b.example.com/|direct", "off"],
        Kind::Patterns(_) => ["a.example.com", "b.example.com/*", "none"],
        Kind::GoVcs(_) => ["private:git", "public:off", "*:git|hg"],
        Kind::Host(_) => ["a.example.com", "b.example.com:8443", "c.example.com"],
        Kind::Username(_) => ["a", "b", "c"],
        Kind::Secret(_) => ["hunter1", "hunter2", "hunter3"],
        Kind::SumDb(_) => ["sum.golang.google.cn", "sum.golang.org https://sum.example.com", "off"],
        Kind::OnUnreachable(_) => ["serve", "refuse", "serve"],
        Kind::Hedge(_) => ["auto", "2s", "500ms"],
        Kind::LogFormat(_) => ["json", "text", "json"],
        Kind::LogLevel(_) => ["debug", "warn,stoa=trace", "off"],
    }
}

/// A sample as it is shown.
fn shown(given: &Given, setting: &Setting, text: &str) -> String {
    let in_dir = || given.dir.path().join(text).to_str().unwrap().to_owned();
    match setting.kind {
        Kind::Files(_) => format!("[\"{}\"]", in_dir()),
        Kind::Secret(_) => "\"***\"".to_owned(),
        Kind::OptionalFile(_) | Kind::SecretFile(_) | Kind::Netrc(_) => format!("\"{}\"", in_dir()),
        _ => setting.kind.literal(text),
    }
}

fn flag(args: &mut cli::Settings, flag: &str, value: &str) {
    let field = match flag {
        "--listen" => &mut args.listen,
        "--offline" => &mut args.offline,
        "--data-dir" => &mut args.data_dir,
        "--goproxy" => &mut args.goproxy,
        "--goprivate" => &mut args.goprivate,
        "--gonoproxy" => &mut args.gonoproxy,
        "--goinsecure" => &mut args.goinsecure,
        "--govcs" => &mut args.govcs,
        "--gosumdb" => &mut args.gosumdb,
        "--gonosumdb" => &mut args.gonosumdb,
        other => panic!("{other}"),
    };
    *field = Some(value.to_owned());
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_defaults() {
    for setting in SETTINGS {
        let key = setting.key;
        let [in_file, in_env, in_flag] = samples(setting);
        let check = |given: &Given, text: &str, origin: &str| {
            let config = given.load().unwrap();
            assert_eq!(effective(&config, key), (shown(given, setting, text), origin.to_owned()));
        };
        let default = Given::nothing().load().unwrap();
        assert_eq!(effective(&default, key).1, "default", "{key}");

        let mut given = Given::file(&format!("\n{key} = {}", setting.kind.literal(in_file)));
        check(&given, in_file, "stoa.toml:2");
        given = given.env(&setting.env(), in_env);
        check(&given, in_env, &setting.env());
        if let Some(short) = &setting.short {
            given.env.remove(&setting.env());
            given = given.env(short.env, in_env);
            check(&given, in_env, short.env);
            flag(&mut given.args, short.flag, in_flag);
            check(&given, in_flag, short.flag);
        }
    }
}

/// Each row of the table sets the field that bears its name, and no other.
#[test]
fn every_setting_goes_into_its_own_field() {
    let debug = |config: &Config| {
        format!(
            "{:?}",
            (
                &config.server,
                &config.store,
                &config.upstream,
                &config.git,
                &config.sumdb,
                &config.cache,
                &config.limits,
                &config.log
            )
        )
    };
    let field = |setting: &Setting| format!(" {}: ", setting.name().replace('-', "_"));
    for setting in SETTINGS {
        let section = |other: &&Setting| other.section() == setting.section();
        let fields: Vec<String> = SETTINGS.iter().filter(section).map(field).collect();
        let other = samples(setting).into_iter().find(|sample| *sample != setting.default).unwrap();
        let sample = setting.kind.literal(other);
        // Patterns of their own, or GOPRIVATE would show in those that follow it.
        let own = ["upstream.gonoproxy", "sumdb.gonosumdb"].into_iter();
        let own: String =
            own.filter(|key| *key != setting.key).flat_map(|key| [key, " = 'own'\n"]).collect();
        // Below one directory, or the paths would differ.
        let given = Given::file(&own);
        let before = debug(&given.load().unwrap());
        fs::write(given.dir.path().join("stoa.toml"), format!("{own}{} = {sample}", setting.key))
            .unwrap();
        let after = debug(&given.load().unwrap());

        let same = before.bytes().zip(after.bytes()).take_while(|(a, b)| a == b).count();
        let same_end =
            before.bytes().rev().zip(after.bytes().rev()).take_while(|(a, b)| a == b).count();
        assert!(same < before.len(), "{} changes nothing", setting.key);
        let section = before[..same].rfind(&format!("{} {{ ", type_name(setting.section())));
        let last = fields
            .iter()
            .filter_map(|field| Some((before[..same].rfind(field.as_str())?, field)))
            .max()
            .unwrap();
        assert!(section.is_some_and(|at| at < last.0), "{}: {before} {after}", setting.key);
        assert_eq!(*last.1, field(setting), "{after}");
        let changed = &after[same..after.len() - same_end.min(after.len() - same)];
        assert!(!fields.iter().any(|field| changed.contains(field)), "{}: {changed}", setting.key);
    }
}

fn type_name(section: &str) -> &'static str {
    match section {
        "server" => "Server",
        "store" => "StoreSettings",
        "upstream" => "Upstream",
        "git" => "Git",
        "sumdb" => "Sumdb",
        "cache" => "Cache",
        "limits" => "Limits",
        "log" => "Log",
        other => panic!("{other}"),
    }
}

#[test]
fn the_table_is_in_order() {
    let mut sections: Vec<&str> = SETTINGS.iter().map(Setting::section).collect();
    sections.dedup();
    assert_eq!(sections, SECTIONS.iter().map(|(section, _)| *section).collect::<Vec<_>>());
    let mut names = BTreeSet::new();
    for setting in SETTINGS {
        assert!(names.insert(setting.env()), "{} twice", setting.env());
        assert!(setting.short.as_ref().is_none_or(|short| names.insert(short.env.to_owned())));
        assert!(!setting.doc.ends_with('.') && !setting.doc.contains('\n'), "{}", setting.key);
    }
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = Given::nothing().load().unwrap();
    let seconds = Duration::from_secs;
    let Config { server, store, upstream, git, sumdb, cache, limits, log, .. } = &config;
    assert_eq!(server.listen.to_string(), "127.0.0.1:3000");
    assert!(!server.offline);
    assert_eq!((server.header_timeout, server.drain_timeout), (seconds(10), seconds(30)));
    assert_eq!(server.write_timeout, seconds(60));
    assert_eq!((&server.admin_listen, server.unix_mode), (&None, 0o660));
    assert_eq!(
        (server.path_prefix.as_str(), &server.trusted_proxies),
        ("", &TrustedProxies::default())
    );
    assert_eq!((&server.tls_cert, &server.tls_key), (&None, &None));
    assert_eq!((server.max_connections, server.max_request_line), (4096, 8 << 10));
    assert_eq!(server.misses_per_client, 0);
    assert_eq!(store.dir, Path::new("/home/gopher/.local/share/stoa"));
    assert_eq!((store.quarantine_size, store.memory), (256 << 20, 24 << 20));
    assert_eq!((store.spool_file_size, store.spool_size), (8 << 20, 32 << 20));
    assert_eq!(store.flush_interval, seconds(5));
    assert_eq!(upstream.goproxy.to_string(), "https://proxy.golang.org/,direct");
    assert!(upstream.goprivate.is_empty() && upstream.gonoproxy.is_empty());
    assert!(upstream.goinsecure.is_empty() && sumdb.gonosumdb.is_empty());
    assert_eq!((upstream.connect_timeout, upstream.list_timeout), (seconds(5), seconds(15)));
    assert_eq!((upstream.file_timeout, upstream.alternative_timeout), (seconds(60), seconds(15)));
    assert_eq!((upstream.stall_timeout, upstream.name_ttl), (seconds(20), seconds(30)));
    assert_eq!((upstream.tries, upstream.max_redirects, upstream.max_concurrent), (3, 10, 64));
    assert_eq!((upstream.ca_files.len(), &upstream.netrc), (0, &None));
    assert_eq!(upstream.govcs, GoVcs::default());
    assert_eq!((&git.host, &git.user), (&None, &None));
    assert!(git.token.is_none() && git.token_file.is_none() && config.git_credential.is_none());
    assert_eq!((git.list_timeout, git.stall_timeout), (seconds(30), seconds(60)));
    assert_eq!((git.fetch_timeout, git.queue_timeout), (seconds(3600), seconds(60)));
    assert_eq!((git.max_concurrent, git.refs_ttl), (8, seconds(60)));
    assert_eq!((git.max_refs, git.repository_size, git.size), (500_000, 16 << 30, 100 << 30));
    assert_eq!(sumdb.gosumdb, GoSumDb::parse("sum.golang.org").unwrap());
    assert_eq!((sumdb.timeout, sumdb.serve_after), (seconds(60), seconds(5)));
    assert_eq!(sumdb.on_unreachable, OnUnreachable::Refuse);
    assert_eq!(upstream.hedge, Hedge::Off);
    assert_eq!((cache.list_ttl, cache.negative_ttl), (seconds(60), seconds(60)));
    assert_eq!((cache.negative_version_ttl, cache.negative_memory), (seconds(10), 8 << 20));
    assert_eq!((limits.zip_size, limits.mod_size), (500 << 20, 16 << 20));
    assert_eq!(limits.hold_size, 4 << 20);
    assert_eq!((limits.info_size, limits.list_size), (1 << 20, 16 << 20));
    assert!(limits.verify_concurrency >= 1);
    assert_eq!((log.format, log.level.as_str()), (LogFormat::Text, "info"));
    assert_eq!((config.file, config.warnings.len()), (None, 0));
}

/// Every key set to its default in the file is what no file at all is.
#[test]
fn every_default_can_be_written_down() {
    let line = |s: &Setting| format!("{} = {}", s.key, s.kind.literal(s.default));
    let values = SETTINGS.iter().map(line).collect::<Vec<_>>().join("\n");
    let values_of = |config: Config| -> Vec<(&str, String)> {
        config.effective.into_iter().map(|effective| (effective.key, effective.value)).collect()
    };
    let written = Given::file(&values).load().unwrap();
    assert_eq!(values_of(written), values_of(Given::nothing().load().unwrap()));
}

#[test]
fn all_mistakes_are_reported_at_once_with_their_origins() {
    let mut given = Given::file(
        "[server]\nlisten = '3000'\nlisen = ':80'\n[upstream]\ngoproxy = ','\ngoprivate = 'a,[b'\n\
         tries = 0\nca-files = ['gone.pem', 'a.pem', 'gone2.pem']\n[[upstream.credential]]\nprefix = 'corp'\n\
         token = 'x'\n[[route]]\ngoproxy = 'off'\n[cache]\nlist-ttl = 60\n",
    )
    .env("STOA_GOSUMDB", "sum.golang.org+wrong+key")
    .env("STOA_GOPRIVAT", "x")
    .env("STOA_SERVER_HEADER_TIMEOUT", "0s")
    .env("STOA_SUMDB_TIMEOUT", "-1s")
    .env("STOA_LISTEN", ":1");
    given.args.offline = Some("perhaps".to_owned());
    given.env.remove("HOME");
    let expected = [
        "--offline: server.offline: \"perhaps\" is neither true nor false",
        "STOA_GOPRIVAT: unknown setting; did you mean STOA_GOPRIVATE?",
        "STOA_GOSUMDB: sumdb.gosumdb: ",
        "STOA_SERVER_HEADER_TIMEOUT: server.header-timeout: \"0s\" is not between 1ms and 1d",
        "STOA_SUMDB_TIMEOUT: sumdb.timeout: \"-1s\" is negative",
        // Also where a stronger layer says something right.
        "stoa.toml:2: server.listen: \"3000\" has no colon before its port",
        "stoa.toml:3: server.lisen: unknown key; did you mean server.listen?",
        "stoa.toml:5: upstream.goproxy: ",
        "stoa.toml:6: upstream.goprivate: ",
        "stoa.toml:7: upstream.tries: 0 is not between 1 and 10",
        "stoa.toml:8: upstream.ca-files: failed to",
        "stoa.toml:10: upstream.credential.prefix: is not a URL",
        "stoa.toml:12: route.pattern: is missing",
        "stoa.toml:15: cache.list-ttl: 60 has no unit",
        "default: store.dir: neither XDG_DATA_HOME nor HOME is set",
    ];
    let mistakes = given.mistakes();
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
    for (mistake, expected) in mistakes.iter().zip(expected) {
        assert!(mistake.starts_with(expected), "{mistake} is not {expected}");
    }
    // As it is printed: a line for each.
    assert_eq!(given.load().unwrap_err().to_string(), mistakes.join("\n"));
}

#[test]
fn a_file_that_is_not_toml_hides_no_other_mistake() {
    let given = Given::file("[server\n").env("STOA_LISTEN", "x");
    let mistakes = given.mistakes();
    assert!(mistakes[0].starts_with("STOA_LISTEN: server.listen: "), "{mistakes:?}");
    assert!(mistakes[1].starts_with("stoa.toml:1: not TOML: "), "{mistakes:?}");
    assert_eq!(mistakes.len(), 2);
}

#[test]
fn values_out_of_bounds_are_mistakes() {
    let check = |name: &str, value: &str, expected: &str| {
        let mistakes = Given::nothing().env(name, value).mistakes();
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].contains(expected), "{}", mistakes[0]);
    };
    check("STOA_UPSTREAM_FILE_TIMEOUT", "25h", "\"25h\" is not between 1ms and 1d");
    check("STOA_CACHE_LIST_TTL", "366d", "\"366d\" is more than 365d");
    check("STOA_LIMITS_ZIP_SIZE", "501MiB", "\"501MiB\" is not between 1KiB and 500MiB");
    check("STOA_LIMITS_ZIP_SIZE", "0", "\"0\" is not between 1KiB and 500MiB");
    check("STOA_SERVER_MAX_CONNECTIONS", "0", "0 is not between 1 and 1000000");
    check("STOA_SERVER_MAX_CONNECTIONS", "-1", "-1 is not between 1 and 1000000");
    check("STOA_UPSTREAM_TRIES", "11", "11 is not between 1 and 10");
    check("STOA_LIMITS_VERIFY_CONCURRENCY", "1025", "is not between 0 and 1024");
    check("STOA_LOG_LEVEL", "inof", "did you mean info?");
    check("STOA_LOG_FORMAT", "xml", "write text or json");
    check("STOA_SUMDB_ON_UNREACHABLE", "Serve", "write refuse or serve");
    check("STOA_GOPROXY", "ftp://a.example.com", "upstream.goproxy");
    check("STOA_GONOSUMDB", "a,[", "sumdb.gonosumdb");
    check("STOA_GOVCS", "a.example.com", "upstream.govcs: \"a.example.com\" has no colon");
    check("STOA_GOVCS", "public:git,,private:all", "upstream.govcs: an entry is empty");
    check("STOA_GIT_HOST", "https://git.example.com", "is no host: write git.example.com");
    check("STOA_GIT_USER", "a:b", "git.user: holds a colon");
    check("STOA_GIT_TOKEN", "a\nb", "git.token: the secret holds a control character");
    check("STOA_GIT_TOKEN_FILE", "gone", "git.token-file: failed to open file");
    check("STOA_GIT_MAX_CONCURRENT", "0", "0 is not between 1 and 1000");
    check("STOA_GIT_REPOSITORY_SIZE", "2TiB", "is not between 1KiB and 1TiB");

    let zero = Given::nothing().env("STOA_CACHE_LIST_TTL", "0s").load().unwrap();
    assert_eq!(zero.cache.list_ttl, Duration::ZERO);
}

#[test]
fn gonoproxy_and_gonosumdb_follow_goprivate_unless_set() {
    let check = |env: &[(&str, &str)], key: &str, expected: (&str, &str)| {
        let given = env.iter().fold(Given::nothing(), |given, (k, v)| given.env(k, v));
        let config = given.load().unwrap();
        let patterns = match key {
            "upstream.gonoproxy" => &config.upstream.gonoproxy,
            _ => &config.sumdb.gonosumdb,
        };
        assert_eq!(format!("\"{patterns}\""), expected.0, "{env:?}");
        assert_eq!(effective(&config, key), (expected.0.to_owned(), expected.1.to_owned()));
    };
    let private = ("STOA_GOPRIVATE", "corp.example.com");
    for (key, variable) in
        [("upstream.gonoproxy", "STOA_GONOPROXY"), ("sumdb.gonosumdb", "STOA_GONOSUMDB")]
    {
        check(&[], key, ("\"\"", "default"));
        check(&[private], key, ("\"corp.example.com\"", "upstream.goprivate"));
        check(&[private, (variable, "none")], key, ("\"none\"", variable));
        check(&[private, (variable, "a.example.com")], key, ("\"a.example.com\"", variable));
        check(&[(variable, "a.example.com")], key, ("\"a.example.com\"", variable));
    }
}

#[test]
fn lists_are_toml_lists_or_texts_with_commas() {
    let check = |text: &str| {
        let config = Given::file(text).load().unwrap();
        assert_eq!(config.upstream.goprivate.to_string(), "a.example.com,b.example.com", "{text}");
    };
    check("upstream.goprivate = 'a.example.com,b.example.com'");
    check("upstream.goprivate = ['a.example.com', 'b.example.com']");
    check("upstream.goprivate = ['a.example.com', 'b.example.com/']");

    let given = Given::nothing().env("STOA_UPSTREAM_CA_FILES", "a.pem,b.pem");
    let files = given.load().unwrap().upstream.ca_files;
    assert_eq!(files, ["a.pem", "b.pem"].map(|file| given.dir.path().join(file)));
}

/// The server's environment usually points at the server itself.
#[test]
fn the_go_commands_own_variables_are_not_read() {
    let given = Given::nothing()
        .env("GOPROXY", "http://localhost:3000")
        .env("GOPRIVATE", "x")
        .env("GOSUMDB", "off");
    assert_eq!(given.load().unwrap().show(), Given::nothing().load().unwrap().show());
}

#[test]
fn routes_are_read_in_order_and_checked() {
    let config = Given::file(
        "[[route]]\npattern = 'corp.example.com/*'\ngoproxy = 'https://goproxy.corp.example.com|off'\n\
         [[route]]\npattern = ['a.example.com', 'b.example.com']\ngoproxy = 'off'\n",
    )
    .load()
    .unwrap();
    let found: Vec<String> = config
        .routes
        .iter()
        .map(|route| format!("{} {} {}", route.origin, route.pattern, route.goproxy))
        .collect();
    assert_eq!(
        found,
        [
            "stoa.toml:1 corp.example.com/* https://goproxy.corp.example.com/|off",
            "stoa.toml:4 a.example.com,b.example.com off",
        ]
    );

    let check = |fields: &str, expected: &str| {
        let mistakes = Given::file(&format!("[[route]]\n{fields}")).mistakes();
        assert!(mistakes[0].starts_with(&format!("stoa.toml:{expected}")), "{mistakes:?}");
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    };
    check("pattern = 'a'", "1: route.goproxy: is missing");
    check("goproxy = 'off'", "1: route.pattern: is missing");
    check("pattern = ','\ngoproxy = 'off'", "2: route.pattern: matches no module");
    check("pattern = '[a'\ngoproxy = 'off'", "2: route.pattern: ");
    check("pattern = 'a'\ngoproxy = ''", "3: route.goproxy: ");
    check("pattern = 'a'\ngoproxy = ['off']", "3: route.goproxy: must be text");
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let check = |text: &str, expected: &[&str]| {
        let config = Given::file(text).load().unwrap();
        assert_eq!(config.warnings.len(), expected.len(), "{text}: {:?}", config.warnings);
        for (warning, expected) in config.warnings.iter().zip(expected) {
            assert!(warning.starts_with(expected), "{warning}");
            assert!(!warning.contains("hunter2"), "{warning}");
        }
    };
    check("", &[]);
    check("sumdb.gosumdb = 'off'", &["stoa.toml:1: sumdb.gosumdb: off compares nothing"]);
    check("upstream.goproxy = 'off'", &["stoa.toml:1: upstream.goproxy: off fetches nothing"]);
    check("upstream.goproxy = 'off'\nserver.offline = true", &[]);
    check("upstream.goproxy = 'https://a.example.com,off'", &[]);
    check("[[route]]\npattern = 'a'\ngoproxy = 'off'", &[]);
    let http = "over http the password for a.example.com can be read on its way";
    check("upstream.goproxy = 'http://a.example.com'", &[]);
    check("upstream.goproxy = 'https://ci:hunter2@a.example.com'", &[]);
    check(
        "upstream.goproxy = 'http://ci:hunter2@a.example.com'",
        &[&format!("stoa.toml:1: upstream.goproxy: {http}")],
    );
    check(
        "[[route]]\npattern = 'a'\ngoproxy = 'http://hunter2@a.example.com'",
        &[&format!("stoa.toml:1: route.goproxy: {http}")],
    );
}

/// A Kubernetes pod beside a service called stoa, the settings of the container image.
#[test]
fn service_links_and_credential_variables_are_no_mistakes() {
    let given = Given::file(
        "[[upstream.credential]]\nprefix = 'https://a.example.com'\ntoken-env = 'STOA_CORP_TOKEN'\n",
    )
    .env("STOA_CORP_TOKEN", "x")
    .env("STOA_SERVICE_HOST", "10.0.0.1")
    .env("STOA_SERVICE_PORT", "3000")
    .env("STOA_PORT", "tcp://10.0.0.1:3000")
    .env("STOA_PORT_3000_TCP_ADDR", "10.0.0.1")
    .env("STOA_DATA_DIR", "/var/lib/stoa")
    .env("STOA_LISTEN", "0.0.0.0:3000");
    let config = given.load().unwrap();
    assert_eq!(config.store.dir, Path::new("/var/lib/stoa"));
    assert_eq!(config.server.listen.to_string(), "0.0.0.0:3000");
}
