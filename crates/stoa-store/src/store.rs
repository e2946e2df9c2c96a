//! The store: what the other rooms see.

mod bodies;
mod flusher;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use bytes::Bytes;
use stoa_module::{Artifact, ModulePath, ModuleVersion, Version};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::timeout,
};
use tracing::warn;

use crate::{
    answers::{Answer, AnswerKey},
    batches::Batches,
    cached::Ticket,
    directory,
    durable::replace,
    error::Error,
    files::{Files, read_if_there},
    index::{Counts, Index, Row},
    layout::Layout,
    places::{FilePlace, Rejected},
    quarantine::{QuarantineNote, put_temporary},
    record::{Sidecar, State, Stored},
    spool::Spool,
    stored::StoredVersion,
    temporary::{Place, Temporary},
    trouble::{Fault, Health},
};

/// Blocking threads that writing may take. Hits use the same pool of tokio's, which the program makes much larger, without
/// a permit, so that there is always a thread for them.
const WRITERS: u32 = 32;
/// How long lists wait for a flush where commits do not.
const DERIVED: Duration = Duration::from_secs(5);
/// The last flush: the largest bodies of some seconds, on a slow disk.
const TO_CLOSE: Duration = Duration::from_mins(1);

pub use bodies::{Committed, SpoolCounts};

/// What was recorded of a version at one time.
#[derive(Clone, Copy, Debug)]
pub struct Stamp(Ticket);

/// How to open a [`Store`].
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; made if it is missing.
    pub dir: PathBuf,
    /// Memory for what is asked for often (sidecars, small artifacts, lists, kept answers), in bytes.
    pub memory_bytes: u64,
    /// Disk for rejected bodies, in bytes.
    pub quarantine_bytes: u64,
    /// Memory for one body that the disk does not take, in bytes; nothing larger is passed through then.
    pub spool_file_bytes: u64,
    /// The same for all such bodies together.
    pub spool_bytes: u64,
    /// How long what is committed may wait to be made durable, many commits together. Nothing: it is durable before anybody is
    /// told that it is stored.
    pub flush_interval: Duration,
    /// Nothing is going to be fetched: that the disk cannot be written is said in the log once, and not every minute.
    pub reads_only: bool,
}

impl Options {
    /// 24 MiB of memory, 256 MiB of quarantine, 8 MiB for a body that the disk does not take and 32 MiB for all of them, five
    /// seconds until a commit is durable.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            memory_bytes: 24 << 20,
            quarantine_bytes: 256 << 20,
            spool_file_bytes: 8 << 20,
            spool_bytes: 32 << 20,
            flush_interval: Duration::from_secs(5),
            reads_only: false,
        }
    }
}

/// One data directory, owned by this process. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    files: Arc<Files>,
    index: Index,
    /// One permit per blocking call that writes; all of them, for ever, to close.
    writers: Arc<Semaphore>,
    health: Health,
    spool: Spool,
    reads_only: bool,
    passed: AtomicU64,
    refused: AtomicU64,
}

impl Store {
    /// Makes or opens the data directory, takes its lock, sweeps `cache/tmp` and opens the index.
    ///
    /// A directory that cannot be written (a full disk, a read-only one) opens all the same when there is a store in it: what
    /// is there is served, see [`Store::trouble`].
    ///
    /// Fails with one clear line when another process holds the directory ([`Error::Locked`]), a newer program wrote it
    /// ([`Error::NewerLayout`]), it is somebody else's ([`Error::ForeignDirectory`]) or it cannot be used
    /// ([`Error::Directory`]). An index that cannot be opened is no failure; one that may lack something is rebuilt in the
    /// background.
    pub async fn open(options: Options) -> Result<Self, Error> {
        let dir = options.dir;
        // A later change of the working directory must not move the store.
        let dir = std::path::absolute(&dir).map_err(|source| Error::Directory { dir, source })?;
        let layout = Layout::new(dir);
        let (memory, quarantine) = (options.memory_bytes, options.quarantine_bytes);
        let batched = !options.flush_interval.is_zero();
        let (files, mark, unwritable) = blocking(move || {
            let directory::Opened { lock, mut unwritable } = directory::open(&layout)?;
            let mark = match take_clean_mark(&layout) {
                // It stays, and is not believed; the check that finds the disk writable takes it away.
                Err(source) if Fault::of(&source).is_some() => {
                    unwritable = Some(source);
                    None
                }
                Err(source) => {
                    return Err(Error::Directory { dir: layout.root().to_owned(), source });
                }
                Ok(mark) => mark,
            };
            let flushed = read_if_there(&layout.flushed_mark()).unwrap_or_default();
            let batches = Batches::open(batched, flushed.as_deref(), mark.is_some(), now());
            let files = Files::new(layout, lock, batches, memory, quarantine);
            match files.durable.ready() {
                Err(source) if Fault::of(&source).is_some() => unwritable = Some(source),
                Err(source) => {
                    let dir = files.layout.root().to_owned();
                    return Err(Error::Directory { dir, source });
                }
                Ok(()) => {}
            }
            Ok((Arc::new(files), mark, unwritable))
        })
        .await?;
        let wakes = files.durable.batches.wakes();
        let index = Index::start(Arc::clone(&files), mark).await;
        let inner = Inner {
            files,
            index,
            writers: Arc::new(Semaphore::new(WRITERS as usize)),
            health: Health::default(),
            spool: Spool::new(options.spool_file_bytes, options.spool_bytes),
            reads_only: options.reads_only,
            passed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        };
        let store = Self { inner: Arc::new(inner) };
        let pause = if batched { options.flush_interval } else { DERIVED } / 2;
        tokio::spawn(flusher::flush_behind(Arc::downgrade(&store.inner), wakes, pause));
        if let Some(error) = unwritable {
            store.note(&error, 0);
        }
        Ok(store)
    }

    /// The data directory, absolute.
    pub fn dir(&self) -> &Path {
        self.inner.files.layout.root()
    }

    /// Where the running server's command socket belongs. Who binds it removes a stale one: the lock is held.
    pub fn socket_path(&self) -> PathBuf {
        self.inner.files.layout.socket()
    }

    /// Where bare repositories belong, besides the store. Who uses the place makes it.
    pub fn git_dir(&self) -> PathBuf {
        self.inner.files.layout.git()
    }

    /// Opens a stored artifact: a hit needs a sidecar entry and a file of exactly that size. Touches no database, waits for
    /// no writer, and on a warm sidecar costs one open and one stat; a small artifact that is in memory costs not even a
    /// thread.
    pub async fn open_artifact(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
    ) -> Result<Option<Stored>, Error> {
        if let Some(stored) = self.inner.files.remembered(module, artifact) {
            return Ok(Some(stored));
        }
        let module = module.clone();
        self.read(move |files| files.open(&module, artifact)).await
    }

    /// To be taken before a version's artifact is opened: as long as it [is current](Self::is_current), another opening
    /// would give the same.
    pub fn stamp(&self, module: &ModuleVersion) -> Stamp {
        Stamp(self.inner.files.memory.versions.ticket(module))
    }

    /// Whether nothing that is recorded of the stamp's version has changed. Takes no lock.
    pub fn is_current(&self, stamp: Stamp) -> bool {
        self.inner.files.memory.versions.is_current(stamp.0)
    }

    /// What is recorded of a version, whether or not the files are there.
    pub async fn sidecar(&self, module: &ModuleVersion) -> Result<Option<Arc<Sidecar>>, Error> {
        if let Some(known) = self.inner.files.memory.versions.peek(module) {
            return Ok(Some(Arc::clone(&known.sidecar)));
        }
        let module = module.clone();
        self.read(move |files| files.sidecar(&module)).await
    }

    /// Replaces the recorded state of a stored artifact, for instance when a checksum database vouches for what was stored
    /// unverified, which is from then on in the `list` and under the go command's own name. What is verified stays verified,
    /// by the database that was asked last. `None` when nothing is recorded.
    /// When the disk does not take it, it is remembered as long as memory reaches, and found out again after that.
    pub async fn restate(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        state: State,
    ) -> Result<Option<Arc<Sidecar>>, Error> {
        let restated = {
            let (module, inner) = (module.clone(), Arc::clone(&self.inner));
            self.write(move |files| {
                let sidecar = files.restate(&module, artifact, state)?;
                if let Some(sidecar) = &sidecar {
                    inner.offer(&module, artifact, sidecar);
                }
                Ok(sidecar)
            })
        };
        match restated.await {
            Err(Error::Io(error)) => {
                self.note(&error, 0);
                self.sidecar(module).await
            }
            other => other,
        }
    }

    /// Takes out what is stored, because a checksum database contradicts it: moves the file to quarantine and forgets its
    /// record, durably, so that other bytes can be committed. The other artifacts of the version stay. Nothing stored is
    /// [`Ok`].
    ///
    /// On an error that comes after the record was forgotten (the quarantine cannot be written) the bytes are not served
    /// either.
    pub async fn reject(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        note: QuarantineNote,
    ) -> Result<(), Error> {
        let module = module.clone();
        let inner = Arc::clone(&self.inner);
        self.write(move |files| {
            files.reject(&module, artifact, &note, || {
                inner.index.offer(Row { module: module.clone(), artifact, record: None });
            })
        })
        .await
    }

    /// Keeps a rejected body for a person to look at. The oldest go when the quarantine is full.
    pub async fn quarantine(
        &self,
        temporary: Temporary,
        note: QuarantineNote,
    ) -> Result<(), Error> {
        let (file, Place::Disk(body)) = temporary.settle().await? else {
            return Err(self.not_written());
        };
        drop(file);
        self.write(move |files| put_temporary(&files.quarantine, &files.durable, body, &note)).await
    }

    /// Where the recorded files of a version lie.
    pub async fn places(
        &self,
        module: &ModuleVersion,
        sidecar: Arc<Sidecar>,
    ) -> Result<Vec<FilePlace>, Error> {
        let module = module.clone();
        self.read(move |files| files.places(&module, &sidecar)).await
    }

    /// What was rejected of a version, the newest first, at most `most`. Looks at the newest thousand in quarantine.
    pub async fn rejected(
        &self,
        module: &ModuleVersion,
        most: usize,
    ) -> Result<Vec<Rejected>, Error> {
        let module = module.clone();
        self.read(move |files| files.rejected(&module, most)).await
    }

    /// The versions of a module whose `.info` and `.mod` are stored: sorted, pseudo-versions included, without those whose
    /// `.mod` is unverified. This is what the `list` on disk holds.
    pub async fn versions(&self, path: &ModulePath) -> Result<Arc<Vec<Version>>, Error> {
        if let Some(versions) = self.inner.files.memory.lists.peek(path) {
            return Ok(versions);
        }
        let path = path.clone();
        self.read(move |files| files.versions(&path)).await
    }

    /// Every version of which something is stored, sorted. Looks at each sidecar and file of the module if its directory has
    /// changed: for offline use.
    pub async fn stored_versions(
        &self,
        path: &ModulePath,
    ) -> Result<Arc<Vec<StoredVersion>>, Error> {
        let path = path.clone();
        self.read(move |files| files.stored_versions(&path)).await
    }

    /// The last answer that was put for this question; a torn one is none.
    pub async fn answer(&self, key: &AnswerKey) -> Result<Option<Arc<Answer>>, Error> {
        if let Some(answer) = self.inner.files.memory.answers.peek(key) {
            return Ok(Some(answer));
        }
        let key = key.clone();
        self.read(move |files| files.answer(&key)).await
    }

    /// Replaces the answer to a question. Not synced: a power cut may lose it. When the disk does not take it, it is
    /// remembered all the same, as long as memory reaches.
    pub async fn put_answer(&self, key: &AnswerKey, answer: Answer) -> Result<(), Error> {
        if self.trouble().is_some() {
            self.inner.files.remember_answer(key, answer);
            return Ok(());
        }
        let key = key.clone();
        self.write(move |files| files.put_answer(&key, answer)).await
    }

    /// A file of a checksum database: `latest`, `supported`, `lookup/…@v`, `tile/8/…`. A name that would leave the
    /// database's directory is [`Error::UnsafeName`].
    pub async fn sumdb_read(&self, name: &str, file: &str) -> Result<Option<Bytes>, Error> {
        // A proof needs a dozen tiles, which were nearly always read a moment ago: that is no work for a dozen threads.
        if let Some(body) = self.inner.files.sumdb_read_now(name, file) {
            return Ok(Some(body));
        }
        let (name, file) = (name.to_owned(), file.to_owned());
        self.read(move |files| files.sumdb_read(&name, &file)).await
    }

    /// Replaces such a file at once, and syncs it. [`Error::NotWritten`] while the disk cannot be written.
    pub async fn sumdb_write(&self, name: &str, file: &str, body: Bytes) -> Result<(), Error> {
        if self.trouble().is_some() {
            return Err(self.not_written());
        }
        let (name, file) = (name.to_owned(), file.to_owned());
        self.write(move |files| files.sumdb_write(&name, &file, &body)).await
    }

    /// The widths, ascending, at which a partial tile is stored; `tile` is the full one: `tile/8/0/001`.
    pub async fn sumdb_partial_widths(&self, name: &str, tile: &str) -> Result<Vec<u16>, Error> {
        let (name, tile) = (name.to_owned(), tile.to_owned());
        self.read(move |files| files.sumdb_partial_widths(&name, &tile)).await
    }

    /// Memory that sidecars, small artifacts, lists and answers take now, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.inner.files.memory.bytes()
    }

    /// How much is stored, from the index.
    pub async fn counts(&self) -> Result<Counts, Error> {
        self.inner.index.counts().await
    }

    /// Versions of which something waits for the checksum database, `most` at once, from the index: each with a number, in
    /// the order of these; those whose number is above `after`, which is 0 for the first.
    pub async fn unverified(
        &self,
        after: i64,
        most: u32,
    ) -> Result<Vec<(i64, ModuleVersion)>, Error> {
        self.inner.index.unverified(after, most).await
    }

    /// Writes a file into the cache. That it cannot be written is trouble from now on.
    pub async fn check_writable(&self) -> Result<(), Error> {
        if self.trouble().is_some() {
            return Err(self.not_written());
        }
        self.write(|files| {
            files.durable.write_temporary(b"writable?", false)?;
            Ok(())
        })
        .await
        .inspect_err(|error| {
            if let Error::Io(error) = error
                && let Some(fault) = Fault::of_temporary(error)
            {
                self.begin_trouble(fault, &error.to_string(), 0);
            }
        })
    }

    /// Whether the index answers. Nothing that is served depends on it.
    pub async fn check_index(&self) -> Result<(), Error> {
        self.inner.index.check().await
    }

    /// Waits until the commits so far are in the index; 10 seconds at most.
    pub async fn flush_index(&self) {
        self.inner.index.flush().await;
    }

    /// Waits until a rebuild of the index has ended. Returns at once when none is needed.
    pub async fn index_completed(&self) {
        self.inner.index.completed().await;
    }

    /// Makes durable what was committed so far. What cannot be is trouble from now on, and is not served any more.
    pub async fn flush(&self) -> Result<(), Error> {
        self.write(Files::flush).await
    }

    /// Waits for the commits under way, writes the index, makes everything durable, leaves the mark of a clean stop and gives
    /// the directory free. Other clones can still read; they no longer write ([`Error::Closed`]).
    pub async fn close(self) {
        let inner = &self.inner;
        let Ok(permits) = inner.writers.acquire_many(WRITERS).await else { return };
        inner.writers.close();
        drop(permits);
        let index = inner.index.close().await;
        let files = Arc::clone(&inner.files);
        let closed = blocking(move || {
            // Also without an index.
            let is_durable = files.flush().and_then(|()| Ok(files.durable.close()?));
            // Something may still write into it: the end of the process gives it free.
            let token = index?;
            let marked = match (is_durable, token) {
                (Ok(true), Some(token)) => leave_clean_mark(&files, &token),
                (Ok(_), _) => Ok(()),
                (Err(error), _) => Err(error),
            };
            files.unlock();
            marked
        });
        match timeout(TO_CLOSE, closed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(%error, "the mark of a clean stop cannot be written; the next start looks at everything");
            }
            Err(_) => {
                warn!("the disk does not take what is left; the next start looks at everything");
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn faults(&self) -> &crate::killpoint::Faults {
        &self.inner.files.durable.faults
    }

    #[cfg(test)]
    pub(crate) fn files(&self) -> &Files {
        &self.inner.files
    }

    #[cfg(test)]
    pub(crate) fn health(&self) -> &Health {
        &self.inner.health
    }

    #[cfg(test)]
    pub(crate) fn offer_row(&self, row: Row) {
        self.inner.index.offer(row);
    }

    async fn read<T: Send + 'static>(
        &self,
        task: impl FnOnce(&Files) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let files = Arc::clone(&self.inner.files);
        blocking(move || task(&files)).await
    }

    async fn write<T: Send + 'static>(
        &self,
        task: impl FnOnce(&Files) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let writers = Arc::clone(&self.inner.writers);
        let permit: OwnedSemaphorePermit =
            writers.acquire_owned().await.map_err(|_| Error::Closed)?;
        let files = Arc::clone(&self.inner.files);
        let result = blocking(move || {
            let result = task(&files);
            drop(permit);
            result
        })
        .await;
        if let Err(Error::Io(error)) = &result {
            self.note(error, 0);
        }
        result
    }
}

impl Inner {
    fn offer(&self, module: &ModuleVersion, artifact: Artifact, sidecar: &Sidecar) {
        if let Some(record) = sidecar.of(artifact) {
            let record = Some(record.clone());
            self.index.offer(Row { module: module.clone(), artifact, record });
        }
    }
}

async fn blocking<T: Send + 'static>(
    task: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(task).await.unwrap_or_else(|failure| Err(Error::Task(failure.to_string())))
}

/// Milliseconds since 1970, as the clock has it.
fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// Reads the mark of a clean stop and takes it away, durably, before anything is written that it would not cover.
fn take_clean_mark(layout: &Layout) -> io::Result<Option<String>> {
    let path = layout.clean_mark();
    let Some(mark) = read_if_there(&path).map_err(io::Error::other)? else { return Ok(None) };
    fs_err::remove_file(&path)?;
    directory::sync(layout.root())?;
    Ok(String::from_utf8(mark).ok())
}

fn leave_clean_mark(files: &Files, token: &str) -> Result<(), Error> {
    let temporary = files.durable.write_temporary(token.as_bytes(), true)?;
    replace(temporary, &files.layout.clean_mark())?;
    Ok(directory::sync(files.layout.root())?)
}
