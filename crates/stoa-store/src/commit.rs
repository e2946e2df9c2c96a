//! Putting an artifact into the store so that nothing can be half there.
//!
//! # The steps, and what a kill or a power cut leaves after each
//!
//! | step | after a kill | after a power cut, in addition |
//! |---|---|---|
//! | 1 the body is in `cache/tmp` | a leftover, swept at the next open | the leftover may be torn |
//! | 2 directories made | empty directories | they may be gone |
//! | 3 the new sidecar is in `cache/tmp` | a second leftover | it may be torn |
//! | 4 the body renamed to its name (which is another one while it is unverified, see `layout`) | a whole file without a sidecar entry, or with the entry of the damaged one it replaced: no hit unless the sizes are equal, and the next commit renames over it | the name may be missing, or have a torn file: neither has an entry |
//! | 5 the sidecar renamed to its name | a hit, from here on, once it is settled | the sidecar may be missing, torn (a miss) or the older one; the body may be missing or torn, which settling finds out: a miss, healed by the next commit of the same bytes |
//! | 6 `.ziphash`, `list` renamed | one of them may be missing or old | they may be torn |
//! | 7 what was written is remembered for the next flush | | the same |
//! | 8 the index row queued | the row may be missing | |
//! | 9 a flush (within `store.flush-interval`): body, sidecar, `.ziphash`, `list`, the directory, each parent that gained a directory, then the mark | the commit is durable when all but the mark is; it is settled all the same when the mark is not | nothing is lost from here on |
//!
//! Nothing waits for the disk in steps 1 to 8, so up to 9 a power cut may leave a name without its bytes: empty, short, or
//! zeros. So every sidecar names its *batch* (see `batches`). After a stop that was not clean, a sidecar of a batch that is
//! not known to be on disk is *settled* before anything of it is used (see `settle`): its files are hashed, torn ones are
//! removed, and what is left of it is the tombstone that they were there. A torn file is never served, and first bytes win
//! for every sidecar that survived. One that is known to be on disk is replaced only by one that was synced before its
//! rename, since some file systems would leave neither.
//!
//! With an interval of nothing, the body is synced before 4, the sidecar before 5, and the directories in 7: then no name ever
//! shows torn bytes, a sidecar names no batch, and a power cut in the moment between 5 and 7 is all that can lose something.
//!
//! What steps 6 and 8 leave behind follows from the sidecars and is repaired from them: a stop that is not clean leaves no
//! clean mark (see [`crate::index`]), and then every `list`, every `.ziphash` and the index are compared with the sidecars at
//! the next open, and each list before its first use. Before a clean mark is left, everything is flushed.
//!
//! Steps 3 to 6 run under a lock of the version, because the sidecar holds three artifacts and each commit rewrites it:
//! without the lock one of two commits at once would lose the other's entry. Commits of one version wait for each other's
//! renames only. Hits never take the lock, but for one that is the first to open a version in doubt. A commit runs on one
//! blocking thread from step 1 to 8: dropping its future cannot stop it in between.
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
    durable::{Change, replace},
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
    /// Step 1. Where nothing is left to a flush, the file's bytes do not depend on the disk from here on.
    pub(crate) fn body_written(
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
        if !self.durable.batches.is_batched() {
            self.make_safe(file)?;
        }
        reached(Step::BlobWritten);
        Ok(())
    }

    /// Syncs a body. Also for one that could not be committed, before it is handed out from the disk.
    pub(crate) fn make_safe(&self, file: &fs_err::File) -> io::Result<()> {
        self.durable.faults.at(Act::SyncBlob)?;
        self.durable.sync(file)
    }

    /// Steps 2 to 7, of a body that is written. Gives the version's sidecar as it is now.
    pub(crate) fn commit(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        temporary: TempPath,
        record: ArtifactRecord,
    ) -> Result<Arc<Sidecar>, Error> {
        let place = self.layout.version(module)?;
        self.durable.ready()?;

        let lock = self.version_locks.of(module);
        let held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sidecar = self.sidecar_to_change(module, &place)?;
        let mut change = self.durable.change()?;
        change.make_directories(&self.layout.download(), &place.dir)?;
        reached(Step::DirectoriesMade);
        // What was rejected speaks against nothing, although it may still lie there.
        let is_withheld = self.withheld.contains(module, artifact);
        let first = sidecar.of(artifact).filter(|_| !is_withheld);
        let decision = decide(&place, artifact, first, record)?;
        let had = sidecar.of(artifact).map(|had| place.body(artifact, &had.state));
        let decided = match decision {
            Decision::Keep => None,
            Decision::Rewrite(record, file) => Some((record, Body::Lying(file))),
            Decision::Place(record) => Some((record, Body::New(temporary))),
        };
        let sidecar = if let Some((record, body)) = decided {
            let to = place.body(artifact, &record.state);
            let outdated = had.filter(|had| *had != to);
            sidecar.join(change.batch());
            sidecar.set(artifact, Some(record));
            let body = Some((body, to));
            let sidecar = self.replace_sidecar(module, &place, sidecar, body, &mut change)?;
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
        change.settle()?;
        reached(Step::Settled);
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
        let ready = self.durable.ready();
        let held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let OnDisk::Sidecar(mut sidecar) = self.settled(module, &place)? else {
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
            ready?;
            let mut change = self.durable.change()?;
            change.make_directories(&self.layout.download(), &place.dir)?;
            let mut changed = (*sidecar).clone();
            changed.join(change.batch());
            let body = Some((body, to));
            let sidecar = self.replace_sidecar(module, &place, changed, body, &mut change)?;
            drop(held);
            change.settle()?;
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

    /// Steps 3 to 6, under the version's lock. The sidecar names the batch of the change.
    pub(crate) fn replace_sidecar(
        &self,
        module: &ModuleVersion,
        place: &VersionFiles,
        sidecar: Sidecar,
        body: Option<(Body, PathBuf)>,
        change: &mut Change<'_>,
    ) -> Result<Arc<Sidecar>, Error> {
        let sidecar = self.write_sidecar(module, place, sidecar, body, change)?;
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

    /// Steps 3 to 5.
    pub(crate) fn write_sidecar(
        &self,
        module: &ModuleVersion,
        place: &VersionFiles,
        sidecar: Sidecar,
        body: Option<(Body, PathBuf)>,
        change: &mut Change<'_>,
    ) -> Result<Arc<Sidecar>, Error> {
        let mut text = serde_json::to_vec(&sidecar).map_err(io::Error::other)?;
        text.push(b'\n');
        // What is on disk must not be replaced by what may be torn.
        let had_durable = self.durable.batches.is_flushed(sidecar.first_batch());
        let syncs_first = change.syncs_first() || had_durable;
        let temporary = self.durable.write_temporary(&text, syncs_first)?;
        reached(Step::SidecarWritten);
        if let Some((body, to)) = body {
            self.durable.faults.at(Act::RenameBlob)?;
            if !change.syncs_first() {
                change.wrote(to.clone());
            }
            body.put(&to)?;
            reached(Step::BlobRenamed);
        }
        self.durable.faults.at(Act::RenameSidecar)?;
        if !syncs_first {
            change.wrote(place.sidecar());
        }
        replace(temporary, &place.sidecar())?;
        reached(Step::SidecarRenamed);
        let sidecar = Arc::new(sidecar);
        self.memory.sidecar_replaced(module, Arc::clone(&sidecar));
        Ok(sidecar)
    }

    /// The sidecar as disk has it. A damaged one is moved to quarantine: its entries cannot be read, so the version starts
    /// anew.
    fn sidecar_to_change(
        &self,
        module: &ModuleVersion,
        place: &VersionFiles,
    ) -> Result<Sidecar, Error> {
        match self.settled(module, place)? {
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
