//! Names with several addresses, names that move, and a resolver that fails, as a client meets them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::server::{Server, ok};
use super::{client, get, settings};
use crate::dns::{Addrs, Name, Resolve, Resolving};
use crate::{Client, Settings};

/// Knows these addresses of every name, or fails.
#[derive(Default)]
struct Book {
    addresses: Mutex<Option<Vec<SocketAddr>>>,
    asked: AtomicUsize,
}

impl Book {
    fn says(self: &Arc<Self>, last_bytes: &[u8]) -> Arc<Self> {
        self.says_addresses(last_bytes.iter().map(|&last| ip(last)))
    }

    fn says_addresses(self: &Arc<Self>, all: impl IntoIterator<Item = IpAddr>) -> Arc<Self> {
        let all = all.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect();
        *self.addresses.lock().unwrap() = Some(all);
        Arc::clone(self)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Resolve for Book {
    fn resolve(&self, _: Name) -> Resolving {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let found = self.addresses.lock().unwrap().clone();
        Box::pin(async move {
            let found = found.ok_or("Temporary failure in name resolution")?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// All of them are this machine.
fn ip(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

/// Answers every request with this and closes the connection.
async fn host(last: u8, port: u16, says: &'static str) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind((ip(last), port)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let length = says.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{says}"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, served)
}

/// Says no word to those who connect, not even a refusal, as behind a firewall that drops packets.
///
/// # Errors
/// The machine has no such address.
async fn silent(ip: IpAddr, port: u16) -> std::io::Result<(TcpListener, Vec<TcpStream>)> {
    let socket = if ip.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind((ip, port).into())?;
    let (listener, mut waiting) = (socket.listen(0)?, Vec::new());
    let connect = || timeout(Duration::from_millis(100), TcpStream::connect((ip, port)));
    while let Ok(connected) = connect().await {
        waiting.push(connected?);
    }
    Ok((listener, waiting))
}

#[tokio::test]
async fn an_address_that_refuses_is_passed_over() {
    let (port, _served) = host(3, 0, "found").await;
    let book = Arc::<Book>::default().says(&[4, 5, 3]);
    let client = Client::with_resolver(settings(), book).unwrap();
    let began = Instant::now();
    assert_eq!(get(&client, &format!("http://up.test:{port}")).await.unwrap(), "found");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_address_that_is_silent_costs_its_share_of_the_wait_once() {
    let (port, _served) = host(3, 0, "found").await;
    let _silent = silent(ip(4), port).await.unwrap();
    let book = Arc::<Book>::default().says(&[4, 3]);
    let settings = Settings { connect_timeout: Duration::from_secs(4), ..settings() };
    let client = Client::with_resolver(settings, book.clone()).unwrap();
    let took = async || {
        let began = Instant::now();
        assert_eq!(get(&client, &format!("http://up.test:{port}")).await.unwrap(), "found");
        began.elapsed()
    };
    let first = took().await;
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&first), "{first:?}");
    for _ in 0..3 {
        let next = took().await;
        assert!(next < Duration::from_secs(1), "{next:?}");
    }
    assert_eq!(book.asked(), 1);
}

/// Happy eyeballs (RFC 8305): another family does not wait for the first to be given up.
#[tokio::test]
async fn a_silent_family_costs_a_moment() {
    let (port, _served) = host(3, 0, "found").await;
    let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
    let Ok(_silent) = silent(v6, port).await else {
        eprintln!("SKIPPED: no IPv6 here");
        return;
    };
    let book = Arc::<Book>::default().says_addresses([v6, ip(3)]);
    let client = Client::with_resolver(settings(), book).unwrap();
    let began = Instant::now();
    assert_eq!(get(&client, &format!("http://up.test:{port}")).await.unwrap(), "found");
    // A third of its share of the wait, which is ten seconds.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_host_that_moves_is_found_at_its_new_address_by_the_same_request() {
    let (port, old) = host(5, 0, "old").await;
    let _new = host(6, port, "new").await;
    let book = Arc::<Book>::default().says(&[5]);
    let client = Client::with_resolver(settings(), book.clone()).unwrap();
    let url = format!("http://up.test:{port}");
    assert_eq!(get(&client, &url).await.unwrap(), "old");
    book.says(&[6]);
    assert_eq!(get(&client, &url).await.unwrap(), "old");
    old.abort();
    let _ = old.await;
    assert_eq!(get(&client, &url).await.unwrap(), "new");
    assert_eq!(book.asked(), 2);
}

#[tokio::test]
async fn a_resolver_that_fails_stops_nothing() {
    let (port, _served) = host(7, 0, "found").await;
    let book = Arc::<Book>::default().says(&[7]);
    let settings = Settings { name_ttl: Duration::ZERO, ..settings() };
    let client = Client::with_resolver(settings, book.clone()).unwrap();
    let url = format!("http://up.test:{port}");
    assert_eq!(get(&client, &url).await.unwrap(), "found");
    *book.addresses.lock().unwrap() = None;
    for _ in 0..3 {
        assert_eq!(get(&client, &url).await.unwrap(), "found");
    }
    let counts = client.names();
    assert_eq!((counts.kept, counts.looked_up, counts.failed, counts.stale), (1, 2, 1, 3));
}

#[tokio::test]
async fn requests_one_after_the_other_share_a_connection() {
    let server = Server::start(|_, _| ok(b"found")).await;
    let client = client();
    for _ in 0..20 {
        assert_eq!(get(&client, &server.url()).await.unwrap(), "found");
    }
    assert_eq!(server.connections(), 1);
}
