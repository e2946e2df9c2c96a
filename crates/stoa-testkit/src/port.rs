use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};

/// A port of 127.0.0.1 that does something other than what it is asked for, until it is dropped.
///
/// What speaks HTTP and misbehaves is a [`FakeUpstream`](crate::FakeUpstream), and what shows a certificate for every host
/// is an [`Internet`](crate::Internet) whose authority is not trusted.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    #[expect(dead_code, reason = "held")]
    kind: Kind,
}

#[derive(Debug)]
#[expect(dead_code, reason = "held until they are dropped")]
enum Kind {
    /// Bound, so that nobody else can listen there.
    Refusing(OwnedFd),
    /// With connections that fill its queue.
    Filtered(OwnedFd, Vec<TcpStream>),
    Speaking(Speaking),
}

#[derive(Debug)]
struct Speaking {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Longer than a connect on loopback takes.
const FULL: Duration = Duration::from_millis(200);
/// How often a connection looks whether it is over.
const TICK: Duration = Duration::from_millis(20);

impl Port {
    /// Refuses every connection.
    #[track_caller]
    pub fn refusing() -> Port {
        let (socket, address) = bound();
        Port { address, kind: Kind::Refusing(socket) }
    }

    /// Answers no connect at all, as behind a filter that drops: it listens with a full queue, and the kernel then drops
    /// what would need a place in it. For Linux.
    #[track_caller]
    pub fn filtered() -> Port {
        let (socket, address) = bound();
        rustix::net::listen(&socket, 0).expect("a bound socket can listen");
        let mut connections = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, FULL) {
            connections.push(stream);
            assert!(connections.len() < 16, "the queue of a port has no end");
        }
        Port { address, kind: Kind::Filtered(socket, connections) }
    }

    /// Takes connections and never says anything.
    #[track_caller]
    pub fn mute() -> Port {
        Port::speaking(|_| {})
    }

    /// Says this to whoever connects, at once, and nothing more.
    #[track_caller]
    pub fn saying(banner: impl Into<Vec<u8>>) -> Port {
        let banner = banner.into();
        Port::speaking(move |stream| _ = stream.write_all(&banner))
    }

    /// Answers whoever says something with this, and then with what comes next again and again, for as long as it is taken:
    /// `HTTP/1.1 200 OK\r\n` and one header is a header without end.
    #[track_caller]
    pub fn endless(first: impl Into<Vec<u8>>, next: impl Into<Vec<u8>>) -> Port {
        let (first, next) = (first.into(), next.into());
        Port::speaking(move |stream| {
            let mut asked = [0; 1024];
            if stream.read(&mut asked).is_ok_and(|length| length > 0) {
                _ = stream.write_all(&first);
                while stream.write_all(&next).is_ok() {}
            }
        })
    }

    /// Closes every connection as soon as something is said over it, without a word.
    #[track_caller]
    pub fn closing() -> Port {
        Port::speaking(|stream| {
            while stream.read(&mut [0; 1024]).is_err() {}
            _ = stream.shutdown(std::net::Shutdown::Both);
        })
    }

    /// `speak` has a second for each thing it waits for. Then the connection is held until the client leaves.
    #[track_caller]
    fn speaking(speak: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Port {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("some port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let speak = Arc::new(speak);
        let thread = std::thread::spawn(move || {
            let mut connections = Vec::new();
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(mut stream) = stream else { continue };
                let (speak, over) = (Arc::clone(&speak), Arc::clone(&over));
                connections.push(std::thread::spawn(move || {
                    _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
                    _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
                    speak(&mut stream);
                    _ = stream.set_read_timeout(Some(TICK));
                    let mut left = [0; 1024];
                    while !over.load(Ordering::SeqCst) && !matches!(stream.read(&mut left), Ok(0)) {
                    }
                }));
            }
            for connection in connections {
                _ = connection.join();
            }
        });
        let speaking = Speaking { address, is_over, thread: Some(thread) };
        Port { address, kind: Kind::Speaking(speaking) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `SCHEME://127.0.0.1:PORT`.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }
}

impl Drop for Speaking {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // It waits for the next connection.
        _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// A socket with a port of its own that does not listen yet.
#[track_caller]
fn bound() -> (OwnedFd, SocketAddr) {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None);
    let socket = socket.expect("the system has sockets");
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    rustix::net::bind(&socket, &any_port).expect("some port is free");
    let address = rustix::net::getsockname(&socket).expect("a bound socket has an address");
    (socket, address.try_into().expect("it is one of the internet"))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    fn connect(port: &Port) -> std::io::Result<TcpStream> {
        TcpStream::connect_timeout(&port.address(), FULL)
    }

    #[test]
    fn what_a_client_sees() {
        let refusing = Port::refusing();
        assert_eq!(connect(&refusing).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let filtered = Port::filtered();
        assert_eq!(connect(&filtered).unwrap_err().kind(), ErrorKind::TimedOut);

        let mute = Port::mute();
        let mut stream = connect(&mute).unwrap();
        stream.set_read_timeout(Some(FULL)).unwrap();
        stream.write_all(b"hello\r\n\r\n").unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);

        let saying = Port::saying("SSH-2.0-x\r\n");
        let mut said = [0; 11];
        connect(&saying).unwrap().read_exact(&mut said).unwrap();
        assert_eq!(&said, b"SSH-2.0-x\r\n");

        let endless = Port::endless("a", "b");
        let mut stream = connect(&endless).unwrap();
        stream.write_all(b"?").unwrap();
        let mut said = vec![0; 100_000];
        stream.read_exact(&mut said).unwrap();
        assert!(said.starts_with(b"abbb") && said.ends_with(b"bbb"));

        let closing = Port::closing();
        let mut stream = connect(&closing).unwrap();
        stream.write_all(b"?").unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
}
