use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use url::Url;

use super::connecting::Names;
use super::server::{Authority, Server, ok, redirect};
use super::{AMPLE, get, settings, short, source};
use crate::{Client, Credential, Error, Secret, Settings, Use};

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

fn login(prefix: &str, username: &str) -> Credential {
    let password = SecretString::from("pw");
    let secret = Secret::Basic { username: username.to_owned(), password };
    Credential { prefix: Url::parse(prefix).unwrap(), secret }
}

fn token(prefix: &str, token: &str) -> Credential {
    let secret = Secret::Bearer(SecretString::from(token));
    Credential { prefix: Url::parse(prefix).unwrap(), secret }
}

/// What the last request was authorized by.
fn sent(server: &Server) -> Option<String> {
    server.asked().last().unwrap().header("authorization").map(str::to_owned)
}

#[tokio::test]
async fn from_the_address() {
    let server = Server::start(|_, _| ok(b"")).await;
    let client = Client::new(settings()).unwrap();
    let check = async |userinfo: &str, expected: Option<&str>| {
        let url = server.url().replace("://", &format!("://{userinfo}"));
        get(&client, &url).await.unwrap();
        assert_eq!(sent(&server), expected.map(basic));
    };
    check("", None).await;
    check("user:pass@", Some("user:pass")).await;
    check("us%40er:p%3Ass%20@", Some("us@er:p:ss ")).await;
    check("token@", Some("token:")).await;
    check(":pass@", Some(":pass")).await;
}

#[tokio::test]
async fn from_the_settings_by_the_longest_prefix() {
    let server = Server::start(|_, _| ok(b"")).await;
    let root = server.url();
    let credentials = vec![
        login(&root, "root"),
        token(&format!("{root}/a/b"), "deep"),
        login(&format!("{root}/a/"), "a"),
        login(&format!("{root}/%21x"), "bang"),
        login(&root.replace("http", "https"), "secure"),
        login("http://127.0.0.1:1/", "port"),
        login(&format!("http://localhost:{}", server.addr().port()), "name"),
    ];
    let client = Client::new(Settings { credentials, ..settings() }).unwrap();
    let check = async |path: &str, expected: String| {
        client.get(&source(&root), Use::Modules, path, &AMPLE, "").await.unwrap();
        assert_eq!(sent(&server), Some(expected), "{path}");
    };
    check("x", basic("root:pw")).await;
    check("a", basic("a:pw")).await;
    check("a/c", basic("a:pw")).await;
    check("ab/c", basic("root:pw")).await;
    check("a/b", "Bearer deep".to_owned()).await;
    check("a/b/c", "Bearer deep".to_owned()).await;
    check("a/bc", basic("a:pw")).await;
    check("!x/y", basic("bang:pw")).await;
    // What the address itself says is stronger.
    let named = source(&root.replace("://", "://u:p@"));
    client.get(&named, Use::Modules, "a/b", &AMPLE, "").await.unwrap();
    assert_eq!(sent(&server), Some(basic("u:p")));
    // Nothing is sent unencrypted that was named for https.
    let secure = vec![login(&root.replace("http", "https"), "secure")];
    let client = Client::new(Settings { credentials: secure, ..settings() }).unwrap();
    get(&client, &root).await.unwrap();
    assert_eq!(sent(&server), None);
}

#[tokio::test]
async fn from_netrc_over_https_only() {
    let authority = Authority::new();
    let secure = Server::start_tls(&authority, |_, _| ok(b"")).await;
    let plain = Server::start(|_, _| ok(b"")).await;
    let directory = tempfile::tempdir().unwrap();
    let netrc = directory.path().join("netrc");
    let ca = authority.file();
    let client = Client::with_resolver(
        Settings {
            netrc: Some(netrc.clone()),
            ca_files: vec![ca.path().to_owned()],
            credentials: vec![token(&format!("{}/a", secure.url()), "set")],
            ..settings()
        },
        Arc::new(Names(secure.addr())),
    )
    .unwrap();
    let named = format!("https://upstream.test:{}", secure.addr().port());
    let check = async |url: &str, server: &Server, expected: Option<String>| {
        get(&client, url).await.unwrap();
        assert_eq!(sent(server), expected, "{url}");
    };
    // It need not exist, and is seen when it comes, changes and goes.
    check(&named, &secure, None).await;
    let port = secure.addr().port();
    fs_err::write(&netrc, format!("machine upstream.test:{port} login one password p")).unwrap();
    check(&named, &secure, Some(basic("one:p"))).await;
    let both = format!(
        "machine upstream.test:{port} login other password p\n\
         machine {} login plain password p\nmachine {} login ip password p\n",
        plain.addr(),
        secure.addr(),
    );
    fs_err::write(&netrc, both).unwrap();
    check(&named, &secure, Some(basic("other:p"))).await;
    check(&plain.url(), &plain, None).await;
    check(&secure.url(), &secure, Some(basic("ip:p"))).await;
    let stronger = source(&secure.url());
    client.get(&stronger, Use::Modules, "a/b", &AMPLE, "").await.unwrap();
    assert_eq!(sent(&secure).as_deref(), Some("Bearer set"));
    check(&named.replace("://", "://u:p@"), &secure, Some(basic("u:p"))).await;
    fs_err::remove_file(&netrc).unwrap();
    check(&named, &secure, None).await;
}

#[tokio::test]
async fn are_dropped_when_a_redirect_leaves_the_host() {
    let elsewhere = Server::start(|_, _| ok(b"found")).await;
    let to = elsewhere.url();
    let home = Server::start(move |asked, _| match asked.target() {
        "/here" => redirect("/there"),
        "/away" => redirect(&to.replace("://", "://stolen:pw@")),
        _ => ok(b"found"),
    })
    .await;
    for credentials in [vec![], vec![login(&home.url(), "home"), login(&elsewhere.url(), "away")]] {
        let base = match &credentials[..] {
            [] => home.url().replace("://", "://home:pw@"),
            _ => home.url(),
        };
        let client = Client::new(Settings { credentials, ..settings() }).unwrap();
        client.get(&source(&base), Use::Modules, "here", &AMPLE, "").await.unwrap();
        assert_eq!(sent(&home), Some(basic("home:pw")), "the same host keeps it");
        client.get(&source(&base), Use::Modules, "away", &AMPLE, "").await.unwrap();
        assert_eq!(sent(&home), Some(basic("home:pw")));
        assert_eq!(sent(&elsewhere), None, "another one does not get any");
    }
}

#[tokio::test]
async fn are_not_sent_again_after_a_way_through_another_host() {
    let (set_home, home_addr) = tokio::sync::watch::channel(String::new());
    let elsewhere = Server::start(move |_, _| redirect(&home_addr.borrow())).await;
    let to = elsewhere.url();
    let home = Server::start(move |asked, _| match asked.target() {
        "/start" => redirect(&to),
        _ => ok(b"found"),
    })
    .await;
    set_home.send(format!("{}/end", home.url())).unwrap();
    let client = Client::new(settings()).unwrap();
    let base = source(&home.url().replace("://", "://home:pw@"));
    assert_eq!(client.get(&base, Use::Modules, "start", &AMPLE, "").await.unwrap(), "found");
    assert_eq!(home.asked()[0].header("authorization"), Some(&*basic("home:pw")));
    assert_eq!(home.asked()[1].header("authorization"), None);
}

#[tokio::test]
async fn are_never_shown() {
    let credential = login("https://example.com/x", "user");
    let settings = Settings {
        credentials: vec![credential, token("https://example.com", "t0ken")],
        proxy: crate::ProxyEnvironment {
            http: Some("http://pu:pw@proxy.test".to_owned()),
            https: Some("pu:pw@proxy.test:3128".to_owned()),
            no: None,
        },
        ..settings()
    };
    let names = Arc::new(Names(([127, 0, 0, 1], 1).into()));
    let client = Client::with_resolver(settings.clone(), names).unwrap();
    let base = source("https://u:pw@nowhere.invalid:1/go");
    let shown = format!("{settings:?} {client:?} {base:?} {base} {}", base.name());
    assert!(!shown.contains("pw"), "{shown}");
    assert!(!shown.contains("t0ken"), "{shown}");
    let failure = client.get(&base, Use::Modules, "a", &AMPLE, "").await.unwrap_err();
    assert!(short(&failure).starts_with("unavailable dns "), "{failure}");
    assert!(!format!("{failure:?} {failure}").contains("pw"), "{failure:?}");
}

#[test]
fn settings_that_cannot_be_used() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty.pem");
    fs_err::write(&empty, "no certificate").unwrap();
    let bad = directory.path().join("bad.pem");
    fs_err::write(&bad, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let missing = directory.path().join("missing.pem");
    let check = |settings: Settings, expected: &str| {
        let error = Client::new(settings).unwrap_err();
        let mut shown = error.to_string();
        if let Error::ReadAuthorities(source) | Error::ReadNetrc(source) = &error {
            shown = format!("{shown}: {source}");
        }
        let shown = shown.replace(&directory.path().display().to_string(), "DIR");
        assert!(shown.starts_with(expected), "{shown}");
    };
    let with_ca =
        |path: &std::path::Path| Settings { ca_files: vec![path.to_owned()], ..settings() };
    check(
        with_ca(&empty),
        "DIR/empty.pem: not a PEM file with certificates of authorities: it holds no certificate",
    );
    check(
        with_ca(&bad),
        "DIR/bad.pem: not a PEM file with certificates of authorities: invalid peer certificate: BadEncoding",
    );
    check(
        with_ca(&missing),
        "cannot read certificates of an authority: failed to open file `DIR/missing.pem`",
    );
    let netrc = Some(directory.path().to_owned());
    check(Settings { netrc, ..settings() }, "cannot read the netrc file: DIR: not a netrc file");
    let with = |credential| Settings { credentials: vec![credential], ..settings() };
    check(
        with(login("ftp://u:p@x.org/", "u")),
        "invalid credential for ftp://x.org/: its prefix must be an http or https address",
    );
    check(
        with(login("https://u:p@x.org/", "u")),
        "invalid credential for https://x.org/: its prefix must not hold another credential",
    );
    check(
        with(login("https://x.org/?a=b", "u")),
        "invalid credential for https://x.org/?...: its prefix must have no query",
    );
    check(
        with(token("https://x.org/", "two\nlines")),
        "invalid credential for https://x.org/: its token must be printable ASCII",
    );
    for id in ["", "a b", "a,b", "ü"] {
        let settings = Settings { instance_id: id.to_owned(), ..settings() };
        check(settings, &format!("invalid instance id {id:?}"));
    }
    check(Settings { user_agent: "a\nb".to_owned(), ..settings() }, "invalid user agent \"a\\nb\"");
    let proxy =
        |http: &str| crate::ProxyEnvironment { http: Some(http.to_owned()), ..Default::default() };
    check(
        Settings { proxy: proxy("ftp://u:p@x"), ..settings() },
        "invalid HTTP_PROXY: its scheme must be http, https, socks5 or socks5h",
    );
    check(
        Settings { proxy: proxy("a b"), ..settings() },
        "invalid HTTP_PROXY: it is no URL and no host:port",
    );
    assert_ne!(Settings::default().instance_id, Settings::default().instance_id);
}
