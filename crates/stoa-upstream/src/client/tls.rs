//! Whom to trust: the system's authorities, and those of the settings besides.

use std::path::PathBuf;

use reqwest::{Certificate, ClientBuilder};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::error::Error;

/// The certificates in the PEM files; each must be usable, so that a mistake is told with its file at the start.
pub(crate) fn authorities(files: &[PathBuf]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let mut certificates = Vec::new();
    for path in files {
        let invalid = |reason: String| Error::InvalidAuthorities { path: path.clone(), reason };
        let pem = fs_err::read(path).map_err(Error::ReadAuthorities)?;
        let before = certificates.len();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
            let usable = RootCertStore::empty().add(certificate.clone());
            usable.map_err(|error| invalid(error.to_string()))?;
            certificates.push(certificate);
        }
        if certificates.len() == before {
            return Err(invalid("it holds no certificate".to_owned()));
        }
    }
    Ok(certificates)
}

/// [`authorities`] as reqwest takes them.
pub(crate) fn read(files: &[PathBuf]) -> Result<Vec<Certificate>, Error> {
    let certificates = authorities(files)?;
    let taken = certificates.iter().map(|der| Certificate::from_der(der));
    taken.collect::<Result<_, _>>().map_err(Error::Client)
}

/// Builds the client, and tells whether it has any authority to trust.
///
/// reqwest refuses to build a client when neither the system nor the settings name an authority (a container without
/// `ca-certificates`). Plain `http:` and `file:` sources still work there, so the client is then built without any.
pub(crate) fn build(
    builder: impl Fn() -> ClientBuilder,
    extra: Vec<Certificate>,
) -> Result<(reqwest::Client, bool), Error> {
    if !extra.is_empty() {
        let client = builder().tls_certs_merge(extra).build().map_err(Error::Client)?;
        return Ok((client, true));
    }
    match builder().build() {
        Ok(client) => Ok((client, true)),
        Err(error) => match builder().tls_certs_only([]).build() {
            Ok(client) => Ok((client, false)),
            // It was something else.
            Err(_) => Err(Error::Client(error)),
        },
    }
}
