//! The body of `M/@v/list`, and which version of several is the latest.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::path::ModulePath;
use crate::time::parse_rfc3339;
use crate::version::Version;

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The version.
    pub version: Version,
    /// The time that the line gives for it; most proxies give none.
    pub time: Option<Timestamp>,
}

/// Reads a list: one version a line, and perhaps a time behind it.
///
/// Kept are canonical versions that belong under the path, pseudo-versions included, sorted and each once. Everything
/// else in the body is dropped, as the go command does.
pub fn parse_list(body: &[u8], path: &ModulePath) -> Vec<Listed> {
    let major = path.path_major();
    let mut listed = BTreeMap::<Version, Option<Timestamp>>::new();
    for line in body.split(|&b| b == b'\n') {
        let line = String::from_utf8_lossy(line);
        let mut fields = line.split_whitespace();
        let Some(version) = fields.next().and_then(|field| Version::parse(field).ok()) else {
            continue;
        };
        if major.allows(version.as_str()) {
            let time = fields.next().and_then(parse_rfc3339);
            let kept = listed.entry(version).or_default();
            *kept = kept.or(time);
        }
    }
    listed.into_iter().map(|(version, time)| Listed { version, time }).collect()
}

/// Writes a list in the order given: one version a line, each line ended, nothing for no versions.
pub fn render_list<'a>(versions: impl IntoIterator<Item = &'a Version>) -> String {
    let mut list = String::new();
    for version in versions {
        list.push_str(version.as_str());
        list.push('\n');
    }
    list
}

/// The version that `@latest` stands for: the highest release, else the highest pre-release, else the pseudo-version
/// whose commit is the newest.
pub fn latest_of<'a>(versions: impl IntoIterator<Item = &'a Version>) -> Option<&'a Version> {
    versions.into_iter().max_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)))
}

/// Pseudo-versions below pre-releases below releases; the time is that of a pseudo-version.
fn rank(version: &Version) -> (u8, Option<Timestamp>) {
    if version.is_pseudo() {
        (0, version.pseudo().map(|pseudo| pseudo.time))
    } else {
        (if version.is_prerelease() { 1 } else { 2 }, None)
    }
}
