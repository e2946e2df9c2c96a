//! The tags of a repository as version tags.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::Digest as _;

use crate::pseudo::is_pseudo_version;
use crate::semver;

/// The version that a tag, without the prefix of its module, stands for, and whether the tag is written just so.
///
/// `v1.1.0+meta` stands for `v1.1.0`, from which a pseudo-version may be derived. `v1.1` stands for nothing. That an
/// explicit `+incompatible` is cut off is meant: the go command writes it itself where it belongs.
pub fn tagged_version(tag: &str) -> Option<(String, bool)> {
    let version = semver::canonical(tag)?;
    // Else it was written short.
    tag.starts_with(&version).then(|| {
        let is_canonical = version == tag;
        (version, is_canonical)
    })
}

/// The checksum over version tags that an `.info` carries as `TagSum`, so that a client can tell whether they still are
/// the same: `t1:` and base64.
///
/// `tags` are full names and the hashes of what they point at, sorted by name; `prefix` ends at the version's major or
/// before (`sub/v2.`), and its directory part is not looked at when a tag is judged.
pub fn tag_sum<'a>(prefix: &str, tags: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let directory = prefix.rfind('/').map_or(0, |slash| slash + 1);
    let mut sum = sha2::Sha256::new();
    for (tag, hash) in tags {
        let Some(version) = tag.get(directory..).filter(|_| tag.starts_with(prefix)) else {
            continue;
        };
        if tagged_version(version).is_some() && !is_pseudo_version(version) {
            sum.update(format!("\"{}\" {hash}\n", tag.replace('"', "\\\"")));
        }
    }
    format!("t1:{}", STANDARD.encode(sum.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_versions() {
        let check = |tag: &str, expected: Option<(&str, bool)>| {
            let tagged = tagged_version(tag);
            assert_eq!(tagged.as_ref().map(|(v, c)| (v.as_str(), *c)), expected, "{tag}");
        };
        check("v1.1.0", Some(("v1.1.0", true)));
        check("v1.1.0-rc.1", Some(("v1.1.0-rc.1", true)));
        check("v1.1.0+meta", Some(("v1.1.0", false)));
        check("v2.0.0+incompatible", Some(("v2.0.0", false)));
        check("v1.1", None);
        check("v1", None);
        check("1.1.0", None);
        check("release", None);
    }

    #[test]
    fn sums() {
        // As the go command gives them for fixtures/git/r.bundle.
        let a3 = "a3ab0831a0ed9ce3aa2155c5c30627b07f94166a";
        let tags =
            ["notsemver", "sub/dir/v1.2.3", "v1.0.0", "v1.0.1", "v1.1.0+meta", "v1.2", "v2.0.0"];
        let check = |prefix: &str, expected: &str| {
            let tags = tags.iter().map(|&tag| (tag, a3.to_owned()));
            assert_eq!(tag_sum(prefix, tags), expected, "{prefix}");
        };
        check("", "t1:cx5yFWpglPmTfH8gV8cX1rFnLt801q2q/6IXMwjI1UA=");
        check("v2.", "t1:2Nc825BvK51BROhBUl3ZZpk3DDxpAIS3AOX5LoKzOPc=");
        check("sub/dir/", "t1:gF+xt8t5Ofb2uHzFqungJRKefEa6xRRvRaz3sHdybMQ=");
        check("v9.", "t1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }
}
