//! TLS: the certificate and key of the settings, read again when their files change.

mod validity;

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, ServerConfig};
use tracing::{info, warn};

/// Largest certificate or key file, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// What HTTP/2 is called in the handshake.
pub(super) const H2: &[u8] = b"h2";

/// A certificate with those between it and its authority, and its key.
struct Pair {
    key: CertifiedKey,
    /// Of the server's own certificate.
    not_after: Option<Timestamp>,
}

impl Pair {
    fn read(files: &Files) -> Result<Self, String> {
        let Files { cert, key } = files;
        let wrong = |path: &Path, why: &str| format!("`{}` {why}", path.display());
        let (cert_pem, key_pem) = (read(cert)?, read(key)?);
        let chain = CertificateDer::pem_slice_iter(&cert_pem).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| wrong(cert, &format!("is not PEM: {error}")))?;
        let Some(own) = chain.first() else { return Err(wrong(cert, "holds no certificate")) };
        let not_after = validity::not_after(own);
        let private = PrivateKeyDer::from_pem_slice(&key_pem);
        let private = private.map_err(|_| wrong(key, "holds no private key without a password"))?;
        let pair = CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider());
        let key = pair.map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                wrong(key, &format!("is not the key of the certificate in `{}`", cert.display()))
            }
            Error::InvalidCertificate(why) => {
                wrong(cert, &format!("holds no usable certificate: {why:?}"))
            }
            error => wrong(key, &format!("holds no usable key: {error}")),
        })?;
        Ok(Self { key, not_after })
    }
}

fn is_past(not_after: Option<Timestamp>) -> bool {
    not_after.is_some_and(|end| end < Timestamp::now())
}

/// Bounded, because a setting may name any file.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = fs_err::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("`{}` is larger than {MAX_FILE} bytes", path.display()));
    }
    Ok(bytes)
}

/// Says what is wrong with a certificate and a key, if anything is.
///
/// # Errors
/// One line with the path of the file that is wrong.
pub fn check(cert: &Path, key: &Path) -> Result<(), String> {
    Pair::read(&Files { cert: cert.to_owned(), key: key.to_owned() }).map(drop)
}

#[derive(Clone, Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
}

/// What tells a file from the one that was there before, behind all symbolic links.
type Stamp = Option<[i128; 5]>;

impl Files {
    fn stamps(&self) -> [Stamp; 2] {
        [&self.cert, &self.key].map(|path| {
            let file = fs_err::metadata(path).ok()?;
            // The time of change follows every write, renaming and chmod, and nobody can set it.
            let changed = [file.ctime(), file.ctime_nsec()].map(i128::from);
            let file = [file.dev(), file.ino(), file.len()].map(i128::from);
            Some([file[0], file[1], file[2], changed[0], changed[1]])
        })
    }
}

/// The certificate in use.
struct Current(RwLock<Arc<CertifiedKey>>);

impl Current {
    fn replace(&self, key: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The server's side of TLS.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    current: Arc<Current>,
    config: Arc<ServerConfig>,
    /// Of what is in use, or was last tried.
    stamps: [Stamp; 2],
    not_after: Option<Timestamp>,
}

impl Tls {
    /// # Errors
    /// One line with the path of the file that is wrong.
    pub fn open(cert: &Path, key: &Path) -> Result<Self, String> {
        let files = Files { cert: cert.to_owned(), key: key.to_owned() };
        // Before they are read: a change in between is then noticed.
        let stamps = files.stamps();
        let pair = Pair::read(&files)?;
        told(&pair, "the certificate is read");
        let not_after = pair.not_after;
        let current = Arc::new(Current(RwLock::new(Arc::new(pair.key))));
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?.with_no_client_auth();
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&current) as _;
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
        Ok(Self { files, current, config: Arc::new(config), stamps, not_after })
    }

    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Reads the files again whenever they change, and when `asked` says so; for ever. What cannot be used is told once,
    /// and what was in use stays. Connections that are open keep what they began with.
    pub async fn keep_current(mut self, mut asked: tokio::sync::watch::Receiver<()>) {
        let mut ended = is_past(self.not_after);
        loop {
            let must = tokio::select! {
                () = tokio::time::sleep(LOOK) => false,
                Ok(()) = asked.changed() => true,
            };
            let (files, known) = (self.files.clone(), self.stamps);
            let read = tokio::task::spawn_blocking(move || {
                let stamps = files.stamps();
                (must || stamps != known).then(|| (stamps, Pair::read(&files)))
            });
            match read.await {
                Ok(Some((stamps, Ok(pair)))) => {
                    told(&pair, "the certificate is read again");
                    (self.stamps, self.not_after) = (stamps, pair.not_after);
                    ended = is_past(pair.not_after);
                    self.current.replace(pair.key);
                }
                Ok(Some((stamps, Err(error)))) => {
                    self.stamps = stamps;
                    warn!(%error, "the new certificate cannot be used: the one before stays in use");
                }
                Ok(None) => {}
                Err(error) => warn!(%error, "the certificate's files cannot be looked at"),
            }
            if !ended && is_past(self.not_after) {
                ended = true;
                warn!("the certificate has ended: clients refuse it");
            }
        }
    }
}

fn told(pair: &Pair, what: &str) {
    let not_after = pair.not_after.map(tracing::field::display);
    info!(not_after, "{what}");
    if is_past(pair.not_after) {
        warn!(not_after, "the certificate has ended: clients refuse it");
    }
}
