use std::path::PathBuf;

use stoa_module::ErrorClass;

/// A setting that cannot be used. What an upstream does wrong is a [`Failure`](crate::Failure) instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("invalid upstream address {url}: {reason}")]
    InvalidSource { url: String, reason: &'static str },
    #[error("cannot read certificates of an authority")]
    ReadAuthorities(#[source] std::io::Error),
    #[error("{}: not a PEM file with certificates of authorities: {reason}", path.display())]
    InvalidAuthorities { path: PathBuf, reason: String },
    #[error("cannot read the netrc file")]
    ReadNetrc(#[source] std::io::Error),
    #[error("invalid credential for {prefix}: {reason}")]
    InvalidCredential { prefix: String, reason: &'static str },
    #[error("invalid {variable}: {reason}")]
    InvalidProxy { variable: &'static str, reason: &'static str },
    #[error("invalid instance id {0:?}: it must be letters, digits, `-`, `.` and `_`")]
    InvalidInstanceId(String),
    #[error("invalid user agent {0:?}: it must be printable ASCII")]
    InvalidUserAgent(String),
    #[error("cannot use the directory of git repositories")]
    GitDirectory(#[source] std::io::Error),
    #[error("cannot set up the http client")]
    Client(#[source] reqwest::Error),
}

impl Error {
    /// Always `Internal`: no request is being answered when settings are read.
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Internal
    }
}
