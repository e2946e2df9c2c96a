//! What may be torn, and what the disk has lost: found out before anything of it is used.
//!
//! A sidecar that names a batch in doubt (see `batches`) is settled once: each file that it records is hashed, one with other
//! bytes is removed, and the sidecar is written anew in the current batch. What is gone then has a tombstone, like every file
//! that is gone: the same content may come back. The first who opens the version waits for that, and the pass over everything
//! (see `index`) settles what nobody opens. It runs under the version's lock, since a commit may put a whole file in the
//! place of the torn one at the same time.
//!
//! Where the disk does not take the new sidecar (read-only, full), it is settled in memory alone: whole files are served from
//! there, torn ones are withheld, and the doubt stays.

use std::{
    path::Path,
    sync::{Arc, PoisonError},
};

use stoa_module::{Artifact, ModuleVersion};
use tracing::{error, warn};

use crate::{
    durable::Change,
    error::Error,
    files::{Files, OnDisk, is_intact, remove_if_there},
    killpoint::Act,
    layout::VersionFiles,
    memory::Remembered,
    record::{ArtifactRecord, Sidecar},
};

impl Files {
    /// What lies where the sidecar belongs, in no doubt any more. Under the version's lock.
    pub(crate) fn settled(
        &self,
        module: &ModuleVersion,
        place: &VersionFiles,
    ) -> Result<OnDisk, Error> {
        let found = self.read_sidecar(&place.sidecar())?;
        let OnDisk::Sidecar(mut sidecar) = found else { return Ok(found) };
        if !self.durable.batches.is_doubtful(sidecar.batch()) {
            return Ok(OnDisk::Sidecar(sidecar));
        }
        let mut change = self.durable.change()?;
        change.make_directories(&self.layout.download(), &place.dir)?;
        for (artifact, record) in sidecar.records() {
            self.remove_torn(place, artifact, record, &mut change)?;
        }
        sidecar.join(change.batch());
        let written = self.write_sidecar(module, place, *sidecar, None, &mut change)?;
        change.settle()?;
        Ok(OnDisk::Sidecar(Box::new((*written).clone())))
    }

    /// What is whole is synced with the change: it was not, as far as is known.
    fn remove_torn(
        &self,
        place: &VersionFiles,
        artifact: Artifact,
        record: &ArtifactRecord,
        change: &mut Change<'_>,
    ) -> Result<(), Error> {
        for path in place.bodies(artifact, &record.state) {
            if self.is_whole(&path, record)? {
                change.wrote(path);
            } else if path.exists() {
                warn!(path = %path.display(), "a torn file is removed; it will be fetched again");
                self.durable.faults.at(Act::RemoveBlob)?;
                remove_if_there(&path)?;
            }
        }
        Ok(())
    }

    /// An error when it cannot be read, which says nothing about its bytes.
    fn is_whole(&self, path: &Path, record: &ArtifactRecord) -> Result<bool, Error> {
        self.durable.faults.at(Act::ReadBlob)?;
        is_intact(path, record)
    }

    /// For a hit: settles a version that is in doubt. `None` when nothing of it can be served.
    pub(crate) fn settle(
        &self,
        module: &ModuleVersion,
        place: &VersionFiles,
    ) -> Result<Option<Arc<Remembered>>, Error> {
        let ready = self.durable.ready();
        let lock = self.version_locks.of(module);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = || {
            ready?;
            self.settled(module, place)
        };
        match settled() {
            Ok(OnDisk::Sidecar(sidecar)) => Ok(Some(Arc::new(Remembered::new((*sidecar).into())))),
            Ok(OnDisk::Missing | OnDisk::Damaged(_)) => Ok(None),
            Err(Error::Io(error)) => {
                self.left_in_doubt(module, &error);
                Ok(self.settle_in_memory(module, place))
            }
            Err(error) => Err(error),
        }
    }

    fn settle_in_memory(
        &self,
        module: &ModuleVersion,
        place: &VersionFiles,
    ) -> Option<Arc<Remembered>> {
        let Ok(OnDisk::Sidecar(mut sidecar)) = self.read_sidecar(&place.sidecar()) else {
            return None;
        };
        for (artifact, record) in sidecar.records() {
            let bodies = place.bodies(artifact, &record.state);
            let present: Vec<_> = bodies.iter().filter(|path| path.exists()).collect();
            // What cannot be read is perhaps torn.
            if !present.iter().all(|path| self.is_whole(path, record).unwrap_or(false)) {
                warn!(module = %module, "its {artifact} is torn; it will be fetched again");
                self.withheld.add(module, artifact);
            }
        }
        // Nothing that is only in memory is ever written.
        sidecar.join(0);
        let sidecar: Arc<Sidecar> = Arc::new(*sidecar);
        self.memory.sidecar_replaced(module, Arc::clone(&sidecar));
        Some(Arc::new(Remembered::new(sidecar)))
    }

    /// Makes everything durable that was written until now.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        let lost = std::cell::Cell::new(0);
        let flushed = self.durable.flush(|path| {
            lost.set(lost.get() + 1);
            self.lost(path)
        });
        if let Err(failure) = &flushed {
            error!(
                error = %failure, files = lost.get(),
                "what was stored in the last seconds could not be written to the disk; what is lost will be fetched again"
            );
        }
        Ok(flushed?)
    }

    /// The disk did not keep a file: nobody may trust it, whatever can be read of it now.
    fn lost(&self, path: &Path) -> Result<(), Error> {
        let Some((module, artifact)) = self.layout.owner(path) else {
            // A `list` or `.ziphash`.
            self.derived_lost();
            return Ok(());
        };
        let place = self.layout.version(&module)?;
        let lock = self.version_locks.of(&module);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let OnDisk::Sidecar(mut sidecar) = self.read_sidecar(&place.sidecar())? else {
            // Without a sidecar nothing is served, and nothing is remembered against other bytes.
            self.memory.versions.forget(&module);
            return Ok(());
        };
        let Some(artifact) = artifact else {
            // A second try to sync the same file would succeed, and say nothing: the system tells a loss once.
            let mut change = self.durable.change()?;
            change.make_directories(&self.layout.download(), &place.dir)?;
            sidecar.join(change.batch());
            self.write_sidecar(&module, &place, *sidecar, None, &mut change)?;
            return Ok(change.settle()?);
        };
        let removed = self.durable.faults.at(Act::RemoveBlob).and_then(|()| remove_if_there(path));
        if let Err(error) = removed {
            self.withheld.add(&module, artifact);
            return Err(error.into());
        }
        if let Err(error) = self.list_version(&module, &place, &sidecar) {
            self.derived_failed(module.path(), &error);
        }
        Ok(())
    }
}
