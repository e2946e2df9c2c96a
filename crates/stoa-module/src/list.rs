//! The body of `M/@v/list`, and which version of several is the latest.

use std::cmp::Ordering;

use jiff::Timestamp;

use crate::path::ModulePath;
use crate::semver;
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
    let text = String::from_utf8_lossy(body);
    let fitting = text.split('\n').filter_map(|line| {
        let mut fields = line.split_whitespace();
        let version = Version::parse(fields.next()?).ok()?;
        let time = fields.next().and_then(parse_rfc3339);
        major.allows(version.as_str()).then_some(Listed { version, time })
    });
    let mut listed: Vec<_> = fitting.collect();
    sort(&mut listed);
    listed.dedup_by(|later, first| {
        let same = later.version == first.version;
        if same {
            first.time = first.time.or(later.time);
        }
        same
    });
    listed
}

/// By version, and those of one version as they were. Each is taken apart once, since lists have thousands.
fn sort(listed: &mut Vec<Listed>) {
    let versions: Vec<Version> = listed.iter().map(|it| it.version.clone()).collect();
    // Every version has parts.
    let parts = versions.iter().map(|it| (semver::parse(it.as_str()), it.as_str()));
    let mut decorated: Vec<_> = parts.zip(listed.drain(..)).collect();
    decorated.sort_by(|((v, v_text), _), ((w, w_text), _)| {
        let order = v
            .as_ref()
            .zip(w.as_ref())
            .map_or(Ordering::Equal, |(v, w)| semver::compare_parts(v, w));
        order.then_with(|| v_text.cmp(w_text))
    });
    listed.extend(decorated.into_iter().map(|(_, it)| it));
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
