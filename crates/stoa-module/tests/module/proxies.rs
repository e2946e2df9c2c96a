use proptest::prelude::*;
use stoa_module::{InvalidProxyList, ProxyList, Separator};

#[test]
fn lists() {
    #[track_caller]
    fn check(list: &str, expected: &[(&str, Separator)]) {
        let parsed = ProxyList::parse(list).expect(list);
        let items: Vec<_> =
            parsed.items.iter().map(|item| (item.source.to_string(), item.separator)).collect();
        let expected: Vec<_> =
            expected.iter().map(|&(source, separator)| (source.to_owned(), separator)).collect();
        assert_eq!(items, expected, "{list}");
    }
    use Separator::{Comma, Pipe};
    check(
        "https://proxy.golang.org,direct",
        &[("https://proxy.golang.org/", Comma), ("direct", Comma)],
    );
    check(
        "https://a.com|https://b.com/x,off",
        &[("https://a.com/", Pipe), ("https://b.com/x", Comma), ("off", Comma)],
    );
    check(" https://a.com , | ,direct ", &[("https://a.com/", Comma), ("direct", Comma)]);
    check("https://a.com||direct", &[("https://a.com/", Pipe), ("direct", Comma)]);
    check("https://a.com|", &[("https://a.com/", Comma)]);
    check("direct|https://a.com", &[("direct", Comma)]);
    check("off,nonsense", &[("off", Comma)]);
    check("proxy.example.com", &[("https://proxy.example.com/", Comma)]);
    check("proxy.example.com:8080/go", &[("https://proxy.example.com:8080/go", Comma)]);
    check("localhost:8080", &[("https://localhost:8080/", Comma)]);
    check("localhost/x", &[("https://localhost/x", Comma)]);
    check("http://localhost:8080/", &[("http://localhost:8080/", Comma)]);
    check("file:///srv/cache/download", &[("file:///srv/cache/download", Comma)]);
    check("file:/srv/cache", &[("file:///srv/cache", Comma)]);
}

#[test]
fn refusals() {
    #[track_caller]
    fn check(list: &str, expected: &str) {
        assert_eq!(ProxyList::parse(list).expect_err(list).to_string(), expected);
    }
    for empty in ["", ",", " ", "|,|"] {
        assert_eq!(ProxyList::parse(empty), Err(InvalidProxyList::Empty));
    }
    check("Direct", "proxy \"Direct\" has no scheme: expected a URL, direct or off");
    check("none", "proxy \"none\" has no scheme: expected a URL, direct or off");
    check("/srv/cache", "proxy \"/srv/cache\" has no scheme: expected a URL, direct or off");
    check("ftp://a.com", "proxy \"ftp://a.com\" must be an http, https or file URL");
    check("ssh://git@a.com/x", "proxy \"ssh://xxxxx@a.com/x\" must be an http, https or file URL");
    check("https://", "proxy \"https://\" is no URL: empty host");
    check("https://a.com:x", "proxy \"https://a.com:xxxxx\" is no URL: invalid port number");
    check("file:x", "proxy \"file:xxxxx\" is no URL: invalid port number");
    check("file:\t//localhost/x", "proxy \"file:\\t//localhost/x\" contains a control character");
    check(
        "https://a.com\nhttps://b.com",
        "proxy \"https://a.com\\nhttps://b.com\" contains a control character",
    );
    for file in ["file://host/x", "file://localhost/x", "file:///x?y", "file:///x#y"] {
        check(file, &format!("proxy {file:?} must have nothing but a path behind file://"));
    }
}

#[test]
fn secrets_are_not_shown() {
    #[track_caller]
    fn check(list: &str, expected: &str) {
        match ProxyList::parse(list) {
            Ok(parsed) => {
                assert_eq!(parsed.to_string(), expected);
                let debug = format!("{parsed:?} {:?} {:?}", parsed.items, parsed.items[0].source);
                assert!(!debug.contains("secret"), "{debug}");
            }
            Err(error) => {
                assert_eq!(error.to_string(), expected);
                assert!(!format!("{error:?}").contains("secret"), "{error:?}");
            }
        }
    }
    check("https://user:secret@a.com/x|direct", "https://user:xxxxx@a.com/x|direct");
    check("https://secret@a.com", "https://xxxxx@a.com/");
    check("https://:secret@a.com", "https://:xxxxx@a.com/");
    check("user:secret@a.com/x", "https://user:xxxxx@a.com/x");
    check(
        "https://user:secret@a.com:x",
        "proxy \"https://xxxxx@a.com:x\" is no URL: invalid port number",
    );
    check("https://user:sec@secret@", "proxy \"https://xxxxx@\" is no URL: empty host");
    check("ftp://u:secret@a.com", "proxy \"ftp://xxxxx@a.com\" must be an http, https or file URL");
    // The separator of lists in a password.
    check(
        "https://user:secret,word@a.com",
        "proxy \"https://user:xxxxx\" is no URL: invalid port number",
    );
    // The secret is still in the URL.
    let list = ProxyList::parse("https://user:secret@a.com").expect("a list");
    let stoa_module::ProxySource::Url(url) = &list.items[0].source else { panic!("a URL") };
    assert_eq!(url.password(), Some("secret"));
}

proptest! {
    #[test]
    fn no_input_panics(text in any::<String>(), like in "([a-z:/@.,| 0-9\\[\\]?#%-]|https://|file:|direct|off){0,12}") {
        for text in [&text, &like] {
            if let Ok(list) = ProxyList::parse(text) {
                prop_assert!(!list.items.is_empty());
                prop_assert_eq!(list.items.last().map(|item| item.separator), Some(Separator::Comma));
                // What is shown is a list again, unless something had to be hidden.
                if !text.contains('@') {
                    prop_assert_eq!(ProxyList::parse(&list.to_string()), Ok(list));
                }
            }
        }
    }

    #[test]
    fn a_password_is_never_shown(before in "[a-z:/@.|, ]{0,8}", after in "[a-z:/@.|, ]{0,8}") {
        let text = format!("{before}https://user:s3cret@a.com{after}");
        let shown = match ProxyList::parse(&text) {
            Ok(list) => format!("{list} {list:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!shown.contains("s3cret"), "{}", shown);
    }
}
