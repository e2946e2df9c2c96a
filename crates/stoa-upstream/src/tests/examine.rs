//! Each trouble of a host, provoked for real.

mod certificates;
mod namespace;
mod outgoing;
mod repository;

use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use stoa_testkit::{FakeUpstream, Fault, Modules, Port};
use url::Url;

use super::connecting::Names;
use super::server::{Do, Server, head, ok, reply};
use super::{client, settings};
use crate::examine::{Examined, Limits, Observed, Step, Trouble};
use crate::{Client, Credential, Secret, Settings};

fn limits(step: Duration) -> Limits {
    Limits { step, ..Limits::default() }
}

/// Long enough for whatever answers.
const AMPLE: Duration = Duration::from_secs(10);
/// For what never answers.
const BRIEF: Duration = Duration::from_millis(400);

async fn examine(client: &Client, url: &str, step: Duration) -> Examined {
    let (client, url) = (client.clone(), Url::parse(url).unwrap());
    // As a server does it.
    let task = tokio::spawn(async move { client.examine(&url, &limits(step)).await });
    let examined = task.await.unwrap();
    is_well_formed(&examined);
    examined
}

fn is_well_formed(examined: &Examined) {
    for Observed { seen, .. } in &examined.steps {
        assert!(!seen.is_empty() && seen.chars().count() <= 300, "{seen}");
        assert!(!seen.contains(|c: char| c.is_control()), "{seen:?}");
    }
    let text = serde_json::to_string(examined).unwrap();
    assert_eq!(&serde_json::from_str::<Examined>(&text).unwrap(), examined);
}

/// The stages, each with what is wrong: `name tcp:refused`.
fn shape(examined: &Examined) -> String {
    let steps = examined.steps.iter().map(|Observed { stage, trouble, .. }| match trouble {
        Some(trouble) => format!("{}:{}", stage.as_str(), trouble.as_str()),
        None => stage.as_str().to_owned(),
    });
    steps.collect::<Vec<_>>().join(" ")
}

/// What was seen at a stage, the last time.
fn seen(examined: &Examined, stage: Step) -> &str {
    let found = examined.steps.iter().rev().find(|observed| observed.stage == stage);
    &found.unwrap_or_else(|| panic!("no {stage:?}: {examined:?}")).seen
}

#[track_caller]
fn check(examined: &Examined, expected: &str, words: &[(Step, &str)]) {
    assert_eq!(shape(examined), expected, "{examined:#?}");
    for &(stage, words) in words {
        assert!(seen(examined, stage).contains(words), "{words:?} is not in {examined:#?}");
    }
}

#[tokio::test]
async fn a_healthy_host() {
    let server = Server::start(|_, _| {
        let headers = "Server: nginx\r\nVia: 1.1 varnish\r\nX-Cache: HIT\r\n\
                       Date: Sat, 21 Nov 2026 21:00:00 GMT\r\n";
        reply(200, headers, b"v1.0.0\n")
    })
    .await;
    let url = server.url();
    let examined = examine(&client(), &url, AMPLE).await;
    let http = "HTTP/1.1 200, server nginx, via 1.1 varnish, x-cache HIT, header after ";
    let words = [
        (Step::Name, "127.0.0.1 (literal address)"),
        (Step::Tcp, &*format!("{} ", server.addr())),
        (Step::Credential, "none"),
        (Step::Http, http),
        (Step::Http, "7 B of body"),
    ];
    check(&examined, "name tcp credential http", &words);
    assert_eq!(examined.date.unwrap().to_string(), "2026-11-21T21:00:00Z");
    assert!(examined.date_at.is_some());
    assert_eq!((examined.trusted, examined.issuer), (None, None));
    assert_eq!(server.asked().len(), 1);
    assert_eq!(server.asked()[0].line(), "GET / HTTP/1.1");

    // The pool and the breakers know nothing of it.
    assert!(client().breakers().is_empty());
    let localhost = format!("http://localhost:{}", server.addr().port());
    let examined = examine(&client(), &localhost, AMPLE).await;
    check(&examined, "name tcp credential http", &[(Step::Name, "127.0.0.1")]);
}

#[tokio::test]
async fn ports_that_are_none() {
    let client = client();
    let refusing = Port::refusing();
    let filtered = Port::filtered();
    let mute = Port::mute();
    let closing = Port::closing();
    let ssh = Port::saying("SSH-2.0-OpenSSH_9.6\x1b[31m\r\n");
    let endless = Port::endless("HTTP/1.1 200 OK\r\n", "X-More: of the same\r\n");
    let line = Port::endless("HTTP/1.1 200 OK\r\nX-More: ", "more");
    let upstream = FakeUpstream::start(Modules::default());
    let upstream = upstream.url().replace("http:", "https:");
    let cases: &[(&str, String, &str, Step, &str)] = &[
        ("refused", refusing.url("https"), "name tcp:refused", Step::Tcp, "connection refused"),
        ("dropped", filtered.url("https"), "name tcp:filtered", Step::Tcp, "no answer in 400 ms"),
        (
            "mute",
            mute.url("http"),
            "name tcp credential http:header-timeout",
            Step::Http,
            "connected, and no header of an answer",
        ),
        (
            "mute with tls",
            mute.url("https"),
            "name tcp tls:tls-failed",
            Step::Tls,
            "no answer to the handshake in 280 ms",
        ),
        ("closed", closing.url("http"), "name tcp credential http:reset", Step::Http, ""),
        (
            "closed in the handshake",
            closing.url("https"),
            "name tcp tls:reset",
            Step::Tls,
            "closed in the handshake",
        ),
        (
            "ssh instead of http",
            ssh.url("http"),
            "name tcp credential http:not-http",
            Step::Http,
            "SSH-2.0-OpenSSH_9.6.[31m",
        ),
        (
            "ssh instead of tls",
            ssh.url("https"),
            "name tcp tls:not-tls",
            Step::Tls,
            "it does not speak TLS: SSH-2.0-OpenSSH_9.6",
        ),
        (
            "http instead of tls",
            upstream,
            "name tcp tls:not-tls",
            Step::Tls,
            "it speaks http without TLS: HTTP/1.0 400 Bad Request",
        ),
        (
            "headers without end",
            endless.url("http"),
            "name tcp credential http:endless",
            Step::Http,
            "a header without end",
        ),
        (
            "a header without end",
            line.url("http"),
            "name tcp credential http:endless",
            Step::Http,
            "a header without end",
        ),
    ];
    for (name, url, expected, stage, words) in cases {
        eprintln!("{name}");
        let is_silent = name.starts_with("mute") || *name == "dropped";
        let step = if is_silent { BRIEF } else { AMPLE };
        check(&examine(&client, url, step).await, expected, &[(*stage, words)]);
    }
}

/// It waits for the end of a header, and so says nothing to a handshake.
#[tokio::test]
async fn http_on_the_tls_port_of_one_that_waits() {
    let server = Server::start(|_, _| ok(b"")).await;
    let url = server.url().replace("http:", "https:");
    let examined = examine(&client(), &url, Duration::from_secs(4)).await;
    let words = "it speaks http without TLS: HTTP/1.1 200 Whatever";
    check(&examined, "name tcp tls:not-tls", &[(Step::Tls, words)]);
    assert_eq!(server.asked()[0].line(), "HEAD / HTTP/1.1");
}

#[tokio::test]
async fn names_that_lead_nowhere() {
    let server = Server::start(|_, _| ok(b"found")).await;
    let client = Client::with_resolver(settings(), Arc::new(Names(server.addr()))).unwrap();
    let url = format!("http://upstream.test:{}/", server.addr().port());
    let examined = examine(&client, &url, AMPLE).await;
    check(&examined, "name tcp credential http", &[(Step::Name, "127.0.0.1 (a resolver")]);
    let examined = examine(&client, "http://nowhere.invalid", AMPLE).await;
    let words = "nowhere.invalid: Name or service not known";
    check(&examined, "name:name-not-resolved", &[(Step::Name, words)]);
    let began = Instant::now();
    let examined = examine(&client, "https://slow.test", BRIEF).await;
    let words = "no answer about slow.test in 400 ms";
    check(&examined, "name:resolver-silent", &[(Step::Name, words)]);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn addresses_that_are_none() {
    for url in ["ftp://a.test/", "file:///a", "mailto:me@a.test", "ssh://hunter2@a.test/"] {
        let examined = examine(&client(), url, AMPLE).await;
        let words = "is no address of a host over http";
        check(&examined, "name:name-not-resolved", &[(Step::Name, words)]);
        assert!(!format!("{examined:?}").contains("hunter2"), "{examined:?}");
    }
}

#[tokio::test]
async fn statuses() {
    let check = async |status: u16, headers: &'static str, trouble: &str, words: &str| {
        let server = Server::start(move |_, _| {
            let headers = format!("Content-Type: text/plain\r\n{headers}");
            reply(status, &headers, b"go away\n")
        })
        .await;
        let examined = examine(&client(), &server.url(), AMPLE).await;
        check(&examined, &format!("name tcp credential http{trouble}"), &[(Step::Http, words)]);
    };
    check(401, "", ":unauthorized", "HTTP/1.1 401, header after ").await;
    check(403, "", ":forbidden", ": go away").await;
    check(429, "Retry-After: 7\r\n", ":rate-limited", "429").await;
    check(500, "", ":server-error", "500").await;
    check(503, "", ":server-error", "503").await;
    // What is asked may well not be there, and a redirect is somebody else's.
    check(404, "", "", "404").await;
    check(410, "", "", "410").await;
    let location = "Location: https://user:pass@other.test/a?token=1\r\n";
    check(302, location, "", "redirects to https://other.test/a?..., header").await;
}

#[tokio::test]
async fn bodies() {
    let check = async |body: Vec<Do>, trouble: &str, words: &str| {
        let server = Server::start(move |_, _| body.clone()).await;
        let examined = examine(&client(), &server.url(), AMPLE).await;
        check(&examined, &format!("name tcp credential http{trouble}"), &[(Step::Http, words)]);
    };
    let whole = Do::Send(head(200, "Content-Length: 1048576\r\n"));
    // 5 KiB in a second.
    let mut drip = vec![whole.clone()];
    for _ in 0..100 {
        drip.extend([Do::Send(vec![b'x'; 512]), Do::Pause(Duration::from_millis(100))]);
    }
    check(drip, ":slow", " KiB/s").await;
    check(vec![whole.clone(), Do::Stall], ":slow", "0 B of body at 0 B/s").await;
    check(vec![whole.clone(), Do::Send(vec![b'x'; 10]), Do::Close], ":reset", "body: cut off")
        .await;
    check(vec![whole, Do::Send(vec![b'x'; 1 << 20])], "", "KiB of body at ").await;
    // However much comes, not much of it is read.
    let upstream = FakeUpstream::start(Modules::default());
    upstream.fault("*", Fault::replace("x").with(Fault::endless()));
    let began = Instant::now();
    let examined = examine(&client(), &upstream.url(), AMPLE).await;
    super::examine::check(&examined, "name tcp credential http", &[(Step::Http, "KiB of body at")]);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn credentials() {
    let server = Server::start(|_, _| ok(b"")).await;
    let check = async |settings: Settings, url: &str, expected: &str, is_sent: bool| {
        let examined = examine(&Client::new(settings).unwrap(), url, AMPLE).await;
        check(&examined, "name tcp credential http", &[]);
        assert_eq!(seen(&examined, Step::Credential), expected);
        let asked = server.asked().pop().unwrap();
        assert_eq!(asked.header("authorization").is_some(), is_sent, "{url}");
        assert!(!format!("{examined:?}").contains("hunter2"), "{examined:?}");
    };
    let url = server.url();
    check(settings(), &url, "none", false).await;
    let own = url.replace("://", "://me:hunter2@");
    check(settings(), &own, "a user and password, in the address itself", true).await;
    let credential = |secret| Credential { prefix: Url::parse(&url).unwrap(), secret };
    let password = || SecretString::from("hunter2");
    let token =
        Settings { credentials: vec![credential(Secret::Bearer(password()))], ..settings() };
    let expected = format!("a token, upstream.credential {url}/");
    check(token, &url, &expected, true).await;
    let basic = Secret::Basic { username: "robot".to_owned(), password: password() };
    let basic = Settings { credentials: vec![credential(basic)], ..settings() };
    let expected = format!("a user and password, upstream.credential {url}/");
    check(basic, &format!("{url}/a?x=hunter2"), &expected, true).await;
}

#[tokio::test]
async fn a_deadline_proves_nothing_about_others() {
    let client = client();
    let mute = Port::mute();
    let over = Limits { step: AMPLE, deadline: tokio::time::Instant::now() };
    let url = Url::parse(&mute.url("http")).unwrap();
    let examined = client.examine(&url, &over).await;
    check(&examined, "name", &[(Step::Name, "not looked at")]);
    // It ends there also in the middle, and says no more than it knows.
    let began = Instant::now();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
    let examined = client.examine(&url, &Limits { step: AMPLE, deadline }).await;
    check(&examined, "name tcp credential http:header-timeout", &[]);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test]
async fn nothing_that_is_said_gets_through_as_it_is() {
    let server = Server::start(|_, _| {
        let long = "x".repeat(2000);
        let headers = format!("Server: \u{202e}evil {long}\r\nVia: {long}\r\n");
        reply(403, &format!("{headers}Content-Type: text/plain\r\n"), long.as_bytes())
    })
    .await;
    let examined = examine(&client(), &server.url(), AMPLE).await;
    check(&examined, "name tcp credential http:forbidden", &[(Step::Http, "403")]);
}

#[test]
fn words_are_as_serde_writes_them() {
    use Trouble::*;
    let all = [
        NameNotResolved,
        ResolverSilent,
        NotPublic,
        Refused,
        Filtered,
        Unreachable,
        BlackHoledIpv6,
        Reset,
        TlsIntercepted,
        CertificateExpired,
        CertificateNotYetValid,
        UnknownAuthority,
        WrongName,
        NotTls,
        TlsFailed,
        NoAuthorities,
        ProxyRefuses,
        ProxyWantsPassword,
        NotHttp,
        HeaderTimeout,
        Endless,
        Slow,
        Unauthorized,
        Forbidden,
        RateLimited,
        ServerError,
        HostKeyUnknown,
        KeyRefused,
        GitMissing,
        GitRefused,
        NotFound,
    ];
    for trouble in all {
        assert_eq!(serde_json::to_value(trouble).unwrap(), trouble.as_str());
    }
    let steps = [
        Step::Name,
        Step::Tcp,
        Step::OutgoingProxy,
        Step::Tls,
        Step::Credential,
        Step::Http,
        Step::Git,
    ];
    for step in steps {
        assert_eq!(serde_json::to_value(step).unwrap(), step.as_str());
    }
}
