use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::FakeUpstream;
use crate::background::Background;

/// An authority for tests, which signs what a [`TlsFront`] or a [`Host`](crate::Host) shows.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a [`TlsFront`] or a [`Host`](crate::Host) shows to its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// For the host's name: `localhost` and 127.0.0.1 of a [`TlsFront`].
    Good,
    /// By nobody's word but its own.
    SelfSigned,
    Expired,
    /// From the year 4000 on.
    NotYetValid,
    /// With so many others behind it that the chain is over a megabyte.
    LongChain,
    /// For a name that is not the host's.
    OtherName,
    /// By an authority that nobody knows.
    OtherAuthority,
}

impl Authority {
    #[expect(clippy::new_without_default, reason = "each is another authority")]
    pub fn new() -> Authority {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        // Two authorities of one name would be mistaken for each other.
        Authority::named(&format!("authority {}", MADE.fetch_add(1, Ordering::Relaxed)))
    }

    /// One that calls itself that.
    pub fn named(name: &str) -> Authority {
        let mut params = params(&[]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = key();
        let pem = params.self_signed(&key).expect("a certificate can be signed").pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// Its own certificate, for a file of trusted authorities.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// What speaks TLS for these names, or pretends to.
    pub(crate) fn acceptor(&self, kind: Certificate, names: &[&str]) -> TlsAcceptor {
        if kind == Certificate::OtherAuthority {
            return Authority::new().acceptor(Certificate::Good, names);
        }
        let mut params = params(match kind {
            Certificate::OtherName => &["elsewhere.example"],
            _ => names,
        });
        if kind == Certificate::Expired {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }
        if kind == Certificate::NotYetValid {
            params.not_before = date_time_ymd(4000, 1, 1);
            params.not_after = date_time_ymd(4001, 1, 1);
        }
        let key = key();
        let certificate = match kind {
            Certificate::SelfSigned => params.self_signed(&key),
            _ => params.signed_by(&key, &self.issuer),
        };
        let certificate = certificate.expect("a certificate can be signed");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        if kind == Certificate::LongChain {
            let copies = (1 << 20) / certificate.der().len() + 1;
            chain.resize(1 + copies, certificate.der().clone());
        }
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("the key is the certificate's");
        // The upstream behind it speaks nothing else.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    CertificateParams::new(names).expect("the names are plain")
}

fn key() -> KeyPair {
    KeyPair::generate().expect("the system has randomness")
}

/// TLS before a [`FakeUpstream`]: what arrives here is decrypted and passed on to it, and what it says comes back.
#[derive(Debug)]
pub struct TlsFront {
    served: Background,
}

impl TlsFront {
    #[track_caller]
    pub fn start(upstream: &FakeUpstream, authority: &Authority, kind: Certificate) -> TlsFront {
        let (acceptor, behind) =
            (authority.acceptor(kind, &["localhost", "127.0.0.1"]), upstream.address());
        TlsFront { served: Background::serve(move |listener| accept(listener, acceptor, behind)) }
    }

    pub fn address(&self) -> SocketAddr {
        self.served.address()
    }

    /// The text for GOPROXY.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address().port())
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, behind: SocketAddr) {
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // A client that does not trust us leaves in the middle of the handshake.
            let Ok(mut outside) = acceptor.accept(stream).await else { return };
            let Ok(mut inside) = TcpStream::connect(behind).await else { return };
            // However it ends, both sides see that it has.
            _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
        });
    }
}
