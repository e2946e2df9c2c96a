//! One connection, from its first byte to its end.

use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::impatient::Impatient;
use super::listener::Connection;
use super::streams::{self, Streams, Verdict};
use super::tls::H2;
use super::zero_copy::{Outbox, ZeroCopy};
use super::{Bounds, Peer, Secured};
use crate::http::door::Door;

/// Read buffer of one connection, in bytes, and what of an answer may wait in memory before another piece is read.
/// Larger than the longest request line that hyper reads (64 KiB), so that a longer one is told so with 414.
const MAX_HEAD: usize = 128 << 10;

/// Beside a request's target, over HTTP/2, in bytes as it counts them (RFC 9113, section 6.5.2).
const MAX_OTHER_HEADERS: usize = 16 << 10;
/// Requests at once on one HTTP/2 connection. The go command opens another connection for more.
const MAX_STREAMS: u32 = 64;
/// What of one HTTP/2 answer may wait for its connection, in bytes.
const SEND_BUFFER: usize = 64 << 10;
/// What a client may send of bodies before they are read, in bytes: no request to this server has one. How much of an
/// answer may be under way is for the client to say.
const WINDOW: u32 = 64 << 10;
/// Requests that a client may take back before they were begun, or break, until its connection is closed.
const MAX_RESETS: usize = 20;
/// How long an HTTP/2 connection may be silent until the client is asked whether it is there, and then to its answer.
const PING: Duration = Duration::from_secs(20);

/// By which way a request came; among its extensions.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub peer: Peer,
    /// What this server's socket speaks; a proxy before it may have spoken TLS too.
    pub tls: bool,
}

/// A connection to a socket that speaks TLS.
enum Begun {
    Tls(Box<TlsStream<Impatient<TcpStream>>>),
    Cleartext(Impatient<TcpStream>),
}

/// What all connections of some listeners have in common.
pub(super) struct Connections {
    door: Door,
    bounds: Bounds,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    tls: Option<Secured>,
    /// One for each answer under way over HTTP/2, so that these too are no more than the connections of HTTP/1.1 could have.
    answers: Arc<Semaphore>,
    stopping: CancellationToken,
}

impl Connections {
    pub(super) fn new(
        door: Door,
        tls: Option<Secured>,
        bounds: Bounds,
        stopping: CancellationToken,
    ) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.header_timeout)
            .max_buf_size(MAX_HEAD)
            .half_close(false);
        let max_headers = bounds.max_request_line.saturating_add(MAX_OTHER_HEADERS);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(max_headers).unwrap_or(u32::MAX))
            .max_send_buf_size(SEND_BUFFER)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_RESETS)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        let answers = Arc::new(Semaphore::new(bounds.max_connections));
        Self { door, bounds, http1, http2, tls, answers, stopping }
    }

    /// Serves until the connection ends, or until what it is being sent is finished after the stop.
    pub(super) async fn serve(&self, connection: Connection) {
        let patience = self.bounds.write_timeout;
        match (connection, &self.tls) {
            (Connection::Tcp(stream, peer), Some(secured)) => {
                self.over_tls(stream, secured, Way { peer, tls: true }).await;
            }
            (Connection::Tcp(stream, peer), None) => {
                let (way, stream) = (Way { peer, tls: false }, ZeroCopy::new(stream));
                let outbox = Some(stream.outbox());
                self.http1(&self.door, Impatient::new(stream, patience), way, outbox).await;
            }
            (Connection::Unix(stream), _) => {
                let way = Way { peer: Peer::Unix, tls: false };
                self.http1(&self.door, Impatient::new(stream, patience), way, None).await;
            }
        }
    }

    /// A client that has not finished its handshake has asked for nothing, and is not waited for at the stop.
    async fn over_tls(&self, stream: TcpStream, secured: &Secured, way: Way) {
        let begun = self.begin(stream, Arc::clone(&secured.config));
        let begun = tokio::select! {
            () = self.stopping.cancelled() => return,
            begun = tokio::time::timeout(self.bounds.header_timeout, begun) => begun,
        };
        match begun {
            Ok(Ok(Begun::Cleartext(stream))) => {
                self.http1(&secured.cleartext, stream, way, None).await;
            }
            Ok(Ok(Begun::Tls(stream))) if stream.get_ref().1.alpn_protocol() == Some(H2) => {
                self.http2(stream, way).await;
            }
            Ok(Ok(Begun::Tls(stream))) => self.http1(&self.door, stream, way, None).await,
            Ok(Err(error)) => debug!(%error, client = %way.peer, "no TLS connection came about"),
            Err(_) => debug!(client = %way.peer, "a client took too long over its TLS handshake"),
        }
    }

    /// A request in cleartext begins with the letters of its method, a handshake never does.
    async fn begin(&self, stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<Begun> {
        let mut first = [0];
        stream.peek(&mut first).await?;
        let stream = Impatient::new(stream, self.bounds.write_timeout);
        if first[0].is_ascii_uppercase() {
            return Ok(Begun::Cleartext(stream));
        }
        Ok(Begun::Tls(Box::new(TlsAcceptor::from(config).accept(stream).await?)))
    }

    async fn http1(
        &self,
        door: &Door,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        way: Way,
        outbox: Option<Outbox>,
    ) {
        let (outbox, asked) = (outbox.as_ref(), AtomicBool::new(false));
        let service = service_fn(async |request| {
            asked.store(true, Ordering::Relaxed);
            Ok::<_, Infallible>(door.answer(request, way, outbox).await)
        });
        let connection = self.http1.serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    // hyper waits for the rest of a first request's head: some of it may be on its way, and a client
                    // that sends no more is owed nothing.
                    () = tokio::time::sleep(streams::linger(&self.bounds)) => {
                        if !asked.load(Ordering::Relaxed) {
                            return;
                        }
                        connection.await
                    }
                }
            }
        };
        told(ended);
    }

    async fn http2(&self, stream: impl AsyncRead + AsyncWrite + Unpin, way: Way) {
        let streams = Streams::new();
        let service = {
            let (door, streams) = (self.door.clone(), Arc::clone(&streams));
            let answers = Arc::clone(&self.answers);
            service_fn(move |request| {
                let (door, streams) = (door.clone(), Arc::clone(&streams));
                let (open, permit) = (streams.open(), Arc::clone(&answers).acquire_owned());
                async move {
                    // The semaphore is never closed.
                    let permit = permit.await.map_err(io::Error::other)?;
                    let response = door.answer(request, way, None).await;
                    Ok::<_, io::Error>(response.map(|body| streams.watch(body, open, permit)))
                }
            })
        };
        let connection = self.http2.serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let mut verdicts = tokio::time::interval(streams::interval(&self.bounds));
        let (mut finishing, mut stopped) = (false, None);
        loop {
            let finish = tokio::select! {
                ended = connection.as_mut() => return told(ended),
                () = self.stopping.cancelled(), if stopped.is_none() => {
                    stopped = Some(Instant::now());
                    true
                }
                _ = verdicts.tick() => match streams.verdict(&self.bounds, stopped) {
                    Verdict::Continue => false,
                    Verdict::Finish => true,
                    Verdict::Abandon => {
                        debug!(client = %way.peer, "an idle or stalled connection is closed");
                        return;
                    }
                }
            };
            if finish && !finishing {
                finishing = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn told(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        let cause = error.source().map(ToString::to_string);
        debug!(%error, cause, "a connection ended with an error");
    }
}
