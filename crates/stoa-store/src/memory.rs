//! What is remembered of the disk: sidecars, the bytes of small artifacts, lists, and the answers of upstreams.

use std::sync::Arc;

use bytes::Bytes;
use stoa_module::{Artifact, ModulePath, ModuleVersion, Version};

use crate::{
    answers::{Answer, AnswerKey},
    cached::Cached,
    record::Sidecar,
    stored::{StoredList, StoredVersion},
};

/// The largest file whose bytes are remembered. Nearly every `.info` and `.mod` is smaller; a larger one would push out
/// dozens of others.
pub(crate) const SMALL: u64 = 64 << 10;

/// What a body costs beside its bytes: the counter that its readers share, and what the allocator rounds up.
const BODY: usize = 64;

/// One budget in three parts, so that a storm of one kind leaves the others alone.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) versions: Cached<ModuleVersion, Remembered>,
    pub(crate) lists: Cached<ModulePath, Vec<Version>>,
    pub(crate) stored: Cached<ModulePath, StoredList>,
    pub(crate) answers: Cached<AnswerKey, Answer>,
}

/// One version: its sidecar, and the bytes that were asked for.
///
/// **Architecture invariant:** a body here is exactly what the sidecar beside it records.
#[derive(Debug)]
pub(crate) struct Remembered {
    pub(crate) sidecar: Arc<Sidecar>,
    info: Option<Bytes>,
    go_mod: Option<Bytes>,
}

impl Memory {
    /// At most `bytes` in all: three quarters for versions, an eighth for lists of both kinds, an eighth for answers.
    pub(crate) fn new(bytes: u64) -> Self {
        let eighth = bytes / 8;
        Self {
            versions: Cached::new(bytes - 2 * eighth, |module, remembered| {
                text(module.path().as_str()) + text(module.version().as_str()) + remembered.weight()
            }),
            lists: Cached::new(eighth / 2, |path, versions| {
                let each = |version: &Version| size_of::<Version>() + text(version.as_str());
                text(path.as_str()) + versions.iter().map(each).sum::<usize>()
            }),
            stored: Cached::new(eighth / 2, |path, list| {
                let each = |one: &StoredVersion| {
                    size_of::<StoredVersion>() + 3 * 16 + one.version.as_str().len()
                };
                text(path.as_str()) + list.versions.iter().map(each).sum::<usize>()
            }),
            answers: Cached::new(eighth, |key, answer| {
                let key = match key {
                    AnswerKey::List(path) | AnswerKey::Latest(path) => text(path.as_str()),
                    AnswerKey::Query(path, query) => text(path.as_str()) + text(query.as_str()),
                };
                key + body(&answer.body) + text(&answer.source)
            }),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.versions.bytes() + self.lists.bytes() + self.stored.bytes() + self.answers.bytes()
    }

    /// The sidecar on disk is this one now. What was remembered of files that it records as they were stays.
    pub(crate) fn sidecar_replaced(&self, module: &ModuleVersion, sidecar: Arc<Sidecar>) {
        self.versions.replaced(module, |had| {
            let keep = |artifact| {
                let had = had.as_ref()?;
                let bytes = |of: &Sidecar| of.of(artifact).map(|one| (one.size, one.sha256));
                (bytes(&had.sidecar) == bytes(&sidecar)).then(|| had.body(artifact))?
            };
            let (info, go_mod) = (keep(Artifact::Info), keep(Artifact::Mod));
            Arc::new(Remembered { sidecar: Arc::clone(&sidecar), info, go_mod })
        });
    }
}

impl Remembered {
    pub(crate) fn new(sidecar: Arc<Sidecar>) -> Self {
        Self { sidecar, info: None, go_mod: None }
    }

    /// The bytes of an artifact, when they are in memory.
    pub(crate) fn body(&self, artifact: Artifact) -> Option<Bytes> {
        match artifact {
            Artifact::Info => self.info.clone(),
            Artifact::Mod => self.go_mod.clone(),
            Artifact::Zip => None,
        }
    }

    /// The same with a body that has the recorded digest.
    pub(crate) fn with(&self, artifact: Artifact, body: Bytes) -> Self {
        let (mut info, mut go_mod) = (self.info.clone(), self.go_mod.clone());
        match artifact {
            Artifact::Info => info = Some(body),
            Artifact::Mod => go_mod = Some(body),
            Artifact::Zip => {}
        }
        Self { sidecar: Arc::clone(&self.sidecar), info, go_mod }
    }

    fn weight(&self) -> usize {
        let bodies = [&self.info, &self.go_mod].into_iter().flatten().map(body).sum::<usize>();
        size_of::<Sidecar>() + self.sidecar.weight() + bodies
    }
}

/// Bytes that a shared text takes: its counters, and about what the allocator adds.
fn text(text: &str) -> usize {
    32 + text.len()
}

/// Bytes that a body takes; the allocator's classes are an eighth apart.
fn body(body: &Bytes) -> usize {
    body.len() + body.len() / 8 + BODY
}
