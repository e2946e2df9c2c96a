use super::*;

fn text(text: &str) -> Raw {
    Raw::Text(text.to_owned())
}

#[test]
fn durations() {
    let check = |input: Raw, expected: Result<u64, &str>| {
        let found = input.duration();
        let expected = expected.map(Duration::from_millis).map_err(str::to_owned);
        match (&found, &expected) {
            (Err(found), Err(expected)) => assert!(found.contains(expected.as_str()), "{found}"),
            _ => assert_eq!(found, expected, "{input:?}"),
        }
    };
    check(text("10s"), Ok(10_000));
    check(text(" 10s "), Ok(10_000));
    check(text("250ms"), Ok(250));
    check(text("5m"), Ok(300_000));
    check(text("1h30m"), Ok(5_400_000));
    check(text("1d2h3m4s5ms"), Ok(93_784_005));
    check(text("0s"), Ok(0));
    check(text("60"), Err("has no unit"));
    check(Raw::Integer(60), Err("60 has no unit"));
    check(text("-5s"), Err("is negative"));
    for wrong in ["", "s", "ten", "10 s", "1.5h", "10sec", "1h30", "10S", "+1s", "1h-3m", "10µs"] {
        check(text(wrong), Err("write 10s, 5m or 1h30m"));
    }
    check(text("99999999999999999999s"), Err("is not a duration"));
    check(text("18446744073709551615h"), Err("is not a duration"));
    check(text("18446744073709551615ms1ms"), Err("is not a duration"));
    check(Raw::Bool(true), Err("must be a duration"));
    check(Raw::List(vec![]), Err("must be a duration"));
    check(Raw::Other("a date"), Err("must be a duration"));
}

#[test]
fn sizes() {
    let check = |input: Raw, expected: Option<u64>| {
        let found = input.size();
        assert_eq!(found.as_ref().ok(), expected.as_ref(), "{input:?}: {found:?}");
        assert!(found.is_ok() || found.unwrap_err().contains("write 500MiB"));
    };
    check(text("0"), Some(0));
    check(text("8192"), Some(8192));
    check(Raw::Integer(8192), Some(8192));
    check(text("12B"), Some(12));
    check(text("8KiB"), Some(8192));
    check(text("8 kib"), Some(8192));
    check(text("500MiB"), Some(500 << 20));
    check(text("2GiB"), Some(2 << 30));
    check(text("1TiB"), Some(1 << 40));
    check(text("1kB"), Some(1000));
    check(text("1MB"), Some(1_000_000));
    check(text("1GB"), Some(1_000_000_000));
    check(text("1TB"), Some(1_000_000_000_000));
    for wrong in ["", "MiB", "1.5GiB", "-1", "1M", "8KiB8", "0x10", "18446744073709551616", "9e9"] {
        check(text(wrong), None);
    }
    check(text("18446744073709551615KiB"), None);
    check(Raw::Integer(-1), None);
    check(Raw::Integer(i128::MAX), None);
    check(Raw::Bool(true), None);
}

#[test]
fn truth_numbers_texts_and_lists() {
    let check = |input: &str, expected: Option<bool>| {
        assert_eq!(text(input).bool().ok(), expected, "{input}");
    };
    for word in ["true", "1", "yes", "on", "TRUE", " true "] {
        check(word, Some(true));
    }
    for word in ["false", "0", "no", "off"] {
        check(word, Some(false));
    }
    for word in ["", "2", "perhaps"] {
        check(word, None);
    }
    assert_eq!(Raw::Bool(true).bool(), Ok(true));
    assert!(Raw::Integer(1).bool().is_err());

    assert_eq!(text("64").integer(), Ok(64));
    assert_eq!(Raw::Integer(-1).integer(), Ok(-1));
    assert!(text("six").integer().is_err());
    assert!(text("1.0").integer().is_err());
    assert!(Raw::Bool(true).integer().is_err());

    assert_eq!(text(" a ").text(), Ok("a".to_owned()));
    for wrong in [Raw::Bool(true), Raw::Integer(1), Raw::List(vec![]), Raw::Other("a date")] {
        assert!(wrong.text().unwrap_err().starts_with("must be text in quotes, not a"));
    }

    assert_eq!(text("a, b,,c,").list().unwrap(), ["a", "b", "c"]);
    assert_eq!(text("").list().unwrap(), Vec::<String>::new());
    assert_eq!(Raw::List(vec!["a".to_owned()]).list().unwrap(), ["a"]);
    assert!(Raw::Bool(true).list().is_err());
}

#[test]
fn listen_addresses() {
    let check = |input: &str, expected: Result<(&str, u16), &str>| match (
        ListenAddress::parse(input),
        expected,
    ) {
        (Ok(address), Ok((host, port))) => {
            assert_eq!((address.host.as_str(), address.port), (host, port), "{input}");
            assert_eq!(ListenAddress::parse(&address.to_string()), Ok(address));
        }
        (Err(problem), Err(expected)) => {
            assert!(problem.contains(expected), "{input}: {problem}");
        }
        (found, expected) => panic!("{input}: {found:?}, not {expected:?}"),
    };
    check("127.0.0.1:3000", Ok(("127.0.0.1", 3000)));
    check("0.0.0.0:0", Ok(("0.0.0.0", 0)));
    check(":3000", Ok(("", 3000)));
    check("localhost:3000", Ok(("localhost", 3000)));
    check("build-cache.lan:80", Ok(("build-cache.lan", 80)));
    check("[::1]:3000", Ok(("::1", 3000)));
    check("[::]:3000", Ok(("::", 3000)));
    check("", Err("has no port"));
    check("localhost", Err("has no port"));
    check("localhost:", Err("has no port"));
    check(":", Err("has no port"));
    check("3000", Err("has no colon before its port"));
    check(":http", Err("not a number"));
    check(":-1", Err("not a number"));
    check(":+1", Err("not a number"));
    check(":65536", Err("above 65535"));
    check("::1:3000", Err("needs brackets"));
    check("[::1]", Err("has no port"));
    check("[localhost]:3000", Err("no IPv6 address in its brackets"));
    check("[::1:3000", Err("no IPv6 address in its brackets"));
    check("http://localhost:3000", Err("is a URL"));
    check("a b:3000", Err("has no valid host"));
    check("a/b:3000", Err("has no valid host"));
}

#[test]
fn every_address_is_both_families() {
    let check = |input: &str, expected: &[(&str, u16)]| {
        assert_eq!(ListenAddress::parse(input).unwrap().candidates(), expected);
    };
    check(":3000", &[("::", 3000), ("0.0.0.0", 3000)]);
    check("localhost:3000", &[("localhost", 3000)]);
    check("[::1]:0", &[("::1", 0)]);
}

#[test]
fn log_levels() {
    let check = |input: &str, expected: Result<(), &str>| match (check_log_level(input), expected) {
        (Ok(()), Ok(())) => {}
        (Err(problem), Err(expected)) => assert!(problem.contains(expected), "{input}: {problem}"),
        (found, expected) => panic!("{input}: {found:?}, not {expected:?}"),
    };
    for right in ["off", "error", "WARN", "info", "debug", "trace", "info,stoa_core=debug"] {
        check(right, Ok(()));
    }
    check("stoa[request{path=x}]=debug", Ok(()));
    check("", Err("must be one of"));
    check("inof", Err("did you mean info?"));
    check("info,verbose", Err("\"verbose\" is not one of"));
    check("info,", Err("\"\" is not one of"));
    check("stoa_core=loud", Err("is not a log filter"));
}
