//! Writing the `.info` of a version that came from its own repository, as the go command writes it.

use jiff::Timestamp;
use serde::Serialize;

/// Where a version came from (`codehost.Origin` of the go command). What is empty is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Origin {
    /// `git`
    #[serde(rename = "VCS")]
    pub vcs: &'static str,
    /// The repository's address, as its host names it.
    #[serde(rename = "URL")]
    pub url: String,
    /// The module's directory in the repository.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subdir: String,
    /// The commit.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// With `tag_sum`: the beginning of the tags that the version was chosen by.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tag_prefix: String,
    /// [`tag_sum`](crate::tag_sum) of those tags.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tag_sum: String,
    /// The branch or tag that was asked for: `refs/tags/v1.2.3`.
    #[serde(rename = "Ref", skip_serializing_if = "String::is_empty")]
    pub reference: String,
}

/// A whole `.info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RevisionInfo {
    /// The canonical version.
    pub version: String,
    /// When it was committed, to the second.
    #[serde(serialize_with = "seconds")]
    pub time: Timestamp,
    /// Where it came from.
    pub origin: Origin,
}

impl RevisionInfo {
    /// The JSON, on one line that is not ended.
    pub fn to_json(&self) -> String {
        // Nothing in it can fail to be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn seconds<S: serde::Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&time.strftime("%Y-%m-%dT%H:%M:%SZ"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_go_command_writes_it() {
        let mut info = RevisionInfo {
            version: "v1.2.3".to_owned(),
            time: "2024-01-02T03:04:05Z".parse().unwrap(),
            origin: Origin {
                vcs: "git",
                url: "https://github.com/ex/r".to_owned(),
                subdir: "sub/dir".to_owned(),
                hash: "a3ab".to_owned(),
                reference: "refs/tags/sub/dir/v1.2.3".to_owned(),
                ..Origin::default()
            },
        };
        assert_eq!(
            info.to_json(),
            r#"{"Version":"v1.2.3","Time":"2024-01-02T03:04:05Z","Origin":{"VCS":"git","URL":"https://github.com/ex/r","Subdir":"sub/dir","Hash":"a3ab","Ref":"refs/tags/sub/dir/v1.2.3"}}"#
        );
        info.origin.subdir.clear();
        info.origin.tag_prefix = "v2.".to_owned();
        info.origin.tag_sum = "t1:x".to_owned();
        assert_eq!(
            info.to_json(),
            r#"{"Version":"v1.2.3","Time":"2024-01-02T03:04:05Z","Origin":{"VCS":"git","URL":"https://github.com/ex/r","Hash":"a3ab","TagPrefix":"v2.","TagSum":"t1:x","Ref":"refs/tags/sub/dir/v1.2.3"}}"#
        );
    }
}
