//! Putting an artifact into the store so that nothing can be half there.
//!
//! # The steps, and what a kill or a power cut leaves after each
//!
//! | step | after a kill | after a power cut, in addition |
//! |---|---|---|
//! | 1 the body is in `cache/tmp`, synced | a leftover, swept at the next open | the leftover may be torn |
//! | 2 directories made | empty directories | they may be gone |
//! | 3 the new sidecar is in `cache/tmp`, synced | a second leftover | it may be torn |
//! | 4 the body renamed to its name (which is another one while it is unverified, see `layout`) | a whole file without a sidecar entry, or with the entry of the damaged one it replaced: no hit unless the sizes are equal, and the next commit renames over it | the name may still be missing |
//! | 5 the sidecar renamed to its name | a hit, from here on | either name may be missing: a name without an entry is step 4, an entry without its file (or with a file of another size) is a miss, healed by the next commit of the same bytes |
//! | 6 `.ziphash`, `list` renamed | one of them may be missing or old | they may be torn: they are not synced |
//! | 7 the directory and each parent that gained a directory synced | the commit is durable | nothing |
//! | 8 the index row queued | the row may be missing | |
//!
//! The bytes of a body and of a sidecar are on disk before the name is (1 before 4, 3 before 5), so no name ever shows torn
//! bytes: a sidecar is the old one or the new one, whole. What steps 6 and 8 leave behind follows from the sidecars and is
//! repaired from them: a stop that is not clean leaves no clean mark (see [`crate::index`]), and then every `list`, every
//! `.ziphash` and the index are compared with the sidecars at the next open, and each list before its first use.
//!
//! A hit may see the artifact after step 5, a moment before it is durable. A power cut in that moment can lose what was
//! already served; the next fetch is verified like the first.
//!
//! Steps 3 to 6 run under a lock of the version, because the sidecar holds three artifacts and each commit rewrites it:
//! without the lock one of two commits at once would lose the other's entry. Step 1 runs before it and step 7 after it, so
//! that commits of one version wait for each other's renames only and share the sync of their directory. Hits never take
//! the lock. A commit runs on one blocking thread from step 1 to 8: dropping its future cannot stop it in between.
//!
//! # First bytes win
//!
//! An artifact that has an entry is never replaced by other bytes ([`Error::Conflict`]) while the recorded file is whole.
//! When that is gone or damaged, two kinds of other bytes take its place, since nobody could ever bring the lost ones back:
//!
//! - a body with the same `h1:`: upstreams may compress the same module differently;
//! - any `.info`: it has no `h1:`, nobody vouches for its bytes, and proxies add to it over time (`Origin`).
//!
//! The same bytes are accepted again, heal a damaged file, and can raise the recorded state to verified, by the database
//! that was asked last, never lower it. What a checksum database contradicts later is taken out by a rejection (see
//! `reject`).

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use stoa_module::{Artifact, ModuleVersion};
use tempfile::TempPath;
use tracing::warn;

use crate::{
    durable::replace,
    error::Error,
    files::{Files, OnDisk, intact_body, is_absent, remove_if_there},
    killpoint::{Act, Step, reached},
    layout::VersionFiles,
    quarantine::QuarantineNote,
    record::{ArtifactRecord, Sidecar, State},
};

/// What to do about an offered artifact.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// It is stored already, as it should be.
    Keep,
    /// The file, which lies there, is right; the entry shall say more.
    Rewrite(ArtifactRecord, PathBuf),
    /// Both the file and the entry.
    Place(ArtifactRecord),
}

/// A file that gets its name together with the entry that records it.
pub(crate) enum Body {
    New(TempPath),
    /// Stored already, and perhaps under another name.
    Lying(PathBuf),
}

impl Body {
    fn put(self, to: &Path) -> io::Result<()> {
        match self {
            Self::New(temporary) => replace(temporary, to),
            Self::Lying(from) if from == to => Ok(()),
            Self::Lying(from) => match fs_err::rename(from, to) {
                // Lost, or moved by a process that was killed before it could say so.
                Err(error) if !is_absent(&error) => Err(error),
                _ => Ok(()),
            },
        }
    }
}

impl Files {
    /// Step 1: from here on the file's bytes do not depend on what the disk does to those that are not written yet.
    pub(crate) fn sync_body(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        file: &fs_err::File,
        record: &ArtifactRecord,
    ) -> Result<(), Error> {
        let found = file.metadata()?.len();
        if found != record.size {
            let (module, recorded) = (module.to_string(), record.size);
            return Err(Error::SizeDiffers { module, artifact, recorded, found });
        }
        self.durable.faults.at(Act::SyncBlob)?;
        file.sync_all()?;
        reached(Step::BlobSynced);
        Ok(())
    }

    /// Steps 2 to 7, of a synced body. Gives the version's sidecar as it is now.
    pub(crate) fn commit(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        temporary: TempPath,
        record: ArtifactRecord,
    ) -> Result<Arc<Sidecar>, Error> {
        let place = self.layout.version(module)?;

        let lock = self.version_locks.of(module);
        let held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sidecar = self.sidecar_to_change(module, &place)?;
        let unsettled = self.durable.make_directories(&self.layout.download(), &place.dir)?;
        reached(Step::DirectoriesMade);
        // What was rejected speaks against nothing, although it may still lie there.
        let is_withheld = self.withheld.contains(module, artifact);
        let first = sidecar.of(artifact).filter(|_| !is_withheld);
        let decision = decide(&place, artifact, first, record)?;
        let had = sidecar.of(artifact).map(|had| place.body(artifact, &had.state));
        let change = match decision {
            Decision::Keep => None,
            Decision::Rewrite(record, file) => Some((record, Body::Lying(file))),
            Decision::Place(record) => Some((record, Body::New(temporary))),
        };
        let sidecar = if let Some((record, body)) = change {
            let to = place.body(artifact, &record.state);
            let outdated = had.filter(|had| *had != to);
            sidecar.set(artifact, Some(record));
            let sidecar = self.replace_sidecar(module, &place, sidecar, Some((body, to)))?;
            self.withheld.release(module, artifact);
            if let Some(file) = outdated {
                remove_if_there(&file)?;
            }
            sidecar
        } else {
            let sidecar = Arc::new(sidecar);
            self.memory.sidecar_replaced(module, Arc::clone(&sidecar));
            sidecar
        };
        drop(held);

        // Also for what was kept: whoever stored it may have been killed before this step.
        self.durable.settle(unsettled)?;
        reached(Step::DirectorySynced);
        Ok(sidecar)
    }

    /// Says something else of who vouches for a stored artifact. What is verified stays so, by the database that was asked
    /// last. `None` when it has no entry.
    pub(crate) fn restate(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        state: State,
    ) -> Result<Option<Arc<Sidecar>>, Error> {
        let place = self.layout.version(module)?;
        let lock = self.version_locks.of(module);
        let held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let OnDisk::Sidecar(mut sidecar) = self.read_sidecar(&place.sidecar())? else {
            return Ok(None);
        };
        let Some(record) = sidecar.of(artifact) else { return Ok(None) };
        let is_lowered = record.state.is_verified() && !state.is_verified();
        if record.state == state || is_lowered {
            let sidecar = Arc::new(*sidecar);
            self.memory.sidecar_replaced(module, Arc::clone(&sidecar));
            return Ok(Some(sidecar));
        }
        let from = place.body(artifact, &record.state);
        let to = place.body(artifact, &state);
        let stays = from == to;
        let body = Body::Lying(from);
        let record = ArtifactRecord { state, ..record.clone() };
        sidecar.set(artifact, Some(record));
        let written = || {
            let unsettled = self.durable.make_directories(&self.layout.download(), &place.dir)?;
            let changed = (*sidecar).clone();
            let sidecar = self.replace_sidecar(module, &place, changed, Some((body, to)))?;
            drop(held);
            self.durable.settle(unsettled)?;
            Ok(sidecar)
        };
        match written() {
            Ok(sidecar) => Ok(Some(sidecar)),
            Err(error) => {
                // It is true all the same, and is said again by whoever asks when memory has forgotten it. But a file that
                // could not be moved would not be found by it.
                if stays {
                    self.memory.sidecar_replaced(module, Arc::new(*sidecar));
                }
                Err(error)
            }
        }
    }

    /// Whether what is recorded of this artifact, also without its file, speaks against other bytes that come. A record
    /// that cannot be read speaks against those that nobody vouches for.
    pub(crate) fn refuse_other(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        offered: &ArtifactRecord,
    ) -> Result<(), Error> {
        match self.sidecar(module) {
            Ok(sidecar) => match sidecar.as_ref().and_then(|sidecar| sidecar.of(artifact)) {
                Some(had)
                    if is_other(artifact, had, offered)
                        && !self.withheld.contains(module, artifact) =>
                {
                    Err(Error::Conflict { had: Box::new(had.clone()) })
                }
                _ => Ok(()),
            },
            Err(_) if offered.state.is_verified() || artifact == Artifact::Info => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Steps 3 to 6, under the version's lock.
    pub(crate) fn replace_sidecar(
        &self,
        module: &ModuleVersion,
        place: &VersionFiles,
        sidecar: Sidecar,
        body: Option<(Body, PathBuf)>,
    ) -> Result<Arc<Sidecar>, Error> {
        let mut text = serde_json::to_vec(&sidecar).map_err(io::Error::other)?;
        text.push(b'\n');
        let temporary = self.durable.write_temporary(&text, true)?;
        reached(Step::SidecarSynced);
        if let Some((body, to)) = body {
            self.durable.faults.at(Act::RenameBlob)?;
            body.put(&to)?;
            reached(Step::BlobRenamed);
        }
        self.durable.faults.at(Act::RenameSidecar)?;
        replace(temporary, &place.sidecar())?;
        reached(Step::SidecarRenamed);
        let sidecar = Arc::new(sidecar);
        self.memory.sidecar_replaced(module, Arc::clone(&sidecar));
        // The artifact is stored; what follows from that must not undo it.
        let derived = self.hash_version(module, place, &sidecar).and_then(|()| {
            reached(Step::ZipHashRenamed);
            self.list_version(module, place, &sidecar)
        });
        if let Err(error) = derived {
            self.derived_failed(module.path(), &error);
        }
        Ok(sidecar)
    }

    /// The sidecar as disk has it. A damaged one is moved to quarantine: its entries cannot be read, so the version starts
    /// anew.
    fn sidecar_to_change(
        &self,
        module: &ModuleVersion,
        place: &VersionFiles,
    ) -> Result<Sidecar, Error> {
        match self.read_sidecar(&place.sidecar())? {
            OnDisk::Sidecar(sidecar) => Ok(*sidecar),
            OnDisk::Missing => Ok(Sidecar::default()),
            OnDisk::Damaged(error) => {
                let note = QuarantineNote {
                    module: module.to_string(),
                    artifact: Artifact::Info,
                    reason: format!("damaged sidecar: {error}"),
                    source: place.sidecar().display().to_string(),
                };
                self.quarantine.put(&self.durable, &place.sidecar(), "sidecar", &note)?;
                warn!(
                    module.path = %module.path(), module.version = %module.version(), error,
                    "a damaged sidecar was moved to quarantine"
                );
                Ok(Sidecar::default())
            }
        }
    }
}

fn decide(
    place: &VersionFiles,
    artifact: Artifact,
    had: Option<&ArtifactRecord>,
    offered: ArtifactRecord,
) -> Result<Decision, Error> {
    let Some(had) = had else { return Ok(Decision::Place(offered)) };
    if is_other(artifact, had, &offered) {
        return Err(Error::Conflict { had: Box::new(had.clone()) });
    }
    let same_bytes = had.sha256 == offered.sha256;
    let same_content = is_same(had, &offered);
    let intact = intact_body(place, artifact, had)?;
    if intact.is_some() && !same_bytes {
        return Err(Error::Conflict { had: Box::new(had.clone()) });
    }
    if !same_content {
        return Ok(Decision::Place(ArtifactRecord { first_seen: had.first_seen, ..offered }));
    }
    let keeps_state = !offered.state.is_verified() && (had.state.is_verified() || same_bytes);
    let state = if keeps_state { had.state.clone() } else { offered.state };
    let source = if same_bytes { had.source.clone() } else { offered.source };
    let merged = ArtifactRecord {
        size: offered.size,
        sha256: offered.sha256,
        h1: had.h1.or(offered.h1),
        state,
        source,
        first_seen: had.first_seen,
    };
    Ok(match intact {
        Some(_) if merged == *had => Decision::Keep,
        Some(file) => Decision::Rewrite(merged, file),
        None => Decision::Place(merged),
    })
}

fn is_same(had: &ArtifactRecord, offered: &ArtifactRecord) -> bool {
    had.sha256 == offered.sha256 || (had.h1.is_some() && had.h1 == offered.h1)
}

/// Whether the first bytes win even when their file is lost. What nobody vouched for gives way then to what a checksum
/// database vouches for.
fn is_other(artifact: Artifact, had: &ArtifactRecord, offered: &ArtifactRecord) -> bool {
    let vouched_for = offered.state.is_verified() && !had.state.is_verified();
    !is_same(had, offered) && artifact != Artifact::Info && !vouched_for
}
