//! The bare repositories, one for each remote, and what is known of each remote.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use moka::sync::Cache;
use stoa_module::{ErrorClass, Sha256};
use tokio::sync::watch;
use url::Url;

use crate::client::fault;
use crate::direct::GitSettings;
use crate::direct::access::RemoteEnv;
use crate::direct::command::{Git, Run, Wanted};
use crate::direct::counters::GitStatus;
use crate::direct::fetch::{Queue, Refusal, Writer};
use crate::direct::hosts::Hosts;
use crate::direct::refs::{self, ObjectId, Refs};
use crate::direct::words;
use crate::discovery::CodeRoot;
use crate::failure::{Fault, Stage};
use crate::journey::{self, Leg};

/// Answers of the user's configuration that are remembered.
const CONFIGURED: u64 = 1000;
/// What the lists of branches and tags may take in memory, in bytes, of all repositories that nobody uses.
const IDLE_BYTES: u64 = 128 << 20;

/// What a remote operation gets besides its arguments. Asked right before each, since names and secrets change.
pub(crate) trait RemoteAccess: fmt::Debug + Send + Sync {
    /// Whether a person has named the module, so that it may be fetched with the server's credentials.
    fn is_named(&self) -> bool;

    /// For an operation on the repository at this address.
    fn prepare<'a>(
        &'a self,
        url: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<RemoteEnv, Fault>> + Send + 'a>>;

    /// The host has answered with a redirect: finds out where it leads, for the next [`RemoteAccess::prepare`].
    fn follow<'a>(
        &'a self,
        url: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<(), Fault>> + Send + 'a>>;
}

/// All repositories below one directory. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Repositories {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) directory: PathBuf,
    pub(super) settings: GitSettings,
    pub(super) git: Git,
    pub(super) hosts: Hosts,
    /// What the user's configuration says, by the arguments with which git was asked.
    pub(super) configured: Cache<Vec<Box<str>>, String>,
    pub(super) remotes: Mutex<HashMap<String, Arc<Remote>>>,
    /// When it was looked last whether all fit on the disk.
    pub(super) looked: Mutex<Option<Instant>>,
    /// What the lists of repositories that nobody uses may take in memory.
    idle_bytes: u64,
    /// Tags that were seen to have moved.
    moved: AtomicU64,
}

/// A repository that somebody uses. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Repository {
    pub(super) inner: Arc<Inner>,
    pub(super) remote: Arc<Remote>,
    pub(super) access: Arc<dyn RemoteAccess>,
}

/// What is known of one remote.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) url: String,
    /// The bare repository, which need not be there yet.
    pub(super) directory: PathBuf,
    /// Beside it: held by whoever writes in it, in whatever process.
    pub(super) lock: PathBuf,
    listed: Mutex<Listed>,
    pub(super) queue: Mutex<Queue>,
    pub(super) writer: tokio::sync::Mutex<Writer>,
    /// The refs of which all is here.
    pub(super) complete: Mutex<Option<Arc<Refs>>>,
    /// Why it was not fetched, and why it will not be for a while.
    pub(super) refusal: Mutex<Option<Refusal>>,
    /// A command has found the repository broken.
    pub(super) broken: AtomicBool,
    /// The commits under which versions were answered, by their tags. `None` until it was read.
    pub(super) pins: Mutex<Option<HashMap<Box<str>, ObjectId>>>,
    pub(super) used: Mutex<Instant>,
}

/// The outcome of `git ls-remote`, and one that is under way.
#[derive(Debug, Default)]
struct Listed {
    last: Option<(Instant, Listing)>,
    /// Somebody wants a newer one than `last`.
    outdated: bool,
    running: Option<watch::Receiver<Option<Listing>>>,
}

type Listing = Result<Arc<Refs>, Fault>;

/// Why there is no list.
enum Unlisted {
    Redirected,
    Fault(Fault),
}

impl From<Fault> for Unlisted {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// How new a list of branches and tags must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fresh {
    /// Within its time to live.
    Enough,
    /// As new as may be asked for.
    Now,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Repositories {
    /// `directory` is made if it is not there. `environment` is what commands that speak to remotes inherit, usually
    /// [`std::env::vars_os`].
    pub(crate) fn new(
        directory: &Path,
        settings: GitSettings,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> std::io::Result<Self> {
        let temporary = directory.join("tmp");
        fs_err::create_dir_all(&temporary)?;
        let directory = fs_err::canonicalize(directory)?;
        let git = Git::new(directory.join("tmp"), &settings, environment);
        let hosts = Hosts::new(&settings);
        let (remotes, moved) = (Mutex::default(), AtomicU64::new(0));
        let configured =
            Cache::builder().max_capacity(CONFIGURED).time_to_live(settings.refs_ttl).build();
        let looked = Mutex::default();
        let inner = Inner {
            looked,
            directory,
            settings,
            git,
            hosts,
            configured,
            remotes,
            idle_bytes: IDLE_BYTES,
            moved,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The repository of a module's code. Nothing is asked and nothing is made before something is wanted of it.
    pub(crate) fn open(
        &self,
        code: &CodeRoot,
        access: Arc<dyn RemoteAccess>,
    ) -> Result<Repository, Fault> {
        // As for the go command: a directory of this machine, or `host:path`, is none.
        if !code.url.contains("://") || code.url.contains(char::is_control) {
            let detail = format!("git: {:?} is no address of a remote repository", code.url);
            return Err(Fault::new(ErrorClass::NotFound, Stage::Git, detail));
        }
        if Url::parse(&code.url).is_ok_and(|url| url.password().is_some()) {
            // It would be in every `.info`.
            let detail = "git: the address of the repository holds a password";
            return Err(Fault::new(ErrorClass::NotFound, Stage::Git, detail));
        }
        let mut remotes = lock(&self.inner.remotes);
        let key = key(&code.url, access.is_named());
        let known = remotes.get(&key).cloned();
        let remote = known.unwrap_or_else(|| {
            self.forget_idle(&mut remotes);
            let remote = Arc::new(Remote::new(&self.inner.directory, &code.url, &key));
            remotes.insert(key, remote.clone());
            remote
        });
        *lock(&remote.used) = Instant::now();
        Ok(Repository { inner: self.inner.clone(), remote, access })
    }

    pub(super) fn hosts(&self) -> &Hosts {
        &self.inner.hosts
    }

    /// Where all of them are.
    pub(super) fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// The next who asks for the branches and tags of this remote has them listed.
    pub(super) fn look_anew(&self, url: &str) {
        let remotes = lock(&self.inner.remotes);
        for remote in [true, false].iter().filter_map(|&named| remotes.get(&key(url, named))) {
            lock(&remote.listed).outdated = true;
            *lock(&remote.refusal) = None;
        }
    }

    pub(crate) fn status(&self) -> GitStatus {
        let counters = &self.inner.git.counters;
        GitStatus {
            remote: counters.remote.now(),
            local: counters.local.now(),
            moved_tags: self.inner.moved.load(Ordering::Relaxed),
        }
    }

    /// Keeps what is in use, and of the rest those that were used last, as many as have room for what is known of them.
    fn forget_idle(&self, remotes: &mut HashMap<String, Arc<Remote>>) {
        let is_idle = |remote: &Arc<Remote>| Arc::strong_count(remote) == 1;
        let mut idle: Vec<(Instant, u64, String)> = remotes
            .iter()
            .filter(|(_, remote)| is_idle(remote))
            .map(|(url, remote)| (*lock(&remote.used), remote.bytes(), url.clone()))
            .collect();
        idle.sort_by(|a, b| b.cmp(a));
        let mut sum = 0_u64;
        for (at, (_, bytes, url)) in idle.into_iter().enumerate() {
            sum = sum.saturating_add(bytes);
            if at >= self.inner.settings.max_idle || sum > self.inner.idle_bytes {
                remotes.remove(&url);
            }
        }
    }
}

impl Inner {
    /// For what is being made: in the same file system as the repositories.
    pub(super) fn temporary(&self) -> PathBuf {
        self.directory.join("tmp")
    }
}

/// What was read with the server's credentials is not for modules that nobody here has named, and what a host did not show
/// without them is no answer for ours: the same address is two remotes.
fn key(url: &str, is_named: bool) -> String {
    let who = if is_named { "git3" } else { "git3 stranger" };
    format!("{who}:{url}")
}

impl Remote {
    fn new(directory: &Path, url: &str, key: &str) -> Self {
        // Not by its name, so that no repository lies in another and every name is a valid one.
        let key = Sha256::of(key.as_bytes()).to_string();
        Self {
            url: url.to_owned(),
            directory: directory.join(&key),
            lock: directory.join(format!("{key}.lock")),
            listed: Mutex::default(),
            queue: Mutex::default(),
            writer: tokio::sync::Mutex::default(),
            complete: Mutex::default(),
            refusal: Mutex::default(),
            broken: AtomicBool::new(false),
            pins: Mutex::default(),
            used: Mutex::new(Instant::now()),
        }
    }
}

impl Remote {
    /// What its lists take in memory, about.
    fn bytes(&self) -> u64 {
        let last = lock(&self.listed).last.as_ref().and_then(|(_, outcome)| outcome.clone().ok());
        let complete = lock(&self.complete).clone();
        let is_other = |one: &Arc<Refs>| last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, one));
        let other = complete.filter(is_other);
        last.iter().chain(&other).map(|refs| refs.bytes()).sum()
    }
}

impl Repository {
    /// The address, as the module's host names it.
    pub(super) fn url(&self) -> &str {
        &self.remote.url
    }

    /// A file for what is made of the repository, which is gone with it.
    pub(super) fn temporary_file(&self) -> Result<std::fs::File, Fault> {
        tempfile::tempfile_in(self.inner.temporary()).map_err(|error| fault::of_write(&error))
    }

    /// The branches and tags. All that ask at the same time share one `git ls-remote`.
    pub(super) async fn refs(&self, fresh: Fresh) -> Listing {
        let mut listing = {
            let mut listed = lock(&self.remote.listed);
            let settings = &self.inner.settings;
            if let Some((when, outcome)) = &listed.last {
                let long = if outcome.is_ok() && fresh == Fresh::Enough && !listed.outdated {
                    settings.refs_ttl
                } else {
                    settings.refs_min_interval
                };
                if when.elapsed() < long {
                    return outcome.clone();
                }
            }
            let start = || self.clone().start_listing();
            listed.running.get_or_insert_with(start).clone()
        };
        journey::enter_for(Leg::Git, "ls-remote");
        if let Ok(outcome) = listing.wait_for(Option::is_some).await {
            return outcome.clone().unwrap_or_else(|| Err(lost_task()));
        }
        lock(&self.remote.listed).running = None;
        Err(lost_task())
    }

    /// The last list, however old.
    pub(super) fn known_refs(&self) -> Option<Arc<Refs>> {
        let listed = lock(&self.remote.listed);
        listed.last.as_ref().and_then(|(_, outcome)| outcome.clone().ok())
    }

    fn start_listing(self) -> watch::Receiver<Option<Listing>> {
        let (sender, receiver) = watch::channel(None);
        let began = Instant::now();
        tokio::spawn(async move {
            let outcome = self.list_remote().await.map(Arc::new);
            if let Ok(refs) = &outcome {
                self.look_for_moved_tags(refs);
            }
            {
                let mut listed = lock(&self.remote.listed);
                listed.last = Some((began, outcome.clone()));
                listed.outdated = false;
                listed.running = None;
            }
            sender.send_replace(Some(outcome));
        });
        receiver
    }

    async fn list_remote(&self) -> Result<Refs, Fault> {
        match self.try_list().await {
            Err(Unlisted::Redirected) => {}
            Err(Unlisted::Fault(fault)) => return Err(fault),
            Ok(refs) => return Ok(refs),
        }
        self.access.follow(self.url()).await?;
        self.try_list().await.map_err(|unlisted| match unlisted {
            Unlisted::Fault(fault) => fault,
            Unlisted::Redirected => {
                let detail = format!("git: {} redirects on and on", self.url());
                Fault::new(ErrorClass::Corrupt, Stage::Git, detail)
            }
        })
    }

    async fn try_list(&self) -> Result<Refs, Unlisted> {
        let settings = &self.inner.settings;
        let env = self.access.prepare(self.url()).await?;
        let _place = self.inner.hosts.place(&env).await?;
        let run = Run::remote(None, &env, settings).within(settings.list_timeout).args([
            "ls-remote",
            "-q",
            "--end-of-options",
            env.address.as_deref().unwrap_or(self.url()),
        ]);
        let mut listing = refs::Listing::new(settings.max_refs);
        let mut take = |bytes: &[u8]| match listing.take(bytes) {
            Ok(()) => Wanted::More,
            Err(fault) => Wanted::Refused(fault),
        };
        let ended = match self.inner.git.run(run, &mut take).await {
            Ok(ended) => ended,
            Err(fault) => {
                if fault.class != ErrorClass::Timeout {
                    return Err(fault.into());
                }
                let fault = fault.hint("ask again later; git.list-timeout can be longer");
                self.inner.hosts.said_nothing(&env, self.url(), &fault);
                return Err(fault.into());
            }
        };
        if ended.is_success() {
            self.inner.hosts.answered(&env);
            return Ok(listing.finish());
        }
        if words::is_redirect(&ended.words) {
            return Err(Unlisted::Redirected);
        }
        let fault = words::of_remote(&ended.words, &env);
        if words::is_unreachable(&ended.words) {
            self.inner.hosts.said_nothing(&env, self.url(), &fault);
        } else {
            self.inner.hosts.answered(&env);
        }
        Err(fault.into())
    }

    pub(super) async fn prepare(&self) -> Result<RemoteEnv, Fault> {
        self.access.prepare(self.url()).await
    }

    /// What was answered for a tag stays its content here; that the tag is another one now must not go unnoticed.
    fn look_for_moved_tags(&self, refs: &Refs) {
        let mut pins = lock(&self.remote.pins);
        let known = self.known_refs();
        for (tag, pinned) in pins.iter_mut().flatten() {
            let name = format!("refs/tags/{tag}");
            let now = refs.find(&name);
            // Said once for each move.
            let before = known.as_ref().and_then(|known| known.find(&name));
            if let Some(now) = now
                && now != *pinned
                && before != Some(now)
            {
                self.inner.moved.fetch_add(1, Ordering::Relaxed);
                let (url, pinned) = (self.url(), pinned.to_string());
                tracing::warn!(
                    git.url = url,
                    git.tag = &**tag,
                    git.was = pinned,
                    git.is = now.to_string(),
                    "a tag was moved; what was served under it stays"
                );
            }
        }
    }
}

/// The task that was waited for is gone: the server is ending, or there is a bug.
pub(super) fn lost_task() -> Fault {
    Fault::new(ErrorClass::Internal, Stage::Git, "git: the task that was waited for is gone")
}

#[cfg(test)]
mod tests;
