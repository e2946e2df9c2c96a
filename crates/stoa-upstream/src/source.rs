//! Where bytes come from: one entry of a GOPROXY list, or the address of a checksum database.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use secrecy::SecretString;
use stoa_module::{ErrorClass, ProxySource};
use url::Url;

use crate::discovery::About;
use crate::error::Error;
use crate::failure::{Fault, Stage};
use crate::settings::Secret;

/// What the go command leaves as it is in a path segment. Everything else is percent-encoded, `!` included: the
/// go command sends `%21`, and every proxy that serves it decodes that, while some that are only ever asked by it
/// have never met a raw `!`.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b':')
    .remove(b'=')
    .remove(b'@');

/// One place that can be asked for a file of the GOPROXY protocol.
///
/// `Display` and `Debug` show the address without its credentials.
#[derive(Clone)]
pub enum Source {
    /// A proxy or a checksum database behind `http:` or `https:`.
    Http(Base),
    /// A directory laid out as a proxy serves it: `M/@v/V.info` and so on, case-escaped with `!`.
    File(PathBuf),
    /// The module's own repository.
    Direct,
    /// Nothing may be asked any more.
    Off,
}

impl Source {
    /// A source at an explicit address: `http:`, `https:` (a path is kept, credentials are taken out of sight) or
    /// `file:` with an absolute path.
    pub fn from_url(url: &Url) -> Result<Self, Error> {
        let invalid = |reason| Error::InvalidSource { url: redacted(url), reason };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("it must have no query and no fragment"));
        }
        match url.scheme() {
            "http" | "https" => Base::new(url).map(Self::Http),
            "file" => match url.to_file_path() {
                Ok(path) if path.is_absolute() => Ok(Self::File(path)),
                _ => Err(invalid("a file URL must be file:/// and an absolute path")),
            },
            _ => Err(invalid("the scheme must be https, http or file")),
        }
    }

    /// The host with its port, if one was given; `file`, `direct` or `off` otherwise. For log fields and metric
    /// labels: it is one of the few words of the configuration, never a module's name.
    pub fn host(&self) -> &str {
        match self {
            Self::Http(base) => &base.host,
            Self::File(_) => "file",
            Self::Direct => "direct",
            Self::Off => "off",
        }
    }

    /// The name a person knows it by: `goproxy.example.com/go`, a directory, `direct`, `off`.
    pub fn name(&self) -> String {
        match self {
            Self::Http(base) => format!("{}{}", base.host, base.path()),
            Self::File(_) | Self::Direct | Self::Off => self.to_string(),
        }
    }

    /// Somebody else's copy, behind an address or in a directory; neither the module's own repository nor nothing.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Http(_) | Self::File(_))
    }

    /// The same source, whose redirects to another host are refused: for private modules, whose names must not
    /// travel to a host that was not named for them.
    pub fn confined(self) -> Self {
        match self {
            Self::Http(base) => Self::Http(Base { confined: true, ..base }),
            other => other,
        }
    }
}

impl TryFrom<&ProxySource> for Source {
    type Error = Error;

    fn try_from(source: &ProxySource) -> Result<Self, Error> {
        match source {
            ProxySource::Url(url) => Self::from_url(url),
            ProxySource::Direct => Ok(Self::Direct),
            ProxySource::Off => Ok(Self::Off),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(base) => write!(f, "{}://{}{}", base.url.scheme(), base.host, base.path()),
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Direct => f.write_str("direct"),
            Self::Off => f.write_str("off"),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
}

/// The base address of a source behind `http:` or `https:`; made by [`Source::from_url`].
#[derive(Clone)]
pub struct Base {
    /// Without credentials.
    url: Url,
    /// `host[:port]`.
    host: String,
    /// From `user:password@` of the address.
    secret: Option<Secret>,
    confined: bool,
    /// Nobody here has named it: a module's host has.
    guarded: Option<About>,
}

impl Base {
    pub(crate) fn new(url: &Url) -> Result<Self, Error> {
        let invalid = |reason| Error::InvalidSource { url: redacted(url), reason };
        let name = url.host_str().ok_or_else(|| invalid("it names no host"))?;
        let host = match url.port() {
            Some(port) => format!("{name}:{port}"),
            None => name.to_owned(),
        };
        let secret = secret_of(url).map_err(|()| invalid("its credentials are not UTF-8"))?;
        Ok(Self { url: without_credentials(url), host, secret, confined: false, guarded: None })
    }

    /// The base path, without a slash at its end.
    fn path(&self) -> &str {
        self.url.path().trim_end_matches('/')
    }

    /// The base address, without credentials.
    pub fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// The same base, which is asked only where the address filter lets it.
    pub(crate) fn guarded(self, about: About) -> Self {
        Self { confined: about.is_private, guarded: Some(about), ..self }
    }

    pub(crate) fn guard(&self) -> Option<About> {
        self.guarded
    }

    pub(crate) fn is_confined(&self) -> bool {
        self.confined
    }

    /// What tells its host from others: `host`, or `host:port` where the port is not that of https.
    pub(crate) fn origin(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port_or_known_default() {
            Some(port) if self.url.scheme() != "https" || port != 443 => format!("{host}:{port}"),
            _ => host.to_owned(),
        }
    }

    /// The base address with a slash at its end.
    pub(crate) fn root(&self) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/", self.path()));
        url
    }

    /// The address of a file below the base.
    pub(crate) fn join(&self, path: &str) -> Result<Url, Fault> {
        let mut joined = self.path().to_owned();
        for segment in segments(path)? {
            joined.push('/');
            joined.extend(utf8_percent_encode(segment, SEGMENT));
        }
        let mut url = self.url.clone();
        url.set_path(&joined);
        Ok(url)
    }
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base({})", self.url)
    }
}

/// The segments of a relative path that stays below its base. The callers build paths from checked module paths
/// and versions, so anything else is a mistake of ours; it must still not leave the directory or the base.
pub(crate) fn segments(path: &str) -> Result<Vec<&str>, Fault> {
    let segments: Vec<&str> = path.split('/').collect();
    let impossible = |segment: &&str| {
        matches!(*segment, "" | "." | "..")
            || segment.contains(|c: char| c.is_control() || c == '\\')
    };
    if segments.iter().any(impossible) {
        return Err(Fault::new(ErrorClass::Invalid, Stage::Local, "impossible file name"));
    }
    Ok(segments)
}

/// The credentials in `user:password@`, decoded.
pub(crate) fn secret_of(url: &Url) -> Result<Option<Secret>, ()> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let decoded = |text| {
        let text = percent_decode_str(text).decode_utf8();
        text.map(std::borrow::Cow::into_owned).map_err(|_| ())
    };
    let username = decoded(url.username())?;
    let password = SecretString::from(decoded(url.password().unwrap_or_default())?);
    Ok(Some(Secret::Basic { username, password }))
}

pub(crate) fn without_credentials(url: &Url) -> Url {
    let mut url = url.clone();
    // These fail only for addresses that cannot have credentials at all.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// An address as it may be shown: without credentials, and without a query, which often is one.
pub(crate) fn redacted(url: &Url) -> String {
    let mut url = without_credentials(url);
    if url.query().is_some() {
        url.set_query(Some("..."));
    }
    url.to_string()
}

/// The same of an address in the words of others.
pub(crate) fn redacted_text(address: &str) -> String {
    Url::parse(address).map_or_else(|_| "(address)".to_owned(), |url| redacted(&url))
}
