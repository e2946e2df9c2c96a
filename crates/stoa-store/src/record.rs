//! What a sidecar says: the durable record of each artifact of one version.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stoa_module::{Artifact, H1, Sha256};

use crate::spool::OpenFile;

/// What is known for ever about one stored artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRecord {
    /// Bytes of the file.
    pub size: u64,
    pub sha256: Sha256,
    /// The `h1:` of the zip's content or of the go.mod; `.info` has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub h1: Option<H1>,
    #[serde(flatten)]
    pub state: State,
    /// Where the bytes came from, for people; never with a secret.
    pub source: String,
    pub first_seen: Timestamp,
}

/// Who vouches for an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    /// A checksum database has a record with this hash.
    Verified {
        /// The database's name, as in its key.
        database: String,
    },
    /// A pattern of the configuration took it out of the database's cover.
    Exempt { pattern: String },
    /// Nobody covers it: every `.info`.
    Uncovered,
    /// It is covered, but the checksum database could not be asked yet.
    Unverified,
}

impl State {
    /// The word in the sidecar and in the index.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Verified { .. } => "verified",
            Self::Exempt { .. } => "exempt",
            Self::Uncovered => "uncovered",
            Self::Unverified => "unverified",
        }
    }

    /// Whether a checksum database vouches for it.
    pub fn is_verified(&self) -> bool {
        matches!(self, Self::Verified { .. })
    }

    /// The database's name or the exempting pattern.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Verified { database } => Some(database),
            Self::Exempt { pattern } => Some(pattern),
            Self::Uncovered | Self::Unverified => None,
        }
    }
}

/// The records of one version, as `@v/VERSION.stoa` holds them:
/// `{"stoa":1,"info":{…},"mod":{…},"zip":{…},"batches":{"first":1,"last":2}}`, each part there when that artifact is stored,
/// the last one unless it was synced at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "OnDisk", try_from = "OnDisk")]
pub struct Sidecar {
    // Not a map: one map node takes as much memory as eleven records.
    info: Option<ArtifactRecord>,
    go_mod: Option<ArtifactRecord>,
    zip: Option<ArtifactRecord>,
    batches: Batches,
}

/// When a version's sidecar was written first and last; see the module `batches`. 0 is synced before anybody saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Batches {
    first: u64,
    last: u64,
}

impl Sidecar {
    /// The record of one artifact.
    pub fn of(&self, artifact: Artifact) -> Option<&ArtifactRecord> {
        match artifact {
            Artifact::Info => self.info.as_ref(),
            Artifact::Mod => self.go_mod.as_ref(),
            Artifact::Zip => self.zip.as_ref(),
        }
    }

    /// What is recorded, in the order `.info`, `.mod`, `.zip`.
    pub fn records(&self) -> impl Iterator<Item = (Artifact, &ArtifactRecord)> {
        Artifact::ALL.into_iter().filter_map(|one| self.of(one).map(|record| (one, record)))
    }

    pub(crate) fn set(&mut self, artifact: Artifact, record: Option<ArtifactRecord>) {
        match artifact {
            Artifact::Info => self.info = record,
            Artifact::Mod => self.go_mod = record,
            Artifact::Zip => self.zip = record,
        }
    }

    /// The batch that the sidecar was last written in.
    pub(crate) fn batch(&self) -> u64 {
        self.batches.last
    }

    /// The batch of its first record.
    pub(crate) fn first_batch(&self) -> u64 {
        self.batches.first
    }

    /// It is going to be written in this batch. To be called before a record is set.
    pub(crate) fn join(&mut self, batch: u64) {
        let first = if self.records().next().is_none() { batch } else { self.batches.first };
        self.batches = Batches { first, last: batch };
    }

    /// Bytes this takes in memory beyond its own size.
    pub(crate) fn weight(&self) -> usize {
        let text = |record: &ArtifactRecord| {
            record.source.len() + record.state.detail().map_or(0, str::len) + 2 * ALLOCATION
        };
        self.records().map(|(_, record)| text(record)).sum()
    }
}

/// What the allocator adds to a short text, about.
const ALLOCATION: usize = 16;

/// The only form of a sidecar this program reads and writes.
const SIDECAR_FORM: u32 = 1;

#[derive(Serialize, Deserialize)]
struct OnDisk {
    stoa: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    info: Option<ArtifactRecord>,
    #[serde(default, rename = "mod", skip_serializing_if = "Option::is_none")]
    go_mod: Option<ArtifactRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zip: Option<ArtifactRecord>,
    #[serde(default, skip_serializing_if = "Batches::are_synced")]
    batches: Batches,
}

impl Batches {
    fn are_synced(&self) -> bool {
        *self == Self::default()
    }
}

impl From<Sidecar> for OnDisk {
    fn from(Sidecar { info, go_mod, zip, batches }: Sidecar) -> Self {
        Self { stoa: SIDECAR_FORM, info, go_mod, zip, batches }
    }
}

impl TryFrom<OnDisk> for Sidecar {
    type Error = String;

    fn try_from(OnDisk { stoa, info, go_mod, zip, batches }: OnDisk) -> Result<Self, String> {
        if stoa == SIDECAR_FORM {
            Ok(Self { info, go_mod, zip, batches })
        } else {
            Err(format!("a sidecar of form {stoa}, known is {SIDECAR_FORM}"))
        }
    }
}

/// A hit: the bytes, and what is known about them.
#[derive(Debug)]
pub struct Stored {
    pub record: ArtifactRecord,
    /// Exactly `record.size` bytes long.
    pub content: Content,
}

/// The bytes of an artifact.
#[derive(Debug)]
pub enum Content {
    /// Of a small `.info` or `.mod`.
    Memory(Bytes),
    File(Arc<OpenFile>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_on_disk() {
        let record = ArtifactRecord {
            size: 5,
            sha256: Sha256::of(b"hello"),
            h1: Some(H1::of_go_mod(b"module example.com/m\n")),
            state: State::Verified { database: "sum.golang.org".into() },
            source: "proxy.golang.org".into(),
            first_seen: "2026-01-02T03:04:05Z".parse().unwrap(),
        };
        let info = ArtifactRecord { h1: None, state: State::Uncovered, size: 0, ..record.clone() };
        let (info, go_mod) = (Some(info), Some(record));
        let sidecar = Sidecar { info, go_mod, zip: None, batches: Batches::default() };
        let text = serde_json::to_string(&sidecar).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"stoa":1,"info":{"size":0,"sha256":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","#,
                r#""state":"uncovered","source":"proxy.golang.org","first_seen":"2026-01-02T03:04:05Z"},"#,
                r#""mod":{"size":5,"sha256":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","#,
                r#""h1":"h1:flS2VctbRrTv+sBE+VKgxx6hlkMGPVz9MGOmzMYFg3k=","state":"verified","database":"sum.golang.org","#,
                r#""source":"proxy.golang.org","first_seen":"2026-01-02T03:04:05Z"}}"#
            )
        );
        assert_eq!(serde_json::from_str::<Sidecar>(&text).unwrap(), sidecar);
        // Of its own first batch, and of a later one.
        let mut batched = Sidecar::default();
        batched.join(7);
        batched.set(Artifact::Info, sidecar.info.clone());
        batched.join(9);
        let text = serde_json::to_string(&batched).unwrap();
        assert!(text.ends_with(r#","batches":{"first":7,"last":9}}"#), "{text}");
        assert_eq!(serde_json::from_str::<Sidecar>(&text).unwrap(), batched);
    }

    #[test]
    fn what_is_no_sidecar() {
        fn check(text: &str, readable: bool) {
            assert_eq!(serde_json::from_str::<Sidecar>(text).is_ok(), readable, "{text}");
        }
        check(r#"{"stoa":1}"#, true);
        check(r#"{"stoa":1,"later":{"x":1}}"#, true);
        check(r#"{"stoa":2}"#, false);
        check("{}", false);
        check("", false);
        check("\0\0\0\0", false);
        check(r#"{"stoa":1,"zip":{"size":1}}"#, false);
        check(r#"{"stoa":1,"zip":{"size":-1,"sha256":"","state":"verified"}}"#, false);
    }
}
