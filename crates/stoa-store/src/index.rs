//! The index: what must be searched or counted, in SQLite. It follows from the sidecars, so it may be lost at any time.
//!
//! **Architecture invariant:** nothing that is served waits for the index. A commit offers its row to a bounded queue and
//! goes on; one task writes the rows, many in a transaction. When the queue is full (the database is locked, or its disk
//! is), the row is dropped and the index is *behind*.
//!
//! The index is rebuilt from the sidecars, in the background and in place, whenever it may lack something:
//!
//! - at open, unless the last stop was clean. A close that has written every row leaves a token both in the database and in
//!   the file `stoa.db.clean`; open takes the file away before anything is written. So no file (a kill, a power cut, a
//!   queue that overflowed), no database, or an older copy of one: no trust.
//! - when it is behind and the database works again;
//! - when the database turns out to be damaged (it is moved to `stoa.db.corrupt`), or is gone.
//!
//! The pass over all sidecars marks each row it finds; rows it did not mark are deleted at its end. A commit meanwhile writes
//! marked rows, which the pass does not overwrite with what it may have read earlier, and what is rejected meanwhile is not
//! brought back by it. The same pass compares each `list` and
//! `.ziphash` with the sidecars.

mod database;
mod rebuild;
mod writer;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::SqlitePool;
use stoa_module::{Artifact, ModuleVersion};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tracing::{error, warn};

use crate::{error::Error, files::Files, record::ArtifactRecord};

/// Rows that may wait for the writer; about 2 MiB when full.
const QUEUE: usize = 4096;
/// How long a caller waits for the writer to catch up, or for it to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much is stored, as far as the index knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub modules: u64,
    pub versions: u64,
    /// Files: `.info`, `.mod` and `.zip`.
    pub artifacts: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// Those of the files that wait for the checksum database.
    pub unverified: u64,
    /// False while the index is being rebuilt: more may be stored than is counted yet.
    pub complete: bool,
}

/// One artifact, as the index has it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) module: ModuleVersion,
    pub(crate) artifact: Artifact,
    /// None: it is not stored any more.
    pub(crate) record: Option<ArtifactRecord>,
}

enum Message {
    Row(Box<Row>),
    Flush(oneshot::Sender<()>),
    /// A reader met a damaged page.
    Damaged,
}

/// The side of the index that commits and questions see.
#[derive(Debug)]
pub(crate) struct Index {
    shared: Arc<Shared>,
    messages: mpsc::Sender<Message>,
    closing: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<Option<String>>>>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// None while the database cannot be opened.
    readers: Mutex<Option<SqlitePool>>,
    /// Why there are none, for people.
    reason: Mutex<String>,
    /// A row was dropped.
    behind: AtomicBool,
    complete: watch::Sender<bool>,
}

impl Index {
    /// Opens or makes the database and starts the writer. `mark` is what the file of the last clean stop held. Never fails:
    /// without a database the writer tries again and again, and everything but questions works.
    pub(crate) async fn start(files: Arc<Files>, mark: Option<String>) -> Self {
        let (messages, queue) = mpsc::channel(QUEUE);
        let (closing, closed) = watch::channel(false);
        let shared = Arc::new(Shared {
            path: files.layout.database(),
            readers: Mutex::new(None),
            reason: Mutex::new("not opened yet".to_owned()),
            behind: AtomicBool::new(false),
            complete: watch::channel(false).0,
        });
        let writer = writer::Writer::open(Arc::clone(&shared), files, queue, closed, mark).await;
        let task = tokio::spawn(writer.run());
        Self { shared, messages, closing, task: Mutex::new(Some(task)) }
    }

    /// Offers a row. Never waits.
    pub(crate) fn offer(&self, row: Row) {
        let dropped = self.messages.try_send(Message::Row(Box::new(row))).is_err();
        if dropped {
            if !self.shared.behind.swap(true, Ordering::SeqCst) {
                warn!("the index cannot keep up; it will be rebuilt from the stored files");
            }
            self.shared.complete.send_replace(false);
        }
    }

    pub(crate) async fn counts(&self) -> Result<Counts, Error> {
        let complete = *self.shared.complete.borrow();
        let readers = self.shared.readers()?;
        let counts = timeout(PATIENCE, database::counts(&readers)).await;
        Ok(Counts { complete, ..self.read(counts)? })
    }

    pub(crate) async fn unverified(
        &self,
        after: i64,
        most: u32,
    ) -> Result<Vec<(i64, ModuleVersion)>, Error> {
        let readers = self.shared.readers()?;
        self.read(timeout(PATIENCE, database::unverified(&readers, after, most)).await)
    }

    pub(crate) async fn check(&self) -> Result<(), Error> {
        self.counts().await.map(|_| ())
    }

    fn read<T>(
        &self,
        result: Result<Result<T, sqlx::Error>, tokio::time::error::Elapsed>,
    ) -> Result<T, Error> {
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if database::is_damage(&error) {
                    // A full queue finds it by itself.
                    drop(self.messages.try_send(Message::Damaged));
                }
                Err(self.shared.failure(error.to_string()))
            }
            Err(elapsed) => Err(self.shared.failure(elapsed.to_string())),
        }
    }

    /// Waits until what was offered before is written, or for 10 seconds.
    pub(crate) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        let wait = async {
            if self.messages.send(Message::Flush(done)).await.is_ok() {
                // An error says that the writer has ended.
                drop(written.await);
            }
        };
        if timeout(PATIENCE, wait).await.is_err() {
            warn!("the index is not written yet");
        }
    }

    /// Waits until the index is known to hold everything.
    pub(crate) async fn completed(&self) {
        // Fails when the sender is gone, which `self` holds.
        drop(self.shared.complete.subscribe().wait_for(|complete| *complete).await);
    }

    /// Writes what is queued and ends the writer. Gives the token for the clean mark, if the index lacks nothing. Fails
    /// when the writer has not ended in 10 seconds.
    pub(crate) async fn close(&self) -> Result<Option<String>, Error> {
        self.closing.send_replace(true);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(task) = task else { return Ok(None) };
        match timeout(PATIENCE, task).await {
            Ok(Ok(token)) => Ok(token),
            Ok(Err(failure)) => {
                error!(error = %failure, "the index writer failed");
                Ok(None)
            }
            Err(_) => Err(self.shared.failure("it is not written in time".to_owned())),
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.closing.send_replace(true);
    }
}

impl Shared {
    fn readers(&self) -> Result<SqlitePool, Error> {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        readers.ok_or_else(|| {
            let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
            self.failure(reason)
        })
    }

    fn failure(&self, reason: String) -> Error {
        Error::Index { path: self.path.clone(), reason }
    }

    fn set_readers(&self, readers: Option<SqlitePool>, reason: &str) {
        reason.clone_into(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner));
        *self.readers.lock().unwrap_or_else(PoisonError::into_inner) = readers;
    }
}
