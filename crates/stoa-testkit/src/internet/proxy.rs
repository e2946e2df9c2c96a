//! The outgoing proxy: how every connection into an [`Internet`](crate::Internet) begins.

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::Shared;
use super::host::{Host, Reach, origin_form};
use crate::fault::Delivery;
use crate::wire::{deliver, read_request};
use crate::{Answer, Request};

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        // However it ends: the client sees that it has, and the log what was asked.
        tokio::spawn(async move { _ = serve(stream, shared).await });
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    _ = stream.set_nodelay(true);
    let connection = shared.connections.fetch_add(1, Ordering::Relaxed);
    let mut buffer = Vec::new();
    while let Some(mut request) = read_request(&mut stream, &mut buffer, connection).await {
        let wanted = wanted(&request).map(|(host, port)| (host.to_ascii_lowercase(), port));
        let Some((host, port)) = wanted else {
            let answer = Answer::text(
                400,
                "this is a proxy; it wants CONNECT or a whole URL
",
            );
            deliver(&mut stream, &request, &answer, &Delivery::Whole).await?;
            return Ok(());
        };
        shared.asked(format!("{host}:{port}"));
        if !shared.lets_through(&request) {
            let answer = Answer::text(407, "this proxy wants a password\n")
                .with_header("Proxy-Authenticate", "Basic realm=\"stoa-testkit\"");
            deliver(&mut stream, &request, &answer, &Delivery::Whole).await?;
            return Ok(());
        }
        let door = shared.find(&host, port).map(|host| (host.door(), host));
        let Some(((reach, upstream), host)) = door.filter(|it| it.0.0 != Reach::Unresolvable)
        else {
            return no_such_host(&mut stream, &request, &host).await;
        };
        let connects = request.method == "CONNECT";
        if reach == Reach::Silent {
            if connects {
                established(&mut stream).await?;
            }
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
            return Ok(());
        }
        if connects {
            return tunnel(stream, &request, &host, port, upstream, &shared).await;
        }
        if let Some(upstream) = upstream {
            return pass(&mut stream, &request, upstream).await;
        }
        let path = origin_form(&request.target).split('?').next().unwrap_or_default();
        request.path = percent_decode_str(path).decode_utf8_lossy().into_owned();
        if !host.answer(&shared, &mut stream, &mut buffer, request).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// The host and port that a request to a proxy is for.
fn wanted(request: &Request) -> Option<(&str, u16)> {
    if request.method == "CONNECT" {
        let (host, port) = request.target.rsplit_once(':')?;
        return Some((host, port.parse().ok()?));
    }
    let authority = request.target.strip_prefix("http://")?.split(['/', '?']).next()?;
    let authority = authority.rsplit('@').next()?;
    match authority.split_once(':') {
        Some((host, port)) => Some((host, port.parse().ok()?)),
        None => Some((authority, 80)),
    }
}

async fn no_such_host(stream: &mut TcpStream, request: &Request, host: &str) -> io::Result<()> {
    let answer = Answer::text(502, format!("no such host: {host}\n"));
    deliver(stream, request, &answer.with_header("Connection", "close"), &Delivery::Whole).await?;
    stream.shutdown().await
}

async fn established(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await
}

/// What comes through a CONNECT: TLS, but for port 80.
async fn tunnel(
    mut stream: TcpStream,
    request: &Request,
    host: &Host,
    port: u16,
    upstream: Option<SocketAddr>,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    let inside = match upstream {
        // A refused connection is the proxy's to report.
        Some(address) => match TcpStream::connect(address).await {
            Ok(inside) => inside,
            Err(_) => return no_such_host(&mut stream, request, host.name()).await,
        },
        None => inside(host, shared).await?,
    };
    established(&mut stream).await?;
    if port == 80 {
        return join(stream, inside).await;
    }
    // A client that does not trust us leaves in the middle of the handshake.
    let stream = host.acceptor(&shared.authority).accept(stream).await?;
    join(stream, inside).await
}

async fn join(
    mut outside: impl AsyncRead + AsyncWrite + Unpin,
    mut inside: TcpStream,
) -> io::Result<()> {
    tokio::io::copy_bidirectional(&mut outside, &mut inside).await?;
    Ok(())
}

/// The other end of a connection that a host serves. Behind TLS too a host has a socket: it shows when a client has left,
/// and can be reset.
async fn inside(host: &Host, shared: &Arc<Shared>) -> io::Result<TcpStream> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (ours, theirs) = tokio::try_join!(TcpStream::connect(address), listener.accept())?;
    let (mut theirs, _) = theirs;
    _ = ours.set_nodelay(true);
    _ = theirs.set_nodelay(true);
    let (host, shared) = (host.clone(), shared.clone());
    let connection = shared.connections.fetch_add(1, Ordering::Relaxed);
    tokio::spawn(async move {
        let mut buffer = Vec::new();
        while let Some(request) = read_request(&mut theirs, &mut buffer, connection).await {
            match host.answer(&shared, &mut theirs, &mut buffer, request).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return,
            }
        }
    });
    Ok(ours)
}

/// A request with a whole URL to what only knows paths, and its answer. It is the connection's last.
async fn pass(stream: &mut TcpStream, request: &Request, to: SocketAddr) -> io::Result<()> {
    let Ok(mut inside) = TcpStream::connect(to).await else {
        let answer = Answer::text(502, "the connection was refused\n");
        deliver(stream, request, &answer, &Delivery::Whole).await?;
        return Ok(());
    };
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, origin_form(&request.target));
    for (name, value) in &request.headers {
        if !name.to_ascii_lowercase().ends_with("connection") {
            _ = write!(head, "{name}: {value}\r\n");
        }
    }
    head += "Connection: close\r\n\r\n";
    inside.write_all(head.as_bytes()).await?;
    tokio::io::copy(&mut inside, stream).await?;
    stream.shutdown().await
}
