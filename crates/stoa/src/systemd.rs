//! What systemd says to a service, and what it wants to hear: passed sockets (`sd_listen_fds(3)`), readiness, the end and
//! signs of life (`sd_notify(3)`). Where the variables of these protocols are not set, nothing happens.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;
use sd_notify::NotifyState;
use tracing::{debug, warn};

use crate::server::Listener;

/// More is a mistake and not a service.
const MAX_SOCKETS: usize = 64;
/// How long systemd may take to take a message.
const PATIENCE: Duration = Duration::from_secs(2);
/// `FileDescriptorName=` of a socket for everything that is not the protocol.
const ADMIN: &str = "admin";

/// Sockets that systemd has bound for us.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Instead of `server.listen`, if there are any.
    pub protocol: Vec<Socket>,
    /// Instead of `server.admin-listen`, if there are any.
    pub admin: Vec<Socket>,
}

/// One of them, not yet part of the runtime.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Sockets {
    /// Takes what was passed to this process. To be called while there is no other thread: what is read here is removed
    /// from the environment.
    ///
    /// # Errors
    /// One line: something was passed that is no listening socket, or far too much.
    pub fn take() -> Result<Self, String> {
        let mut sockets = Self::default();
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let (count, pid) = (variable("LISTEN_FDS"), variable("LISTEN_PID"));
        // Variables for a process above us are none of our business.
        if pid != std::process::id().to_string() || count.is_empty() {
            return Ok(sockets);
        }
        let count = count.parse().ok().filter(|count| *count <= MAX_SOCKETS);
        let count = count.ok_or_else(|| format!("LISTEN_FDS is no count up to {MAX_SOCKETS}"))?;
        let names = variable("LISTEN_FDNAMES");
        let mut names = names.split(':');
        let mut passed = ListenFd::from_env();
        for index in 0..count {
            let name = names.next().unwrap_or_default();
            let socket = take(&mut passed, index)
                .map_err(|error| format!("socket {index} ({name}) of systemd: {error}"))?;
            let group = if name == ADMIN { &mut sockets.admin } else { &mut sockets.protocol };
            group.push(socket);
        }
        Ok(sockets)
    }
}

fn take(passed: &mut ListenFd, index: usize) -> std::io::Result<Socket> {
    use std::io::{Error, ErrorKind};

    let wrong = |text: &str| Error::new(ErrorKind::InvalidInput, text.to_owned());
    let socket = match passed.take_tcp_listener(index) {
        Ok(tcp) => tcp.map(Socket::Tcp),
        Err(_) => passed.take_unix_listener(index)?.map(Socket::Unix),
    };
    let socket = socket.ok_or_else(|| wrong("it was not passed"))?;
    let listens = match &socket {
        Socket::Tcp(socket) => socket_acceptconn(socket),
        Socket::Unix(socket) => socket_acceptconn(socket),
    };
    if listens? { Ok(socket) } else { Err(wrong("it does not listen (Accept= must be no)")) }
}

impl Socket {
    /// Must be called within the runtime.
    pub(crate) fn listener(self) -> std::io::Result<Listener> {
        match self {
            Self::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(socket).map(Listener::Tcp)
            }
            Self::Unix(socket) => {
                socket.set_nonblocking(true)?;
                // Its file is systemd's.
                let socket = tokio::net::UnixListener::from_std(socket)?;
                Ok(Listener::Unix(None, socket))
            }
        }
    }
}

/// Requests are answered from now on.
pub(crate) async fn ready(status: &str) {
    let status = format!("listening on {status}");
    tell(move || sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)])).await;
}

/// No more connections are taken.
pub(crate) async fn stopping() {
    let status = NotifyState::Status("finishing what is being sent");
    tell(move || sd_notify::notify(&[NotifyState::Stopping, status])).await;
}

/// Says twice in each interval of `WatchdogSec=` that the runtime runs; for ever, or not at all where nobody asks.
pub(crate) async fn keep_alive() {
    let Some(interval) = sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
    else {
        return;
    };
    debug!(?interval, "systemd's watchdog is told that the server lives");
    loop {
        tell(|| sd_notify::notify(&[NotifyState::Watchdog])).await;
        tokio::time::sleep(interval / 2).await;
    }
}

/// On another thread, because a message waits while systemd's queue is full.
async fn tell(message: impl FnOnce() -> std::io::Result<()> + Send + 'static) {
    let told = tokio::task::spawn_blocking(message);
    match tokio::time::timeout(PATIENCE, told).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => warn!(%error, "systemd cannot be told"),
        Ok(Err(error)) => warn!(%error, "systemd cannot be told"),
        Err(_) => warn!("systemd takes no message"),
    }
}
