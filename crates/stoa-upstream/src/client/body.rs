//! Receiving a body: counted, capped, and never waited for without a bound.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sha2::Digest as _;
use stoa_module::{ErrorClass, Sha256};

use crate::breaker::counters::Counters;
use crate::client::Downloaded;
use crate::client::budget::{Budget, Spent};
use crate::client::fault;
use crate::failure::{Fault, Stage, span};

/// A body that brings less than this within the stall timeout is stalled: otherwise one byte at a time could hold a
/// build for days.
const PROGRESS_BYTES: u64 = 4096;

/// How much is collected before it is hashed and written. Each download under way holds one such buffer.
const WRITE_BYTES: usize = 128 * 1024;

/// An answer that is there; its body is still to come.
pub(crate) trait Answer {
    /// What the sender says that the body's length is, if it does.
    fn length(&self) -> Option<u64>;
    async fn chunk(&mut self) -> Result<Option<Bytes>, Fault>;
}

/// Where a body goes.
pub(crate) trait Sink {
    /// How many bytes it takes. More is no fault of the source.
    fn room(&self) -> u64 {
        u64::MAX
    }
    /// Forgets what was written before.
    async fn restart(&mut self) -> Result<(), Fault>;
    async fn write(&mut self, chunk: Bytes) -> Result<(), Fault>;
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
    let mut patience = Budget::new(stall_timeout);
    let mut received = 0;
    let mut progress = 0;
    loop {
        let chunk = match patience.spend(answer.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => break,
            Ok(Err(fault)) => return Err(broken(fault, received, length)),
            Err(Spent) => {
                let detail = format!(
                    "timeout: the body stalled for {} after {received} bytes",
                    span(stall_timeout)
                );
                return Err(Fault::new(ErrorClass::Timeout, Stage::Body, detail));
            }
        };
        received += chunk.len() as u64;
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
    /// Not yet in the file.
    buffer: Vec<u8>,
    hash: sha2::Sha256,
    written: u64,
}

impl FileSink {
    pub(crate) fn new(file: File, room: u64) -> Self {
        let (file, hash) = (Arc::new(file), sha2::Sha256::new());
        Self { file, room, buffer: Vec::new(), hash, written: 0 }
    }

    pub(crate) fn into_downloaded(self) -> Downloaded {
        let sha256 = Sha256::from_bytes(self.hash.finalize().into());
        Downloaded { bytes: self.written, sha256 }
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        let file = Arc::clone(&self.file);
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut hash = std::mem::take(&mut self.hash);
        let writing = move || {
            hash.update(&buffer);
            (&*file).write_all(&buffer)?;
            let written = buffer.len();
            buffer.clear();
            Ok((buffer, hash, written))
        };
        let (buffer, hash, written) = blocking(writing).await?;
        (self.buffer, self.hash) = (buffer, hash);
        self.written += written as u64;
        Ok(())
    }
}

impl Sink for FileSink {
    fn room(&self) -> u64 {
        self.room
    }

    async fn restart(&mut self) -> Result<(), Fault> {
        self.buffer.clear();
        self.hash = sha2::Sha256::new();
        self.written = 0;
        let file = Arc::clone(&self.file);
        blocking(move || {
            file.set_len(0)?;
            (&*file).rewind()
        })
        .await
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
        Ok(())
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
