//! Which files of which versions of a module are here: what a list is without a network.
//!
//! It takes a look at each sidecar and file of the module, so it is remembered as long as the directory is as it was: a
//! commit, a rejection and a person who deletes files all change the directory's time.

use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use stoa_module::{Artifact, ModulePath, ModuleVersion, Version};

use crate::{
    error::Error,
    files::{Files, OnDisk},
    lists::{has, is_unverified},
    record::Sidecar,
    trouble::Fault,
};

/// A directory that was changed within this may be changed again without another time: a file system's clock ticks slowly.
const TICKS: Duration = Duration::from_secs(1);

/// A version of which something is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredVersion {
    pub version: Version,
    /// What is stored of it.
    pub artifacts: Vec<Artifact>,
    /// What of that nobody has vouched for yet.
    pub unverified: Vec<Artifact>,
}

impl StoredVersion {
    pub fn has(&self, artifact: Artifact) -> bool {
        self.artifacts.contains(&artifact)
    }
}

/// Of a module, and of which state of its directory.
#[derive(Debug)]
pub(crate) struct StoredList {
    state: DirectoryState,
    pub(crate) versions: Arc<Vec<StoredVersion>>,
}

/// What changes with every name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DirectoryState {
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl DirectoryState {
    /// None of a directory that is not there, or was changed just now, or in the future, as far as the clock knows.
    fn of(dir: &Path) -> Option<Self> {
        let found = fs_err::metadata(dir).ok()?;
        let age = SystemTime::now().duration_since(found.modified().ok()?).ok()?;
        let (seconds, nanoseconds) = (found.mtime(), found.mtime_nsec());
        (age > TICKS).then_some(Self { inode: found.ino(), seconds, nanoseconds })
    }
}

impl Files {
    /// Every version of which an artifact can be served, sorted.
    pub(crate) fn stored_versions(
        &self,
        path: &ModulePath,
    ) -> Result<Arc<Vec<StoredVersion>>, Error> {
        // What is withheld is so without any change on disk.
        let dir = self.layout.module_dir(path)?;
        let state = DirectoryState::of(&dir).filter(|_| self.withheld.is_empty());
        if let Some(state) = state
            && let Some(known) = self.memory.stored.peek(path)
            && known.state == state
        {
            return Ok(Arc::clone(&known.versions));
        }
        let ticket = self.memory.stored.ticket(path);
        let versions = Arc::new(self.look_at_versions(path)?);
        if let Some(state) = state.filter(|_| !versions.is_empty()) {
            let known = StoredList { state, versions: Arc::clone(&versions) };
            self.memory.stored.offer(ticket, path, Arc::new(known));
        }
        Ok(versions)
    }

    fn look_at_versions(&self, path: &ModulePath) -> Result<Vec<StoredVersion>, Error> {
        let mut versions = Vec::new();
        for module in self.with_sidecar(path)? {
            let place = self.layout.version(&module)?;
            let Some(sidecar) = self.sidecar_in_passing(&module)? else { continue };
            let is_served =
                |one| has(&place, &sidecar, one) && !self.withheld.contains(&module, one);
            let artifacts: Vec<_> =
                Artifact::ALL.into_iter().filter(|&one| is_served(one)).collect();
            if !artifacts.is_empty() {
                let unverified =
                    artifacts.iter().copied().filter(|&one| is_unverified(&sidecar, one));
                let unverified = unverified.collect();
                let version: Version = module.version().clone();
                versions.push(StoredVersion { version, artifacts, unverified });
            }
        }
        versions.sort_by(|a, b| a.version.cmp(&b.version));
        Ok(versions)
    }

    /// Without a place in memory, where thousands at once would push out what is asked for often.
    fn sidecar_in_passing(&self, module: &ModuleVersion) -> Result<Option<Arc<Sidecar>>, Error> {
        if let Some(known) = self.memory.versions.peek(module) {
            return Ok(Some(Arc::clone(&known.sidecar)));
        }
        match self.read_sidecar(&self.layout.version(module)?.sidecar()) {
            Ok(OnDisk::Sidecar(sidecar)) if !self.durable.batches.is_doubtful(sidecar.batch()) => {
                Ok(Some(Arc::from(sidecar)))
            }
            Ok(OnDisk::Sidecar(_)) => self.sidecar(module),
            Ok(OnDisk::Missing | OnDisk::Damaged(_)) => Ok(None),
            Err(Error::Io(error)) if Fault::of(&error).is_some() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
