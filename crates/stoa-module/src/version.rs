//! Versions of modules, queries, and a version together with its module.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::element::{self, Kind, PathProblem};
use crate::escape::{escape, unescape};
use crate::path::{InvalidModulePath, ModulePath};
use crate::semver;
use crate::text::text_type;
use crate::time::parse_compact;

/// The name of a version as the module system uses it: `vX.Y.Z`, with a pre-release if it has one, and with
/// `+incompatible` but no other build metadata.
///
/// The order is that of Semantic Versioning, ties broken by the text, so that `v2.0.0` < `v2.0.0+incompatible`.
/// Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Version(Arc<str>);

/// A text that is not the canonical name of a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVersion {
    /// No semantic version at all.
    #[error("version {0:?} is not a semantic version such as v1.2.3")]
    Syntax(String),
    /// A semantic version, but written otherwise than the module system does.
    #[error("version {version:?} is not canonical: it should be {canonical:?}")]
    NotCanonical {
        /// The text as it was given.
        version: String,
        /// How it should be written.
        canonical: String,
    },
    /// The case escape is wrong.
    #[error(
        "version {0:?} is not case-escaped: upper-case letters are written as ! and the lower-case letter"
    )]
    Escape(String),
}

/// What a pseudo-version is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PseudoVersion {
    /// The tagged version it was derived from, with `+incompatible` where the pseudo-version has it.
    pub base: Option<String>,
    /// The committer's time, to the second, in UTC.
    pub time: Timestamp,
    /// The beginning of the commit's hash, usually 12 digits.
    pub revision: String,
}

/// A revision that is asked for by another name than that of a version which fits the module: a branch, a tag, a
/// commit, `v1.2.3+meta`, or a version of another major.
///
/// It is one valid element of a file path, ASCII, without `!`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Query(Arc<str>);

/// A text that the go command never sends as a revision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed revision {query:?}: {problem}")]
pub struct InvalidQuery {
    /// The text as it was given.
    pub query: String,
    /// The rule that it breaks.
    pub problem: PathProblem,
}

/// A version that fits the path of its module. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleVersion {
    path: ModulePath,
    version: Version,
}

/// The major version of the version contradicts the path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("version {version} does not fit module {path}: it should be {expected}")]
pub struct VersionMismatch {
    /// The module.
    pub path: ModulePath,
    /// The version that does not belong to it.
    pub version: Version,
    /// Which majors do: `v0 or v1`, or `v2`.
    pub expected: String,
}

/// A text that is not `path@version`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidModuleVersion {
    /// There is no `@`.
    #[error("{0:?} is not of the form path@version")]
    Form(String),
    /// The path is wrong.
    #[error(transparent)]
    Path(#[from] InvalidModulePath),
    /// The version is wrong.
    #[error(transparent)]
    Version(#[from] InvalidVersion),
    /// Each is right, but they do not fit.
    #[error(transparent)]
    Mismatch(#[from] VersionMismatch),
}

/// The three files that a version consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Artifact {
    /// Name and time, as JSON.
    Info,
    /// The go.mod file.
    Mod,
    /// The module zip.
    Zip,
}

text_type!(Version, InvalidVersion);
text_type!(Query, InvalidQuery);

impl Version {
    /// Checks that the text is the canonical name of a version.
    pub fn parse(version: &str) -> Result<Self, InvalidVersion> {
        if semver::is_canonical_version(version) {
            return Ok(Self(version.into()));
        }
        match semver::canonical_version(version) {
            Some(canonical) => {
                Err(InvalidVersion::NotCanonical { version: version.to_owned(), canonical })
            }
            None => Err(InvalidVersion::Syntax(version.to_owned())),
        }
    }

    /// Undoes the case escape (`v1.0.0-!r!c1`), then [`Self::parse`].
    pub fn parse_escaped(escaped: &str) -> Result<Self, InvalidVersion> {
        match unescape(escaped) {
            Some(version) => Self::parse(&version),
            None => Err(InvalidVersion::Escape(escaped.to_owned())),
        }
    }

    /// The version as people write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The version as URLs and file names have it.
    pub fn escaped(&self) -> String {
        escape(&self.0)
    }

    /// Whether it comes before a release; pseudo-versions do.
    pub fn is_prerelease(&self) -> bool {
        !semver::prerelease(&self.0).is_empty()
    }

    /// Whether it ends in `+incompatible`.
    pub fn is_incompatible(&self) -> bool {
        self.0.ends_with("+incompatible")
    }

    /// Whether it has the form of a pseudo-version. The time in it may still be no time, and its base no version: see
    /// [`Self::pseudo`].
    pub fn is_pseudo(&self) -> bool {
        split_pseudo(&self.0).is_some()
    }

    /// The parts of a pseudo-version. `None` as well for one whose time does not exist (a 13th month), whose base would
    /// have a negative patch number, or that is incompatible without a base.
    pub fn pseudo(&self) -> Option<PseudoVersion> {
        let parts = split_pseudo(&self.0)?;
        Some(PseudoVersion {
            base: parts.base().ok()?,
            time: parse_compact(parts.time)?,
            revision: parts.revision.to_owned(),
        })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        semver::compare(&self.0, &other.0).then_with(|| self.0.cmp(&other.0))
    }
}

impl Query {
    /// Checks that the text is a revision as the go command sends them. That it is no canonical version is for the
    /// caller to know.
    pub fn parse(query: &str) -> Result<Self, InvalidQuery> {
        let problem = match query.chars().find(|&c| c == '!' || !c.is_ascii()) {
            Some(c) => Err(PathProblem::Character(c)),
            None => element::check_element(query, Kind::File),
        };
        match problem {
            Ok(()) => Ok(Self(query.into())),
            Err(PathProblem::EmptyElement) => {
                Err(InvalidQuery { query: query.to_owned(), problem: PathProblem::Empty })
            }
            Err(problem) => Err(InvalidQuery { query: query.to_owned(), problem }),
        }
    }

    /// Undoes the case escape (`!h!e!a!d`), then [`Self::parse`].
    pub fn parse_escaped(escaped: &str) -> Result<Self, InvalidQuery> {
        match unescape(escaped) {
            Some(query) => Self::parse(&query),
            None => Err(InvalidQuery { query: escaped.to_owned(), problem: PathProblem::Escape }),
        }
    }

    /// The revision as people write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The revision as URLs and file names have it.
    pub fn escaped(&self) -> String {
        escape(&self.0)
    }
}

impl ModuleVersion {
    /// Joins the two if the version belongs under the path.
    pub fn new(path: ModulePath, version: Version) -> Result<Self, VersionMismatch> {
        let major = path.path_major();
        if major.allows(version.as_str()) {
            return Ok(Self { path, version });
        }
        let expected = major.major().unwrap_or("v0 or v1").to_owned();
        Err(VersionMismatch { path, version, expected })
    }

    /// Reads `path@version`, both unescaped.
    pub fn parse(text: &str) -> Result<Self, InvalidModuleVersion> {
        let (path, version) =
            text.split_once('@').ok_or_else(|| InvalidModuleVersion::Form(text.to_owned()))?;
        Ok(Self::new(ModulePath::parse(path)?, Version::parse(version)?)?)
    }

    /// The module.
    pub fn path(&self) -> &ModulePath {
        &self.path
    }

    /// The version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Where a file of it lies below a proxy's base URL or a download cache: `github.com/!x/y/@v/v1.0.0.zip`.
    pub fn escaped_file(&self, artifact: Artifact) -> String {
        format!("{}/@v/{}{artifact}", self.path.escaped(), self.version.escaped())
    }
}

impl fmt::Display for ModuleVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.path, self.version)
    }
}

impl Artifact {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Info, Self::Mod, Self::Zip];

    /// The extension without its dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Mod => "mod",
            Self::Zip => "zip",
        }
    }

    /// The file that has this extension (without a dot).
    pub fn from_extension(extension: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|artifact| artifact.extension() == extension)
    }
}

impl fmt::Display for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ".{}", self.extension())
    }
}

/// The parts of a text that has the form of a pseudo-version.
pub(crate) struct PseudoParts<'a> {
    version: semver::Parts<'a>,
    /// The pre-release in front of the time without its dash: empty, `0`, or `rc.1.0`.
    before: &'a str,
    pub(crate) time: &'a str,
    pub(crate) revision: &'a str,
}

/// A pseudo-version of a form that no base can have.
pub(crate) struct Impossible;

impl PseudoParts<'_> {
    pub(crate) fn base(&self) -> Result<Option<String>, Impossible> {
        let semver::Parts { major, minor, patch, build, .. } = self.version;
        match self.before.strip_suffix('0') {
            None if build.is_empty() => Ok(None),
            None => Err(Impossible),
            Some("") => {
                let patch = decrement(patch).ok_or(Impossible)?;
                Ok(Some(format!("v{major}.{minor}.{patch}{build}")))
            }
            Some(before) => {
                let prerelease = before.strip_suffix('.').ok_or(Impossible)?;
                Ok(Some(format!("v{major}.{minor}.{patch}-{prerelease}{build}")))
            }
        }
    }
}

/// Takes a pseudo-version apart: `vX.0.0-TIME-REV`, `vX.Y.Z-0.TIME-REV` or `vX.Y.Z-pre.0.TIME-REV`.
pub(crate) fn split_pseudo(text: &str) -> Option<PseudoParts<'_>> {
    let version = semver::parse(text)?;
    let (rest, revision) = version.prerelease.strip_prefix('-')?.rsplit_once('-')?;
    if revision.is_empty() || !revision.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let (before, time) = rest.rsplit_once('.').unwrap_or(("", rest));
    if time.len() != 14 || !time.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let known_form = if before.is_empty() {
        version.minor == "0" && version.patch == "0"
    } else {
        before == "0" || before.ends_with(".0")
    };
    known_form.then_some(PseudoParts { version, before, time, revision })
}

/// The number before a decimal number of any length; `None` below zero.
fn decrement(number: &str) -> Option<String> {
    let significant = number.trim_end_matches('0');
    let last = significant.chars().next_back()?;
    let digit = char::from_digit(last.to_digit(10)? - 1, 10)?;
    let head = &significant[..significant.len() - 1];
    let nines = "9".repeat(number.len() - significant.len());
    if head.is_empty() && digit == '0' && !nines.is_empty() {
        return Some(nines);
    }
    Some(format!("{head}{digit}{nines}"))
}
