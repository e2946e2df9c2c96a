//! One connection, from its first byte to its end.

use std::convert::Infallible;
use std::error::Error as _;
use std::pin::pin;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::debug;

use super::impatient::Impatient;
use super::listener::Connection;
use super::{Bounds, Peer};

/// Read buffer of one connection, in bytes, and what of an answer may wait in memory before another piece is read.
/// Larger than the longest request line that hyper reads (64 KiB), so that a longer one is told so with 414.
const MAX_HEAD: usize = 128 << 10;

/// By which way a request came; among its extensions.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub peer: Peer,
    /// This server's own; a proxy before it may have spoken TLS too.
    pub tls: bool,
}

/// What all connections of some listeners have in common.
pub(super) struct Connections {
    router: Router,
    bounds: Bounds,
    http1: http1::Builder,
    stopping: CancellationToken,
}

impl Connections {
    pub(super) fn new(router: Router, bounds: Bounds, stopping: CancellationToken) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.header_timeout)
            .max_buf_size(MAX_HEAD)
            .half_close(false);
        Self { router, bounds, http1, stopping }
    }

    /// Serves until the connection ends, or until what it is being sent is finished after the stop.
    pub(super) async fn serve(&self, connection: Connection) {
        let patience = self.bounds.write_timeout;
        match connection {
            Connection::Tcp(stream, peer) => {
                self.http1(Impatient::new(stream, patience), Way { peer, tls: false }).await;
            }
            Connection::Unix(stream) => {
                let way = Way { peer: Peer::Unix, tls: false };
                self.http1(Impatient::new(stream, patience), way).await;
            }
        }
    }

    async fn http1(&self, stream: impl AsyncRead + AsyncWrite + Unpin, way: Way) {
        let service = hyper::service::service_fn(|request| self.answer(request, way));
        let connection = self.http1.serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        told(ended);
    }

    async fn answer(
        &self,
        mut request: hyper::Request<Incoming>,
        way: Way,
    ) -> Result<axum::response::Response, Infallible> {
        request.extensions_mut().insert(way);
        self.router.clone().oneshot(request.map(Body::new)).await
    }
}

fn told(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        let cause = error.source().map(ToString::to_string);
        debug!(%error, cause, "a connection ended with an error");
    }
}
