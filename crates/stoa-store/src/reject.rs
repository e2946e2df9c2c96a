//! Taking out what a checksum database contradicts although it was stored, while nobody was asked about it.
//!
//! # The steps, and what a kill or a power cut leaves after each
//!
//! 1. The sidecar without the entry is renamed over the old one: a miss, from here on, with or without the file.
//! 2. `.ziphash` and `list` follow, as after a commit. A kill before that leaves them wrong, and they are repaired as told in
//!    `commit`.
//! 3. The directory is synced, so that the entry cannot come back without its file: that would refuse all other bytes for
//!    ever. A kill here leaves a whole file without an entry: no hit, and the next commit renames over it.
//! 4. The file is moved to quarantine, and the directory synced again.
//!
//! All of it runs under the version's lock: a commit in between would have its body moved away.

use std::sync::PoisonError;

use stoa_module::{Artifact, ModuleVersion};

use crate::{
    error::Error,
    files::{Files, OnDisk, read_sidecar, remove_if_there},
    killpoint::{Step, reached},
    quarantine::QuarantineNote,
};

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
        let lock = self.version_locks.of(module);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let OnDisk::Sidecar(mut sidecar) = read_sidecar(&place.sidecar())? else {
            // Somebody else took it away; what memory still has of it must not be served either.
            self.memory.versions.forget(module);
            return Ok(());
        };
        let Some(record) = sidecar.of(artifact) else {
            self.memory.sidecar_replaced(module, (*sidecar).into());
            return Ok(());
        };
        let bodies = place.bodies(artifact, &record.state);
        sidecar.set(artifact, None);
        let directories = || self.durable.make_directories(&self.layout.download(), &place.dir);
        let unsettled = directories()?;
        self.replace_sidecar(module, &place, *sidecar, None)?;
        removed();
        self.durable.settle(unsettled)?;
        reached(Step::DirectorySynced);

        let quarantined = match bodies.iter().find(|file| file.exists()) {
            Some(file) => self.quarantine.put(&self.durable, file, artifact.extension(), note),
            None => Ok(()),
        };
        // A body that the quarantine has no room for does not stay under its name.
        for file in &bodies {
            remove_if_there(file)?;
        }
        self.durable.settle(directories()?)?;
        quarantined
    }
}
