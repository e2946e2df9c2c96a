//! Taking out what a checksum database contradicts although it was stored, while nobody was asked about it.
//!
//! # The steps, and what a kill or a power cut leaves after each
//!
//! 1. The sidecar without the entry is renamed over the old one: a miss, from here on, with or without the file.
//! 2. `.ziphash` and `list` follow, as after a commit. A kill before that leaves them wrong, and they are repaired as told in
//!    `commit`.
//! 3. The directory is synced at once, as the sidecar was before its rename, so that the entry cannot come back without its
//!    file: that would refuse all other bytes for ever. A kill here leaves a whole file without an entry: no hit, and the
//!    next commit renames over it.
//! 4. The file is moved to quarantine, and the directory synced again.
//!
//! All of it runs under the version's lock: a commit in between would have its body moved away.
//!
//! A disk that does not take step 1 must not keep it being served: the file is removed if that can be done, and what was
//! rejected is withheld as long as this process lives, until something else is committed in its place.

use std::{
    collections::HashSet,
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use stoa_module::{Artifact, ModuleVersion};

use crate::{
    error::Error,
    files::{Files, OnDisk, remove_if_there},
    killpoint::{Step, reached},
    layout::VersionFiles,
    quarantine::QuarantineNote,
    record::State,
};

/// What was rejected although the disk still records it.
#[derive(Debug, Default)]
pub(crate) struct Withheld {
    /// Hits look here, and nearly always find nothing.
    any: AtomicBool,
    artifacts: Mutex<HashSet<(ModuleVersion, Artifact)>>,
}

impl Withheld {
    pub(crate) fn contains(&self, module: &ModuleVersion, artifact: Artifact) -> bool {
        self.any.load(Ordering::SeqCst)
            && self.with(|all| all.contains(&(module.clone(), artifact)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::SeqCst)
    }

    /// Something else is stored in its place.
    pub(crate) fn release(&self, module: &ModuleVersion, artifact: Artifact) {
        if self.any.load(Ordering::SeqCst) {
            self.with(|all| all.remove(&(module.clone(), artifact)));
        }
    }

    pub(crate) fn add(&self, module: &ModuleVersion, artifact: Artifact) {
        self.with(|all| all.insert((module.clone(), artifact)));
        self.any.store(true, Ordering::SeqCst);
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut HashSet<(ModuleVersion, Artifact)>) -> T) -> T {
        use_it(&mut self.artifacts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Files {
    /// Takes an artifact out, if it has an entry. `removed` is called after step 2, even when a later one fails.
    pub(crate) fn reject(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        note: &QuarantineNote,
        removed: impl FnOnce(),
    ) -> Result<(), Error> {
        let place = self.layout.version(module)?;
        let ready = self.durable.ready();
        let lock = self.version_locks.of(module);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_forgotten = false;
        let on_disk = || {
            ready?;
            self.reject_on_disk(module, artifact, &place, note, || {
                is_forgotten = true;
                removed();
            })
        };
        let rejected = on_disk();
        if rejected.is_err() && !is_forgotten {
            self.withheld.add(module, artifact);
            self.memory.versions.forget(module);
            for file in place.bodies(artifact, &State::Unverified) {
                // A full disk still lets go of a file; where it does not, withholding is all that can be done.
                let _: io::Result<()> = remove_if_there(&file);
            }
        }
        rejected
    }

    fn reject_on_disk(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        place: &VersionFiles,
        note: &QuarantineNote,
        removed: impl FnOnce(),
    ) -> Result<(), Error> {
        let OnDisk::Sidecar(mut sidecar) = self.settled(module, place)? else {
            // Somebody else took it away; what memory still has of it must not be served either.
            self.memory.versions.forget(module);
            return Ok(());
        };
        let Some(record) = sidecar.of(artifact) else {
            self.memory.sidecar_replaced(module, (*sidecar).into());
            return Ok(());
        };
        let bodies = place.bodies(artifact, &record.state);
        let mut change = self.durable.urgent_change()?;
        change.make_directories(&self.layout.download(), &place.dir)?;
        sidecar.join(change.batch());
        sidecar.set(artifact, None);
        self.replace_sidecar(module, place, *sidecar, None, &mut change)?;
        removed();
        change.settle()?;
        reached(Step::Settled);

        let quarantined = match bodies.iter().find(|file| file.exists()) {
            Some(file) => self.quarantine.put(&self.durable, file, artifact.extension(), note),
            None => Ok(()),
        };
        // A body that the quarantine has no room for does not stay under its name.
        for file in &bodies {
            remove_if_there(file)?;
        }
        self.durable.sync_directory(&place.dir)?;
        quarantined
    }
}
