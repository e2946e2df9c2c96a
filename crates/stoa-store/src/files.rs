//! The blobs and their sidecars, as far as reading goes. Everything here blocks: it runs on the blocking pool.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use sha2::Digest;
use stoa_module::{Artifact, ModulePath, ModuleVersion, Sha256};
use tracing::warn;

use crate::{
    batches::Batches,
    directory::DirectoryLock,
    durable::Durable,
    error::Error,
    keyed::Keyed,
    killpoint::Act,
    layout::{Layout, VersionFiles},
    memory::{Memory, Remembered, SMALL},
    quarantine::Quarantine,
    record::{ArtifactRecord, Content, Sidecar, Stored},
    reject::Withheld,
    spool::OpenFile,
    stored_file::StoredFile,
    trouble::Fault,
};

/// The files of one data directory.
///
/// **Architecture invariant:** what a hit calls takes none of the locks here, and no permit of the store's writers.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) layout: Layout,
    pub(crate) durable: Durable,
    pub(crate) quarantine: Quarantine,
    pub(crate) memory: Memory,
    pub(crate) withheld: Withheld,
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
    /// Set when a version could not be settled on disk: the next open goes on.
    unsettled: AtomicBool,
}

impl Files {
    pub(crate) fn new(
        layout: Layout,
        lock: DirectoryLock,
        batches: Batches,
        memory_bytes: u64,
        quarantine_bytes: u64,
    ) -> Self {
        Self {
            durable: Durable::new(layout.temporary(), layout.flushed_mark(), batches),
            quarantine: Quarantine::new(layout.quarantine(), quarantine_bytes),
            memory: Memory::new(memory_bytes),
            withheld: Withheld::default(),
            version_locks: Keyed::new(),
            list_locks: Keyed::new(),
            agreed: AtomicBool::new(false),
            disagreed: AtomicBool::new(false),
            unsettled: AtomicBool::new(false),
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
        self.unsettled.store(false, Ordering::SeqCst);
    }

    /// Every `list` and `.ziphash` was compared with the sidecars, or the last stop was clean.
    pub(crate) fn derived_compared(&self) {
        self.agreed.store(true, Ordering::SeqCst);
    }

    /// Whether every version in doubt that was looked at since the comparison began could be settled.
    pub(crate) fn is_settled(&self) -> bool {
        !self.unsettled.load(Ordering::SeqCst)
    }

    pub(crate) fn left_in_doubt(&self, module: &ModuleVersion, error: &io::Error) {
        if !self.unsettled.swap(true, Ordering::SeqCst) {
            warn!(module = %module, %error, "what an unclean stop left in doubt cannot be settled on disk now");
        }
    }

    /// A `list` or `.ziphash` could not be written, although its sidecar could. Nothing is lost, so nobody is refused.
    pub(crate) fn derived_failed(&self, path: &ModulePath, error: &Error) {
        if !self.disagreed.swap(true, Ordering::SeqCst) {
            warn!(module.path = %path, %error, "cannot write what follows from a sidecar; it will be repaired later");
        }
    }

    /// The disk did not keep a `list` or `.ziphash`.
    pub(crate) fn derived_lost(&self) {
        self.disagreed.store(true, Ordering::SeqCst);
    }

    /// A hit that needs no file: the bytes are in memory. Never blocks.
    pub(crate) fn remembered(&self, module: &ModuleVersion, artifact: Artifact) -> Option<Stored> {
        let known = self.memory.versions.peek(module)?;
        let content = Content::Memory(known.body(artifact)?);
        if self.withheld.contains(module, artifact) {
            return None;
        }
        Some(Stored { record: known.sidecar.of(artifact)?.clone(), content })
    }

    /// A hit, or `None`: no sidecar entry, or no file with the recorded size (or bytes, of a small one).
    pub(crate) fn open(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
    ) -> Result<Option<Stored>, Error> {
        if let Some(stored) = self.remembered(module, artifact) {
            return Ok(Some(stored));
        }
        if self.withheld.contains(module, artifact) {
            return Ok(None);
        }
        let place = self.layout.version(module)?;
        let ticket = self.memory.versions.ticket(module);
        let give = |known: &Remembered, record: &ArtifactRecord, content| {
            if let Content::Memory(body) = &content {
                let known = Arc::new(known.with(artifact, body.clone()));
                self.memory.versions.offer(ticket, module, known);
            }
            Ok(Some(Stored { record: record.clone(), content }))
        };
        if let Some(known) = self.memory.versions.peek(module)
            && let Some(record) = known.sidecar.of(artifact)
            && let Opened::Whole(content) = self.open_body(&place, artifact, record)?
        {
            return give(&known, record, content);
        }
        // Memory may lack what disk has; before anybody is sent to an upstream, disk is asked.
        let Some(known) = self.load(module, &place)? else { return Ok(None) };
        let Some(record) = known.sidecar.of(artifact) else { return Ok(None) };
        let what = match self.open_body(&place, artifact, record)? {
            Opened::Whole(content) => return give(&known, record, content),
            Opened::Missing => "is gone".to_owned(),
            Opened::Size(found) => format!("has {found} bytes instead of {}", record.size),
            Opened::OtherBytes => "has other bytes than were recorded".to_owned(),
            Opened::Unreadable(error) => format!("cannot be read ({error})"),
        };
        let path = place.body(artifact, &record.state);
        warn!(path = %path.display(), "a stored file {what}; it will be fetched again");
        Ok(None)
    }

    pub(crate) fn sidecar(&self, module: &ModuleVersion) -> Result<Option<Arc<Sidecar>>, Error> {
        let known = match self.memory.versions.peek(module) {
            Some(known) => Some(known),
            None => self.load(module, &self.layout.version(module)?)?,
        };
        Ok(known.map(|known| Arc::clone(&known.sidecar)))
    }

    fn load(
        &self,
        module: &ModuleVersion,
        place: &VersionFiles,
    ) -> Result<Option<Arc<Remembered>>, Error> {
        let path = place.sidecar();
        let mut is_doubtful = false;
        let known = self.memory.versions.load(module, || match self.read_sidecar(&path) {
            Ok(OnDisk::Sidecar(sidecar)) if self.durable.batches.is_doubtful(sidecar.batch()) => {
                is_doubtful = true;
                Ok(None)
            }
            Ok(OnDisk::Sidecar(sidecar)) => Ok(Some(Remembered::new(Arc::new(*sidecar)))),
            Ok(OnDisk::Missing) => Ok(None),
            Ok(OnDisk::Damaged(error)) => {
                warn!(
                    path = %path.display(), error,
                    "a damaged sidecar; its files are not served until they are fetched again"
                );
                Ok(None)
            }
            Err(Error::Io(error)) if Fault::of(&error).is_some() => {
                warn!(%error, "a sidecar cannot be read; its files are fetched");
                Ok(None)
            }
            Err(error) => Err(error),
        })?;
        if is_doubtful { self.settle(module, place) } else { Ok(known) }
    }

    /// From disk. That the disk fails is an error, since it says nothing about what is recorded.
    pub(crate) fn read_sidecar(&self, path: &Path) -> Result<OnDisk, Error> {
        self.durable.faults.at(Act::ReadSidecar)?;
        read_sidecar(path)
    }

    fn open_body(
        &self,
        place: &VersionFiles,
        artifact: Artifact,
        record: &ArtifactRecord,
    ) -> Result<Opened<Content>, Error> {
        let mut opened = Opened::Missing;
        for path in place.bodies(artifact, &record.state) {
            opened = self.open_recorded(&path, artifact, record)?;
            if !matches!(opened, Opened::Missing) {
                break;
            }
        }
        Ok(opened)
    }

    /// Opens a file, or reads it when it is a small one; the bytes of that are compared with the record, since it costs
    /// nothing beside reading them, and only once.
    fn open_recorded(
        &self,
        path: &Path,
        artifact: Artifact,
        record: &ArtifactRecord,
    ) -> Result<Opened<Content>, Error> {
        let open = || {
            self.durable.faults.at(Act::ReadBlob)?;
            let mut file = match open_sized(path, record.size)? {
                Opened::Whole(file) => file,
                other => return Ok(other.without()),
            };
            if artifact == Artifact::Zip || record.size > SMALL {
                let stored = StoredFile::new(path.to_owned(), record.size);
                return Ok(Opened::Whole(Content::File(Arc::new(OpenFile::stored(file, stored)))));
            }
            // Exactly as large as it must be: what is remembered keeps its capacity.
            let mut body = vec![0; record.size as usize];
            file.read_exact(&mut body)?;
            Ok(if Sha256::of(&body) == record.sha256 {
                Opened::Whole(Content::Memory(Bytes::from(body)))
            } else {
                Opened::OtherBytes
            })
        };
        match open() {
            Err(Error::Io(error)) if Fault::of(&error).is_some() => {
                Ok(Opened::Unreadable(error.to_string()))
            }
            other => other,
        }
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

enum Opened<T> {
    Whole(T),
    Missing,
    Size(u64),
    OtherBytes,
    /// The disk fails; with its error.
    Unreadable(String),
}

impl<T> Opened<T> {
    /// What was found instead of a whole file.
    fn without<U>(self) -> Opened<U> {
        match self {
            Self::Whole(_) | Self::Missing => Opened::Missing,
            Self::Size(found) => Opened::Size(found),
            Self::OtherBytes => Opened::OtherBytes,
            Self::Unreadable(error) => Opened::Unreadable(error),
        }
    }
}

fn open_sized(path: &Path, size: u64) -> Result<Opened<File>, Error> {
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

/// Whether an artifact's file is there with the recorded size; its bytes are not read.
pub(crate) fn has_size(place: &VersionFiles, artifact: Artifact, record: &ArtifactRecord) -> bool {
    place.bodies(artifact, &record.state).iter().any(|path| {
        fs_err::metadata(path).is_ok_and(|found| found.is_file() && found.len() == record.size)
    })
}

/// The file of an artifact, if it is there with exactly the recorded bytes.
pub(crate) fn intact_body(
    place: &VersionFiles,
    artifact: Artifact,
    record: &ArtifactRecord,
) -> Result<Option<PathBuf>, Error> {
    for path in place.bodies(artifact, &record.state) {
        if is_intact(&path, record)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Whether a file has exactly the recorded bytes.
pub(crate) fn is_intact(path: &Path, record: &ArtifactRecord) -> Result<bool, Error> {
    let Opened::Whole(mut file) = open_sized(path, record.size)? else { return Ok(false) };
    // Unreadable is damaged: fresh bytes heal it.
    Ok(digest_of(&mut file).is_ok_and(|sha256| sha256 == record.sha256))
}

/// Reads to the end.
pub(crate) fn digest_of(file: &mut impl Read) -> io::Result<Sha256> {
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Sha256::from_bytes(hasher.finalize().into())),
            Ok(length) => hasher.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
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
        let lock = directory::open(&layout).unwrap().lock;
        let files = Files::new(layout, lock, Batches::open(true, None, true, 1), 1 << 20, 0);
        files.durable.ready().unwrap();
        let module = ModuleVersion::parse("example.com/a@v1.0.0").unwrap();
        let body = b"{}";
        let (mut file, path) = files.durable.new_temporary().unwrap();
        file.write_all(body).unwrap();
        drop(file);
        let record = ArtifactRecord {
            size: 2,
            sha256: Sha256::of(body),
            h1: None,
            state: State::Uncovered,
            source: String::new(),
            first_seen: jiff::Timestamp::UNIX_EPOCH,
        };
        files.commit(&module, Artifact::Info, path, record.clone()).unwrap();
        let mut older = Sidecar::default();
        files.memory.sidecar_replaced(&module, Arc::new(older.clone()));
        assert_eq!(files.open(&module, Artifact::Info).unwrap().unwrap().record, record);
        older.set(Artifact::Info, Some(ArtifactRecord { size: 7, ..record.clone() }));
        files.memory.sidecar_replaced(&module, Arc::new(older));
        assert_eq!(files.open(&module, Artifact::Info).unwrap().unwrap().record, record);
    }
}
