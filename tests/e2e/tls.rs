//! The server over TLS: both versions of HTTP, the certificate's renewal, and clients that hold a connection for nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use reqwest::Version;
use rustix::process::Signal;
use rustls::pki_types::ServerName;
use stoa_testkit::{FakeUpstream, Fault, Gate, Modules, require_go};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::fixtures::{BASE, World, modules, noise};
use crate::listen::logged;
use crate::stoa::{Setup, Stoa};

const ZIP: &str = "ex.com/lib/@v/v1.0.0.zip";
/// How an HTTP/2 client begins: with settings that change nothing.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
const BIG: &str = "ex.com/big/@v/v1.0.0.zip";

/// An authority, and what it has signed for 127.0.0.1.
pub struct Signed {
    authority: rcgen::Certificate,
    certificate: String,
    key: String,
}

impl Signed {
    fn new(name: &str) -> Self {
        Self::until(name, 2100)
    }

    fn until(name: &str, year: i32) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(params, authority_key);
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().pem();
        Self { authority, certificate, key: key.serialize_pem() }
    }

    /// Puts both files there, each in one step.
    fn put(&self, dir: &Path) -> (PathBuf, PathBuf) {
        fs_err::create_dir_all(dir).unwrap();
        let put = |name: &str, pem: &str| {
            let (path, new) = (dir.join(name), dir.join("new"));
            fs_err::write(&new, pem).unwrap();
            fs_err::rename(&new, &path).unwrap();
            path
        };
        (put("tls.crt", &self.certificate), put("tls.key", &self.key))
    }

    /// Trusts this authority alone; a new one has no connection yet.
    pub fn client(&self) -> reqwest::ClientBuilder {
        let authority = reqwest::Certificate::from_der(self.authority.der()).unwrap();
        reqwest::Client::builder().no_proxy().tls_certs_only([authority])
    }

    async fn is_in_use(&self, stoa: &Stoa) -> bool {
        let client = self.client().build().unwrap();
        client.get(format!("{}/healthz", stoa.url)).send().await.is_ok()
    }

    /// Waits for the server to use it.
    async fn comes_into_use(&self, stoa: &Stoa) {
        let used = async {
            while !self.is_in_use(stoa).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), used).await.expect("it is in use");
    }

    pub async fn connect(&self, stoa: &Stoa, alpn: &[u8]) -> TlsStream<TcpStream> {
        self.handshake(TcpStream::connect(stoa.address()).await.unwrap(), alpn).await
    }

    pub async fn handshake(&self, stream: TcpStream, alpn: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.expect("a handshake")
    }
}

fn with_tls(setup: Setup, (certificate, key): &(PathBuf, PathBuf)) -> Setup {
    setup
        .env("STOA_SERVER_TLS_CERT", certificate.display())
        .env("STOA_SERVER_TLS_KEY", key.display())
}

/// A certificate, and settings that use it.
pub fn secured(setup: Setup) -> (Signed, Setup) {
    let signed = Signed::new("first authority");
    let files = signed.put(&setup.scratch().join("tls"));
    let setup = with_tls(setup, &files);
    (signed, setup)
}

#[tokio::test]
async fn both_versions_of_http_and_the_real_go() {
    let world = World::new();
    let (signed, setup) = secured(world.setup());
    let stoa = setup.start();
    assert!(stoa.url.starts_with("https://127.0.0.1:"), "{}", stoa.url);
    for (client, version) in
        [(signed.client(), Version::HTTP_2), (signed.client().http1_only(), Version::HTTP_11)]
    {
        let client = client.build().unwrap();
        let reply = client.get(format!("{}/{ZIP}", stoa.url)).send().await.unwrap();
        assert_eq!((reply.status().as_u16(), reply.version()), (200, version));
        assert!(reply.bytes().await.unwrap() == modules().zip("ex.com/lib@v1.0.0"));
        let part = client.get(format!("{}/{ZIP}", stoa.url)).header("range", "bytes=5-9").send();
        assert!(
            part.await.unwrap().bytes().await.unwrap() == modules().zip("ex.com/lib@v1.0.0")[5..10]
        );
        let head = client.head(format!("{}/{ZIP}", stoa.url)).send().await.unwrap();
        assert_eq!(
            head.headers()["content-length"],
            modules().zip("ex.com/lib@v1.0.0").len().to_string()
        );
        let home = client.get(&stoa.url).send().await.unwrap().text().await.unwrap();
        assert!(home.contains(&format!("GOPROXY={}<", stoa.url)), "{home}");
        let long = "x".repeat(9_000);
        let refused = client.get(format!("{}/{long}", stoa.url)).send().await.unwrap();
        assert_eq!(refused.status(), 414);
        let posted = client.post(format!("{}/{ZIP}", stoa.url)).body("a small body").send();
        assert_eq!(posted.await.unwrap().status(), 405);
    }
    // Without TLS, somebody is told what to do; with too much over HTTP/2, that it is too much.
    let cleartext = crate::fixtures::client().get(format!("http://{}/{ZIP}", stoa.address()));
    let words = format!("speaks TLS, and was asked without\nhint: set GOPROXY={}\n", stoa.url);
    stoa.send(cleartext).await.refused(400, &words);
    let client = signed.client().build().unwrap();
    let much =
        |kib: usize| client.get(format!("{}/{ZIP}", stoa.url)).header("x", "y".repeat(kib << 10));
    assert_eq!(much(12).send().await.unwrap().status(), 200);
    assert_eq!(much(40).send().await.unwrap().status(), 431);
    assert_eq!(much(1).send().await.unwrap().status(), 200);
    drop(client);
    logged(&stoa, &["answered", "client=127.0.0.1"]).await;
    assert_eq!(setup.run(&["healthcheck"]).status.code(), Some(0));
    fs_err::remove_file(setup.data_dir().join("stoa.sock")).unwrap();
    let unasked = setup.run(&["healthcheck"]);
    let text = String::from_utf8_lossy(&unasked.stderr).into_owned();
    assert_eq!(unasked.status.code(), Some(1));
    assert!(text.contains("set server.admin-listen"), "{text}");

    if require_go() {
        let authorities = setup.scratch().join("authority.pem");
        fs_err::write(&authorities, signed.authority.pem()).unwrap();
        let go = crate::go::go(&world, &stoa.url);
        let go = go.env("SSL_CERT_FILE", authorities.to_str().unwrap());
        go.ok(["mod", "download", "all"]).await;
        assert_eq!(go.ok(["run", "."]).await, "lib v1.1.0 and Case and old\n");
    }
    assert_eq!(stoa.stop().0.code(), Some(0));
}

#[tokio::test]
async fn a_renewed_certificate_is_used_and_what_is_open_is_not_disturbed() {
    let world = World::new();
    let gate = Gate::new();
    world.upstream.fault("*.zip", Fault::gate_after(&gate, 50));
    let (first, setup) = secured(world.setup().env("STOA_UPSTREAM_STALL_TIMEOUT", "30s"));
    let dir = setup.scratch().join("tls");
    let stoa = setup.start();
    let client = first.client().build().unwrap();
    let waiting = tokio::spawn(client.get(format!("{}/{ZIP}", stoa.url)).send());
    gate.wait_for_held(1).await;

    // Noticed by itself.
    let second = Signed::new("second authority");
    second.put(&dir);
    second.comes_into_use(&stoa).await;
    assert!(!first.is_in_use(&stoa).await);
    // At once when it is told; what cannot be used is told once, and changes nothing.
    let third = Signed::new("third authority");
    fs_err::write(dir.join("tls.key"), &third.key).unwrap();
    stoa.signal(Signal::HUP);
    logged(&stoa, &["the new certificate cannot be used", "is not the key of the certificate"])
        .await;
    assert!(second.is_in_use(&stoa).await);
    third.put(&dir);
    stoa.signal(Signal::HUP);
    third.comes_into_use(&stoa).await;
    fs_err::remove_file(dir.join("tls.crt")).unwrap();
    stoa.signal(Signal::HUP);
    logged(&stoa, &["the new certificate cannot be used", "No such file"]).await;
    assert!(third.is_in_use(&stoa).await);

    // The connection of the first certificate goes on.
    gate.open();
    let reply = waiting.await.unwrap().expect("an answer");
    assert!(reply.bytes().await.unwrap() == modules().zip("ex.com/lib@v1.0.0"));
    let again =
        client.get(format!("{}/{ZIP}", stoa.url)).send().await.expect("the same connection");
    assert_eq!(again.status(), 200);
    let log = stoa.log();
    assert!(log.matches("cannot be used").count() <= 3, "{log}");
}

/// As Kubernetes mounts a secret: the files are links through `..data`, which is replaced in one step.
#[tokio::test]
async fn a_certificate_behind_links_is_renewed() {
    use std::os::unix::fs::symlink;

    let setup = Setup::new();
    let dir = setup.scratch().join("mounted");
    let (old, new) = (Signed::new("old authority"), Signed::new("new authority"));
    old.put(&dir.join("..1"));
    symlink("..1", dir.join("..data")).unwrap();
    symlink("..data/tls.crt", dir.join("tls.crt")).unwrap();
    symlink("..data/tls.key", dir.join("tls.key")).unwrap();
    let stoa = with_tls(setup, &(dir.join("tls.crt"), dir.join("tls.key"))).start();
    assert!(old.is_in_use(&stoa).await);
    new.put(&dir.join("..2"));
    symlink("..2", dir.join("..new")).unwrap();
    fs_err::rename(dir.join("..new"), dir.join("..data")).unwrap();
    fs_err::remove_dir_all(dir.join("..1")).unwrap();
    new.comes_into_use(&stoa).await;
    assert!(!stoa.log().contains("cannot be used"));
}

#[test]
fn what_is_wrong_with_a_certificate_is_a_wrong_setting() {
    let setup = Setup::new();
    let dir = setup.scratch().join("tls");
    let signed = Signed::new("authority");
    let (certificate, key) = signed.put(&dir);
    let file = |name: &str, text: &str| {
        fs_err::write(dir.join(name), text).unwrap();
        dir.join(name)
    };
    let junk = file("junk.pem", "no PEM at all");
    let torn = file("torn.pem", &signed.certificate.replace("\nMII", "\n???"));
    let other = file("other.key", &Signed::new("other").key);
    let hollow = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let hollow = file("hollow.pem", hollow);
    let large = file("large.pem", &"x".repeat(2 << 20));
    let check = |certificate: &Path, key: &Path, words: &str| {
        let setup = with_tls(setup.clone(), &(certificate.to_owned(), key.to_owned()));
        for subcommand in [&["serve"][..], &["config", "check"]] {
            let output = setup.run(subcommand);
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{text}");
            assert!(text.contains(words) && text.contains("STOA_SERVER_TLS_"), "{words}: {text}");
        }
    };
    check(&certificate, Path::new(""), "server.tls-cert: needs server.tls-key too");
    check(Path::new(""), &key, "server.tls-key: needs server.tls-cert too");
    check(&certificate, &other, "other.key` is not the key of the certificate");
    check(&junk, &key, "junk.pem` holds no certificate");
    check(&torn, &key, "torn.pem` is not PEM");
    check(&hollow, &key, "hollow.pem` holds no usable certificate");
    check(&certificate, &junk, "junk.pem` holds no private key");
    check(&certificate, &large, "large.pem` is larger than");
    check(&dir.join("gone.pem"), &key, "gone.pem");
    check(&dir, &key, "is a directory");
    // One that has ended works as far as its clients let it.
    let files = Signed::until("old authority", 2020).put(&dir.join("old"));
    let stoa = with_tls(setup, &files).start();
    assert!(stoa.log().contains("the certificate has ended"), "{}", stoa.log());
}

/// Reads until the server closes; how long that took.
async fn closed(mut stream: impl tokio::io::AsyncRead + Unpin) -> Duration {
    let started = Instant::now();
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
    let _ = read.expect("the connection is closed");
    started.elapsed()
}

#[tokio::test]
async fn a_client_that_asks_for_nothing_is_sent_away() {
    let setup = Setup::new().env("STOA_SERVER_HEADER_TIMEOUT", "300ms");
    let (signed, setup) = secured(setup.env("STOA_SERVER_WRITE_TIMEOUT", "300ms"));
    let stoa = setup.start();
    let started = Instant::now();
    let cleartext = async |bytes: &'static [u8]| {
        let mut stream = TcpStream::connect(stoa.address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        closed(stream).await;
    };
    let secured = async |alpn: &'static [u8], bytes: &'static [u8]| {
        let mut stream = signed.connect(&stoa, alpn).await;
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        closed(stream).await;
    };
    tokio::join!(
        cleartext(b""),
        // The beginning of a ClientHello, and what is none.
        cleartext(b"\x16\x03\x01\x02\x00\x01\x00"),
        cleartext(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"),
        secured(b"http/1.1", b""),
        secured(b"http/1.1", b"GET /healthz HTTP/1.1\r\nhost:"),
        secured(b"http/1.1", b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"),
        secured(b"h2", b""),
        secured(b"h2", b"PRI * HTTP/2.0\r\n"),
        secured(b"h2", PREFACE),
        // The beginning of a request's head, whose end never comes.
        secured(b"h2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01\x01\x01\x00\x00\x00\x01\x82"),
    );
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let client = signed.client().build().unwrap();
    assert_eq!(client.get(format!("{}/healthz", stoa.url)).send().await.unwrap().status(), 200);
}

/// An HTTP/2 client that takes no more of an answer than it says; it answers pings.
pub async fn http2(
    signed: &Signed,
    stoa: &Stoa,
    window: u32,
) -> (h2::client::SendRequest<bytes::Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let stream = signed.connect(stoa, b"h2").await;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(1 << 20);
    let (send, connection) = builder.handshake(stream).await.unwrap();
    (send, tokio::spawn(connection))
}

pub async fn ask_over_http2(
    send: &mut h2::client::SendRequest<bytes::Bytes>,
    stoa: &Stoa,
    path: &str,
) -> Result<http::Response<h2::RecvStream>, h2::Error> {
    let request = http::Request::get(format!("{}/{path}", stoa.url)).body(()).unwrap();
    let mut ready = send.clone().ready().await?;
    ready.send_request(request, true)?.0.await
}

fn big() -> FakeUpstream {
    FakeUpstream::start(
        Modules::default().with("ex.com/big@v1.0.0", [("noise.bin", noise(3 << 20))]),
    )
}

#[tokio::test]
async fn answers_that_nobody_takes_are_given_up_and_others_are_finished() {
    let upstream = big();
    let setup = Setup::new().goproxy(upstream.url()).env("STOA_SERVER_WRITE_TIMEOUT", "400ms");
    let (signed, setup) = secured(setup);
    let stoa = setup.env("STOA_SERVER_MAX_CONNECTIONS", 3).start();
    let client = signed.client().build().unwrap();
    let get = |path: &str| client.get(format!("{}/{path}", stoa.url));
    let whole = get(BIG).send().await.unwrap().bytes().await.unwrap().len();

    // Three answers of one connection: two of which nothing is taken, one that is read slowly.
    let (mut send, connection) = http2(&signed, &stoa, 40_000).await;
    let (first, second) = (
        ask_over_http2(&mut send, &stoa, BIG).await.unwrap(),
        ask_over_http2(&mut send, &stoa, BIG).await.unwrap(),
    );
    let mut slow = ask_over_http2(&mut send, &stoa, BIG).await.unwrap().into_body();
    let (mut read, mut rests) = (0, 0);
    while let Some(data) = slow.data().await {
        let data = data.expect("it is not cut off");
        read += data.len();
        slow.flow_control().release_capacity(data.len()).unwrap();
        // Longer than the timeout in all.
        if read / 300_000 > rests {
            rests += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert_eq!(read, whole);
    // No more requests are taken on this connection, and it ends although the client has answered every ping.
    let ended = tokio::time::timeout(Duration::from_secs(5), connection).await;
    let _ = ended.expect("the connection is closed").unwrap();
    assert!(ask_over_http2(&mut send, &stoa, "healthz").await.is_err());
    drop((first, second));
    // What they held is free again: three at once would not have been answered else.
    assert_eq!(get(BIG).send().await.unwrap().bytes().await.unwrap().len(), whole);
    let log = stoa.log();
    assert_eq!(log.matches("the client left, or the answer broke off").count(), 2, "{log}");
}

#[tokio::test]
async fn over_http1_too_a_client_that_stops_reading_is_given_up() {
    let upstream = big();
    let setup = Setup::new().goproxy(upstream.url()).env("STOA_SERVER_WRITE_TIMEOUT", "300ms");
    let (signed, setup) = secured(setup);
    let stoa = setup.start();
    let mut stream = signed.connect(&stoa, b"http/1.1").await;
    let request = format!("GET /{BIG} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    logged(&stoa, &["the client left, or the answer broke off", "module.path=\"ex.com/big\""])
        .await;
}

#[tokio::test]
async fn over_http2_what_is_being_sent_is_finished_after_sigterm() {
    let world = World::new();
    let gate = Gate::new();
    world.upstream.fault("*.zip", Fault::gate_after(&gate, 50));
    let (signed, setup) = secured(world.setup().env("STOA_UPSTREAM_STALL_TIMEOUT", "30s"));
    let mut stoa = setup.start();
    let (mut send, connection) = http2(&signed, &stoa, 1 << 20).await;
    // Neither a client within its handshake holds the stop up, nor one that has no answer and says no word.
    let mut idle = signed.connect(&stoa, b"h2").await;
    idle.write_all(PREFACE).await.unwrap();
    idle.flush().await.unwrap();
    let silent = TcpStream::connect(stoa.address()).await.unwrap();
    assert_eq!(
        ask_over_http2(&mut send, &stoa, &format!("{BASE}.mod")).await.unwrap().status(),
        200
    );
    let asked = http::Request::get(format!("{}/{ZIP}", stoa.url)).body(()).unwrap();
    let (waiting, _) = send.clone().ready().await.unwrap().send_request(asked, true).unwrap();
    gate.wait_for_held(1).await;
    stoa.terminate();
    logged(&stoa, &["SIGTERM"]).await;
    gate.open();
    let mut body = waiting.await.expect("an answer").into_body();
    let mut read = Vec::new();
    while let Some(data) = body.data().await {
        read.extend(data.expect("the rest of it"));
    }
    assert!(read == modules().zip("ex.com/lib@v1.0.0"));
    assert_eq!(stoa.wait().code(), Some(0));
    drop((silent, idle, connection));
}
