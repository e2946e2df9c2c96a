//! The accept loop: hyper's server with the bounds that `axum::serve` does not offer, and an end that lets what is
//! being sent be finished.
//!
//! HTTP/1.1 alone: the listener is cleartext, where the go command and browsers speak nothing else. Finding out which
//! version a client speaks is a wait that hyper-util does not bound; HTTP/2 comes with TLS, whose handshake says it.

mod impatient;

use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt as _;
use tracing::{debug, warn};

use self::impatient::{Impatient, Stream};

/// Asked for; Linux takes twice as much, for its own book-keeping. In bytes.
const SEND_BUFFER: usize = 256 << 10;
/// How long the loop rests when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Read buffer of one connection, in bytes, and what of an answer may wait in memory before another piece is read.
/// Larger than the longest request line that hyper reads (64 KiB), so that a longer one is told so with 414.
const MAX_HEAD: usize = 128 << 10;

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From the connection's, or the last answer's, end to the end of a request's head.
    pub header_timeout: Duration,
    /// Without the client taking anything of what is being sent.
    pub write_timeout: Duration,
    /// Connections at once; a further one waits in the listener's queue.
    pub max_connections: usize,
    /// From the signal to the last byte of what is being sent.
    pub drain_timeout: Duration,
}

/// Where connections come from.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Connection {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Small answers must not wait for more to send.
                stream.set_nodelay(true)?;
                // The kernel says that there is room only when a third of its buffer is free. A buffer that grows to
                // megabytes would hide a slow reader's progress from the write timeout: with this size 3 KB/s is seen.
                set_socket_send_buffer_size(&stream, SEND_BUFFER)?;
                Ok(Connection::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Connection::Unix(listener.accept().await?.0)),
        }
    }
}

/// Serves until `stop` completes, then takes no more connections, lets requests under way be answered, and returns when
/// they are or when the drain's time is over. Answers whether everything was finished in time.
pub async fn serve(
    listener: Listener,
    router: Router,
    bounds: Bounds,
    stop: impl Future<Output = ()>,
) -> bool {
    let connections = Arc::new(Semaphore::new(bounds.max_connections));
    let graceful = GracefulShutdown::new();
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_buf_size(MAX_HEAD)
        .half_close(false);
    let spawner = Spawner { builder, router, graceful, write_timeout: bounds.write_timeout };
    tokio::pin!(stop);
    loop {
        let next = async {
            // The permit comes first: a connection beyond the cap stays in the kernel's queue.
            let permit = Arc::clone(&connections).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut stop => break,
            next = next => next,
        };
        let Ok(permit) = permit else { break };
        match accepted {
            Ok(Connection::Tcp(stream)) => spawner.spawn(stream, permit),
            Ok(Connection::Unix(stream)) => spawner.spawn(stream, permit),
            Err(error) if is_of_one_connection(&error) => debug!(%error, "a connection was lost"),
            Err(error) => {
                warn!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tokio::time::timeout(bounds.drain_timeout, spawner.graceful.shutdown()).await.is_ok()
}

/// Starts the task of each connection.
struct Spawner {
    builder: http1::Builder,
    router: Router,
    graceful: GracefulShutdown,
    write_timeout: Duration,
}

impl Spawner {
    fn spawn<S: Stream + Send + 'static>(&self, stream: S, permit: OwnedSemaphorePermit) {
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let router = router.clone();
            async move { Ok::<_, Infallible>(into_ok(router.oneshot(request.map(Body::new)).await)) }
        });
        let stream = TokioIo::new(Impatient::new(stream, self.write_timeout));
        let connection = self.graceful.watch(self.builder.serve_connection(stream, service));
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = connection.await {
                let cause = error.source().map(ToString::to_string);
                debug!(%error, cause, "a connection ended with an error");
            }
        });
    }
}

fn into_ok<T>(result: Result<T, Infallible>) -> T {
    match result {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

/// An error that says nothing about the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput)
}
