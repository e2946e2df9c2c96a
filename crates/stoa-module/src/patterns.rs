//! The patterns of GOPRIVATE, GONOPROXY, GONOSUMDB and GOINSECURE.

use std::fmt;

use crate::glob::{InvalidGlob, path_match};
use crate::path::ModulePath;

/// A list of globs that are matched against the beginning of module paths.
///
/// A glob with k slashes is matched against the first k+1 elements: `*.corp.example.com` names everything below every
/// such host, `github.com/org` names `github.com/org/x` but not `github.com/org-two`. The word `none` names nothing,
/// since no path begins with an element that has no dot.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Patterns {
    globs: Vec<String>,
}

/// A pattern that matches nothing for ever. The go command ignores one; for a server, which acts for many people, that
/// would let a private name out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// The glob is malformed.
    #[error(transparent)]
    Glob(#[from] InvalidGlob),
    /// A leading slash, two slashes in a row, or a scheme.
    #[error(
        "pattern {0:?} has an empty element, so it matches no module path (write it without https://)"
    )]
    EmptyElement(String),
}

impl Patterns {
    /// Reads a comma-separated list. Empty items are skipped, one slash at an item's end is dropped, and so are spaces
    /// around an item, since no module path holds any.
    pub fn parse(list: &str) -> Result<Self, InvalidPattern> {
        let mut globs = Vec::new();
        for item in list.split(',') {
            let item = item.trim();
            let glob = item.strip_suffix('/').unwrap_or(item);
            if item.is_empty() {
                continue;
            }
            // Malformed or not does not depend on the name.
            path_match(glob, "")?;
            if glob.split('/').any(str::is_empty) {
                return Err(InvalidPattern::EmptyElement(item.to_owned()));
            }
            globs.push(glob.to_owned());
        }
        Ok(Self { globs })
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.globs.is_empty()
    }

    /// Whether some pattern names the module.
    pub fn matches(&self, path: &ModulePath) -> bool {
        self.find(path).is_some()
    }

    /// The first pattern that names the module.
    pub fn find(&self, path: &ModulePath) -> Option<&str> {
        self.globs.iter().map(String::as_str).find(|glob| matches_prefix(glob, path.as_str()))
    }

    /// Whether some pattern names a module on this host, whatever its path there is.
    pub fn names_host(&self, host: &str) -> bool {
        let first = |glob: &String| {
            // A class may hold a slash, but no host does.
            let first = glob.split('/').next().unwrap_or_default();
            // `*/team` names modules, and no host.
            first.contains(|c: char| c.is_ascii_alphanumeric())
                && path_match(first, host) == Ok(true)
        };
        self.globs.iter().any(first)
    }

    /// The hosts that patterns spell out, in their order and as they are written: `git.example.com` of `git.example.com/*`,
    /// none of `*.example.com`, none of `none`.
    pub fn literal_hosts(&self) -> impl Iterator<Item = &str> {
        let hosts = self.globs.iter().filter_map(|glob| glob.split('/').next());
        hosts.filter(|host| host.contains('.') && !host.contains(['*', '?', '[', '\\']))
    }
}

fn matches_prefix(glob: &str, path: &str) -> bool {
    let slashes = glob.bytes().filter(|&b| b == b'/').count();
    let mut ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    ends.nth(slashes).is_some_and(|end| path_match(glob, &path[..end]) == Ok(true))
}

impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.globs.join(","))
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}
