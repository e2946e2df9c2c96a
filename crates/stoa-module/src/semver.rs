//! Semantic versions as Go reads them: a leading `v`, numbers of any length, `v1` and `v1.2` as short forms.
//!
//! The rules are those of golang.org/x/mod/semver. Numbers are never turned into integers, because a version may hold
//! numbers that no integer holds; they are compared by length and then by their digits.

use std::cmp::Ordering;

/// The parts of a valid version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    pub(crate) major: &'a str,
    pub(crate) minor: &'a str,
    pub(crate) patch: &'a str,
    /// What `canonical` appends to a short form: empty, `.0` or `.0.0`.
    short: &'static str,
    /// With its dash, or empty.
    pub(crate) prerelease: &'a str,
    /// With its plus, or empty.
    pub(crate) build: &'a str,
}

/// Whether the text is a version.
pub fn is_valid(version: &str) -> bool {
    parse(version).is_some()
}

/// The version with missing numbers filled in and without build metadata.
pub fn canonical(version: &str) -> Option<String> {
    let parts = parse(version)?;
    let base = &version[..version.len() - parts.build.len()];
    Some(format!("{base}{}", parts.short))
}

/// [`canonical`], but with `+incompatible` kept: the form that names a version of a module.
pub fn canonical_version(version: &str) -> Option<String> {
    let mut canonical = canonical(version)?;
    if build(version) == "+incompatible" {
        canonical.push_str("+incompatible");
    }
    Some(canonical)
}

/// Whether the text is what [`canonical_version`] makes of it.
pub(crate) fn is_canonical_version(version: &str) -> bool {
    parse(version)
        .is_some_and(|parts| parts.short.is_empty() && matches!(parts.build, "" | "+incompatible"))
}

/// `v2` of `v2.1.0`.
pub fn major(version: &str) -> Option<&str> {
    parse(version).map(|parts| &version[..=parts.major.len()])
}

/// `-rc.1` of `v2.1.0-rc.1+meta`; empty if there is none, or if the text is no version.
pub fn prerelease(version: &str) -> &str {
    parse(version).map_or("", |parts| parts.prerelease)
}

/// `+meta` of `v2.1.0-rc.1+meta`; empty if there is none, or if the text is no version.
pub fn build(version: &str) -> &str {
    parse(version).map_or("", |parts| parts.build)
}

/// The precedence of two versions by Semantic Versioning 2.0: build metadata does not count. Whatever is no version
/// comes before every version and is equal to every other such text.
pub fn compare(v: &str, w: &str) -> Ordering {
    let (v, w) = match (parse(v), parse(w)) {
        (Some(v), Some(w)) => (v, w),
        (v, w) => return v.is_some().cmp(&w.is_some()),
    };
    compare_parts(&v, &w)
}

/// [`compare`] for those who compare one version with many.
pub(crate) fn compare_parts(v: &Parts<'_>, w: &Parts<'_>) -> Ordering {
    compare_numbers(v.major, w.major)
        .then_with(|| compare_numbers(v.minor, w.minor))
        .then_with(|| compare_numbers(v.patch, w.patch))
        .then_with(|| compare_prereleases(v.prerelease, w.prerelease))
}

pub(crate) fn parse(version: &str) -> Option<Parts<'_>> {
    let (major, rest) = number(version.strip_prefix('v')?)?;
    let mut parts = Parts { major, minor: "0", patch: "0", short: "", prerelease: "", build: "" };
    if rest.is_empty() {
        return Some(Parts { short: ".0.0", ..parts });
    }
    let (minor, rest) = number(rest.strip_prefix('.')?)?;
    parts.minor = minor;
    if rest.is_empty() {
        return Some(Parts { short: ".0", ..parts });
    }
    let (patch, rest) = number(rest.strip_prefix('.')?)?;
    parts.patch = patch;

    let (prerelease, build) = rest.split_at(rest.find('+').unwrap_or(rest.len()));
    if !prerelease.is_empty() {
        let identifiers = prerelease.strip_prefix('-')?;
        if !identifiers.split('.').all(|i| is_identifier(i) && !has_leading_zero(i)) {
            return None;
        }
    }
    if let Some(identifiers) = build.strip_prefix('+')
        && !identifiers.split('.').all(is_identifier)
    {
        return None;
    }
    Some(Parts { prerelease, build, ..parts })
}

/// A decimal number without leading zeros, and what follows it.
fn number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    (!number.is_empty() && !has_leading_zero(number)).then_some((number, rest))
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

fn has_leading_zero(text: &str) -> bool {
    text.len() > 1 && text.starts_with('0') && is_number(text)
}

fn compare_numbers(x: &str, y: &str) -> Ordering {
    x.len().cmp(&y.len()).then_with(|| x.cmp(y))
}

/// Both with their dash, or empty.
fn compare_prereleases(x: &str, y: &str) -> Ordering {
    if x.is_empty() || y.is_empty() {
        // A release comes after its pre-releases.
        return x.is_empty().cmp(&y.is_empty());
    }
    let (mut xs, mut ys) = (x[1..].split('.'), y[1..].split('.'));
    loop {
        let (x, y) = match (xs.next(), ys.next()) {
            (Some(x), Some(y)) => (x, y),
            (x, y) => return x.is_some().cmp(&y.is_some()),
        };
        let order = match (is_number(x), is_number(y)) {
            (true, true) => compare_numbers(x, y),
            (false, false) => x.cmp(y),
            // Numbers come before words.
            (x_is_number, y_is_number) => y_is_number.cmp(&x_is_number),
        };
        if order.is_ne() {
            return order;
        }
    }
}
