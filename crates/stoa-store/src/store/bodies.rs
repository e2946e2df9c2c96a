//! Bodies on their way into the store: onto the disk, or past it while it cannot be written.

use std::{
    io::{self, Seek},
    pin::pin,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use stoa_module::{Artifact, ModuleVersion};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::{Inner, Store, blocking};
use crate::{
    error::Error,
    files::digest_of,
    record::{ArtifactRecord, Sidecar},
    spool::{NoRoom, OpenFile, size},
    temporary::{Place, Temporary},
    trouble::{CHECK, Fault, REPEAT, Trouble, free_bytes},
};

/// How long an empty file may take, and a commit of the largest body on a slow disk. A disk that hangs (a network's) fails.
const TO_BEGIN: Duration = Duration::from_secs(10);
const TO_COMMIT: Duration = Duration::from_mins(3);

/// What became of a body.
#[derive(Debug)]
pub enum Committed {
    /// It is in its place.
    Stored(Arc<Sidecar>),
    /// The disk did not take it. It can be handed to those who wait for it, and is gone afterwards.
    Passed(Arc<OpenFile>),
}

/// Of bodies that the disk did not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolCounts {
    /// Bytes of memory that they hold now.
    pub bytes: u64,
    /// Handed out without being stored, since the start.
    pub passed: u64,
    /// For which there was no room, since the start.
    pub refused: u64,
}

impl Store {
    /// A new empty file to download into: on disk, or in memory with room for `most` bytes while the disk cannot be
    /// written. Waits for such room no longer than `patience`; then, or when there is none at all, it is [`Error::NoRoom`].
    pub async fn temporary(&self, most: u64, patience: Duration) -> Result<Temporary, Error> {
        if self.trouble().is_none() {
            let made = self.write(|files| {
                let (file, path) = files.durable.new_temporary()?;
                Ok(Temporary::on_disk(file, path))
            });
            match timeout(TO_BEGIN, made).await {
                Ok(Err(Error::Io(error))) if let Some(fault) = Fault::of_temporary(&error) => {
                    self.begin_trouble(fault, &error.to_string(), 0);
                }
                Ok(other) => return other,
                Err(_) => self.begin_trouble(Fault::Failing, &silence(TO_BEGIN), 0),
            }
        }
        self.in_memory(most, patience).await
    }

    async fn in_memory(&self, most: u64, patience: Duration) -> Result<Temporary, Error> {
        match self.inner.spool.file(most, patience).await {
            Ok((file, room)) => Ok(Temporary::in_memory(file, room)),
            Err(none) => Err(self.no_room(none).await),
        }
    }

    /// In the place of a file on disk that could not be written, for the reason that is given: begins the trouble, and
    /// gives a file in memory as [`Store::temporary`] does.
    pub async fn temporary_instead(
        &self,
        failed: Temporary,
        why: &str,
        most: u64,
        patience: Duration,
    ) -> Result<Temporary, Error> {
        let length = failed.length().await;
        // Nothing is of use in it; what it took is free again.
        drop(failed);
        let dir = self.inner.files.layout.temporary();
        let reason = format!("{}: {why}", dir.display());
        let checked = self.write(move |files| files.check_disk(length + 1)).await;
        let fault = match &checked {
            Err(Error::Io(error)) => Fault::of(error).unwrap_or(Fault::Failing),
            // It is not as full as it was a moment ago; whoever is told next finds out.
            _ => Fault::Full,
        };
        self.begin_trouble(fault, &reason, length);
        self.in_memory(most, patience).await
    }

    /// A body that outgrew its file in memory.
    pub async fn outgrown(&self) -> Error {
        self.no_room(NoRoom::TooLarge(self.inner.spool.each())).await
    }

    /// Stores an artifact for ever. When this returns that it is stored, it is served, and is on disk within the flush
    /// interval; dropping the future does not stop it in the middle.
    ///
    /// First bytes win: other bytes than the recorded ones are [`Error::Conflict`]; the same bytes are accepted again, heal
    /// a missing or damaged file, and raise the state to verified if the new record says so. Other bytes take the place of
    /// a missing or damaged file only when the `h1:` is the same, or for an `.info`. Gives the version's sidecar.
    ///
    /// A body that the disk does not take can be passed on, unless it is too large for memory and was not yet safe on disk
    /// ([`Error::NoRoom`]).
    pub async fn commit(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        temporary: Temporary,
        record: ArtifactRecord,
    ) -> Result<Committed, Error> {
        let (file, path) = match temporary.settle().await? {
            (file, Place::Disk(path)) => (file, path),
            (file, Place::Memory(mut room)) => {
                room.shrink(record.size);
                let file = OpenFile::new(file.into_file(), Some(room));
                return self.pass(module, artifact, file, &record).await;
            }
        };
        let committed = {
            let (module, record) = (module.clone(), record.clone());
            let inner = Arc::clone(&self.inner);
            self.write(move |files| {
                if let Err(error) = files.body_written(&module, artifact, &file, &record) {
                    return Ok(Err((error, file, false)));
                }
                match files.commit(&module, artifact, path, record) {
                    Ok(sidecar) => {
                        inner.offer(&module, artifact, &sidecar);
                        Ok(Ok(sidecar))
                    }
                    Err(error @ Error::Io(_)) => {
                        let is_safe = files.make_safe(&file).is_ok();
                        Ok(Err((error, file, is_safe)))
                    }
                    Err(error) => Ok(Err((error, file, false))),
                }
            })
        };
        let Ok(committed) = timeout(TO_COMMIT, committed).await else {
            self.begin_trouble(Fault::Failing, &silence(TO_COMMIT), 0);
            return Err(self.not_written());
        };
        let (error, file, is_safe) = match committed? {
            Ok(sidecar) => return Ok(Committed::Stored(sidecar)),
            Err((Error::Io(error), file, is_safe)) => (error, file, is_safe),
            Err((error, _, _)) => return Err(error),
        };
        warn!(
            module.path = %module.path(), module.version = %module.version(), %error,
            "{artifact} cannot be stored; it is passed through"
        );
        self.note(&error, record.size);
        let file = if is_safe {
            OpenFile::from(file.into_file())
        } else {
            self.copied_to_memory(file, &record, error).await?
        };
        self.pass(module, artifact, file, &record).await
    }

    /// Hands out what is not stored, unless other bytes are on record.
    async fn pass(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        file: OpenFile,
        record: &ArtifactRecord,
    ) -> Result<Committed, Error> {
        let (module, record) = (module.clone(), record.clone());
        self.read(move |files| files.refuse_other(&module, artifact, &record)).await?;
        self.inner.passed.fetch_add(1, Ordering::Relaxed);
        Ok(Committed::Passed(Arc::new(file)))
    }

    /// What the disk did not write is only in the system's memory, and nobody knows for how long: it is taken from there
    /// while it is what it should be.
    async fn copied_to_memory(
        &self,
        mut file: fs_err::File,
        record: &ArtifactRecord,
        error: io::Error,
    ) -> Result<OpenFile, Error> {
        if record.size > self.inner.spool.each() {
            return Err(self.outgrown().await);
        }
        let taken = self.inner.spool.file(record.size, Duration::ZERO).await;
        let (mut copy, room) = match taken {
            Ok(taken) => taken,
            Err(none) => return Err(self.no_room(none).await),
        };
        let sha256 = record.sha256;
        blocking(move || {
            file.rewind()?;
            io::copy(&mut file, &mut copy)?;
            copy.rewind()?;
            if digest_of(&mut copy)? != sha256 {
                return Err(error.into());
            }
            Ok(OpenFile::new(copy, Some(room)))
        })
        .await
    }

    /// Why the disk cannot be written, and since when. Nothing while it can, as far as is known.
    pub fn trouble(&self) -> Option<Trouble> {
        self.inner.health.trouble()
    }

    /// Bodies that the disk did not take.
    pub fn spool_counts(&self) -> SpoolCounts {
        SpoolCounts {
            bytes: self.inner.spool.taken(),
            passed: self.inner.passed.load(Ordering::Relaxed),
            refused: self.inner.refused.load(Ordering::Relaxed),
        }
    }

    /// A write failed after so many bytes: if the disk is at fault, the trouble begins.
    pub(super) fn note(&self, error: &io::Error, bytes: u64) {
        if let Some(fault) = Fault::of(error) {
            self.begin_trouble(fault, &error.to_string(), bytes);
        }
    }

    pub(super) fn begin_trouble(&self, fault: Fault, reason: &str, bytes: u64) {
        if self.inner.health.begin(fault, reason, bytes) {
            tokio::spawn(watch(Arc::downgrade(&self.inner)));
        }
    }

    pub(super) fn not_written(&self) -> Error {
        let reason = self.trouble().map_or_else(|| "it could not".to_owned(), |one| one.reason);
        Error::NotWritten(reason)
    }

    /// The error for a body that there is no room for, with what is wrong with the disk.
    async fn no_room(&self, none: NoRoom) -> Error {
        self.inner.refused.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir().to_owned();
        let what = match self.trouble().map(|trouble| (trouble.fault, trouble.reason)) {
            None => "could not be written a moment ago".to_owned(),
            Some((Fault::ReadOnly, _)) => "is read-only".to_owned(),
            Some((Fault::Failing, reason)) => format!("cannot be written ({reason})"),
            Some((Fault::Full, _)) => {
                let dir = dir.clone();
                match blocking(move || Ok(free_bytes(&dir)?)).await {
                    Ok(free) => format!("is full ({} free)", size(free)),
                    Err(_) => "is full".to_owned(),
                }
            }
        };
        none.into_error(&format!("the disk of {} {what}", dir.display()))
    }
}

fn silence(waited: Duration) -> String {
    format!("nothing was written within {} s", waited.as_secs())
}

/// Checks the disk until it can be written again or the store is gone.
async fn watch(inner: Weak<Inner>) {
    loop {
        sleep(CHECK).await;
        let Some(inner) = inner.upgrade() else { return };
        let store = Store { inner };
        let (health, repeat) = (&store.inner.health, !store.inner.reads_only);
        let need = health.need();
        let mut check = pin!(store.write(move |files| files.check_disk(need)));
        let checked = loop {
            match timeout(REPEAT, &mut check).await {
                Ok(checked) => break checked,
                // One check that hangs is enough.
                Err(_) => health.lasts(Fault::Failing, "a check does not end", repeat),
            }
        };
        match checked {
            Ok(()) => return health.heal(),
            Err(Error::Closed) => return,
            Err(Error::Io(error)) => {
                let fault = Fault::of(&error).unwrap_or(Fault::Failing);
                health.lasts(fault, &error.to_string(), repeat);
            }
            Err(error) => health.lasts(Fault::Failing, &error.to_string(), repeat),
        }
    }
}
