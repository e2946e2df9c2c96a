//! The one task that writes the index.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use stoa_module::{Artifact, ModuleVersion};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use super::{
    Message, Row, Shared,
    database::{Database, OpenError, Origin, is_damage, move_aside},
    rebuild,
};
use crate::files::Files;

/// Rows in one transaction.
const BATCH: usize = 512;
/// The first and the longest pause before a failed statement is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Between the ends of a rebuild and the beginning of another one.
const REST: Duration = Duration::from_secs(10);
/// How long an open waits for the database before it goes on without.
const OPENING: Duration = Duration::from_secs(5);

pub(super) struct Writer {
    shared: Arc<Shared>,
    files: Arc<Files>,
    queue: mpsc::Receiver<Message>,
    closing: watch::Receiver<bool>,
    database: Option<Database>,
    /// Rows are marked with it.
    pass: i64,
    /// Rows may be missing that no queued one will bring: a rebuild is due.
    missing: bool,
    /// The last rebuild could not read everything. Another one is for the next open, when perhaps somebody has looked.
    unreadable: bool,
    /// The database failed, and that was logged.
    failing: bool,
    pause: Duration,
    rebuild: Option<Rebuild>,
    /// What was removed since the rebuild began: the pass may have read it before.
    removed: HashSet<(ModuleVersion, Artifact)>,
    rest_until: Instant,
}

struct Rebuild {
    rows: mpsc::Receiver<Row>,
    walk: JoinHandle<bool>,
}

enum Work {
    Commits(Vec<Row>, Vec<oneshot::Sender<()>>),
    Passed(Vec<Row>),
    PassEnded,
    Damaged,
    /// Time to look whether a rebuild is due.
    Look,
    Close,
}

impl Writer {
    /// The first try to open the database is awaited, so that questions have an answer right after the store's open.
    pub(super) async fn open(
        shared: Arc<Shared>,
        files: Arc<Files>,
        queue: mpsc::Receiver<Message>,
        closing: watch::Receiver<bool>,
        mark: Option<String>,
    ) -> Self {
        let mut writer = Self {
            shared,
            files,
            queue,
            closing,
            database: None,
            pass: 0,
            missing: true,
            unreadable: false,
            failing: false,
            pause: PAUSE.0,
            rebuild: None,
            removed: HashSet::new(),
            rest_until: Instant::now(),
        };
        match timeout(OPENING, writer.open_database()).await {
            Ok(Ok(token)) => {
                // What is in doubt is settled by the same pass.
                let in_doubt = writer.files.durable.batches.has_doubt();
                writer.missing = mark.is_none() || token != mark || in_doubt;
            }
            Ok(Err(error)) => writer.failed(&error.to_string()),
            Err(elapsed) => writer.failed(&elapsed.to_string()),
        }
        if !writer.missing {
            writer.files.derived_compared();
            writer.shared.complete.send_replace(true);
        }
        writer
    }

    /// Runs until the store closes. Gives the token of a clean stop.
    pub(super) async fn run(mut self) -> Option<String> {
        loop {
            if self.database.is_none() && !self.try_open().await {
                self.queue.close();
                return None;
            }
            if self.is_rebuild_due() {
                self.begin_rebuild().await;
            }
            match self.next().await {
                Work::Commits(rows, flushed) => {
                    self.note_removed(&rows);
                    self.persist(&rows, Origin::Commit).await;
                    for done in flushed {
                        // Who asked may have stopped waiting.
                        let _: Result<(), ()> = done.send(());
                    }
                }
                Work::Passed(mut rows) => {
                    if !self.removed.is_empty() {
                        rows.retain(|row| {
                            !self.removed.contains(&(row.module.clone(), row.artifact))
                        });
                    }
                    self.persist(&rows, Origin::Pass).await;
                }
                Work::PassEnded => self.end_rebuild().await,
                Work::Damaged => self.replace_database("a reader met a damaged page").await,
                Work::Look => {}
                Work::Close => return self.close().await,
            }
        }
    }

    /// What is committed after its removal has its own row, which needs no pass.
    fn note_removed(&mut self, rows: &[Row]) {
        if self.rebuild.is_some() {
            let removed = rows.iter().filter(|row| row.record.is_none());
            self.removed.extend(removed.map(|row| (row.module.clone(), row.artifact)));
        }
    }

    fn is_rebuild_due(&self) -> bool {
        let behind = self.shared.behind.load(Ordering::SeqCst);
        self.rebuild.is_none()
            && self.database.is_some()
            && (self.missing || behind)
            && Instant::now() >= self.rest_until
            && !*self.closing.borrow()
    }

    async fn next(&mut self) -> Work {
        let resting = self.rebuild.is_none() && Instant::now() < self.rest_until;
        let passed = async {
            match &mut self.rebuild {
                Some(rebuild) => {
                    let mut rows = Vec::new();
                    rebuild.rows.recv_many(&mut rows, BATCH).await;
                    rows
                }
                None => std::future::pending().await,
            }
        };
        let mut messages = Vec::new();
        tokio::select! {
            biased;
            count = self.queue.recv_many(&mut messages, BATCH) => {
                if count == 0 {
                    return Work::Close;
                }
            }
            _ = self.closing.wait_for(|closing| *closing) => return Work::Close,
            rows = passed => {
                return if rows.is_empty() { Work::PassEnded } else { Work::Passed(rows) };
            }
            () = sleep_until(self.rest_until), if resting => return Work::Look,
        }
        let mut rows = Vec::with_capacity(messages.len());
        let mut flushed = Vec::new();
        for message in messages {
            match message {
                Message::Row(row) => rows.push(*row),
                Message::Flush(done) => flushed.push(done),
                Message::Damaged => {
                    // The rows at hand come back with the rebuild.
                    return Work::Damaged;
                }
            }
        }
        Work::Commits(rows, flushed)
    }

    /// Writes rows, and tries again until it works, the database is replaced, or the store closes.
    async fn persist(&mut self, rows: &[Row], origin: Origin) {
        while !rows.is_empty() {
            let Some(database) = &self.database else {
                self.missing = true;
                return;
            };
            if !database.is_in_place() {
                self.replace_database("its file was taken away").await;
                continue;
            }
            match database.write(rows, origin, self.pass).await {
                Ok(()) => {
                    return self.worked();
                }
                Err(error) if is_damage(&error) => {
                    self.replace_database(&error.to_string()).await;
                }
                Err(error) => self.failed(&error.to_string()),
            }
            if !self.wait().await {
                self.missing = true;
                return;
            }
        }
    }

    fn failed(&mut self, reason: &str) {
        if !self.failing {
            self.failing = true;
            warn!(
                path = %self.shared.path.display(), error = reason,
                "the index cannot be written; what is served does not depend on it"
            );
        }
        if self.database.is_none() {
            self.shared.set_readers(None, reason);
        }
    }

    fn worked(&mut self) {
        self.pause = PAUSE.0;
        if self.failing {
            self.failing = false;
            info!("the index is written again");
        }
    }

    /// A pause that grows. False when the store closes meanwhile.
    async fn wait(&mut self) -> bool {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE.1);
        tokio::select! {
            () = sleep(pause) => true,
            _ = self.closing.wait_for(|closing| *closing) => false,
        }
    }

    /// Tries to open the database until it works. False when the store closes meanwhile.
    async fn try_open(&mut self) -> bool {
        loop {
            if *self.closing.borrow() {
                return false;
            }
            match self.open_database().await {
                Ok(_) => {
                    self.missing = true;
                    self.worked();
                    return true;
                }
                Err(error) => self.failed(&error.to_string()),
            }
            if !self.wait().await {
                return false;
            }
        }
    }

    /// Opens the database, once, and anew when it is damaged. Gives the token it holds.
    async fn open_database(&mut self) -> Result<Option<String>, OpenError> {
        let path = self.shared.path.clone();
        let opened = match open_and_look(&path).await {
            Err(error) if error.is_damage() => {
                warn!(
                    path = %path.display(), %error,
                    "the index is damaged: it is moved to stoa.db.corrupt and built anew"
                );
                move_aside(&path)?;
                open_and_look(&path).await
            }
            other => other,
        };
        let (database, token, pass) = opened?;
        self.pass = pass;
        self.shared.set_readers(Some(database.readers().clone()), "");
        self.database = Some(database);
        Ok(token)
    }

    /// Puts a new database in the place of one that is of no more use; a rebuild follows.
    async fn replace_database(&mut self, reason: &str) {
        warn!(path = %self.shared.path.display(), error = reason, "the index is replaced");
        self.missing = true;
        self.rebuild = None;
        self.removed = HashSet::new();
        self.rest_until = Instant::now();
        self.shared.complete.send_replace(false);
        self.shared.set_readers(None, reason);
        if let Some(database) = self.database.take() {
            let in_place = database.is_in_place();
            database.close().await;
            if in_place && let Err(error) = move_aside(&self.shared.path) {
                self.failed(&error.to_string());
                return;
            }
        }
        if let Err(error) = self.open_database().await {
            self.failed(&error.to_string());
        }
    }

    async fn begin_rebuild(&mut self) {
        let Some(database) = &self.database else { return };
        let pass = self.pass + 1;
        if let Err(error) = database.set_pass(pass).await {
            if is_damage(&error) {
                self.replace_database(&error.to_string()).await;
            } else {
                self.failed(&error.to_string());
                self.rest_until = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(PAUSE.1);
            }
            return;
        }
        self.pass = pass;
        self.missing = false;
        // What is dropped from here on is dropped after the walk may have passed by.
        self.shared.behind.store(false, Ordering::SeqCst);
        self.shared.complete.send_replace(false);
        self.files.derived_compare();
        let (sender, rows) = mpsc::channel(rebuild::BACKLOG);
        let (files, closing) = (Arc::clone(&self.files), self.closing.clone());
        let walk = tokio::task::spawn_blocking(move || rebuild::walk(&files, &sender, &closing));
        self.rebuild = Some(Rebuild { rows, walk });
        debug!(pass, "the index is compared with the stored files");
    }

    async fn end_rebuild(&mut self) {
        let Some(rebuild) = self.rebuild.take() else { return };
        self.removed = HashSet::new();
        let walked = rebuild.walk.await.unwrap_or(false);
        let whole = walked && self.files.is_settled();
        self.rest_until = Instant::now() + REST;
        if whole {
            self.files.derived_compared();
            self.files.durable.batches.end_doubt();
        }
        if self.missing {
            return;
        }
        self.unreadable = !whole;
        if self.unreadable {
            // Nothing is removed from the index because it could not be read.
            warn!(
                "some stored files could not be compared with the index; the next start tries again"
            );
            return;
        }
        loop {
            let Some(database) = &self.database else { return };
            match database.end_pass(self.pass).await {
                Ok(()) => break,
                Err(error) if is_damage(&error) => {
                    return self.replace_database(&error.to_string()).await;
                }
                Err(error) => self.failed(&error.to_string()),
            }
            if !self.wait().await {
                self.missing = true;
                return;
            }
        }
        self.worked();
        // In this order, as a commit that finds the queue full says so in the opposite one.
        self.shared.complete.send_replace(true);
        if self.shared.behind.load(Ordering::SeqCst) {
            self.shared.complete.send_replace(false);
        }
    }

    /// Writes what is queued, and the token if nothing is missing.
    async fn close(mut self) -> Option<String> {
        let rebuilding = self.rebuild.is_some();
        if let Some(Rebuild { rows, walk }) = self.rebuild.take() {
            // Ends the walk at its next row. It writes into the directory until it ends.
            drop(rows);
            drop(walk.await);
        }
        self.queue.close();
        let mut rows = Vec::new();
        while let Some(message) = self.queue.recv().await {
            if let Message::Row(row) = message {
                rows.push(*row);
            }
        }
        for batch in rows.chunks(BATCH) {
            self.persist(batch, Origin::Commit).await;
        }
        let behind = self.shared.behind.load(Ordering::SeqCst);
        let missing =
            self.missing || self.unreadable || rebuilding || behind || !self.files.derived_agree();
        self.shared.set_readers(None, "the store is closed");
        let database = self.database.take()?;
        let mut token = None;
        if !missing {
            let text = format!("{}-{}", Timestamp::now().as_nanosecond(), std::process::id());
            match database.set_token(&text).await {
                Ok(()) => token = Some(text),
                Err(error) => warn!(%error, "the index cannot be closed well; it will be rebuilt"),
            }
        }
        database.close().await;
        token
    }
}

async fn open_and_look(path: &Path) -> Result<(Database, Option<String>, i64), OpenError> {
    let database = Database::open(path).await?;
    let looked = async { Ok::<_, sqlx::Error>((database.token().await?, database.pass().await?)) };
    match looked.await {
        Ok((token, pass)) => Ok((database, token, pass)),
        Err(error) => {
            database.close().await;
            Err(error.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, atomic::AtomicBool};

    use stoa_module::Sha256;

    use super::*;
    use crate::{
        batches::Batches,
        directory,
        index::database::counts,
        layout::Layout,
        record::{ArtifactRecord, State},
    };

    #[tokio::test]
    async fn a_pass_brings_nothing_back_that_was_removed_during_it() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_owned());
        let lock = directory::open(&layout).unwrap().lock;
        let shared = Arc::new(Shared {
            path: layout.database(),
            readers: Mutex::new(None),
            reason: Mutex::new(String::new()),
            behind: AtomicBool::new(false),
            complete: watch::channel(false).0,
        });
        let batches = Batches::open(true, None, true, 1);
        let files = Arc::new(Files::new(layout, lock, batches, 0, 0));
        let (messages, queue) = mpsc::channel(8);
        let (closing, closed) = watch::channel(false);
        let mut writer = Writer::open(Arc::clone(&shared), files, queue, closed, None).await;
        let (sender, rows) = mpsc::channel(8);
        let walk = tokio::spawn(async { true });
        (writer.rebuild, writer.missing) = (Some(Rebuild { rows, walk }), false);

        let row = |version: &str| {
            let record = ArtifactRecord {
                size: 10,
                sha256: Sha256::of(b""),
                h1: None,
                state: State::Unverified,
                source: String::new(),
                first_seen: Timestamp::UNIX_EPOCH,
            };
            let module = ModuleVersion::parse(&format!("example.com/a@{version}")).unwrap();
            Row { module, artifact: Artifact::Zip, record: Some(record) }
        };
        let message = |row| Message::Row(Box::new(row));
        // The pass read both before one was removed, and its rows come after that.
        messages.send(message(row("v1.0.0"))).await.unwrap();
        messages.send(message(Row { record: None, ..row("v1.0.0") })).await.unwrap();
        sender.send(row("v1.0.0")).await.unwrap();
        sender.send(row("v1.1.0")).await.unwrap();
        drop(sender);
        let mut complete = shared.complete.subscribe();
        let running = tokio::spawn(writer.run());
        let ended = complete.wait_for(|complete| *complete);
        drop(timeout(Duration::from_secs(30), ended).await.unwrap().unwrap());
        let readers = shared.readers().unwrap();
        assert_eq!(counts(&readers).await.unwrap().artifacts, 1);
        closing.send_replace(true);
        timeout(Duration::from_secs(30), running).await.unwrap().unwrap();
    }
}
