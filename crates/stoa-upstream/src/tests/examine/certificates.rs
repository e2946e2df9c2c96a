use stoa_testkit::{Authority, Certificate, FakeUpstream, Fault, Internet, Modules, TlsFront};

use super::{AMPLE, check, examine, seen};
use crate::examine::Step;
use crate::tests::settings;
use crate::{Client, Credential, ProxyEnvironment, Secret, Settings};

const DATE: &str = "Sat, 21 Nov 2026 21:00:00 GMT";

/// An upstream behind TLS; its authority is trusted by the client.
struct World {
    upstream: FakeUpstream,
    front: TlsFront,
    client: Client,
    _file: tempfile::NamedTempFile,
}

fn front(authority: &Authority, certificate: Certificate) -> World {
    let upstream = FakeUpstream::start(Modules::default());
    upstream.fault("*", Fault::status(200).text("ok").header("Date", DATE));
    let front = TlsFront::start(&upstream, authority, certificate);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(file.path(), authority.pem()).unwrap();
    let password = secrecy::SecretString::from("hunter2");
    let credential =
        Credential { prefix: front.url().parse().unwrap(), secret: Secret::Bearer(password) };
    let settings = Settings {
        ca_files: vec![file.path().to_owned()],
        credentials: vec![credential],
        ..settings()
    };
    World { upstream, front, client: Client::new(settings).unwrap(), _file: file }
}

#[tokio::test]
async fn a_good_one() {
    let authority = Authority::named("Corp Root");
    let World { upstream, front, client, _file } = front(&authority, Certificate::Good);
    let examined = examine(&client, &format!("{}/a", front.url()), AMPLE).await;
    let tls = seen(&examined, Step::Tls).to_owned();
    check(&examined, "name tcp tls credential http", &[(Step::Http, "HTTP/1.1 200")]);
    assert!(tls.starts_with("TLS 1.3, ") && tls.contains(" ← Corp Root, valid "), "{tls}");
    assert!(tls.ends_with(" days left)"), "{tls}");
    assert_eq!((examined.trusted, examined.issuer.as_deref()), (Some(true), Some("Corp Root")));
    assert_eq!(examined.date.unwrap().to_string(), "2026-11-21T21:00:00Z");
    let asked = upstream.requests();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].header("authorization"), Some("Bearer hunter2"));
}

#[tokio::test]
async fn bad_ones() {
    let cases = [
        (Certificate::Expired, "certificate-expired", "the certificate has expired; "),
        (Certificate::Expired, "certificate-expired", "2001-01-01 to 2002-01-01 (ended "),
        (Certificate::NotYetValid, "certificate-not-yet-valid", "is not valid yet; "),
        (Certificate::OtherName, "wrong-name", "the certificate is for another name; "),
        (Certificate::SelfSigned, "unknown-authority", "the certificate has signed itself"),
        (Certificate::OtherAuthority, "unknown-authority", "is unknown here; "),
    ];
    for (certificate, trouble, words) in cases {
        eprintln!("{certificate:?}");
        let World { upstream, front, client, _file } = front(&Authority::new(), certificate);
        let url = format!("{}/private.example/name?x=1", front.url());
        let examined = examine(&client, &url, AMPLE).await;
        check(&examined, &format!("name tcp tls:{trouble}"), &[(Step::Tls, words)]);
        assert_eq!(examined.trusted, Some(false));
        // A clock that is wrong shows, and whoever this is hears nothing.
        assert_eq!(examined.date.unwrap().to_string(), "2026-11-21T21:00:00Z");
        for request in upstream.requests() {
            assert_eq!((&*request.method, &*request.target), ("HEAD", "/"));
            assert_eq!(request.header("authorization"), None);
        }
    }
}

#[tokio::test]
async fn a_chain_of_a_megabyte() {
    let World { upstream, front, client, _file } = front(&Authority::new(), Certificate::LongChain);
    let examined = examine(&client, &front.url(), AMPLE).await;
    check(&examined, "name tcp tls:tls-failed", &[]);
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn somebody_in_between() {
    let between = Internet::start();
    between.host("proxy.golang.org").page("/", stoa_testkit::Answer::text(200, "ok"));
    between.host("goproxy.example.com").page("/", stoa_testkit::Answer::text(200, "ok"));
    let proxy =
        ProxyEnvironment { https: Some(between.proxy_url()), ..ProxyEnvironment::default() };
    let strange = Client::new(Settings { proxy: proxy.clone(), ..settings() }).unwrap();
    let examined = examine(&strange, "https://proxy.golang.org/", AMPLE).await;
    let tls = "intercepted: for proxy.golang.org signed by authority ";
    check(&examined, "name tcp outgoing-proxy tls:tls-intercepted", &[(Step::Tls, tls)]);
    assert_eq!(examined.trusted, Some(false));
    // A host that may well have an authority of its own.
    let examined = examine(&strange, "https://goproxy.example.com/", AMPLE).await;
    check(&examined, "name tcp outgoing-proxy tls:unknown-authority", &[]);

    let ca_files = vec![between.ca_file()];
    let known = Client::new(Settings { ca_files, proxy, ..settings() }).unwrap();
    let examined = examine(&known, "https://proxy.golang.org/", AMPLE).await;
    let tls = "intercepted, and trusted by upstream.ca-files; TLS 1.3";
    check(&examined, "name tcp outgoing-proxy tls credential http", &[(Step::Tls, tls)]);
    assert_eq!(examined.trusted, Some(true));

    // One that says what it is.
    let zscaler = Authority::named("Zscaler Root CA");
    let World { front, .. } = &super::certificates::front(&zscaler, Certificate::Good);
    let examined = examine(&strange, &front.url(), AMPLE).await;
    let tls = "intercepted by Zscaler: for localhost signed by Zscaler Root CA";
    check(&examined, "name tcp tls:tls-intercepted", &[(Step::Tls, tls)]);
}

/// Only the process that has these variables sees no authority: see `a_system_without_authorities`.
#[test]
fn a_system_that_trusts_nobody() {
    const CHILD: &str = "STOA_TEST_TRUSTS_NOBODY";
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(async {
            let upstream = FakeUpstream::start(Modules::default());
            let front = TlsFront::start(&upstream, &Authority::new(), Certificate::Good);
            let client = Client::new(settings()).unwrap();
            let examined = examine(&client, &front.url(), AMPLE).await;
            let tls = "this system has no certificates of authorities";
            check(&examined, "name tcp tls:no-authorities", &[(Step::Tls, tls)]);
        });
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::examine::certificates::a_system_that_trusts_nobody"])
        .env(CHILD, "1")
        .env("SSL_CERT_FILE", "/nonexistent/certificates")
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
