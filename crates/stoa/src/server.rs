//! The accept loop: hyper's server with the bounds that `axum::serve` does not offer, and an end that lets what is
//! being sent be finished.
//!
//! Cleartext is HTTP/1.1 alone: there the go command and browsers speak nothing else, and finding out which version a
//! client speaks is a wait of its own. HTTP/2 comes with TLS, whose handshake says it.

mod connection;
mod impatient;
mod listener;
mod streams;
pub mod tls;
pub mod zero_copy;

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use self::connection::Connections;
pub use self::connection::Way;
use self::listener::Connection;
pub use self::listener::{Listener, Peer, SocketFile};
use crate::http::door::Door;

/// How long the loop rests when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From the connection's, or the last answer's, end to the end of a request's head.
    pub header_timeout: Duration,
    /// Without the client taking anything of what is being sent.
    pub write_timeout: Duration,
    /// Connections at once, at all listeners together; a further one waits in its listener's queue.
    pub max_connections: usize,
    /// Bytes of a request's target; what is longer may come as far as the answer that says so.
    pub max_request_line: usize,
    /// From the signal to the last byte of what is being sent.
    pub drain_timeout: Duration,
}

/// How connections over TCP are secured.
#[derive(Clone, Debug)]
pub struct Secured {
    pub config: Arc<ServerConfig>,
    /// Answers, in cleartext, those who speak no TLS.
    pub cleartext: Door,
}

/// Serves at all these listeners (with TLS, if there is any, on those that are no unix sockets) until `stop` completes. Then
/// takes no more connections, lets requests under way be answered, and returns when they are or when the drain's time is
/// over. Answers whether everything was finished in time.
pub async fn serve(
    listeners: Vec<Listener>,
    door: Door,
    tls: Option<Secured>,
    bounds: Bounds,
    stop: impl Future<Output = ()>,
) -> bool {
    let permits = Arc::new(Semaphore::new(bounds.max_connections));
    let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
    let connections = Arc::new(Connections::new(door, tls, bounds, stopping.clone()));
    let mut turn = 0;
    tokio::pin!(stop);
    loop {
        let next = async {
            // The permit comes first: a connection beyond the cap stays in the kernel's queue.
            let permit = Arc::clone(&permits).acquire_owned().await;
            turn += 1;
            (permit, std::future::poll_fn(|cx| poll_accept(&listeners, turn, cx)).await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut stop => break,
            next = next => next,
        };
        let Ok(permit) = permit else { break };
        match accepted {
            Ok(connection) => {
                let connections = Arc::clone(&connections);
                tasks.spawn(async move {
                    let _permit = permit;
                    connections.serve(connection).await;
                });
            }
            Err(error) if is_of_one_connection(&error) => debug!(%error, "a connection was lost"),
            Err(error) => {
                warn!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listeners);
    stopping.cancel();
    tasks.close();
    tokio::time::timeout(bounds.drain_timeout, tasks.wait()).await.is_ok()
}

/// The next connection of any listener; each is the first to be asked in its turn.
fn poll_accept(
    listeners: &[Listener],
    turn: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Connection>> {
    let (before, after) = listeners.split_at(turn % listeners.len().max(1));
    for listener in after.iter().chain(before) {
        if let Poll::Ready(accepted) = listener.poll_accept(cx) {
            return Poll::Ready(accepted);
        }
    }
    Poll::Pending
}

/// An error that says nothing about the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput)
}
