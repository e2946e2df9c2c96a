use super::*;

fn read_pairs(pairs: &[(&str, &str)]) -> (BTreeMap<&'static str, (Raw, Origin)>, Vec<String>) {
    let env = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut out = Collector::default();
    let values = read(&env, &BTreeSet::from(["STOA_CORP_PASSWORD".to_owned()]), &mut out);
    (values, out.mistakes.iter().map(ToString::to_string).collect())
}

#[test]
fn every_key_has_a_variable_and_some_a_short_one_too() {
    let check = |name: &str, key: &str| {
        let (values, mistakes) = read_pairs(&[(name, "x")]);
        assert_eq!(mistakes, Vec::<String>::new());
        let expected = (Raw::Text("x".to_owned()), Origin::Environment(name.to_owned()));
        assert_eq!(values.into_iter().collect::<Vec<_>>(), [(key, expected)]);
    };
    check("STOA_LISTEN", "server.listen");
    check("STOA_SERVER_LISTEN", "server.listen");
    check("STOA_SERVER_MAX_CONNECTIONS", "server.max-connections");
    check("STOA_DATA_DIR", "store.dir");
    check("STOA_GONOSUMDB", "sumdb.gonosumdb");
    check("STOA_UPSTREAM_CA_FILES", "upstream.ca-files");
}

#[test]
fn both_names_of_a_setting_must_agree() {
    let (values, mistakes) = read_pairs(&[("STOA_LISTEN", ":1"), ("STOA_SERVER_LISTEN", ":1")]);
    assert_eq!((values.len(), mistakes.len()), (1, 0));
    let (_, mistakes) = read_pairs(&[("STOA_LISTEN", ":1"), ("STOA_SERVER_LISTEN", ":2")]);
    assert_eq!(
        mistakes,
        [
            "STOA_SERVER_LISTEN: server.listen: is set twice, with different values: remove one of both"
        ]
    );
}

#[test]
fn an_unknown_variable_is_a_mistake() {
    let check = |name: &str, value: &str, expected: &str| {
        let (values, mistakes) = read_pairs(&[(name, value)]);
        assert_eq!(values.len(), 0);
        assert_eq!(mistakes, [format!("{name}: unknown setting; {expected}")]);
    };
    check("STOA_GOPRIVAT", "x", "did you mean STOA_GOPRIVATE?");
    check("STOA_PRIVATE", "x", "did you mean STOA_GOPRIVATE?");
    check("STOA_GOPRIVAT", "", "did you mean STOA_GOPRIVATE?");
    check("STOA_SERVER_MAX_CONECTIONS", "1", "did you mean STOA_SERVER_MAX_CONNECTIONS?");
    check("STOA_DATADIR", "x", "did you mean STOA_DATA_DIR?");
    check("STOA_CONF", "x", "did you mean STOA_CONFIG?");
    check("STOA_", "x", "`stoa config reference` lists all");
    check("STOA_WEATHER", "x", "`stoa config reference` lists all");
    // Kubernetes would have written tcp://10.0.0.1:3000 here.
    check("STOA_PORT", "3000", "did you mean STOA_LISTEN=:3000?");
    check("STOA_PORT_NUMBER", "3000", "`stoa config reference` lists all");
    check("STOA_REQUIRE", "1", "`stoa config reference` lists all");
}

#[test]
fn variables_of_others_are_let_be() {
    let check = |name: &str, value: &str| {
        let (values, mistakes) = read_pairs(&[(name, value)]);
        assert_eq!((values.len(), mistakes), (0, Vec::new()), "{name}");
    };
    // Of a Kubernetes service called stoa.
    check("STOA_SERVICE_HOST", "10.0.0.1");
    check("STOA_SERVICE_PORT", "3000");
    check("STOA_SERVICE_PORT_HTTP", "3000");
    check("STOA_PORT", "tcp://10.0.0.1:3000");
    check("STOA_PORT_3000_TCP", "tcp://10.0.0.1:3000");
    check("STOA_PORT_3000_TCP_PROTO", "tcp");
    check("STOA_PORT_3000_TCP_PORT", "3000");
    check("STOA_PORT_3000_TCP_ADDR", "10.0.0.1");
    check("STOA_PORT_53_UDP", "udp://10.0.0.1:53");
    // Of one called stoa-db beside it.
    check("STOA_DB_SERVICE_HOST", "10.0.0.2");
    check("STOA_DB_SERVICE_PORT_SQL", "5432");
    check("STOA_DB_PORT", "tcp://10.0.0.2:5432");
    check("STOA_DB_PORT_5432_TCP_PORT", "5432");
    // Of the tests, of a credential, of nobody we know.
    check("STOA_REQUIRE_GO", "1");
    check("STOA_TEST_SLOW", "1");
    check("STOA_CORP_PASSWORD", "hunter2");
    check("GOPROXY", "http://localhost:3000");
    check("GOPRIVAT", "x");
    check("STOATS", "x");
}

#[test]
fn an_empty_variable_is_not_set() {
    let (values, mistakes) =
        read_pairs(&[("STOA_GOPRIVATE", ""), ("STOA_LISTEN", ""), ("STOA_SERVER_LISTEN", ":1")]);
    assert_eq!(mistakes, Vec::<String>::new());
    assert_eq!(values.keys().collect::<Vec<_>>(), [&"server.listen"]);
}
