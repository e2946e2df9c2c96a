//! Module paths.

use std::sync::Arc;

use crate::element::{self, Kind, PathProblem};
use crate::escape::{escape, unescape};
use crate::semver;
use crate::text::text_type;

/// A module path that `CheckPath` of golang.org/x/mod/module accepts, such as `github.com/Azure/azure-sdk-for-go/v2`.
///
/// It is ASCII, its first element is a lower-case host name with a dot, and its major version suffix, if any, is well
/// formed. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModulePath(Arc<str>);

/// A text that is no module path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed module path {path:?}: {problem}")]
pub struct InvalidModulePath {
    /// The text as it was given.
    pub path: String,
    /// The rule that it breaks.
    pub problem: PathProblem,
}

/// The end of a module path that says which major version it is for: empty, `/v2`, `.v1` or `.v2-unstable`.
///
/// The rule is one of form alone: a repository that is called `github.com/me/v123` has the major `/v123`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PathMajor<'a>(&'a str);

text_type!(ModulePath, InvalidModulePath);

impl ModulePath {
    /// Checks an unescaped path.
    pub fn parse(path: &str) -> Result<Self, InvalidModulePath> {
        match check(path) {
            Ok(()) => Ok(Self(path.into())),
            Err(problem) => Err(InvalidModulePath { path: path.to_owned(), problem }),
        }
    }

    /// Undoes the case escape of URLs and file names (`github.com/!azure/x`) and checks the path.
    pub fn parse_escaped(escaped: &str) -> Result<Self, InvalidModulePath> {
        match unescape(escaped) {
            Some(path) => Self::parse(&path),
            None => {
                Err(InvalidModulePath { path: escaped.to_owned(), problem: PathProblem::Escape })
            }
        }
    }

    /// The path as people write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path as URLs and file names have it.
    pub fn escaped(&self) -> String {
        escape(&self.0)
    }

    /// The major version suffix.
    pub fn path_major(&self) -> PathMajor<'_> {
        PathMajor(self.split().1)
    }

    /// The path without its major version suffix.
    pub fn prefix(&self) -> &str {
        self.split().0
    }

    /// Why no module can be here although the form is right, or `None`.
    ///
    /// The go command asks for every prefix of an import path, so `github.com` and `github.com/user` are asked for all
    /// day; on these hosts a repository has two elements behind the host.
    pub fn impossible(&self) -> Option<&'static str> {
        let mut elements = self.0.split('/');
        let host = elements.next().unwrap_or_default();
        let behind = elements.count();
        match host {
            "github.com" if behind < 2 => {
                Some("a module on github.com needs at least github.com/OWNER/REPOSITORY")
            }
            "bitbucket.org" if behind < 2 => {
                Some("a module on bitbucket.org needs at least bitbucket.org/OWNER/REPOSITORY")
            }
            _ => None,
        }
    }

    fn split(&self) -> (&str, &str) {
        // A path that was checked always splits.
        split_path_version(&self.0).unwrap_or((&self.0, ""))
    }
}

impl<'a> PathMajor<'a> {
    /// The suffix of a text that need not be a valid module path, such as that of a `module` line. `None` where it is
    /// malformed (`SplitPathVersion` of golang.org/x/mod/module).
    pub fn of(path: &'a str) -> Option<Self> {
        split_path_version(path).map(|(_, major)| Self(major))
    }

    /// The suffix with its separator, or the empty string.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether the path has no major version suffix.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The major version that versions must have (`v2`), or `None` where v0 and v1 are meant.
    pub fn major(self) -> Option<&'a str> {
        let major = self.0.get(1..)?;
        Some(major.strip_suffix("-unstable").unwrap_or(major))
    }

    /// Whether a version of this text belongs under such a path (`CheckPathMajor` of golang.org/x/mod/module).
    pub fn allows(self, version: &str) -> bool {
        let Some(major) = self.major() else {
            return matches!(semver::major(version), Some("v0" | "v1"))
                || semver::build(version) == "+incompatible";
        };
        // Early versions of the go command wrote such pseudo-versions for gopkg.in paths, the only ones with this major,
        // and go.mod files hold them.
        if major == "v1" && version.starts_with("v0.0.0-") {
            return true;
        }
        semver::major(version) == Some(major)
    }
}

fn check(path: &str) -> Result<(), PathProblem> {
    element::check_path(path, Kind::Module)?;
    let host = path.split('/').next().unwrap_or(path);
    if !host.contains('.') {
        return Err(PathProblem::NoDot);
    }
    if let Some(c) = host.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-' | '.')) {
        return Err(PathProblem::HostCharacter(c));
    }
    if split_path_version(path).is_none() {
        return Err(if path.starts_with("gopkg.in/") {
            PathProblem::GopkgIn
        } else {
            PathProblem::MajorSuffix
        });
    }
    Ok(())
}

/// Splits a path into what is in front of the major version suffix and the suffix. `None` where the suffix is malformed.
fn split_path_version(path: &str) -> Option<(&str, &str)> {
    if path.starts_with("gopkg.in/") {
        return split_gopkg_in(path);
    }
    let stem = path.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &path[stem.len()..];
    let Some(prefix) = stem.strip_suffix("/v").filter(|_| !number.is_empty()) else {
        return Some((path, ""));
    };
    if number.contains('.') || number.starts_with('0') || number == "1" {
        return None;
    }
    Some((prefix, &path[prefix.len()..]))
}

fn split_gopkg_in(path: &str) -> Option<(&str, &str)> {
    let stable = path.strip_suffix("-unstable").unwrap_or(path);
    let stem = stable.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = &stable[stem.len()..];
    let prefix = stem.strip_suffix(".v")?;
    let suffix = &path[prefix.len()..];
    // Only plain `.v0` may begin with a zero. That `.v-unstable` passes is Go's; no version belongs under it.
    if suffix == ".v" || number.starts_with('0') && suffix != ".v0" {
        return None;
    }
    Some((prefix, suffix))
}
