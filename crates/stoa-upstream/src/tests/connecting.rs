//! Failures before an answer has begun.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::server::{Authority, Do, Server, ok};
use super::{AMPLE, client, get, settings, short, source};
use crate::dns::{Addrs, Name, Resolve, Resolving};
use crate::journey::{Journey, Leg};
use crate::{Bounds, Client, Settings, Use};

/// Knows one name, has never heard of another, and thinks for ever about a third.
pub(super) struct Names(pub(super) SocketAddr);

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let addr = self.0;
        Box::pin(async move {
            match name.as_str() {
                "upstream.test" => Ok(Box::new([addr].into_iter()) as Addrs),
                "slow.test" => std::future::pending().await,
                _ => Err(Box::new(std::io::Error::other(
                    "failed to lookup address information: Name or service not known",
                )) as _),
            }
        })
    }
}

#[tokio::test]
async fn names() {
    let server = Server::start(|_, _| ok(b"found")).await;
    let names = Arc::new(Names(server.addr()));
    let client = Client::with_resolver(settings(), names.clone()).unwrap();
    let port = server.addr().port();
    assert_eq!(get(&client, &format!("http://upstream.test:{port}")).await.unwrap(), "found");
    let failure = get(&client, "http://nowhere.invalid").await.unwrap_err();
    assert_eq!(short(&failure), "unavailable dns 1: dns: Name or service not known");

    let hasty = Settings { connect_timeout: Duration::from_millis(100), ..settings() };
    let hasty = Client::with_resolver(hasty, names).unwrap();
    let failure = get(&hasty, "http://slow.test").await.unwrap_err();
    assert_eq!(short(&failure), "timeout dns 1: dns: timeout after 100 ms");

    let bounds = Bounds { header: Duration::from_millis(100), ..AMPLE };
    let failure =
        client.get(&source("http://slow.test"), Use::Modules, "a", &bounds, "").await.unwrap_err();
    assert_eq!(short(&failure), "timeout dns 1: dns: timeout after 100 ms");
}

/// Who asks meanwhile where it waits is told the stage, and what it has spent there later.
#[tokio::test]
async fn stages_are_told_while_they_last() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hasty = Settings { connect_timeout: Duration::from_millis(300), ..settings() };
    let client =
        Client::with_resolver(hasty, Arc::new(Names(silent.local_addr().unwrap()))).unwrap();
    let port = silent.local_addr().unwrap().port();
    let check = async |url: String, expected: Leg| {
        let journey = Journey::begin();
        let asking = journey.scope(get(&client, &url));
        let looking = async {
            while journey.stands().first().is_none_or(|stand| stand.leg != expected) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let (failed, ()) = tokio::join!(asking, looking);
        let stage = failed.unwrap_err().stage;
        assert_eq!(stage.as_str(), expected.as_str());
        let longest = journey.spent().legs().max_by_key(|(_, time)| *time).unwrap();
        assert_eq!(longest.0, expected, "{url}");
    };
    check("http://slow.test".to_owned(), Leg::Dns).await;
    check(format!("https://upstream.test:{port}"), Leg::Connect).await;
}

#[tokio::test]
async fn a_closed_port() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let failure = get(&client(), &format!("http://{addr}")).await.unwrap_err();
    assert_eq!(short(&failure), "unavailable connect 3: connect: connection refused");
    assert_eq!(failure.to_string(), format!("{addr}: connect: connection refused (3 tries)"));
}

#[tokio::test]
async fn a_port_that_accepts_and_says_nothing() {
    // The handshake never ends, because nobody takes the connection up.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let hasty = Settings { connect_timeout: Duration::from_millis(100), ..settings() };
    let failure = get(&Client::new(hasty).unwrap(), &format!("https://{addr}")).await.unwrap_err();
    assert_eq!(short(&failure), "timeout connect 1: connect: timeout after 100 ms");
}

#[tokio::test]
async fn handshakes() {
    let authority = Authority::new();
    let file = authority.file();
    let server = Server::start_tls(&authority, |_, _| ok(b"found")).await;
    let strange = Authority::new();
    let strange_file = strange.file();

    let trusting = |files: Vec<std::path::PathBuf>| {
        let settings = Settings { ca_files: files, ..settings() };
        Client::with_resolver(settings, Arc::new(Names(server.addr()))).unwrap()
    };
    let both = trusting(vec![strange_file.path().to_owned(), file.path().to_owned()]);
    assert_eq!(get(&both, &server.url()).await.unwrap(), "found");
    let port = server.addr().port();
    assert_eq!(get(&both, &format!("https://upstream.test:{port}")).await.unwrap(), "found");

    let check = async |client: Client, url: &str, expected: &str| {
        let failure = get(&client, url).await.unwrap_err();
        assert_eq!(short(&failure), format!("unavailable tls {expected}"), "{url}");
    };
    let unknown = "1: tls: the certificate is from an unknown authority";
    check(trusting(vec![strange_file.path().to_owned()]), &server.url(), unknown).await;
    let another = format!("https://localhost:{port}");
    let names = "1: tls: the certificate is for another name";
    check(
        Client::new(Settings { ca_files: vec![file.path().to_owned()], ..settings() }).unwrap(),
        &another,
        names,
    )
    .await;

    let plain = Server::start(|_, _| ok(b"found")).await;
    let secure = plain.url().replace("http", "https");
    // The plain server waits for the end of a header that never comes; it is closed from here.
    drop(plain);
    let closed = get(&both, &secure).await.unwrap_err();
    assert_eq!(short(&closed), "unavailable connect 3: connect: connection refused");
}

#[tokio::test]
async fn a_port_that_does_not_speak_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad\r\n\r\n")
            .await
            .unwrap();
        stream
    });
    let authority = Authority::new().file();
    let settings = Settings { ca_files: vec![authority.path().to_owned()], ..settings() };
    let failure = get(&Client::new(settings).unwrap(), &url).await.unwrap_err();
    assert_eq!(short(&failure), "unavailable tls 1: tls: the server does not speak tls");
    server.await.unwrap();
}

#[tokio::test]
async fn before_the_header() {
    let client = client();
    let check = async |answer: Vec<Do>, expected: &str| {
        let server = Server::start(move |_, _| answer.clone()).await;
        let failure = get(&client, &server.url()).await.unwrap_err();
        assert_eq!(short(&failure), expected);
    };
    check(vec![Do::Reset], "unavailable http 3: connection reset").await;
    check(vec![Do::Close], "unavailable http 3: connection closed before message completed").await;
    let half = Do::Send(b"HTTP/1.1 200 OK\r\nContent-".to_vec());
    check(vec![half, Do::Close], "unavailable http 3: connection closed before message completed")
        .await;
    let garbage = Do::Send(b"\x00\x01SSH-2.0-whatever\r\n\r\n".to_vec());
    check(vec![garbage, Do::Stall], "corrupt http 1: the answer is not http").await;
    let two = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_vec();
    check(vec![Do::Send(two), Do::Stall], "corrupt http 1: the answer is not http").await;
}

#[tokio::test]
async fn a_broken_connection_of_the_pool_is_not_noticed() {
    let server = Server::start(|_, number| {
        let mut answer = ok(b"found");
        if number == 0 {
            answer.push(Do::Close);
        }
        answer
    })
    .await;
    let client = client();
    for _ in 0..2 {
        assert_eq!(get(&client, &server.url()).await.unwrap(), "found");
    }
}

/// A system without authorities is one where nothing is in the files that these variables name; they are only read by
/// the process that has them, hence the second one.
#[test]
fn a_system_without_authorities() {
    const CHILD: &str = "STOA_TEST_WITHOUT_AUTHORITIES";
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(without_authorities());
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::connecting::a_system_without_authorities", "--nocapture"])
        .env(CHILD, "1")
        .env("SSL_CERT_FILE", "/nonexistent/certificates")
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

async fn without_authorities() {
    let client = client();
    let authority = Authority::new();
    let secure = Server::start_tls(&authority, |_, _| ok(b"found")).await;
    let plain = Server::start(|_, _| ok(b"found")).await;
    assert_eq!(get(&client, &plain.url()).await.unwrap(), "found");
    let failure = get(&client, &secure.url()).await.unwrap_err();
    let expected = "unavailable tls 1: tls: this system has no certificates of authorities";
    assert!(short(&failure).starts_with(expected), "{failure}");
    assert_eq!(secure.connections(), 0);
    // One of the settings is enough.
    let file = authority.file();
    let settings = Settings { ca_files: vec![file.path().to_owned()], ..settings() };
    let client = Client::new(settings).unwrap();
    assert_eq!(get(&client, &secure.url()).await.unwrap(), "found");
}
