//! The path of a request, as the go command and other tools send it.

use std::borrow::Cow;

use crate::class::ErrorClass;
use crate::path::{InvalidModulePath, ModulePath};
use crate::version::{Artifact, InvalidQuery, ModuleVersion, Query, Version};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `M/@v/list`
    List(ModulePath),
    /// `M/@latest`
    Latest(ModulePath),
    /// `M/@v/REV.info`, where REV is not a canonical version that fits the path.
    Query {
        /// The module.
        path: ModulePath,
        /// The revision.
        query: Query,
    },
    /// `M/@v/V.info`, `.mod` or `.zip` of a canonical version that fits the path.
    Artifact {
        /// The module and its version.
        module: ModuleVersion,
        /// Which file.
        artifact: Artifact,
    },
    /// `/sumdb/…`: how it is divided depends on the names of the databases that are configured, since such a name may
    /// hold slashes.
    Sumdb {
        /// The decoded text after `/sumdb/`.
        rest: String,
    },
}

/// A path that can name nothing, so that no source needs to be asked. The texts are for people at a terminal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// A `%` without two hexadecimal digits, or what they encode is not UTF-8.
    #[error("the path of the request is not correctly percent-encoded")]
    Encoding,
    /// Neither `/@v/` nor `/@latest` is in it.
    #[error("{0:?} is not part of the GOPROXY protocol: expected MODULE/@v/FILE or MODULE/@latest")]
    Form(String),
    /// The module path is wrong.
    #[error(transparent)]
    Path(#[from] InvalidModulePath),
    /// The revision is wrong.
    #[error(transparent)]
    Query(#[from] InvalidQuery),
    /// There is a slash behind `/@v/`. The go command refuses such revisions itself.
    #[error("revision {0:?} contains a slash: name the branch or tag by its commit instead")]
    Slash(String),
    /// The file is neither `list` nor has one of the three extensions.
    #[error("unknown file {0:?}: expected list, VERSION.info, VERSION.mod or VERSION.zip")]
    Extension(String),
    /// `.mod` or `.zip` of something that is not a canonical version which fits the path.
    #[error(
        "{file:?} names no version of {path}: only canonical versions such as v1.2.3 have .mod and .zip files"
    )]
    NotCanonical {
        /// The module.
        path: ModulePath,
        /// The decoded file name.
        file: String,
    },
    /// `latest.info` and the like, which the go command resolves on its own side.
    #[error("{0:?} is resolved by the go command itself, from MODULE/@v/list and MODULE/@latest")]
    Reserved(String),
    /// An element is longer than a file name may be, so that neither the go command nor we could store it.
    #[error("an element of the path is longer than {MAX_ELEMENT} bytes, which no file name can be")]
    TooLong,
}

/// The longest file name of every common file system, in bytes.
const MAX_ELEMENT: usize = 255;

/// The longest suffix that the go command puts behind a version in a file name.
const LONGEST_SUFFIX: &str = ".ziphash";

impl InvalidRequest {
    /// Always [`ErrorClass::Invalid`].
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Invalid
    }
}

impl Request {
    /// Reads the raw, percent-encoded path of a URI, with its leading slash and without a query string.
    ///
    /// It is percent-decoded once, and only then read: `!` arrives as `%21` from the go command and as `!` from others,
    /// and `+` always means plus.
    pub fn parse(raw_path: &str) -> Result<Self, InvalidRequest> {
        let decoded = percent_decode(raw_path).ok_or(InvalidRequest::Encoding)?;
        let form = || InvalidRequest::Form(decoded.clone().into_owned());
        let path = decoded.strip_prefix('/').ok_or_else(form)?;
        // No module path can begin so: the first element of one has a dot.
        if let Some(rest) = path.strip_prefix("sumdb/") {
            return Ok(Self::Sumdb { rest: rest.to_owned() });
        }
        if let Some(escaped) = path.strip_suffix("/@latest") {
            return Ok(Self::Latest(module_path(escaped)?));
        }
        let at = path.rfind("/@v/").ok_or_else(form)?;
        let (escaped, file) = (&path[..at], &path[at + "/@v/".len()..]);
        let path = module_path(escaped)?;
        if file == "list" {
            return Ok(Self::List(path));
        }
        file_request(path, file)
    }

    /// The module that is asked about; `None` for the checksum database.
    pub fn path(&self) -> Option<&ModulePath> {
        match self {
            Self::List(path) | Self::Latest(path) | Self::Query { path, .. } => Some(path),
            Self::Artifact { module, .. } => Some(module.path()),
            Self::Sumdb { .. } => None,
        }
    }
}

fn module_path(escaped: &str) -> Result<ModulePath, InvalidRequest> {
    let path = ModulePath::parse_escaped(escaped)?;
    if escaped.split('/').any(|element| element.len() > MAX_ELEMENT) {
        return Err(InvalidRequest::TooLong);
    }
    Ok(path)
}

fn file_request(path: ModulePath, file: &str) -> Result<Request, InvalidRequest> {
    if file.contains('/') {
        return Err(InvalidRequest::Slash(file.to_owned()));
    }
    let extension = || InvalidRequest::Extension(file.to_owned());
    let (escaped, suffix) = file.rsplit_once('.').ok_or_else(extension)?;
    let artifact = Artifact::from_extension(suffix).ok_or_else(extension)?;
    let query = Query::parse_escaped(escaped)?;
    if escaped.len() + LONGEST_SUFFIX.len() > MAX_ELEMENT {
        return Err(InvalidRequest::TooLong);
    }

    if let Ok(version) = Version::parse(query.as_str())
        && path.path_major().allows(version.as_str())
        && let Ok(module) = ModuleVersion::new(path.clone(), version)
    {
        return Ok(Request::Artifact { module, artifact });
    }
    if artifact != Artifact::Info {
        return Err(InvalidRequest::NotCanonical { path, file: format!("{query}{artifact}") });
    }
    if matches!(query.as_str(), "latest" | "upgrade" | "patch") {
        return Err(InvalidRequest::Reserved(query.as_str().to_owned()));
    }
    Ok(Request::Query { path, query })
}

/// Decodes `%XX` once. `None` where a `%` is not followed by two hexadecimal digits, or the result is not UTF-8.
fn percent_decode(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.contains('%') {
        return Some(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}
