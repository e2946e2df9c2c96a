//! A handshake that looks at the certificates, whatever they are.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, ProtocolVersion, RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::fault::{io_trouble, of_io, of_tls, tls_trouble};
use crate::client::tls::authorities;
use crate::error::Error;
use crate::examine::certificate::{self, Certificate};
use crate::examine::{Trouble, banner};
use crate::failure::span;

/// Of what comes first, to tell what it is.
const HEARD: usize = 128;
/// Certificates of a chain that are shown.
const SHOWN: usize = 4;
/// Whose certificates never come from an authority of one's own, and names below them.
const WELL_KNOWN: &[&str] = &[
    "golang.org",
    "go.dev",
    "goproxy.io",
    "goproxy.cn",
    "github.com",
    "gitlab.com",
    "bitbucket.org",
    "gopkg.in",
];

/// What a connection is to whoever speaks over it.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Whom this system and the settings trust, as they are now.
#[derive(Debug)]
pub(super) struct Trust {
    provider: Arc<CryptoProvider>,
    /// Nobody is trusted without one.
    all: Option<Arc<WebPkiServerVerifier>>,
    /// Without `upstream.ca-files`.
    system: Option<Arc<WebPkiServerVerifier>>,
}

impl Trust {
    /// Reads the system's authorities and the files, and blocks while it does.
    pub(super) fn read(ca_files: &[PathBuf]) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = |roots: RootCertStore| {
            WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
                .build()
                .ok()
        };
        let mut roots = RootCertStore::empty();
        // One that cannot be used is passed over by everybody.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let system = verifier(roots.clone());
        roots.add_parsable_certificates(authorities(ca_files)?);
        let all = verifier(roots);
        Ok(Self { provider, all, system })
    }
}

/// What the host has shown.
#[derive(Debug)]
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    verdict: Result<(), rustls::Error>,
    is_trusted_by_system: bool,
}

/// Takes every certificate, and takes down what a request would have thought of it.
#[derive(Debug)]
struct Recorder {
    trust: Arc<Trust>,
    shown: Mutex<Option<Shown>>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ask = |verifier: &Option<Arc<WebPkiServerVerifier>>| match verifier {
            Some(verifier) => {
                verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now).map(|_| ())
            }
            None => Err(rustls::Error::General("there are no authorities".to_owned())),
        };
        let chain = [end_entity].into_iter().chain(intermediates);
        let shown = Shown {
            chain: chain.map(|der| der.clone().into_owned()).collect(),
            verdict: ask(&self.trust.all),
            is_trusted_by_system: ask(&self.trust.system).is_ok(),
        };
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        der: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.trust.provider.signature_verification_algorithms;
        verify_tls12_signature(message, der, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        der: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.trust.provider.signature_verification_algorithms;
        verify_tls13_signature(message, der, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What came of a handshake.
pub(super) struct Shaken<S> {
    pub(super) seen: String,
    pub(super) trouble: Option<Trouble>,
    /// Who signed the last certificate.
    pub(super) issuer: Option<String>,
    /// Whether the certificate is accepted; nothing if there was none.
    pub(super) trusted: Option<bool>,
    /// Also where the certificate is not accepted.
    pub(super) stream: Option<TlsStream<Heard<S>>>,
    /// Not one byte came.
    pub(super) is_mute: bool,
}

/// Shakes hands over a connection. `host` is a name or an address without brackets. A chain of over 64 KiB is more than
/// rustls takes in.
pub(super) async fn handshake<S: Wire>(
    stream: S,
    host: &str,
    trust: &Arc<Trust>,
    bound: Duration,
) -> Shaken<S> {
    let nothing = |seen: String, trouble| Shaken {
        seen,
        trouble: Some(trouble),
        issuer: None,
        trusted: None,
        stream: None,
        is_mute: false,
    };
    let Ok(name) = ServerName::try_from(host.to_owned()) else {
        return nothing(format!("no certificate can be for {host}"), Trouble::WrongName);
    };
    let recorder = Arc::new(Recorder { trust: Arc::clone(trust), shown: Mutex::default() });
    let config = ClientConfig::builder_with_provider(Arc::clone(&trust.provider))
        .with_safe_default_protocol_versions();
    let mut config = match config {
        Ok(config) => config
            .dangerous()
            .with_custom_certificate_verifier(recorder.clone())
            .with_no_client_auth(),
        Err(error) => return nothing(error.to_string(), Trouble::TlsFailed),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let heard = Arc::new(Mutex::new(Vec::new()));
    let stream = Heard { stream, heard: Arc::clone(&heard) };
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let outcome = tokio::time::timeout(bound, connecting).await;

    let heard = std::mem::take(&mut *heard.lock().unwrap_or_else(PoisonError::into_inner));
    let shown = recorder.shown.lock().unwrap_or_else(PoisonError::into_inner).take();
    let failed =
        |words: String, trouble| Shaken { is_mute: heard.is_empty(), ..nothing(words, trouble) };
    // Alerts and handshakes; whatever else a port says first is no TLS.
    if heard.first().is_some_and(|first| !matches!(first, 0x15 | 0x16)) {
        return failed(not_tls(&heard), Trouble::NotTls);
    }
    let (stream, failure) = match outcome {
        Ok(Ok(stream)) => (Some(stream), None),
        Ok(Err(error)) => (None, Some(broken(&error))),
        Err(_) => {
            let words = if heard.is_empty() {
                "no answer to the handshake"
            } else {
                "no end of the handshake"
            };
            let words = format!("{words} in {}", span(bound));
            (None, Some((words, Trouble::TlsFailed)))
        }
    };
    let Some(shown) = shown else {
        let (words, trouble) =
            failure.unwrap_or_else(|| ("no certificate came".to_owned(), Trouble::TlsFailed));
        return failed(words, trouble);
    };
    let version = stream.as_ref().and_then(|stream| stream.get_ref().1.protocol_version());
    let version = match version {
        Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS",
    };
    let chain: Vec<Certificate> =
        shown.chain.iter().map_while(|der| certificate::read(der)).collect();
    let judged = judge(host, &chain, &shown, trust.all.is_none());
    let (words, trouble) = match (judged, failure) {
        ((words, None), Some((failure, trouble))) => (Some(join(words, failure)), Some(trouble)),
        (judged, _) => judged,
    };
    let certificates = describe(&chain);
    let seen = match words {
        Some(words) => format!("{words}; {version}, {certificates}"),
        None => format!("{version}, {certificates}"),
    };
    Shaken {
        seen,
        trouble,
        issuer: chain.last().map(|last| last.issuer.clone()),
        trusted: Some(shown.verdict.is_ok()),
        stream,
        is_mute: false,
    }
}

fn join(words: Option<String>, more: String) -> String {
    match words {
        Some(words) => format!("{words}; {more}"),
        None => more,
    }
}

/// What a certificate proves, in words, and whether that is a fault.
fn judge(
    host: &str,
    chain: &[Certificate],
    shown: &Shown,
    trusts_nobody: bool,
) -> (Option<String>, Option<Trouble>) {
    let middlebox = chain.iter().find_map(|certificate| certificate.middlebox);
    let is_between = middlebox.is_some() || is_well_known(host);
    let by = middlebox.map(|product| format!(" by {product}")).unwrap_or_default();
    let error = match &shown.verdict {
        Ok(()) if !shown.is_trusted_by_system && is_between => {
            return (Some(format!("intercepted{by}, and trusted by upstream.ca-files")), None);
        }
        Ok(()) if middlebox.is_some() => {
            return (Some(format!("intercepted{by}, and trusted by this system")), None);
        }
        Ok(()) => return (None, None),
        Err(error) => error,
    };
    if trusts_nobody {
        let words = "this system has no certificates of authorities (install ca-certificates)";
        return (Some(words.to_owned()), Some(Trouble::NoAuthorities));
    }
    let is_self_signed =
        chain.len() == 1 && chain.iter().all(|certificate| certificate.is_own_issuer);
    let trouble = match tls_trouble(error) {
        // One that has signed itself is often marked as an authority, which is not what is wrong with it.
        Trouble::TlsFailed if is_self_signed => Trouble::UnknownAuthority,
        trouble => trouble,
    };
    if trouble != Trouble::UnknownAuthority {
        return (Some(of_tls(error)), Some(trouble));
    }
    let authority = chain.last().map_or("(unreadable)", |last| &last.issuer);
    if is_between {
        let words =
            format!("intercepted{by}: for {host} signed by {authority}, which is unknown here");
        return (Some(words), Some(Trouble::TlsIntercepted));
    }
    let words = if is_self_signed {
        format!("the certificate has signed itself ({authority})")
    } else {
        format!("the authority {authority} is unknown here")
    };
    (Some(words), Some(trouble))
}

fn is_well_known(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    WELL_KNOWN.iter().any(|known| {
        host.strip_suffix(known).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// `proxy.golang.org ← WR2 ← GTS Root R1, valid 2026-10-01 to 2026-12-24 (33 days left)`.
fn describe(chain: &[Certificate]) -> String {
    let Some(leaf) = chain.first() else { return "a certificate that cannot be read".to_owned() };
    let mut text = leaf.subject.clone();
    for certificate in chain.iter().take(SHOWN) {
        text += " ← ";
        text += &certificate.issuer;
    }
    if let (Some(from), Some(until)) = (leaf.not_before, leaf.not_after) {
        let days = until.duration_since(Timestamp::now()).as_hours() / 24;
        let day = |time: Timestamp| time.strftime("%Y-%m-%d").to_string();
        let left = if days < 0 {
            format!("ended {} days ago", -days)
        } else {
            format!("{days} days left")
        };
        _ = write!(text, ", valid {} to {} ({left})", day(from), day(until));
    }
    text
}

fn broken(error: &io::Error) -> (String, Trouble) {
    if let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        return (of_tls(error), tls_trouble(error));
    }
    let trouble = io_trouble(error.kind()).unwrap_or(Trouble::TlsFailed);
    let words = match trouble {
        Trouble::Reset => format!("the connection was closed in the handshake ({})", of_io(error)),
        _ => of_io(error),
    };
    (words, trouble)
}

fn not_tls(heard: &[u8]) -> String {
    if heard.starts_with(b"HTTP/") {
        return format!("it speaks http without TLS: {}", banner(heard));
    }
    format!("it does not speak TLS: {}", banner(heard))
}

/// A connection of which the first bytes are kept.
pub(super) struct Heard<S> {
    stream: S,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl<S: Wire> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let room = HEARD.saturating_sub(heard.len());
        heard.extend(buffer.filled().iter().skip(before).take(room));
        Poll::Ready(Ok(()))
    }
}

impl<S: Wire> AsyncWrite for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_hosts() {
        let check = |host: &str, expected| assert_eq!(is_well_known(host), expected, "{host}");
        check("proxy.golang.org", true);
        check("GitHub.com", true);
        check("codeload.github.com", true);
        check("go.dev", true);
        check("mygithub.com", false);
        check("github.com.corp.example", false);
        check("goproxy.corp.example", false);
    }
}
