//! Which versions of a module are stored: the `list` of a module, which a `file://` client reads, and its agreement with
//! the sidecars.
//!
//! A `list` is derived. A commit changes it after the sidecar, so a process killed in between leaves it one version short;
//! hence after an unclean stop no list is believed before it was compared with the sidecars, on demand or by the pass over
//! everything that also rebuilds the index.

use std::{
    io,
    path::Path,
    sync::{Arc, PoisonError},
};

use stoa_module::{Artifact, ModulePath, ModuleVersion, Version, render_list};
use tracing::warn;

use crate::{
    durable::replace,
    error::Error,
    files::{Files, OnDisk, has_size, is_absent, read_if_there, read_sidecar, remove_if_there},
    killpoint::{Step, reached},
    layout::{SIDECAR_SUFFIX, VersionFiles},
    record::{Sidecar, State},
    stored::StoredVersion,
};

/// What came of a comparison of a module's `list` with its sidecars.
enum Compared {
    /// They agree now.
    Agree(Arc<Vec<Version>>),
    /// These must be settled before anything can be said; the list is as it was.
    InDoubt(Vec<ModuleVersion>),
}

impl Files {
    /// The versions whose `.info` and `.mod` are stored and not unverified, sorted, pseudo-versions included.
    pub(crate) fn versions(&self, path: &ModulePath) -> Result<Arc<Vec<Version>>, Error> {
        if let Some(versions) = self.memory.lists.peek(path) {
            return Ok(versions);
        }
        if !self.derived_agree() {
            return self.reconcile(path, |_, _| {});
        }
        let file = self.layout.list(path)?;
        // Nothing is remembered of a module without a list: clients probe many paths that are none.
        let versions = self.memory.lists.load(path, || {
            let versions = read_if_there(&file)?.map(|text| parse(&text));
            Ok(versions.filter(|versions| !versions.is_empty()))
        })?;
        Ok(versions.unwrap_or_default())
    }

    /// Puts a version into its module's `list` when `.info` and `.mod` are both there for everybody, and takes it out when
    /// not (after a damaged sidecar was replaced, or an artifact rejected). Called under the version's lock.
    pub(crate) fn list_version(
        &self,
        module: &ModuleVersion,
        place: &VersionFiles,
        sidecar: &Sidecar,
    ) -> Result<(), Error> {
        let path = module.path();
        if !self.derived_agree() && self.memory.lists.peek(path).is_none() {
            // The list may be wrong about more than this version, whose sidecar is on disk by now. If another is in doubt
            // it is left to the pass over everything, which has not been here yet: settling takes that version's lock.
            return self.compare(path, &mut |_, _| {}).map(|_| ());
        }
        let lock = self.list_locks.of(path);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut versions = self.versions_remembered_or_on_disk(path)?;
        match (versions.binary_search(module.version()), is_listable(place, sidecar)) {
            (Ok(at), false) => {
                versions.remove(at);
            }
            (Err(at), true) => versions.insert(at, module.version().clone()),
            (Ok(_), true) | (Err(_), false) => return Ok(()),
        }
        let written = self.correct_list(path, &versions);
        self.memory.lists.replaced(path, |_| Arc::new(versions));
        written
    }

    fn versions_remembered_or_on_disk(&self, path: &ModulePath) -> Result<Vec<Version>, Error> {
        if let Some(versions) = self.memory.lists.peek(path) {
            return Ok(versions.to_vec());
        }
        let text = read_if_there(&self.layout.list(path)?)?;
        Ok(text.map(|text| parse(&text)).unwrap_or_default())
    }

    /// Makes `list` and every `.ziphash` of one module agree with its sidecars, settles those in doubt, and shows each sidecar
    /// to `each`, some twice. Gives what the list holds then. To be called without a lock.
    pub(crate) fn reconcile(
        &self,
        path: &ModulePath,
        mut each: impl FnMut(ModuleVersion, Sidecar),
    ) -> Result<Arc<Vec<Version>>, Error> {
        let modules = match self.compare(path, &mut each)? {
            Compared::Agree(versions) => return Ok(versions),
            Compared::InDoubt(modules) => modules,
        };
        for module in &modules {
            self.settle(module, &self.layout.version(module)?)?;
        }
        if let Compared::Agree(versions) = self.compare(path, &mut each)? {
            return Ok(versions);
        }
        // The disk does not take it: it is settled in memory alone, or not at all.
        for module in modules {
            if let Some(sidecar) = self.sidecar(&module)? {
                each(module, Sidecar::clone(&sidecar));
            }
        }
        let stored = self.stored_versions(path)?;
        let is_listed = |one: &&StoredVersion| {
            one.has(Artifact::Info)
                && one.has(Artifact::Mod)
                && !one.unverified.contains(&Artifact::Mod)
        };
        let listed = stored.iter().filter(is_listed).map(|one| one.version.clone());
        Ok(Arc::new(listed.collect()))
    }

    fn compare(
        &self,
        path: &ModulePath,
        each: &mut impl FnMut(ModuleVersion, Sidecar),
    ) -> Result<Compared, Error> {
        let lock = self.list_locks.of(path);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut versions = Vec::new();
        let mut in_doubt = Vec::new();
        for module in self.with_sidecar(path)? {
            let place = self.layout.version(&module)?;
            let sidecar = match read_sidecar(&place.sidecar())? {
                OnDisk::Sidecar(sidecar) => *sidecar,
                OnDisk::Missing => continue,
                OnDisk::Damaged(error) => {
                    warn!(path = %place.sidecar().display(), error, "a damaged sidecar");
                    continue;
                }
            };
            if self.durable.batches.is_doubtful(sidecar.batch()) {
                in_doubt.push(module);
                continue;
            }
            if let Err(error) = self.correct_zip_hash(&place, &sidecar) {
                self.derived_failed(path, &error);
            }
            if is_listable(&place, &sidecar) {
                versions.push(module.version().clone());
            }
            each(module, sidecar);
        }
        if !in_doubt.is_empty() {
            return Ok(Compared::InDoubt(in_doubt));
        }
        versions.sort();
        if let Err(error) = self.correct_list(path, &versions) {
            self.derived_failed(path, &error);
        }
        let versions = Arc::new(versions);
        if versions.is_empty() {
            self.memory.lists.forget(path);
        } else {
            self.memory.lists.replaced(path, |_| Arc::clone(&versions));
        }
        Ok(Compared::Agree(versions))
    }

    fn correct_list(&self, path: &ModulePath, versions: &[Version]) -> Result<(), Error> {
        let file = self.layout.list(path)?;
        if versions.is_empty() {
            if file.exists() {
                remove_if_there(&file)?;
                self.durable.derived(&file)?;
            }
            return Ok(());
        }
        if read_if_there(&file)?.as_deref() == Some(render_list(versions).as_bytes()) {
            return Ok(());
        }
        // Synced before the next clean stop; after one that is not clean it is compared with the sidecars.
        let temporary = self.durable.write_temporary(render_list(versions).as_bytes(), false)?;
        replace(temporary, &file)?;
        reached(Step::ListRenamed);
        Ok(self.durable.derived(&file)?)
    }

    /// The versions that have a sidecar file, in no order.
    pub(crate) fn with_sidecar(&self, path: &ModulePath) -> Result<Vec<ModuleVersion>, Error> {
        let dir = self.layout.module_dir(path)?;
        let mut stored = Vec::new();
        for name in names(&dir)? {
            let Some(stem) = name.strip_suffix(SIDECAR_SUFFIX) else { continue };
            // What is no version of this module is nobody's sidecar.
            if let Ok(version) = Version::parse_escaped(stem)
                && let Ok(module) = ModuleVersion::new(path.clone(), version)
            {
                stored.push(module);
            }
        }
        Ok(stored)
    }

    /// Makes the `.ziphash` of a version agree with its sidecar. Called under the version's lock; the list lock keeps away a
    /// comparison that read the sidecar before.
    pub(crate) fn hash_version(
        &self,
        module: &ModuleVersion,
        place: &VersionFiles,
        sidecar: &Sidecar,
    ) -> Result<(), Error> {
        let lock = self.list_locks.of(module.path());
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.correct_zip_hash(place, sidecar)
    }

    /// Writes the `.ziphash` of a stored zip, unless it is right: the `h1:` in 47 characters, without a newline. Removes that
    /// of a zip that is not recorded, or unverified.
    fn correct_zip_hash(&self, place: &VersionFiles, sidecar: &Sidecar) -> Result<(), Error> {
        let path = place.zip_hash();
        let vouched_for = !is_unverified(sidecar, Artifact::Zip);
        let record = sidecar.of(Artifact::Zip).filter(|_| vouched_for);
        let Some(h1) = record.and_then(|record| record.h1) else {
            return Ok(remove_if_there(&path)?);
        };
        let text = h1.to_string();
        if read_if_there(&path)?.as_deref() != Some(text.as_bytes()) {
            replace(self.durable.write_temporary(text.as_bytes(), false)?, &path)?;
            self.durable.derived(&path)?;
        }
        Ok(())
    }
}

fn is_listable(place: &VersionFiles, sidecar: &Sidecar) -> bool {
    has(place, sidecar, Artifact::Info)
        && has(place, sidecar, Artifact::Mod)
        && !is_unverified(sidecar, Artifact::Mod)
}

pub(crate) fn is_unverified(sidecar: &Sidecar, artifact: Artifact) -> bool {
    sidecar.of(artifact).is_some_and(|record| record.state == State::Unverified)
}

pub(crate) fn has(place: &VersionFiles, sidecar: &Sidecar, artifact: Artifact) -> bool {
    sidecar.of(artifact).is_some_and(|record| has_size(place, artifact, record))
}

/// The names in a directory that are text; none when there is no directory.
pub(crate) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs_err::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}

fn parse(text: &[u8]) -> Vec<Version> {
    let text = String::from_utf8_lossy(text);
    let mut versions: Vec<_> = text.lines().filter_map(|line| Version::parse(line).ok()).collect();
    versions.sort();
    versions.dedup();
    versions
}
