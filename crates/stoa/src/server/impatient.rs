//! A stream whose writes have a bound: a client that stops reading would otherwise hold its connection for ever.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Sleep, sleep};
use tracing::debug;

/// What a client is connected by.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Makes the close that follows drop what was not taken, where the kernel would go on offering it.
    fn abandon(&self);
}

impl Stream for TcpStream {
    fn abandon(&self) {
        if let Err(error) = self.set_zero_linger() {
            debug!(%error, "a connection cannot be reset");
        }
    }
}

impl Stream for UnixStream {
    fn abandon(&self) {}
}

/// Fails a write of which nothing was taken for `patience`. Any progress starts the time anew.
#[derive(Debug)]
pub(super) struct Impatient<S> {
    stream: S,
    patience: Duration,
    /// Runs while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S: Stream> Impatient<S> {
    pub(super) fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, deadline: None }
    }

    fn bounded<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.deadline = None;
            return outcome;
        }
        let patience = self.patience;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(patience)));
        if deadline.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.deadline = None;
        self.stream.abandon();
        let text = format!("the client took nothing for {patience:?}");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    }
}

impl<S: Stream> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: Stream> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bounded(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.bounded(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.bounded(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.bounded(cx, outcome)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(500);
    /// More than the kernel keeps for a socket that nobody reads.
    const MUCH: usize = 8 << 20;

    #[tokio::test]
    async fn a_write_that_nobody_takes_fails() {
        let (server, _client) = UnixStream::pair().unwrap();
        let mut server = Impatient::new(server, PATIENCE);
        let much = vec![0; MUCH];
        let written = server.write_all(&much);
        let written = tokio::time::timeout(Duration::from_secs(10), written).await;
        let error = written.expect("it gives up").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_slow_reader_is_waited_for_as_long_as_it_reads() {
        let (server, mut client) = UnixStream::pair().unwrap();
        let mut server = Impatient::new(server, PATIENCE);
        let reader = tokio::spawn(async move {
            let (mut read, mut piece) = (0, vec![0; 1 << 20]);
            while read < MUCH {
                // All rests together are longer than the server's patience; none of them is.
                tokio::time::sleep(PATIENCE / 4).await;
                let part = piece.len().min(MUCH - read);
                client.read_exact(&mut piece[..part]).await.unwrap();
                read += part;
            }
            client
        });
        server.write_all(&vec![0; MUCH]).await.unwrap();
        // And a rest in which nothing waits to be written counts for nothing.
        tokio::time::sleep(PATIENCE * 2).await;
        server.write_all(b"more").await.unwrap();
        let mut more = [0; 4];
        reader.await.unwrap().read_exact(&mut more).await.unwrap();
        assert_eq!(&more, b"more");
    }
}
