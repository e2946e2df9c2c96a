//! An internet of a few hosts, reached through an outgoing proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;
use tokio::sync::watch;

use crate::background::Background;
use crate::{Authority, PATIENCE, Pattern, Request};

mod access;
mod cgi;
mod host;
mod proxy;

pub use access::Access;
pub use host::{Host, Reach};

/// A few hosts with real names, on ports 443 and 80, for a process that goes out through a proxy: nothing has to be
/// resolved, and who asks for another host gets a 502 and is seen.
///
/// ```no_run
/// use stoa_testkit::{Access, GitRemotes, Internet};
///
/// let remotes = GitRemotes::new();
/// let internet = Internet::start();
/// internet.host("corp.example.com").go_import("team/lib", "git", "https://git.corp.example.com/r/lib");
/// internet.host("git.corp.example.com").git("/r", &remotes).access("/", Access::basic("me", "secret"));
///
/// // … run a command with `internet.environment()` …
/// assert_eq!(internet.hosts_asked(), ["corp.example.com:443", "git.corp.example.com:443"]);
/// assert_eq!(internet.clones(), 1);
/// ```
///
/// It has a thread and a runtime of its own; when it is dropped, all connections end and so does every git behind them.
#[derive(Debug)]
pub struct Internet {
    // First, so that it has ended when the rest goes.
    served: Background,
    shared: Arc<Shared>,
    directory: TempDir,
}

#[derive(Debug)]
struct Shared {
    authority: Authority,
    hosts: Mutex<BTreeMap<String, Host>>,
    asked: Mutex<BTreeSet<String>>,
    /// What the proxy wants to be shown, if anything.
    password: Mutex<Option<Access>>,
    log: watch::Sender<Vec<(Arc<str>, Request)>>,
    connections: AtomicUsize,
    clones: AtomicUsize,
    listings: AtomicUsize,
}

/// What a client asks git for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GitCall {
    List,
    Fetch,
}

impl Internet {
    /// Without any host.
    #[track_caller]
    pub fn start() -> Internet {
        let shared = Arc::new(Shared {
            authority: Authority::new(),
            hosts: Mutex::default(),
            asked: Mutex::default(),
            password: Mutex::default(),
            log: watch::Sender::new(Vec::new()),
            connections: AtomicUsize::new(0),
            clones: AtomicUsize::new(0),
            listings: AtomicUsize::new(0),
        });
        let directory = tempfile::Builder::new().prefix("stoa-net-").tempdir();
        let directory = directory.expect("a test can make a temporary directory");
        let ca_file = directory.path().join("ca.pem");
        fs_err::write(ca_file, shared.authority.pem()).expect("a new directory can be written");
        let met = shared.clone();
        let served = Background::serve(move |listener| proxy::accept(listener, met));
        Internet { served, shared, directory }
    }

    /// The host of that name, which exists from now on. A name alone is there on port 443, with TLS, and on port 80,
    /// without; `NAME:PORT` is there on that port, with TLS unless it is 80.
    pub fn host(&self, name: &str) -> Host {
        let mut hosts = self.shared.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.entry(name.to_owned()).or_insert_with(|| Host::new(name)).clone()
    }

    /// Who signs the hosts' certificates.
    pub fn authority(&self) -> &Authority {
        &self.shared.authority
    }

    /// The certificate of the [authority](Internet::authority), as PEM.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// The text for `https_proxy`.
    pub fn proxy_url(&self) -> String {
        format!("http://{}", self.served.address())
    }

    /// From now on the proxy lets nobody through without this user and password: 407.
    pub fn wants_password(&self, user: &str, password: &str) {
        let access = Access::basic(user, password);
        *self.shared.password.lock().unwrap_or_else(PoisonError::into_inner) = Some(access);
    }

    /// What a process must have in its environment to be here and nowhere else: the proxy, for all but 127.0.0.1 and
    /// localhost, and the authority, for git and for what reads `SSL_CERT_FILE`.
    pub fn environment(&self) -> Vec<(String, String)> {
        let (proxy, ca) = (self.proxy_url(), self.ca_file().to_string_lossy().into_owned());
        let around = "127.0.0.1,localhost";
        [
            ("http_proxy", &*proxy),
            ("https_proxy", &proxy),
            ("HTTP_PROXY", &proxy),
            ("HTTPS_PROXY", &proxy),
            ("no_proxy", around),
            ("NO_PROXY", around),
            ("SSL_CERT_FILE", &ca),
            ("GIT_SSL_CAINFO", &ca),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// Every request to a host until now, in order of arrival. The [`target`](Request::target) of one without TLS is the
    /// whole URL.
    pub fn requests(&self, host: &str) -> Vec<Request> {
        if let Some(log) = self.host_if_any(host).and_then(|host| host.upstream_log()) {
            return log;
        }
        let log = self.shared.log.borrow();
        log.iter().filter(|(of, _)| **of == *host).map(|(_, request)| request.clone()).collect()
    }

    /// Every `HOST:PORT` until now that anybody tried to reach, declared or not, in alphabetical order.
    pub fn hosts_asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// How many times a repository's objects were sent: by a clone, or by a fetch that found something new.
    pub fn clones(&self) -> usize {
        self.shared.clones.load(Ordering::SeqCst)
    }

    /// How many times a repository's refs were listed; every clone and every fetch begins with that.
    pub fn ls_remotes(&self) -> usize {
        self.shared.listings.load(Ordering::SeqCst)
    }

    /// Empties all logs and sets the counts to 0. An upstream's log is its own.
    pub fn forget_requests(&self) {
        self.shared.log.send_modify(Vec::clear);
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.shared.clones.store(0, Ordering::SeqCst);
        self.shared.listings.store(0, Ordering::SeqCst);
    }

    /// Waits for a request of the pattern to a host (not one that is an upstream); one that came already counts. Panics,
    /// and shows the log, when it does not come.
    pub async fn wait_for_request(&self, host: &str, pattern: impl Into<Pattern>) -> Request {
        let pattern = pattern.into();
        let find = |log: &Vec<(Arc<str>, Request)>| {
            log.iter().find(|(of, it)| **of == *host && pattern.matches(it)).cloned()
        };
        let mut log = self.shared.log.subscribe();
        let comes = log.wait_for(|log| find(log).is_some());
        let found = match tokio::time::timeout(PATIENCE, comes).await {
            Ok(Ok(log)) => find(&log),
            _ => None,
        };
        let Some((_, request)) = found else {
            panic!(
                "waited {PATIENCE:?} for {pattern} at {host}; there were {:#?}",
                self.shared.log.borrow()
            )
        };
        request
    }

    fn host_if_any(&self, name: &str) -> Option<Host> {
        self.shared.hosts.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

impl Shared {
    fn lets_through(&self, request: &Request) -> bool {
        let password = self.password.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = request.header("proxy-authorization");
        password.as_ref().is_none_or(|password| password.accepts(shown).is_some())
    }

    fn asked(&self, authority: String) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(authority);
    }

    fn find(&self, host: &str, port: u16) -> Option<Host> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let usual = || hosts.get(host).filter(|_| matches!(port, 443 | 80));
        hosts.get(&format!("{host}:{port}")).or_else(usual).cloned()
    }

    fn count_clone(&self) {
        self.clones.fetch_add(1, Ordering::SeqCst);
    }

    fn count_listing(&self) {
        self.listings.fetch_add(1, Ordering::SeqCst);
    }
}
