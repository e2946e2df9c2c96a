//! The lines of go.mod files that a proxy needs.

mod lines;
mod unquote;

use std::sync::Arc;

use crate::semver;
use crate::version::Version;
use lines::{Comments, for_each_line};
use unquote::unquote;

/// What is understood of a go.mod file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GoMod {
    /// The path in the `module` line, which need not be a valid module path.
    pub module: Option<String>,
    /// The `go` line, such as `1.24.0`; what follows a minor version in another form is cut off, as in `1.24-x`.
    pub go: Option<String>,
    /// The `toolchain` line: `default`, or `go1.24.0` with whatever suffix.
    pub toolchain: Option<String>,
    /// Paths and canonical versions of the `require` lines.
    pub require: Vec<(String, String)>,
    /// The `retract` lines.
    pub retract: Vec<Retract>,
    /// The text behind `Deprecated:` in the comment of the `module` line.
    pub deprecated: Option<String>,
}

/// A range of versions that the author takes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retract {
    /// The first version, as it is written.
    pub low: String,
    /// The last version, as it is written; the same as the first where only one is named.
    pub high: String,
    /// The comment, its lines joined by newlines. The lines of a block may share it.
    pub rationale: Arc<str>,
}

impl Retract {
    /// Whether the version is in the range.
    pub fn covers(&self, version: &Version) -> bool {
        semver::compare(&self.low, version.as_str()).is_le()
            && semver::compare(version.as_str(), &self.high).is_le()
    }
}

impl GoMod {
    /// Reads the go.mod file of a dependency. Lines that it does not understand are skipped; of a line that may stand
    /// only once, the first counts.
    pub fn parse_lax(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let mut go_mod = Self::default();
        // Only these may be blocks.
        for_each_line(&text, &["module", "require", "retract"], |verb, arguments, comments| {
            go_mod.add(verb, arguments, comments);
        });
        go_mod
    }

    fn add(&mut self, verb: &str, arguments: &[&str], comments: &Comments<'_>) {
        match (verb, arguments) {
            ("module", [path]) if self.module.is_none() => {
                if let Some(path) = string(path) {
                    self.module = Some(path);
                    self.deprecated = deprecation(&comments.text());
                }
            }
            ("go", [version]) if self.go.is_none() => self.go = go_version(version),
            ("toolchain", [name]) if self.toolchain.is_none() => {
                let known = *name == "default" || *name == "go1" || name.starts_with("go1.");
                self.toolchain = known.then(|| (*name).to_owned());
            }
            ("require", [path, version]) => {
                let version = string(version).and_then(|v| semver::canonical_version(&v));
                self.require.extend(string(path).zip(version));
            }
            ("retract", arguments) => {
                if let Some((low, high)) = interval(arguments) {
                    self.retract.push(Retract { low, high, rationale: comments.text() });
                }
            }
            _ => {}
        }
    }
}

/// The path in the module line, by the quick reader of golang.org/x/mod/modfile (`ModulePath`): the first line that
/// begins with the word `module`. The block form is not recognised.
pub fn module_line(text: &[u8]) -> Option<String> {
    for line in String::from_utf8_lossy(text).split('\n') {
        let line = line.split_once("//").map_or(line, |(code, _)| code).trim();
        let Some(rest) = line.strip_prefix("module") else { continue };
        let path = rest.trim_start();
        if path.is_empty() || path.len() == rest.len() {
            continue;
        }
        return if path.starts_with(['"', '`']) { unquote(path) } else { Some(path.to_owned()) };
    }
    None
}

/// A token that is a plain or a double-quoted string.
fn string(token: &str) -> Option<String> {
    if token.starts_with('"') {
        return unquote(token);
    }
    (!token.contains(['"', '\'', '`'])).then(|| token.to_owned())
}

/// `v1.0.0` or `[v1.0.0, v1.9.9]`; what follows is left to later versions of the format.
fn interval(tokens: &[&str]) -> Option<(String, String)> {
    match tokens {
        ["[", low, ",", high, "]", ..] => string(low).zip(string(high)),
        [] | ["(" | "[", ..] => None,
        [version, ..] => string(version).map(|version| (version.clone(), version)),
    }
}

/// `1.24`, `1.24.1` or `1.24rc1` as they are; of other texts the beginning that is a minor version.
fn go_version(text: &str) -> Option<String> {
    if is_go_version(text) {
        return Some(text.to_owned());
    }
    let text = text.strip_prefix('v').unwrap_or(text);
    let (major, rest) = go_number(text)?;
    let (minor, rest) = go_number(rest.strip_prefix('.')?)?;
    (major != "0" && !rest.is_empty()).then(|| format!("{major}.{minor}"))
}

fn is_go_version(text: &str) -> bool {
    let version = || {
        let (major, rest) = go_number(text)?;
        let (_, mut rest) = go_number(rest.strip_prefix('.')?)?;
        if let Some(patch) = rest.strip_prefix('.') {
            rest = go_number(patch)?.1;
        }
        let kind = rest.trim_start_matches(|c: char| c.is_ascii_lowercase());
        let plain = rest.is_empty()
            || kind.len() < rest.len()
                && !kind.is_empty()
                && kind.bytes().all(|b| b.is_ascii_digit());
        (major != "0" && plain).then_some(())
    };
    version().is_some()
}

/// A number without leading zeros, and what follows it.
fn go_number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let fine = !number.is_empty() && (number == "0" || !number.starts_with('0'));
    fine.then_some((number, rest))
}

/// The paragraph of a comment that begins with `Deprecated:`, without that word. Any number of empty lines may be in front
/// of it.
fn deprecation(comment: &str) -> Option<String> {
    let begins = |at: &usize| *at == 0 || comment[..*at].ends_with("\n\n");
    let at = comment.match_indices("Deprecated:").map(|(at, _)| at).find(begins)?;
    let message = comment[at + "Deprecated:".len()..].trim_start_matches(' ');
    Some(message.split_once("\n\n").map_or(message, |(message, _)| message).to_owned())
}
