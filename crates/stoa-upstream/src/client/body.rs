//! Receiving a body: counted, capped, and never waited for without a bound.

use std::fmt;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sha2::Digest as _;
use stoa_module::{ErrorClass, Sha256};
use tokio::time::{Instant, timeout_at};

use crate::breaker::counters::Counters;
use crate::client::Downloaded;
use crate::client::budget::{Budget, Spent};
use crate::client::fault;
use crate::failure::{Fault, Stage, span};
use crate::journey;

/// A body that brings less than this within the stall timeout is stalled: otherwise one byte at a time could hold a
/// build for days.
const PROGRESS_BYTES: u64 = 4096;

/// How much is collected before it is hashed and written. Each download under way holds one such buffer.
const WRITE_BYTES: usize = 128 * 1024;

/// How long bytes that somebody waits for are collected: not one write for each packet of a slow source.
const LINGER: Duration = Duration::from_millis(20);

/// Is told how a download gets on, by whoever may use it before it is whole. All of this may come from any thread, and
/// must not wait for anything.
pub trait Watch: Send + Sync + fmt::Debug {
    /// The header of an answer is here, and its body, of so many bytes if that is known, begins to come. Whether it is to
    /// be in the file as early as can be.
    fn begins(&self, length: Option<u64>) -> bool;
    /// So many bytes, from the start of the body, are in the file.
    fn grows(&self, bytes: u64);
    /// What is in the file is about to be thrown away, so that the body can come again from its start. False if that must
    /// not be; then the download fails.
    fn begins_again(&self) -> bool;
}

/// An answer that is there; its body is still to come.
pub(crate) trait Answer {
    /// How long the sender says that the whole body is, if it does.
    fn length(&self) -> Option<u64>;
    /// Which byte of the body is the first that comes.
    fn from(&self) -> u64 {
        0
    }
    async fn chunk(&mut self) -> Result<Option<Bytes>, Fault>;
}

/// Where a body goes.
pub(crate) trait Sink {
    /// How many bytes it takes. More is no fault of the source.
    fn room(&self) -> u64 {
        u64::MAX
    }
    /// Whether what was written before may be forgotten. Asked right before [`Sink::restart`].
    fn may_restart(&self) -> bool {
        true
    }
    /// Forgets what was written before.
    async fn restart(&mut self) -> Result<(), Fault>;
    /// A body begins, of which nothing was written yet.
    fn begin(&mut self, _length: Option<u64>) {}
    /// How many bytes of the body need not come again; none where it can only come as a whole.
    fn position(&self) -> u64 {
        0
    }
    async fn write(&mut self, chunk: Bytes) -> Result<(), Fault>;
    /// When [`Sink::settle`] is to be called, if nothing more comes before.
    fn due(&self) -> Option<Instant> {
        None
    }
    /// Passes on what was collected.
    async fn settle(&mut self) -> Result<(), Fault> {
        Ok(())
    }
    async fn finish(&mut self) -> Result<(), Fault>;
}

pub(crate) async fn copy(
    mut answer: impl Answer,
    max_bytes: u64,
    stall_timeout: Duration,
    sink: &mut impl Sink,
) -> Result<(), Fault> {
    let length = answer.length();
    if length.is_some_and(|length| length > max_bytes) {
        return Err(too_large(max_bytes));
    }
    if length.is_some_and(|length| length > sink.room()) {
        return Err(no_room(sink.room()));
    }
    let mut received = answer.from();
    if received == 0 {
        sink.begin(length);
    }
    let journey = journey::current();
    let tell = |received| {
        if let Some(journey) = &journey {
            journey.receive(received, length);
        }
    };
    tell(received);
    let mut patience = Budget::new(stall_timeout);
    let mut progress = 0;
    loop {
        let chunk = match next(&mut answer, &mut patience, sink).await? {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => break,
            Ok(Err(fault)) => return Err(broken(fault, received, length)),
            Err(Spent) => {
                let detail = format!(
                    "body: timeout: it stalled for {} after {received} bytes",
                    span(stall_timeout)
                );
                return Err(Fault::new(ErrorClass::Timeout, Stage::Body, detail));
            }
        };
        received += chunk.len() as u64;
        tell(received);
        if received > max_bytes {
            return Err(too_large(max_bytes));
        }
        if received > sink.room() {
            return Err(no_room(sink.room()));
        }
        progress += chunk.len() as u64;
        if progress >= PROGRESS_BYTES {
            patience.refill();
            progress = 0;
        }
        sink.write(chunk).await?;
    }
    if let Some(length) = length
        && received != length
    {
        let detail = format!("body: {received} bytes where {length} were announced");
        return Err(Fault::new(ErrorClass::Corrupt, Stage::Body, detail).passing());
    }
    sink.finish().await
}

/// Waits for the next bytes, and has those that came before passed on when they are due.
async fn next(
    answer: &mut impl Answer,
    patience: &mut Budget,
    sink: &mut impl Sink,
) -> Result<Result<Result<Option<Bytes>, Fault>, Spent>, Fault> {
    let mut chunk = pin!(answer.chunk());
    while let Some(due) = sink.due() {
        match patience.spend(timeout_at(due, &mut chunk)).await {
            Ok(Err(_)) => sink.settle().await?,
            Ok(Ok(chunk)) => return Ok(Ok(chunk)),
            Err(Spent) => return Ok(Err(Spent)),
        }
    }
    Ok(patience.spend(chunk).await)
}

/// Says how far a body had come when it broke.
fn broken(mut fault: Fault, received: u64, length: Option<u64>) -> Fault {
    fault.detail = match length {
        Some(length) => format!("{} after {received} of {length} bytes", fault.detail),
        None => format!("{} after {received} bytes", fault.detail),
    };
    fault
}

fn too_large(max_bytes: u64) -> Fault {
    let detail = format!("body: larger than the limit of {max_bytes} bytes");
    Fault::new(ErrorClass::Corrupt, Stage::Body, detail)
}

fn no_room(room: u64) -> Fault {
    let detail = format!("cannot store it: there is room for {room} bytes");
    Fault::new(ErrorClass::Full, Stage::Local, detail)
}

/// An answer whose bytes are counted as they come.
pub(crate) struct Counted<'c, A> {
    pub(crate) answer: A,
    pub(crate) counters: &'c Counters,
}

impl<A: Answer> Answer for Counted<'_, A> {
    fn length(&self) -> Option<u64> {
        self.answer.length()
    }

    fn from(&self) -> u64 {
        self.answer.from()
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        let chunk = self.answer.chunk().await?;
        self.counters.received(chunk.as_ref().map_or(0, Bytes::len));
        Ok(chunk)
    }
}

#[derive(Debug, Default)]
pub(crate) struct MemorySink {
    bytes: BytesMut,
}

impl MemorySink {
    pub(crate) fn into_bytes(self) -> Bytes {
        self.bytes.freeze()
    }
}

impl Sink for MemorySink {
    async fn restart(&mut self) -> Result<(), Fault> {
        self.bytes.clear();
        Ok(())
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), Fault> {
        self.bytes.extend_from_slice(&chunk);
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Fault> {
        Ok(())
    }
}

/// Hashes and writes on the blocking pool, a large buffer at a time.
#[derive(Debug)]
pub(crate) struct FileSink {
    file: Arc<File>,
    room: u64,
    watch: Option<Arc<dyn Watch>>,
    /// Not yet in the file.
    buffer: Vec<u8>,
    hash: sha2::Sha256,
    written: u64,
    /// Somebody waits for the bytes.
    is_awaited: bool,
    /// When the buffer is to be written although it is not full.
    due: Option<Instant>,
}

impl FileSink {
    pub(crate) fn new(file: File, room: u64, watch: Option<Arc<dyn Watch>>) -> Self {
        Self {
            file: Arc::new(file),
            room,
            watch,
            buffer: Vec::new(),
            hash: sha2::Sha256::new(),
            written: 0,
            is_awaited: false,
            due: None,
        }
    }

    pub(crate) fn into_downloaded(self) -> Downloaded {
        let sha256 = Sha256::from_bytes(self.hash.finalize().into());
        Downloaded { bytes: self.written, sha256 }
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        self.due = None;
        if self.buffer.is_empty() {
            return Ok(());
        }
        let file = Arc::clone(&self.file);
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut hash = std::mem::take(&mut self.hash);
        let written = self.written + buffer.len() as u64;
        let watch = self.watch.clone();
        let writing = move || {
            (&*file).write_all(&buffer)?;
            // Those who wait for the bytes need no hash.
            if let Some(watch) = watch {
                watch.grows(written);
            }
            hash.update(&buffer);
            buffer.clear();
            Ok((buffer, hash))
        };
        (self.buffer, self.hash) = blocking(writing).await?;
        self.written = written;
        Ok(())
    }
}

impl Sink for FileSink {
    fn room(&self) -> u64 {
        self.room
    }

    fn may_restart(&self) -> bool {
        self.watch.as_ref().is_none_or(|watch| watch.begins_again())
    }

    async fn restart(&mut self) -> Result<(), Fault> {
        self.buffer.clear();
        self.hash = sha2::Sha256::new();
        (self.written, self.due) = (0, None);
        let file = Arc::clone(&self.file);
        blocking(move || {
            file.set_len(0)?;
            (&*file).rewind()
        })
        .await
    }

    fn begin(&mut self, length: Option<u64>) {
        self.is_awaited = self.watch.as_ref().is_some_and(|watch| watch.begins(length));
    }

    fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    async fn write(&mut self, mut chunk: Bytes) -> Result<(), Fault> {
        while !chunk.is_empty() {
            let room = WRITE_BYTES - self.buffer.len();
            let part = chunk.split_to(room.min(chunk.len()));
            self.buffer.extend_from_slice(&part);
            if self.buffer.len() == WRITE_BYTES {
                self.flush().await?;
            }
        }
        if self.is_awaited && self.due.is_none() && !self.buffer.is_empty() {
            // The first byte is what a client's wait is measured by.
            let linger = if self.written == 0 { Duration::ZERO } else { LINGER };
            self.due = Some(Instant::now() + linger);
        }
        Ok(())
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    async fn settle(&mut self) -> Result<(), Fault> {
        self.flush().await
    }

    async fn finish(&mut self) -> Result<(), Fault> {
        self.flush().await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|error| fault::of_write(&error)),
        Err(error) => {
            Err(Fault::new(ErrorClass::Internal, Stage::Local, format!("writing failed: {error}")))
        }
    }
}
