//! The `.info` file.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::class::ErrorClass;
use crate::time::parse_rfc3339;
use crate::unicode;
use crate::version::{InvalidVersion, Version};

/// What we need of an `.info` file. The bytes themselves are kept and handed on as they came, because they hold more
/// (Origin).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The version that the file is of.
    pub version: Version,
    /// When it was committed.
    pub time: Option<Timestamp>,
}

/// A body that the go command would not take for an `.info` file either.
#[derive(Debug, thiserror::Error)]
pub enum InvalidInfo {
    /// Not a JSON object with fields of the right kinds.
    #[error("the .info is not the JSON of a version: {0}")]
    Json(serde_json::Error),
    /// The object has no `Version`.
    #[error("the .info names no version")]
    NoVersion,
    /// The `Version` is not canonical.
    #[error("the .info is malformed: {0}")]
    Version(InvalidVersion),
}

impl InvalidInfo {
    /// Always [`ErrorClass::Corrupt`].
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Corrupt
    }
}

impl Info {
    /// Reads a body with the leniency of Go's decoder: names of fields in any case, unknown fields ignored, the last of
    /// repeated fields taken, `null` for absent, invalid UTF-8 replaced.
    ///
    /// Stricter in one point: the go command also lives with JSON strings that hold half a surrogate pair.
    pub fn parse(body: &[u8]) -> Result<Self, InvalidInfo> {
        let fields: Fields =
            serde_json::from_str(&String::from_utf8_lossy(body)).map_err(InvalidInfo::Json)?;
        let version = fields.version.filter(|v| !v.is_empty()).ok_or(InvalidInfo::NoVersion)?;
        let version = Version::parse(&version).map_err(InvalidInfo::Version)?;
        Ok(Self { version, time: fields.time })
    }

    /// The file to hand out when only the name of the version is known: the time is there for pseudo-versions, which
    /// hold it.
    pub fn made_from(version: &Version) -> String {
        // Neither text holds a character that JSON would escape.
        match version.pseudo() {
            Some(pseudo) => format!(r#"{{"Version":"{version}","Time":"{}"}}"#, pseudo.time),
            None => format!(r#"{{"Version":"{version}"}}"#),
        }
    }
}

/// The fields of Go's `RevInfo`.
#[derive(Default)]
struct Fields {
    version: Option<String>,
    time: Option<Timestamp>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let is = |field: &str| unicode::equal_fold(&name, field);
            if is("Version") {
                if let Some(version) = map.next_value::<Option<String>>()? {
                    fields.version = Some(version);
                }
            } else if is("Time") {
                if let Some(time) = map.next_value::<Option<Cow<'de, str>>>()? {
                    let time = parse_rfc3339(&time).ok_or_else(|| {
                        de::Error::custom(format!("{time:?} is no RFC 3339 time"))
                    })?;
                    fields.time = Some(time);
                }
            } else if is("Origin") {
                map.next_value::<Option<Origin>>()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(fields)
    }
}

/// Go's `Origin`: read only to refuse what the go command would refuse, since a stored `.info` is handed out for ever.
struct Origin;

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OriginVisitor)
    }
}

struct OriginVisitor;

impl<'de> Visitor<'de> for OriginVisitor {
    type Value = Origin;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Origin, A::Error> {
        const STRINGS: [&str; 8] =
            ["VCS", "URL", "Subdir", "Hash", "TagPrefix", "TagSum", "Ref", "RepoSum"];
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if STRINGS.iter().any(|field| unicode::equal_fold(&name, field)) {
                map.next_value::<Option<Cow<'de, str>>>()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Origin)
    }
}
