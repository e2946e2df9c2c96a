use fs_err as fs;
use secrecy::ExposeSecret as _;

use super::super::tests::{Given, effective};
use super::*;

/// The one credential: prefix, user and secret.
fn credential(given: &Given) -> Option<(String, String, String)> {
    let config = given.whole().unwrap();
    let credential = config.git_credential?;
    let Secret::Basic { username, password } = credential.secret else {
        panic!("{:?}", credential.secret)
    };
    Some((credential.prefix.to_string(), username, password.expose_secret().to_owned()))
}

fn given(env: &[(&str, &str)]) -> Given {
    env.iter().fold(Given::nothing(), |given, (name, value)| given.env(name, value))
}

#[test]
fn hosts() {
    let check = |text: &str, expected: Option<&str>| {
        assert_eq!(host(text).ok().as_deref(), expected, "{text}");
    };
    check("git.example.com", Some("git.example.com"));
    check("Git.Example.com", Some("git.example.com"));
    check("git.example.com:8443", Some("git.example.com:8443"));
    check("git.example.com:443", Some("git.example.com"));
    check("localhost", Some("localhost"));
    check("10.0.0.1", Some("10.0.0.1"));
    check("[::1]:8443", Some("[::1]:8443"));
    for wrong in [
        "https://git.example.com",
        "git.example.com/",
        "git.example.com/team",
        "git.example.com:",
        "git.example.com:git",
        "git.example.com?x",
        "git.example.com#x",
        "git@git.example.com",
        "a b",
        "*.example.com",
        "/",
    ] {
        let found = host(wrong);
        // A star is no more than an odd name to a URL.
        assert!(found.is_err() || wrong.contains('*'), "{wrong}: {found:?}");
    }
}

#[test]
fn a_token_and_its_host_make_a_credential() {
    let check = |env: &[(&str, &str)], expected: (&str, &str, &str), from: &str| {
        let given = given(env);
        let found = credential(&given).unwrap();
        let expected = (expected.0.to_owned(), expected.1.to_owned(), expected.2.to_owned());
        assert_eq!(found, expected, "{env:?}");
        let config = given.whole().unwrap();
        assert_eq!(config.git_credential.as_ref().unwrap().origin.to_string(), from);
        assert!(!format!("{config:?}{}", config.show()).contains("hunter2"));
    };
    let token = ("STOA_GIT_TOKEN", "hunter2");
    check(
        &[token, ("STOA_GIT_HOST", "Git.example.com")],
        ("https://git.example.com/", "x-access-token", "hunter2"),
        "STOA_GIT_TOKEN",
    );
    check(
        &[token, ("STOA_GIT_HOST", "git.example.com:8443"), ("STOA_GIT_USER", "deploy")],
        ("https://git.example.com:8443/", "deploy", "hunter2"),
        "STOA_GIT_TOKEN",
    );
    // As a Kubernetes secret often is.
    check(
        &[("STOA_GIT_TOKEN", "hunter2\n"), ("STOA_GIT_HOST", "git.example.com")],
        ("https://git.example.com/", "x-access-token", "hunter2"),
        "STOA_GIT_TOKEN",
    );
    check(
        &[("STOA_GIT_TOKEN_FILE", "a.pem"), ("STOA_GIT_HOST", "git.example.com")],
        ("https://git.example.com/", "x-access-token", "hunter2"),
        "STOA_GIT_TOKEN_FILE",
    );
    // An empty variable is not set.
    check(
        &[token, ("STOA_GIT_HOST", "git.example.com"), ("STOA_GIT_TOKEN_FILE", "")],
        ("https://git.example.com/", "x-access-token", "hunter2"),
        "STOA_GIT_TOKEN",
    );
    assert_eq!(credential(&given(&[("STOA_GIT_TOKEN", "")])), None);
    assert_eq!(credential(&Given::file("git.token = ''\ngit.token-file = ''\n")), None);
}

#[test]
fn the_host_follows_from_goprivate() {
    let check = |private: &str, no_proxy: &str, expected: Result<&str, &str>| {
        let given = given(&[
            ("STOA_GIT_TOKEN", "hunter2"),
            ("STOA_GOPRIVATE", private),
            ("STOA_GONOPROXY", no_proxy),
        ]);
        match (given.whole(), expected) {
            (Ok(config), Ok(expected)) => {
                assert_eq!(effective(&config, "git.host"), {
                    let key = if private.is_empty() {
                        "upstream.gonoproxy"
                    } else {
                        "upstream.goprivate"
                    };
                    (format!("{expected:?}"), key.to_owned())
                });
                let prefix = config.git_credential.unwrap().prefix.to_string();
                assert_eq!(prefix, format!("https://{expected}/"), "{private} {no_proxy}");
            }
            (Err(mistakes), Err(expected)) => {
                let text = mistakes.to_string();
                assert_eq!(text, format!("STOA_GIT_TOKEN: git.token: for which host? {expected}"));
            }
            (found, expected) => panic!("{private} {no_proxy}: {found:?}, not {expected:?}"),
        }
    };
    check("git.corp.example.com/*", "", Ok("git.corp.example.com"));
    check("github.com/corp", "", Ok("github.com"));
    check("GitHub.com/corp,github.com/other", "", Ok("github.com"));
    check("*.corp.example.com,git.corp.example.com", "", Ok("git.corp.example.com"));
    check("", "git.corp.example.com", Ok("git.corp.example.com"));
    check(
        "github.com/corp,git.corp.example.com",
        "",
        Err(
            "upstream.goprivate names git.corp.example.com and github.com: set git.host (STOA_GIT_HOST)",
        ),
    );
    for (private, no_proxy) in [("", ""), ("*.corp.example.com", ""), ("", "none")] {
        check(
            private,
            no_proxy,
            Err(
                "Neither upstream.goprivate nor upstream.gonoproxy spells one out: set git.host (STOA_GIT_HOST)",
            ),
        );
    }
}

#[test]
fn what_does_not_go_together_is_a_mistake() {
    let check = |text: &str, env: &[(&str, &str)], expected: &[&str]| {
        let given =
            env.iter().fold(Given::file(text), |given, (name, value)| given.env(name, value));
        let found: Vec<String> =
            given.whole().unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    };
    check(
        "[git]\nuser = 'deploy'\n",
        &[("STOA_GIT_HOST", "git.example.com"), ("STOA_GIT_TOKEN", "")],
        &[
            "STOA_GIT_HOST: git.host: needs git.token or git.token-file too",
            "stoa.toml:2: git.user: needs git.token or git.token-file too",
        ],
    );
    check(
        "[git]\nhost = 'git.example.com'\ntoken = 'hunter2'\n",
        &[("STOA_GIT_TOKEN_FILE", "a.pem")],
        &["STOA_GIT_TOKEN_FILE: git.token-file: git.token is set, too: keep one of both"],
    );
    check(
        "[git]\nhost = 'git.example.com'\n[[upstream.credential]]\nprefix = 'https://git.example.com'\ntoken = 'x'\n",
        &[("STOA_GIT_TOKEN", "hunter2")],
        &[
            "STOA_GIT_TOKEN: git.token: https://git.example.com/ has a credential already (stoa.toml:3)",
        ],
    );
    // With what is wrong between other settings, at once.
    check(
        "[git]\nuser = 'deploy'\n[server]\nlisten = ':1'\nadmin-listen = ':1'\n",
        &[],
        &[
            "stoa.toml:2: git.user: needs git.token or git.token-file too",
            "stoa.toml:5: server.admin-listen: is the same as server.listen: leave it empty",
        ],
    );
}

#[test]
fn an_empty_token_file_is_a_mistake() {
    let given = given(&[("STOA_GIT_TOKEN_FILE", "empty"), ("STOA_GIT_HOST", "git.example.com")]);
    fs::write(given.dir.path().join("empty"), "\n").unwrap();
    let mistakes = given.whole().unwrap_err().to_string();
    assert_eq!(mistakes, "STOA_GIT_TOKEN_FILE: git.token-file: the secret is empty");
}
