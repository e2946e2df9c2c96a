//! The accept loop: hyper's server with the bounds that `axum::serve` does not offer, and an end that lets what is
//! being sent be finished.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;
use tracing::{debug, warn};

/// How long the loop rests when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Read and header buffer of one connection, in bytes.
const MAX_HEAD: usize = 64 << 10;
const MAX_STREAMS: u32 = 128;

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From the connection's, or the last answer's, end to the end of a request's head.
    pub header_timeout: Duration,
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
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_buf_size(MAX_HEAD)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20));
    let builder = Arc::new(builder);
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
            Ok(Connection::Tcp(stream)) => spawn(stream, &router, &builder, &graceful, permit),
            Ok(Connection::Unix(stream)) => spawn(stream, &router, &builder, &graceful, permit),
            Err(error) if is_of_one_connection(&error) => debug!(%error, "a connection was lost"),
            Err(error) => {
                warn!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tokio::time::timeout(bounds.drain_timeout, graceful.shutdown()).await.is_ok()
}

fn spawn<S>(
    stream: S,
    router: &Router,
    builder: &Arc<auto::Builder<TokioExecutor>>,
    graceful: &GracefulShutdown,
    permit: tokio::sync::OwnedSemaphorePermit,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = router.clone();
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        async move { Ok::<_, Infallible>(into_ok(router.oneshot(request.map(Body::new)).await)) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        let _permit = permit;
        if let Err(error) = connection.await {
            debug!(error = %error, "a connection ended with an error");
        }
    });
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
