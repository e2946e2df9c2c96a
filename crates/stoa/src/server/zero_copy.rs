//! Files that go from the kernel's page cache to a socket without passing through this process (`sendfile`).
//!
//! hyper's bodies are buffers, so a body hands it a stand-in, a buffer of the right length that nobody reads, and puts the part
//! of the file that it stands for into the connection's [`Outbox`]. The connection's stream knows a stand-in by its address and
//! sends the file's bytes in its place. hyper does not copy what it is given, since this stream takes vectored writes; a stand-in
//! for which there is no part, or a part shorter than it, ends the connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::fs::sendfile;
use rustix::net::{SendFlags, send};
use stoa_store::OpenFile;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::impatient::Stream;

/// The longest stand-in, in bytes. Its memory is never touched, and so never there.
pub const LONGEST: usize = 1 << 20;
static STAND_IN: [u8; LONGEST] = [0; LONGEST];

fn is_stand_in(piece: &[u8]) -> bool {
    STAND_IN.as_ptr_range().contains(&piece.as_ptr())
}

/// Parts of files that a connection is to send, in the order of its answers.
#[derive(Clone, Debug, Default)]
pub struct Outbox(Arc<Mutex<VecDeque<Part>>>);

#[derive(Debug)]
struct Part {
    file: Arc<OpenFile>,
    next: u64,
    left: usize,
}

impl Outbox {
    /// What stands for so many bytes of the file (at most [`LONGEST`]) from this offset on. It must be the next that the
    /// connection is given to send.
    pub fn put(&self, file: Arc<OpenFile>, offset: u64, length: usize) -> Bytes {
        let stand_in = Bytes::from_static(&STAND_IN[..length.min(LONGEST)]);
        self.parts().push_back(Part { file, next: offset, left: stand_in.len() });
        stand_in
    }

    fn parts(&self) -> MutexGuard<'_, VecDeque<Part>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends of the first part as much as the socket takes, at most `length` bytes.
    fn send(&self, socket: &TcpStream, length: usize) -> io::Result<usize> {
        let mut parts = self.parts();
        let part = parts.front_mut().filter(|part| part.left >= length);
        let part = part.ok_or_else(|| io::Error::other("a stand-in without its part of a file"))?;
        let sent = sendfile(socket, &**part.file, Some(&mut part.next), length)?;
        if sent == 0 {
            let text = "the file has become shorter";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        part.left -= sent;
        if part.left == 0 {
            parts.pop_front();
        }
        Ok(sent)
    }
}

/// A TCP connection that sends the parts of its outbox.
#[derive(Debug)]
pub(super) struct ZeroCopy {
    stream: TcpStream,
    outbox: Outbox,
}

impl ZeroCopy {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, outbox: Outbox::default() }
    }

    pub(super) fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }

    fn poll_try(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_io(Interest::WRITABLE, &write) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl Stream for ZeroCopy {
    fn abandon(&self) {
        self.stream.abandon();
    }
}

impl AsyncRead for ZeroCopy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for ZeroCopy {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match pieces.iter().position(|piece| is_stand_in(piece)) {
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, pieces),
            Some(0) => self.poll_try(cx, || self.outbox.send(&self.stream, pieces[0].len())),
            // The head of an answer; the kernel is told that more comes, so that both may share a packet.
            Some(1) => self.poll_try(cx, || {
                Ok(send(&self.stream, &pieces[0], SendFlags::MORE | SendFlags::NOSIGNAL)?)
            }),
            Some(first) => Pin::new(&mut self.stream).poll_write_vectored(cx, &pieces[..first]),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A connection: this server's end, and the client's.
    async fn pair() -> (ZeroCopy, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (accepted, client) = tokio::join!(listener.accept(), client);
        (ZeroCopy::new(accepted.unwrap().0), client.unwrap())
    }

    fn file_of(bytes: &[u8]) -> Arc<OpenFile> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Arc::new(file.into())
    }

    /// Writes pieces as hyper does: from what was taken on, until all is taken.
    async fn write_all(stream: &mut ZeroCopy, mut pieces: Vec<Bytes>) -> io::Result<()> {
        while !pieces.is_empty() {
            let slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let mut written = stream.write_vectored(&slices).await?;
            while written > 0 {
                let part = written.min(pieces[0].len());
                written -= part;
                drop(pieces[0].split_to(part));
                if pieces[0].is_empty() {
                    pieces.remove(0);
                }
            }
        }
        Ok(())
    }

    #[tokio::test]
    async fn stand_ins_become_the_parts_of_files_in_their_order() {
        let (mut server, mut client) = pair().await;
        // More than a socket takes at once.
        let first: Vec<u8> = (0..9 << 20).map(|at: usize| (at % 251) as u8).collect();
        let (large, small) = (file_of(&first), file_of(b"another file"));
        let outbox = server.outbox();
        let mut pieces = vec![Bytes::from_static(b"head")];
        for at in 0..8_u64 {
            let at = at << 20;
            pieces.push(outbox.put(Arc::clone(&large), at + 1, LONGEST));
        }
        pieces.push(Bytes::from_static(b"between"));
        pieces.push(outbox.put(small, 8, 4));
        pieces.push(Bytes::from_static(b"end"));
        let mut expected = b"head".to_vec();
        expected.extend_from_slice(&first[1..=8 << 20]);
        expected.extend_from_slice(b"betweenfileend");
        let reader = tokio::spawn(async move {
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            got
        });
        write_all(&mut server, pieces).await.unwrap();
        server.shutdown().await.unwrap();
        assert!(reader.await.unwrap() == expected);
        assert!(outbox.parts().is_empty());
    }

    #[tokio::test]
    async fn a_stand_in_is_never_sent_itself() {
        let (mut server, _client) = pair().await;
        let outbox = server.outbox();
        let without_part = Bytes::from_static(&STAND_IN[..7]);
        assert!(write_all(&mut server, vec![without_part]).await.is_err());
        // A part that is shorter than its stand-in.
        drop(outbox.put(file_of(b"12345"), 0, 5));
        assert!(write_all(&mut server, vec![Bytes::from_static(&STAND_IN[..6])]).await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_shrank_is_an_error_and_not_an_end() {
        let (mut server, _client) = pair().await;
        let file = file_of(b"12345");
        let piece = server.outbox().put(Arc::clone(&file), 0, 5);
        file.set_len(3).unwrap();
        assert!(write_all(&mut server, vec![piece]).await.is_err());
    }
}
