use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::background::runtime;
use crate::fault::Delivery;
use crate::wire::{deliver, read_request};
use crate::{Answer, FakeSumdb, Fault, Modules, PATIENCE, Pattern, Request};

/// How long a connection must hang to show that a listener takes no more of them.
const HANGS: Duration = Duration::from_millis(100);
/// Until an address that is in use is tried again.
const AGAIN: Duration = Duration::from_millis(10);
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A GOPROXY on 127.0.0.1 that serves [`Modules`], and does what [`Fault`]s say.
#[derive(Debug)]
pub struct FakeUpstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    running: Option<Running>,
    /// Never listens; it keeps the port from everybody else while nothing is served there.
    _port: TcpSocket,
}

#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// What becomes of a connection to the address.
#[derive(Debug, Clone, Copy)]
enum Mode {
    Served,
    Refused,
    /// No word comes back, not even a refusal.
    Unanswered,
}

#[derive(Debug)]
struct Shared {
    served: Mutex<Served>,
    log: watch::Sender<Vec<Request>>,
    connections: AtomicUsize,
}

#[derive(Debug)]
struct Served {
    modules: Modules,
    sumdbs: Vec<FakeSumdb>,
    faults: Vec<(Pattern, Fault)>,
    /// Whether files have strong validators, and may be asked for in part.
    gives_ranges: bool,
}

impl FakeUpstream {
    #[track_caller]
    pub fn start(modules: Modules) -> FakeUpstream {
        let shared = Arc::new(Shared {
            served: Mutex::new(Served {
                modules,
                sumdbs: Vec::new(),
                faults: Vec::new(),
                gives_ranges: false,
            }),
            log: watch::Sender::new(Vec::new()),
            connections: AtomicUsize::new(0),
        });
        let port = bind((Ipv4Addr::LOCALHOST, 0).into()).expect("some port is free");
        let address = port.local_addr().expect("a bound socket has an address");
        let running = listen(address, Mode::Served, shared.clone());
        FakeUpstream { address, shared, running: Some(running), _port: port }
    }

    /// Stops listening and drops every connection; until [`resume`](FakeUpstream::resume) a
    /// connection is refused.
    #[track_caller]
    pub fn stop(&mut self) {
        self.turn(Mode::Refused);
    }

    /// Drops every connection; until [`resume`](FakeUpstream::resume) an attempt at one gets no
    /// answer at all, as from a host behind a firewall that drops packets.
    #[track_caller]
    pub fn mute(&mut self) {
        self.turn(Mode::Unanswered);
    }

    /// Listens again, at the same address.
    #[track_caller]
    pub fn resume(&mut self) {
        self.turn(Mode::Served);
    }

    #[track_caller]
    fn turn(&mut self, mode: Mode) {
        self.end();
        self.running = Some(listen(self.address, mode, self.shared.clone()));
    }

    fn end(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            // It may have ended by itself.
            _ = stop.send(());
            _ = thread.join();
        }
    }

    /// Serves the database at `/sumdb/NAME/…`, in place of another of the same name. While it is the only one, also at
    /// the root, as the database's own host does.
    pub fn with_sumdb(self, sumdb: &FakeSumdb) -> FakeUpstream {
        self.set_sumdb(sumdb);
        self
    }

    /// The same of a running upstream, as when a database shows another history.
    pub fn set_sumdb(&self, sumdb: &FakeSumdb) {
        let sumdbs = &mut self.shared.served().sumdbs;
        sumdbs.retain(|other| other.name() != sumdb.name());
        sumdbs.push(sumdb.clone());
    }

    /// From now on files have an `ETag` (of what is published, whatever a fault makes of it), and the rest of one may be
    /// asked for with `Range` and `If-Range`.
    pub fn give_ranges(&self) {
        self.shared.served().gives_ranges = true;
    }

    /// Publishes more modules, or other ones under the same names.
    pub fn publish(&self, modules: Modules) {
        let mut served = self.shared.served();
        served.modules = std::mem::take(&mut served.modules).merge(modules);
    }

    /// From now on has these modules alone.
    pub fn replace_modules(&self, modules: Modules) {
        self.shared.served().modules = modules;
    }

    /// Meets the requests of a pattern with a fault. Of several that match, the last one added wins.
    pub fn fault(&self, pattern: impl Into<Pattern>, fault: Fault) {
        self.shared.served().faults.push((pattern.into(), fault));
    }

    pub fn clear_faults(&self) {
        self.shared.served().faults.clear();
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn log(&self) -> watch::Sender<Vec<Request>> {
        self.shared.log.clone()
    }

    /// The text for GOPROXY.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where a database is that this upstream serves: for `GOSUMDB="KEY URL"`.
    pub fn sumdb_url(&self, sumdb: &FakeSumdb) -> String {
        format!("{}/sumdb/{}", self.url(), sumdb.name())
    }

    /// Every request until now, in order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.log.borrow().clone()
    }

    /// `METHOD path` of every request until now.
    pub fn request_lines(&self) -> Vec<String> {
        let line = |request: &Request| format!("{} {}", request.method, request.path);
        self.shared.log.borrow().iter().map(line).collect()
    }

    /// How many requests of a pattern came until now.
    pub fn count(&self, pattern: impl Into<Pattern>) -> usize {
        count(&self.shared.log.borrow(), &pattern.into())
    }

    /// Empties the log.
    pub fn forget_requests(&self) {
        self.shared.log.send_modify(Vec::clear);
    }

    /// Waits for a request of the pattern (one that came already counts) and answers with the first.
    /// Panics, and shows the log, when it does not come.
    pub async fn wait_for_request(&self, pattern: impl Into<Pattern>) -> Request {
        let pattern = pattern.into();
        self.wait_for_requests(&pattern, 1).await.swap_remove(0)
    }

    /// Waits until `number` requests of the pattern have come.
    pub async fn wait_for_requests(
        &self,
        pattern: impl Into<Pattern>,
        number: usize,
    ) -> Vec<Request> {
        let pattern = pattern.into();
        let mut log = self.shared.log.subscribe();
        let enough = log.wait_for(|log| count(log, &pattern) >= number);
        match tokio::time::timeout(PATIENCE, enough).await {
            Ok(Ok(log)) => log.iter().filter(|it| pattern.matches(it)).cloned().collect(),
            _ => panic!(
                "waited {PATIENCE:?} for {number} of {pattern}; there were {:#?}",
                self.request_lines()
            ),
        }
    }
}

impl Drop for FakeUpstream {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn served(&self) -> MutexGuard<'_, Served> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request) -> (Answer, Delivery) {
        let mut served = self.served();
        let fault = Fault::met_by(request, &mut served.faults);
        let honest = || served.honest(request);
        let (answer, delivery) = match fault {
            Some(fault) => (fault.apply(honest), fault.delivery),
            None => (honest(), Delivery::Whole),
        };
        (if served.gives_ranges { answer.ranged(request) } else { answer }, delivery)
    }
}

impl Served {
    fn honest(&self, request: &Request) -> Answer {
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return Answer::text(405, "method not allowed\n");
        }
        if let Some(rest) = request.path.strip_prefix("/sumdb/") {
            let file = self.sumdbs.iter().find_map(|sumdb| {
                let file = rest.strip_prefix(sumdb.name())?.strip_prefix('/')?;
                Some(sumdb.answer(file))
            });
            return file.unwrap_or_else(|| Answer::not_found("unsupported checksum database"));
        }
        // A database at its own address; no module's path begins so.
        let file = request.path.trim_start_matches('/');
        if matches!(file.split('/').next(), Some("supported" | "latest" | "lookup" | "tile"))
            && let [sumdb] = &self.sumdbs[..]
        {
            return sumdb.answer(file);
        }
        let answer = self.modules.answer(&request.path);
        if self.gives_ranges && answer.status == 200 {
            let etag = answer.validator();
            return answer.with_header("ETag", &etag);
        }
        answer
    }
}

fn count(log: &[Request], pattern: &Pattern) -> usize {
    log.iter().filter(|request| pattern.matches(request)).count()
}

/// A thread that serves until it is told to stop. When it has ended, so has every connection.
#[track_caller]
fn listen(address: SocketAddr, mode: Mode, shared: Arc<Shared>) -> Running {
    let (stop, stopped) = oneshot::channel();
    let (ready, is_ready) = mpsc::channel();
    let thread = thread::spawn(move || {
        runtime().block_on(async {
            let mut door = Door::at(address, mode).await;
            let until = Instant::now() + PATIENCE;
            // Seen on a loaded machine: what was there a moment ago is not quite gone yet.
            while is_in_use(&door) && Instant::now() < until {
                tokio::time::sleep(AGAIN).await;
                door = Door::at(address, mode).await;
            }
            _ = ready.send(door.as_ref().map(|_| ()).map_err(ToString::to_string));
            match door {
                Ok(Door::Open(listener)) => tokio::select! {
                    () = accept(listener, shared) => {}
                    _ = stopped => {}
                },
                Ok(Door::Shut | Door::Full(..)) => _ = stopped.await,
                Err(_) => {}
            }
        });
    });
    is_ready
        .recv()
        .expect("the thread tells whether it listens")
        .unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"));
    Running { stop, thread }
}

/// What a connection meets.
enum Door {
    Open(TcpListener),
    /// Nobody listens.
    Shut,
    /// A queue without room, and the connections that fill it.
    Full(#[expect(dead_code)] TcpListener, #[expect(dead_code)] Vec<TcpStream>),
}

impl Door {
    async fn at(address: SocketAddr, mode: Mode) -> io::Result<Door> {
        Ok(match mode {
            Mode::Served => Door::Open(bind(address)?.listen(BACKLOG)?),
            Mode::Refused => Door::Shut,
            Mode::Unanswered => {
                let listener = bind(address)?.listen(0)?;
                let mut waiting = Vec::new();
                while let Ok(connected) = timeout(HANGS, TcpStream::connect(address)).await {
                    waiting.push(connected?);
                }
                Door::Full(listener, waiting)
            }
        })
    }
}

fn is_in_use(door: &io::Result<Door>) -> bool {
    door.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Others of ours may be bound there, of which none listens.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, shared.clone()));
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let connection = shared.connections.fetch_add(1, Ordering::Relaxed);
    // Small pieces are meant to arrive as they are sent.
    _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    if speaks_tls(&stream).await {
        // As Go's server says it.
        let words =
            b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n";
        _ = stream.write_all(words).await;
        return;
    }
    while let Some(request) = read_request(&mut stream, &mut buffer, connection).await {
        // In this order: what a test changes once it has seen the request does not change its answer.
        let (answer, delivery) = shared.answer(&request);
        shared.log.send_modify(|log| log.push(request.clone()));
        match deliver(&mut stream, &request, &answer, &delivery).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return,
        }
    }
}

/// Whether the first byte is that of a handshake.
async fn speaks_tls(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(stream.peek(&mut first).await, Ok(1)) && first == [22]
}

#[cfg(test)]
mod tests;
