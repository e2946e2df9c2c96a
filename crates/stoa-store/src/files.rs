//! The blobs and their sidecars, as far as reading goes. Everything here blocks: it runs on the blocking pool.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use sha2::Digest;
use stoa_module::{Artifact, ModulePath, ModuleVersion, Sha256, Version};
use tracing::warn;

use crate::{
    cached::Cached,
    directory::DirectoryLock,
    durable::Durable,
    error::Error,
    keyed::Keyed,
    layout::{Layout, VersionFiles},
    quarantine::Quarantine,
    record::{ArtifactRecord, Sidecar, Stored},
};

/// Memory for the version lists of modules.
const LIST_MEMORY: u64 = 2 << 20;

/// The files of one data directory.
///
/// **Architecture invariant:** what a hit calls takes none of the locks here, and no permit of the store's writers.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) layout: Layout,
    pub(crate) durable: Durable,
    pub(crate) quarantine: Quarantine,
    pub(crate) sidecars: Cached<ModuleVersion, Sidecar>,
    pub(crate) lists: Cached<ModulePath, Vec<Version>>,
    /// Held while a sidecar is read, changed and replaced. Taken before a list lock, never after one.
    pub(crate) version_locks: Keyed<ModuleVersion, Mutex<()>>,
    /// Held while a `list` or `.ziphash` is changed.
    pub(crate) list_locks: Keyed<ModulePath, Mutex<()>>,
    /// Whether every `list` and `.ziphash` on disk agrees with the sidecars: after a clean stop, or once all were compared.
    agreed: AtomicBool,
    /// The directory is this process's until the last task that may write into it has ended.
    lock: Mutex<Option<DirectoryLock>>,
    /// Set when a `list` or `.ziphash` could not be written: the next open compares all of them.
    disagreed: AtomicBool,
}

impl Files {
    pub(crate) fn new(
        layout: Layout,
        lock: DirectoryLock,
        sidecar_memory: u64,
        quarantine_bytes: u64,
    ) -> Self {
        Self {
            durable: Durable::new(layout.temporary()),
            quarantine: Quarantine::new(layout.quarantine(), quarantine_bytes),
            sidecars: Cached::new(sidecar_memory, |module, sidecar| {
                module.path().as_str().len() + module.version().as_str().len() + sidecar.weight()
            }),
            lists: Cached::new(LIST_MEMORY, |path, versions| {
                let each = |version: &Version| size_of::<Version>() + 32 + version.as_str().len();
                path.as_str().len() + versions.iter().map(each).sum::<usize>()
            }),
            version_locks: Keyed::new(),
            list_locks: Keyed::new(),
            agreed: AtomicBool::new(false),
            disagreed: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
            layout,
        }
    }

    /// Gives the directory free. Nothing may be written from then on.
    pub(crate) fn unlock(&self) {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Whether a `list` on disk may be believed.
    pub(crate) fn derived_agree(&self) -> bool {
        self.agreed.load(Ordering::SeqCst) && !self.disagreed.load(Ordering::SeqCst)
    }

    /// A comparison of every `list` and `.ziphash` begins; until it ends, each is compared before it is believed.
    pub(crate) fn derived_compare(&self) {
        self.agreed.store(false, Ordering::SeqCst);
        self.disagreed.store(false, Ordering::SeqCst);
    }

    /// Every `list` and `.ziphash` was compared with the sidecars, or the last stop was clean.
    pub(crate) fn derived_compared(&self) {
        self.agreed.store(true, Ordering::SeqCst);
    }

    /// A `list` or `.ziphash` could not be written, although its sidecar could. Nothing is lost, so nobody is refused.
    pub(crate) fn derived_failed(&self, path: &ModulePath, error: &Error) {
        if !self.disagreed.swap(true, Ordering::SeqCst) {
            warn!(module.path = %path, %error, "cannot write what follows from a sidecar; it will be repaired later");
        }
    }

    /// A hit, or `None`: no sidecar entry, or no file of the recorded size.
    pub(crate) fn open(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
    ) -> Result<Option<Stored>, Error> {
        let place = self.layout.version(module)?;
        let path = place.artifact(artifact);
        if let Some(record) = self.sidecars.peek(module).as_ref().and_then(|s| s.of(artifact))
            && let Opened::Whole(file) = open_sized(&path, record.size)?
        {
            return Ok(Some(Stored { record: record.clone(), file }));
        }
        // Memory may lack what disk has; before anybody is sent to an upstream, disk is asked.
        let Some(sidecar) = self.load(module, &place)? else { return Ok(None) };
        let Some(record) = sidecar.of(artifact) else { return Ok(None) };
        match open_sized(&path, record.size)? {
            Opened::Whole(file) => Ok(Some(Stored { record: record.clone(), file })),
            Opened::Missing => {
                warn!(path = %path.display(), "a stored file is gone; it will be fetched again");
                Ok(None)
            }
            Opened::Size(found) => {
                warn!(
                    path = %path.display(), found, recorded = record.size,
                    "a stored file has the wrong size; it will be fetched again"
                );
                Ok(None)
            }
        }
    }

    pub(crate) fn sidecar(&self, module: &ModuleVersion) -> Result<Option<Arc<Sidecar>>, Error> {
        match self.sidecars.peek(module) {
            Some(sidecar) => Ok(Some(sidecar)),
            None => self.load(module, &self.layout.version(module)?),
        }
    }

    fn load(
        &self,
        module: &ModuleVersion,
        place: &VersionFiles,
    ) -> Result<Option<Arc<Sidecar>>, Error> {
        self.sidecars.load(module, || match read_sidecar(&place.sidecar())? {
            OnDisk::Sidecar(sidecar) => Ok(Some(*sidecar)),
            OnDisk::Missing => Ok(None),
            OnDisk::Damaged(why) => {
                warn!(
                    path = %place.sidecar().display(), error = why,
                    "a damaged sidecar; its files are not served until they are fetched again"
                );
                Ok(None)
            }
        })
    }
}

/// What lies where a sidecar belongs.
pub(crate) enum OnDisk {
    Missing,
    Sidecar(Box<Sidecar>),
    /// Torn, or not ours; with the reason.
    Damaged(String),
}

pub(crate) fn read_sidecar(path: &Path) -> Result<OnDisk, Error> {
    match read_if_there(path)? {
        None => Ok(OnDisk::Missing),
        Some(text) => Ok(match serde_json::from_slice(&text) {
            Ok(sidecar) => OnDisk::Sidecar(Box::new(sidecar)),
            Err(error) => OnDisk::Damaged(error.to_string()),
        }),
    }
}

/// The file's bytes; `None` when it does not exist.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs_err::read(path) {
        Ok(body) => Ok(Some(body)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes a file; that there is none is as good.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if !is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}

/// A file stands where a directory would have to be: then the file asked for is not there either.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

enum Opened {
    Whole(File),
    Missing,
    Size(u64),
}

fn open_sized(path: &Path, size: u64) -> Result<Opened, Error> {
    let file = match fs_err::File::open(path) {
        Ok(file) => file,
        Err(error) if is_absent(&error) => return Ok(Opened::Missing),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(Opened::Missing);
    }
    Ok(if metadata.len() == size {
        Opened::Whole(file.into_file())
    } else {
        Opened::Size(metadata.len())
    })
}

/// Whether the file is there with the recorded size; its bytes are not read.
pub(crate) fn has_size(path: &Path, record: &ArtifactRecord) -> bool {
    fs_err::metadata(path).is_ok_and(|found| found.is_file() && found.len() == record.size)
}

/// Whether the file is there with exactly the recorded bytes.
pub(crate) fn is_intact(path: &Path, record: &ArtifactRecord) -> Result<bool, Error> {
    let Opened::Whole(mut file) = open_sized(path, record.size)? else { return Ok(false) };
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => hasher.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Unreadable is damaged: fresh bytes heal it.
            Err(_) => return Ok(false),
        }
    }
    Ok(Sha256::from_bytes(hasher.finalize().into()) == record.sha256)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::{directory, record::State};

    #[test]
    fn memory_that_is_behind_the_disk_is_no_miss() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_owned());
        let lock = directory::open(&layout).unwrap();
        let files = Files::new(layout, lock, 1 << 20, 0);
        let module = ModuleVersion::parse("example.com/a@v1.0.0").unwrap();
        let body = b"{}";
        let (mut file, path) = files.durable.new_temporary().unwrap();
        file.write_all(body).unwrap();
        let record = ArtifactRecord {
            size: 2,
            sha256: Sha256::of(body),
            h1: None,
            state: State::Uncovered,
            source: String::new(),
            first_seen: jiff::Timestamp::UNIX_EPOCH,
        };
        files.commit(&module, Artifact::Info, (file, path), record.clone()).unwrap();
        let mut older = Sidecar::default();
        files.sidecars.replaced(&module, Arc::new(older.clone()));
        assert_eq!(files.open(&module, Artifact::Info).unwrap().unwrap().record, record);
        older.set(Artifact::Info, Some(ArtifactRecord { size: 7, ..record.clone() }));
        files.sidecars.replaced(&module, Arc::new(older));
        assert_eq!(files.open(&module, Artifact::Info).unwrap().unwrap().record, record);
    }
}
