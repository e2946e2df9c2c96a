//! Pseudo-versions: how one is built for a commit, and what one that is asked for must agree with
//! (golang.org/x/mod/module, and cmd/go's `validatePseudoVersion`).

use jiff::Timestamp;
use jiff::tz::Offset;

use crate::semver;
use crate::time::parse_compact;
use crate::version::split_pseudo;

/// Whether a text has the form of a pseudo-version. Unlike a [`Version`](crate::Version) it may have any build metadata,
/// since tags do.
pub fn is_pseudo_version(text: &str) -> bool {
    split_pseudo(text).is_some()
}

/// The pseudo-version of a commit.
///
/// `major` is that of the path (`v2`), `None` where it names none. `base` is the tagged version that it comes after, if
/// there is one. `revision` is the beginning of the commit's hash, 12 digits of it.
pub fn pseudo_version(
    major: Option<&str>,
    base: Option<&str>,
    time: Timestamp,
    revision: &str,
) -> String {
    let time = compact_time(time);
    let canonical = base.and_then(|base| Some((semver::canonical(base)?, semver::build(base))));
    let Some((base, build)) = canonical else {
        return format!("{}.0.0-{time}-{revision}", major.unwrap_or("v0"));
    };
    if !semver::prerelease(&base).is_empty() {
        return format!("{base}.0.{time}-{revision}{build}");
    }
    let (front, patch) = base.rsplit_once('.').unwrap_or((&base, "0"));
    format!("{front}.{}-0.{time}-{revision}{build}", increment(patch))
}

/// A time as pseudo-versions have it: `YYYYMMDDhhmmss`, in UTC.
pub fn compact_time(time: Timestamp) -> String {
    let t = Offset::UTC.to_datetime(time);
    format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}",
        t.year(),
        t.month(),
        t.day(),
        t.hour(),
        t.minute(),
        t.second()
    )
}

/// What a pseudo-version says about its commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PseudoClaim {
    /// The beginning of the commit's hash.
    pub revision: String,
    /// The committer's time.
    pub time: Timestamp,
    /// The version, without `+incompatible`, that must be tagged on an ancestor of the commit.
    pub base: Option<String>,
}

/// Why a text with the form of a pseudo-version can be none. The texts continue a sentence that has named it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPseudoVersion {
    /// Another form.
    #[error("it does not have the form of a pseudo-version")]
    Form,
    /// A 13th month and the like.
    #[error("its time {0:?} does not exist")]
    Time(String),
    /// `v1.0.0-0.…` would come after a version with the patch number -1.
    #[error("the version before it would have a negative patch number")]
    NegativePatch,
}

impl PseudoClaim {
    /// Reads a pseudo-version. `+incompatible` counts for nothing here, as with the go command in direct mode, which so
    /// lets `v2.0.0-TIME-REV+incompatible` pass, although no version is in front of it.
    pub fn of(version: &str) -> Result<Self, InvalidPseudoVersion> {
        let version = version.strip_suffix("+incompatible").unwrap_or(version);
        let parts = split_pseudo(version).ok_or(InvalidPseudoVersion::Form)?;
        let time = parse_compact(parts.time)
            .ok_or_else(|| InvalidPseudoVersion::Time(parts.time.to_owned()))?;
        let base = parts.base().map_err(|_| InvalidPseudoVersion::NegativePatch)?;
        Ok(Self { revision: parts.revision.to_owned(), time, base })
    }
}

/// The number after a decimal number of any length.
fn increment(number: &str) -> String {
    let head = number.trim_end_matches('9');
    let zeros = "0".repeat(number.len() - head.len());
    let Some(digit) = head.chars().next_back().and_then(|c| c.to_digit(10)) else {
        return format!("1{zeros}");
    };
    format!("{}{}{zeros}", &head[..head.len() - 1], digit + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time() -> Timestamp {
        "2024-02-02T03:04:05Z".parse().unwrap()
    }

    #[test]
    fn builds() {
        let check = |major: Option<&str>, base: Option<&str>, expected: &str| {
            let built = pseudo_version(major, base, time(), "bbaab31090cb");
            assert_eq!(built, expected);
            assert!(is_pseudo_version(&built), "{built}");
            let claim = PseudoClaim::of(&built).unwrap();
            assert_eq!((claim.time, claim.revision.as_str()), (time(), "bbaab31090cb"));
            assert_eq!(claim.base.as_deref(), base.map(|b| b.trim_end_matches("+incompatible")));
        };
        check(None, None, "v0.0.0-20240202030405-bbaab31090cb");
        check(Some("v2"), None, "v2.0.0-20240202030405-bbaab31090cb");
        check(None, Some("v1.1.0"), "v1.1.1-0.20240202030405-bbaab31090cb");
        check(None, Some("v1.1.9"), "v1.1.10-0.20240202030405-bbaab31090cb");
        check(None, Some("v1.1.1899"), "v1.1.1900-0.20240202030405-bbaab31090cb");
        check(None, Some("v1.1.999"), "v1.1.1000-0.20240202030405-bbaab31090cb");
        check(Some("v3"), Some("v3.1.0-rc1"), "v3.1.0-rc1.0.20240202030405-bbaab31090cb");
        check(
            None,
            Some("v2.0.0+incompatible"),
            "v2.0.1-0.20240202030405-bbaab31090cb+incompatible",
        );
    }

    #[test]
    fn refuses() {
        let check = |text: &str, expected: InvalidPseudoVersion| {
            assert_eq!(PseudoClaim::of(text), Err(expected), "{text}");
        };
        check("v1.2.3", InvalidPseudoVersion::Form);
        check("v1.2.3-20240202030405-abcdefabcdef", InvalidPseudoVersion::Form);
        check(
            "v0.0.0-20241302030405-abcdefabcdef",
            InvalidPseudoVersion::Time("20241302030405".to_owned()),
        );
        check("v1.0.0-0.20240202030405-abcdefabcdef", InvalidPseudoVersion::NegativePatch);
        // The go command takes this one, however odd.
        let claim = PseudoClaim::of("v2.0.0-20240202030405-abcdefabcdef+incompatible").unwrap();
        assert_eq!(claim.base, None);
    }
}
