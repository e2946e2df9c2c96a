use std::collections::BTreeMap;
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
/// file `secret`.
fn read_text(text: &str) -> Read {
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join("secret"), "from a file\n").unwrap();
    let env: BTreeMap<String, String> = [("TOKEN", "from the environment"), ("EMPTY", "")]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut out = Collector::default();
    let document = file::parse(Path::new("stoa.toml"), text, &mut out);
    let mut places = Places::new(&env, dir.path());
    let credentials = read(&document.credentials, &mut places, &mut out);
    let mistakes = out.mistakes.iter().map(ToString::to_string).collect();
    Read { credentials, mistakes, warnings: out.warnings }
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
        "1: upstream.credential: needs exactly one of password, password-file, password-env, token, token-file, token-env; it has none",
    );
    with_prefix("username = 'ci'", "1: upstream.credential: needs exactly one of");
    with_prefix(
        "username = 'ci'\npassword = 'hunter2'\npassword-file = 'secret'",
        "1: upstream.credential: needs exactly one of password, password-file, password-env, token, token-file, token-env; it has password and password-file",
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
    prefix("'ftp://goproxy.corp.example.com'", "is neither http nor https");
    prefix("'goproxy.corp.example.com:8080'", "is neither http nor https");
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
