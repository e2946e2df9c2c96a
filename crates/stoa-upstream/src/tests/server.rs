//! A server that does exactly what it is told, down to the bytes and the reset.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// What is done to answer one request.
#[derive(Clone, Debug)]
pub(super) enum Do {
    Send(Vec<u8>),
    Pause(Duration),
    /// One byte at a time, for ever.
    Trickle(Duration),
    /// Holds the connection and says nothing more.
    Stall,
    Close,
    Reset,
}

#[derive(Clone, Debug)]
pub(super) struct Asked {
    head: String,
}

impl Asked {
    /// `GET /path HTTP/1.1`.
    pub(super) fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    pub(super) fn target(&self) -> &str {
        self.line().split(' ').nth(1).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

pub(super) struct Server {
    addr: SocketAddr,
    scheme: &'static str,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Answers each request by what `answer` says; the number counts requests from 0.
    pub(super) async fn start(
        answer: impl Fn(&Asked, usize) -> Vec<Do> + Send + Sync + 'static,
    ) -> Self {
        Self::run(None, answer).await
    }

    pub(super) async fn start_tls(
        authority: &Authority,
        answer: impl Fn(&Asked, usize) -> Vec<Do> + Send + Sync + 'static,
    ) -> Self {
        Self::run(Some(authority.acceptor(&[b"http/1.1"])), answer).await
    }

    async fn run(
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&Asked, usize) -> Vec<Do> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let asked = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let answer = Arc::new(answer);
        let task = tokio::spawn({
            let (asked, connections) = (Arc::clone(&asked), Arc::clone(&connections));
            async move {
                let mut running = JoinSet::new();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    connections.fetch_add(1, Ordering::SeqCst);
                    let (tls, answer, asked) =
                        (tls.clone(), Arc::clone(&answer), Arc::clone(&asked));
                    running.spawn(async move {
                        match tls {
                            None => serve(Wire::Plain(stream), &*answer, &asked).await,
                            Some(tls) => {
                                if let Ok(stream) = tls.accept(stream).await {
                                    serve(Wire::Tls(Box::new(stream)), &*answer, &asked).await;
                                }
                            }
                        }
                    });
                }
            }
        });
        Self { addr, scheme, asked, connections, task }
    }

    pub(super) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.addr)
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

impl Wire {
    fn stream(&mut self) -> &mut (dyn Stream + Send) {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &mut **stream,
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

async fn serve(
    mut wire: Wire,
    answer: &(impl Fn(&Asked, usize) -> Vec<Do> + Send + Sync),
    asked: &Mutex<Vec<Asked>>,
) {
    while let Some(request) = read_head(wire.stream()).await {
        let number = {
            let mut asked = asked.lock().unwrap();
            asked.push(request.clone());
            asked.len() - 1
        };
        for step in answer(&request, number) {
            match step {
                Do::Send(bytes) => {
                    if wire.stream().write_all(&bytes).await.is_err()
                        || wire.stream().flush().await.is_err()
                    {
                        return;
                    }
                }
                Do::Pause(pause) => tokio::time::sleep(pause).await,
                Do::Trickle(pause) => loop {
                    if wire.stream().write_all(b".").await.is_err() {
                        return;
                    }
                    tokio::time::sleep(pause).await;
                },
                Do::Stall => std::future::pending().await,
                Do::Close => {
                    let _ = wire.stream().shutdown().await;
                    return;
                }
                Do::Reset => {
                    wire.tcp().set_zero_linger().unwrap();
                    return;
                }
            }
        }
    }
}

async fn read_head(stream: &mut (dyn Stream + Send)) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(Asked { head: String::from_utf8(head).unwrap() })
}

/// An answer with a length and a body.
pub(super) fn reply(status: u16, headers: &str, body: &[u8]) -> Vec<Do> {
    let mut bytes = head(status, &format!("{headers}Content-Length: {}\r\n", body.len()));
    bytes.extend_from_slice(body);
    vec![Do::Send(bytes)]
}

/// Only the head of an answer; each header ends with CR LF.
pub(super) fn head(status: u16, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Whatever\r\n{headers}\r\n").into_bytes()
}

pub(super) fn ok(body: &[u8]) -> Vec<Do> {
    reply(200, "", body)
}

pub(super) fn redirect(to: &str) -> Vec<Do> {
    reply(302, &format!("Location: {to}\r\n"), b"over there")
}

/// A certificate authority for tests, and a server certificate for 127.0.0.1 and `upstream.test`.
pub(super) struct Authority {
    pem: String,
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    pub(super) fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        // Two authorities of one name would be mistaken for each other.
        let name = format!("authority {}", MADE.fetch_add(1, Ordering::SeqCst));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(params, authority_key);
        let names = vec!["127.0.0.1".to_owned(), "upstream.test".to_owned()];
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        Self { pem, certificate, key }
    }

    /// A file for `Settings::ca_files`.
    pub(super) fn file(&self) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), &self.pem).unwrap();
        file
    }

    pub(super) fn acceptor(&self, alpn: &[&[u8]]) -> TlsAcceptor {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}
