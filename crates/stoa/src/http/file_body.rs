//! A file as a response body: bounded pieces, never the whole file in memory, and never a thread blocked for bytes
//! that the kernel already has.

use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use rustix::io::{ReadWriteFlags, preadv2};
use stoa_store::OpenFile;
use tokio::task::JoinHandle;

use crate::server::zero_copy::{LONGEST, Outbox};

/// Large enough that a system call costs nothing beside the copy, small enough for hundreds of clients.
const PIECE: usize = 256 << 10;
/// A file's pages are looked for at this distance: it is read, and forgotten, in runs of pages.
const SAMPLED: usize = 32 << 10;
/// Pieces given in a row without a rest, so that one fast client does not hold its worker thread.
const PIECES_IN_A_ROW: u8 = 4;

/// The bytes of `part` of a file. A file that is shorter than it was is an error, which resets the connection: a
/// client must never take a torn body for a whole one.
#[derive(Debug)]
pub struct FileBody {
    file: Arc<OpenFile>,
    part: Range<u64>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    in_a_row: u8,
    outbox: Option<Outbox>,
}

impl FileBody {
    pub fn new(file: Arc<OpenFile>, part: Range<u64>) -> Self {
        Self { file, part, reading: None, in_a_row: 0, outbox: None }
    }

    /// Has the connection send what the kernel has in memory, if it has an outbox. The body must be given to nobody else.
    pub fn through(self, outbox: Option<Outbox>) -> Self {
        Self { outbox, ..self }
    }

    fn left(&self) -> u64 {
        self.part.end - self.part.start
    }

    fn next_piece(&self) -> usize {
        usize::try_from(self.left()).map_or(PIECE, |left| left.min(PIECE))
    }

    /// Has the connection send the next piece by itself, if the page cache has it. Not every page is looked at, since that
    /// would cost what it saves: one that is missing between two that are there has the kernel wait for the disk once.
    fn send_now(&self) -> Option<Bytes> {
        let outbox = self.outbox.as_ref()?;
        let length = self.left().min(LONGEST as u64);
        let is_there = |at: u64| {
            let mut byte = [0];
            let byte = &mut [IoSliceMut::new(&mut byte)];
            preadv2(&**self.file, byte, self.part.start + at, ReadWriteFlags::NOWAIT) == Ok(1)
        };
        let sampled = (0..length).step_by(SAMPLED).chain([length - 1]).all(is_there);
        sampled.then(|| outbox.put(Arc::clone(&self.file), self.part.start, length as usize))
    }

    /// What the page cache has, without waiting for the disk. A short or empty answer is no end of file (some kernels
    /// give a false one): it only means that the patient way must be taken.
    fn read_now(&self) -> Option<Bytes> {
        let mut piece = BytesMut::zeroed(self.next_piece());
        let read = preadv2(
            &**self.file,
            &mut [IoSliceMut::new(&mut piece)],
            self.part.start,
            ReadWriteFlags::NOWAIT,
        );
        (read == Ok(piece.len())).then(|| piece.freeze())
    }

    fn read_patiently(&self) -> JoinHandle<io::Result<Bytes>> {
        let (file, start) = (Arc::clone(&self.file), self.part.start);
        // Made here and not on the pool's thread, which would keep the memory.
        let mut piece = BytesMut::zeroed(self.next_piece());
        tokio::task::spawn_blocking(move || {
            file.read_exact_at(&mut piece, start)?;
            Ok(piece.freeze())
        })
    }

    fn give(&mut self, piece: Bytes) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.part.start += piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left() == 0 {
            return Poll::Ready(None);
        }
        if self.reading.is_none() {
            if self.in_a_row == PIECES_IN_A_ROW {
                self.in_a_row = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(piece) = self.send_now().or_else(|| self.read_now()) {
                self.in_a_row += 1;
                return self.give(piece);
            }
            self.reading = Some(self.read_patiently());
        }
        let Some(reading) = self.reading.as_mut() else { return Poll::Pending };
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        self.in_a_row = 0;
        match read {
            Ok(Ok(piece)) => self.give(piece),
            Ok(Err(error)) => Poll::Ready(Some(Err(error))),
            Err(error) => Poll::Ready(Some(Err(io::Error::other(error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use http_body_util::BodyExt as _;

    use super::*;

    fn file_of(bytes: &[u8]) -> Arc<OpenFile> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Arc::new(file.into())
    }

    #[tokio::test]
    async fn gives_exactly_the_part() {
        let bytes: Vec<u8> = (0..3 * PIECE + 17).map(|i| (i % 251) as u8).collect();
        let length = bytes.len() as u64;
        for part in [0..length, 0..0, 5..6, 1..length - 1, length - 1..length, 0..PIECE as u64] {
            let body = FileBody::new(file_of(&bytes), part.clone());
            assert_eq!(body.size_hint().exact(), Some(part.end - part.start));
            let given = body.collect().await.unwrap().to_bytes();
            assert!(given == bytes[part.start as usize..part.end as usize], "{part:?}");
        }
    }

    #[tokio::test]
    async fn a_file_that_shrank_is_an_error_and_not_an_end() {
        let file = file_of(&[7; 1000]);
        file.set_len(500).unwrap();
        assert!(FileBody::new(file, 0..1000).collect().await.is_err());
    }
}
