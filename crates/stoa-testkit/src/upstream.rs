use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use crate::fault::Delivery;
use crate::wire::{deliver, read_request};
use crate::{Answer, FakeSumdb, Fault, Modules, PATIENCE, Pattern, Request};

/// A GOPROXY on 127.0.0.1 that serves [`Modules`], and does what [`Fault`]s say.
#[derive(Debug)]
pub struct FakeUpstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
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
}

impl FakeUpstream {
    #[track_caller]
    pub fn start(modules: Modules) -> FakeUpstream {
        let shared = Arc::new(Shared {
            served: Mutex::new(Served { modules, sumdbs: Vec::new(), faults: Vec::new() }),
            log: watch::Sender::new(Vec::new()),
            connections: AtomicUsize::new(0),
        });
        let (running, address) = listen((Ipv4Addr::LOCALHOST, 0).into(), shared.clone());
        FakeUpstream { address, shared, running: Some(running) }
    }

    /// Stops listening and drops every connection; until [`resume`](FakeUpstream::resume) a
    /// connection is refused.
    pub fn stop(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            // It may have ended by itself.
            _ = stop.send(());
            _ = thread.join();
        }
    }

    /// Listens again, at the same address.
    #[track_caller]
    pub fn resume(&mut self) {
        self.stop();
        self.running = Some(listen(self.address, self.shared.clone()).0);
    }

    /// Serves the database at `/sumdb/NAME/…`, in place of another of the same name.
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
        self.stop();
    }
}

impl Shared {
    fn served(&self) -> MutexGuard<'_, Served> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request) -> (Answer, Delivery) {
        let mut served = self.served();
        let fault = served.faults.iter_mut().rev().find_map(|(pattern, fault)| {
            let live = fault.times != Some(0) && pattern.matches(request);
            live.then(|| {
                fault.times = fault.times.map(|times| times - 1);
                fault.clone()
            })
        });
        match fault {
            Some(fault) => (fault.apply(|| served.honest(request)), fault.delivery),
            None => (served.honest(request), Delivery::Whole),
        }
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
        self.modules.answer(&request.path)
    }
}

fn count(log: &[Request], pattern: &Pattern) -> usize {
    log.iter().filter(|request| pattern.matches(request)).count()
}

/// A thread that serves until it is told to stop. When it has ended, so has every connection.
#[track_caller]
fn listen(address: SocketAddr, shared: Arc<Shared>) -> (Running, SocketAddr) {
    let (stop, stopped) = oneshot::channel();
    let (bound, address_bound) = mpsc::channel();
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime needs only a few file descriptors");
        runtime.block_on(async {
            let listener = match TcpListener::bind(address).await {
                Ok(listener) => listener,
                Err(error) => {
                    _ = bound.send(Err(error));
                    return;
                }
            };
            _ = bound.send(listener.local_addr());
            tokio::select! {
                () = accept(listener, shared) => {}
                _ = stopped => {}
            }
        });
    });
    let address = address_bound
        .recv()
        .expect("the thread tells where it listens")
        .unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"));
    (Running { stop, thread }, address)
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

#[cfg(test)]
mod tests;
