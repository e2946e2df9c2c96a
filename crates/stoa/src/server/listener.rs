//! Where connections come from: TCP and unix sockets, bound here.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tracing::warn;

/// Asked for; Linux takes twice as much, for its own book-keeping. In bytes.
const SEND_BUFFER: usize = 256 << 10;
/// Connections that may wait to be accepted; Linux takes no more than `net.core.somaxconn`, which is 4096 by default. One
/// beyond it has its first packet dropped, and asks again only after a second: the runtime's own 128 are fewer than a
/// build farm opens at once.
const BACKLOG: u32 = 4096;
/// How long somebody who listens at a socket may take to be noticed.
const NOTICE: Duration = Duration::from_secs(1);

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peer {
    /// Canonical: an IPv4 address is not written as an IPv6 one.
    Address(IpAddr),
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// Where connections come from.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    /// The file goes before the socket, so that nobody finds a file at which nobody listens.
    Unix(Option<SocketFile>, UnixListener),
}

pub(super) enum Connection {
    Tcp(TcpStream, Peer),
    Unix(UnixStream),
}

/// A socket's file, removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl SocketFile {
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs_err::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, "a socket's file cannot be removed");
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A server that starts again is not kept out by what is left of the old one's connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Listener {
    /// Binds the first of these that can be bound.
    pub async fn bind_tcp(candidates: &[(&str, u16)]) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "it is no address");
        for candidate in candidates {
            match tokio::net::lookup_host(candidate).await {
                Ok(addresses) => {
                    for address in addresses {
                        match listen(address) {
                            Ok(listener) => return Ok(Self::Tcp(listener)),
                            Err(error) => last = error,
                        }
                    }
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Binds a unix socket with these permissions. A socket at which nobody listens is a leftover, and is replaced.
    ///
    /// # Errors
    /// `AddrInUse` when somebody listens there; else what keeps a socket from being made.
    pub async fn bind_unix(path: &Path, mode: u32) -> io::Result<Self> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_leftover(path).await?;
                UnixListener::bind(path)?
            }
            bound => bound?,
        };
        let file = SocketFile::new(path);
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        Ok(Self::Unix(Some(file), listener))
    }

    /// `127.0.0.1:3000`, with the port that was picked, or `unix:/path`.
    pub fn address(&self) -> String {
        if let Self::Unix(_, listener) = self {
            let address = listener.local_addr().ok();
            let path = address.as_ref().and_then(|address| address.as_pathname());
            return format!("unix:{}", path.unwrap_or(Path::new("?")).display());
        }
        self.tcp_address().map_or_else(|| "?".to_owned(), |address| address.to_string())
    }

    /// None for a unix socket.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    pub(super) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        match self {
            Self::Tcp(listener) => listener.poll_accept(cx).map(|accepted| {
                let (stream, address) = accepted?;
                // Small answers must not wait for more to send.
                stream.set_nodelay(true)?;
                // The kernel says that there is room only when a third of its buffer is free. A buffer that grows to
                // megabytes would hide a slow reader's progress from the write timeout: with this size 3 KB/s is seen.
                set_socket_send_buffer_size(&stream, SEND_BUFFER)?;
                Ok(Connection::Tcp(stream, Peer::Address(address.ip().to_canonical())))
            }),
            Self::Unix(_, listener) => {
                listener.poll_accept(cx).map(|accepted| Ok(Connection::Unix(accepted?.0)))
            }
        }
    }
}

/// Removes the socket that a server left which was killed, and nothing else.
async fn remove_leftover(path: &Path) -> io::Result<()> {
    if !fs_err::symlink_metadata(path)?.file_type().is_socket() {
        let text = "something that is no socket is there";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    match tokio::time::timeout(NOTICE, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs_err::remove_file(path)
        }
        // Whoever is too busy to take a connection is there.
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_leftover_is_replaced_and_a_listener_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let mode = || fs_err::metadata(&path).unwrap().permissions().mode() & 0o777;
        // As a killed server leaves it: a file at which nobody listens.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let first = Listener::bind_unix(&path, 0o600).await.unwrap();
        assert_eq!((mode(), first.address()), (0o600, format!("unix:{}", path.display())));
        let second = Listener::bind_unix(&path, 0o660).await.unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(!path.exists());
        fs_err::write(&path, "a file").unwrap();
        let third = Listener::bind_unix(&path, 0o660).await.unwrap_err();
        assert_eq!(third.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "a file");
    }
}
