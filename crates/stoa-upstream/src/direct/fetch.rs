//! Fetching into a bare repository: what several requests want at the same time in one `git fetch`, shallow as long as no
//! history is needed, under a lock that other processes see, and anew where the repository is found broken.

mod tidy;
mod work;

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, TryLockError};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use fs_err::OpenOptions;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use stoa_module::ErrorClass;
use tokio::sync::watch;

use crate::direct::command::Run;
use crate::direct::fetch::work::Work;
use crate::direct::files;
use crate::direct::refs::{ObjectId, Refs};
use crate::direct::repositories::{Repository, lock, lost_task};
use crate::direct::words;
use crate::failure::{Fault, Stage, span};
use crate::journey::{self, Leg};

/// How long the first of several requests waits for the others, which come from the same answer of `ls-remote`.
const GATHER: Duration = Duration::from_millis(5);
/// The same before a clone, which takes so long that nobody notices: on a busy machine they come one after the other.
const GATHER_COLD: Duration = Duration::from_millis(30);
/// How often a lock that another process holds is tried again.
const RETRY_LOCK: Duration = Duration::from_millis(50);
/// Where HEAD is kept, if no branch has its commit.
const HEAD: &str = "refs/stoa/head";
const PINS: &str = "refs/stoa/tags/";
/// Written into a repository when it is made: the format of its hashes, and its remote.
const MARK: &str = "stoa-remote";
/// How long a repository that is too large is left alone.
const REFUSAL_TTL: Duration = Duration::from_hours(1);
const ATTRIBUTES: &str = "\n* -export-subst -export-ignore\n";

/// What is wanted of a remote.
#[derive(Debug, Clone)]
pub(super) enum Want {
    /// These refs, by their full names.
    Refs(Vec<String>),
    /// All that branches, tags and HEAD reach.
    Everything,
}

/// The fetches of one remote: at most one is under way, and what is wanted meanwhile is the next.
#[derive(Debug, Default)]
pub(super) struct Queue {
    running: bool,
    next: Option<Batch>,
}

#[derive(Debug)]
struct Batch {
    refs: BTreeSet<String>,
    everything: bool,
    outcome: watch::Sender<Option<Result<(), Fault>>>,
}

/// What only the one who writes needs to know.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// What a killed command leaves was removed.
    is_swept: bool,
    /// The packs that were left when they were joined last.
    joined: usize,
}

/// A fetch that would only bring the same again: all of a large repository, to be thrown away.
#[derive(Debug)]
pub(super) struct Refusal {
    when: Instant,
    /// Only all of it is too much.
    everything: bool,
    fault: Fault,
}

enum Trouble {
    Fault(Fault),
    /// Another try would end in the same way, after as many bytes.
    TooMuch(Fault),
    /// The repository here is broken.
    Broken(Fault),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Trouble {
    /// Of a fetch: what is corrupt is what it would bring.
    fn of_fetch(fault: Fault) -> Self {
        if fault.class == ErrorClass::Corrupt { Self::TooMuch(fault) } else { Self::Fault(fault) }
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Fault(of_io(&error))
    }
}

fn of_io(error: &std::io::Error) -> Fault {
    files::of_io("git", error)
}

impl Repository {
    /// Waits until what is wanted was fetched, by whomever. That it then is here does not follow: a ref may be gone.
    pub(super) async fn fetch(&self, want: Want) -> Result<(), Fault> {
        if let Some(fault) = self.refusal(matches!(want, Want::Everything)) {
            return Err(fault);
        }
        let mut outcome = {
            let mut queue = lock(&self.remote.queue);
            let batch = queue.next.get_or_insert_with(|| Batch {
                refs: BTreeSet::new(),
                everything: false,
                outcome: watch::channel(None).0,
            });
            match want {
                Want::Refs(refs) => batch.refs.extend(refs),
                Want::Everything => batch.everything = true,
            }
            let outcome = batch.outcome.subscribe();
            if !queue.running {
                queue.running = true;
                let driver = Driver { repository: self.clone(), is_done: false };
                tokio::spawn(driver.drive());
            }
            outcome
        };
        journey::enter_for(Leg::Git, "fetch");
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(lost_task())),
            Err(_) => Err(lost_task()),
        }
    }

    /// Whether all that these refs reach is here.
    pub(super) fn has_everything(&self, refs: &Arc<Refs>) -> bool {
        lock(&self.remote.complete).as_ref() == Some(refs)
            && !self.remote.broken.load(Ordering::SeqCst)
    }

    /// Why nothing, or not everything, is fetched.
    fn refusal(&self, everything: bool) -> Option<Fault> {
        let mut refusal = lock(&self.remote.refusal);
        if refusal.as_ref().is_some_and(|refusal| refusal.when.elapsed() >= REFUSAL_TTL) {
            *refusal = None;
        }
        let refusal = refusal.as_ref().filter(|refusal| everything || !refusal.everything)?;
        Some(refusal.fault.clone())
    }

    /// Remembers what another fetch would only meet again.
    fn remember(&self, everything: bool, outcome: &Result<(), Trouble>) {
        if let Err(Trouble::TooMuch(fault)) = outcome {
            let refusal = Refusal { when: Instant::now(), everything, fault: fault.clone() };
            *lock(&self.remote.refusal) = Some(refusal);
        }
    }

    /// Whether histories may be cut off.
    pub(super) fn is_shallow(&self) -> bool {
        self.remote.directory.join("shallow").exists()
    }

    /// The commit under which the version of a tag was answered before.
    pub(super) async fn pinned(&self, tag: &str) -> Result<Option<ObjectId>, Fault> {
        let known = lock(&self.remote.pins).as_ref().map(|pins| pins.get(tag).copied());
        if let Some(known) = known {
            return Ok(known);
        }
        let pins = self.read_pins().await?;
        let mut known = lock(&self.remote.pins);
        let known = known.get_or_insert(pins);
        Ok(known.get(tag).copied())
    }

    async fn read_pins(&self) -> Result<HashMap<Box<str>, ObjectId>, Fault> {
        if !self.is_there() {
            return Ok(HashMap::new());
        }
        let run = Run::local(&self.remote.directory, &self.inner.settings).args([
            "for-each-ref",
            "--format=%(objectname) %(refname)",
            PINS,
        ]);
        let mut text = Vec::new();
        let mut take = |bytes: &[u8]| {
            text.extend_from_slice(bytes);
            crate::direct::command::Wanted::More
        };
        let ended = self.inner.git.run(run, &mut take).await?;
        self.finds_itself_broken(&ended);
        let text = String::from_utf8_lossy(&text);
        let pin = |line: &str| {
            let (id, name) = line.split_once(' ')?;
            Some((name.strip_prefix(PINS)?.into(), ObjectId::parse(id)?))
        };
        Ok(text.lines().filter_map(pin).collect())
    }

    /// Remembers the commit under which the version of a tag is answered. Writing it down is not waited for: it guards
    /// against a tag that moves between two requests, and those are mostly close together.
    pub(super) fn pin(&self, tag: &str, commit: ObjectId) {
        let mut pins = lock(&self.remote.pins);
        let Some(pins) = pins.as_mut() else { return };
        if pins.contains_key(tag) {
            return;
        }
        pins.insert(tag.into(), commit);
        let (repository, tag) = (self.clone(), tag.to_owned());
        tokio::spawn(async move {
            if let Err(fault) = repository.write_pin(&tag, commit).await {
                tracing::debug!(detail = fault.detail, "the commit of a tag could not be noted");
            }
        });
    }

    async fn write_pin(&self, tag: &str, commit: ObjectId) -> Result<(), Fault> {
        let _writer = self.remote.writer.lock().await;
        let held = self.hold().await?;
        let run = Run::local(&self.remote.directory, &self.inner.settings)
            .holding(held)
            .args(["update-ref", "--end-of-options"])
            .args([format!("{PINS}{tag}"), commit.to_string()]);
        let (ended, _) = self.inner.git.output(run).await?;
        if ended.is_success() { Ok(()) } else { Err(words::fault(&ended.words)) }
    }

    /// Takes the lock that other processes see.
    async fn hold(&self) -> Result<File, Fault> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&self.remote.lock)
            .map_err(|error| of_io(&error))?
            .into_file();
        let patience = self.inner.settings.fetch_timeout;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => {
                    // Says when the repository was used, also after a restart.
                    let _ = file.set_modified(SystemTime::now());
                    return Ok(file);
                }
                Err(TryLockError::Error(error)) => return Err(of_io(&error)),
                Err(TryLockError::WouldBlock) if began.elapsed() < patience => {
                    tokio::time::sleep(RETRY_LOCK).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let detail = format!(
                        "git: another process has worked on the repository for {}",
                        span(patience)
                    );
                    return Err(Fault::new(ErrorClass::Timeout, Stage::Git, detail));
                }
            }
        }
    }

    async fn perform(&self, batch: &Batch, writer: &mut Writer, held: &File) -> Result<(), Fault> {
        let env = self.prepare().await?;
        let place = Some(self.inner.hosts.place(&env).await?);
        let mut work = Work { repository: self, env, place, held, writer, is_redirected: false };
        let mut outcome = work.perform(batch).await;
        if let Err(Trouble::Broken(fault)) = &outcome {
            tracing::warn!(
                git.directory = %self.remote.directory.display(),
                git.words = fault.text,
                "a repository is broken and is fetched anew"
            );
            self.remote.broken.store(true, Ordering::SeqCst);
            outcome = work.perform(batch).await;
        }
        match outcome {
            Ok(()) => Ok(()),
            Err(Trouble::Fault(fault) | Trouble::TooMuch(fault) | Trouble::Broken(fault)) => {
                Err(fault)
            }
        }
    }
}

/// Takes batch after batch, and leaves the queue in order even if it is dropped on its way.
struct Driver {
    repository: Repository,
    is_done: bool,
}

impl Driver {
    async fn drive(mut self) {
        loop {
            let is_cold = !self.repository.is_there();
            tokio::time::sleep(if is_cold { GATHER_COLD } else { GATHER }).await;
            let batch = {
                let mut queue = lock(&self.repository.remote.queue);
                let batch = queue.next.take();
                queue.running = batch.is_some();
                self.is_done = batch.is_none();
                batch
            };
            let Some(batch) = batch else { return };
            self.take(batch).await;
        }
    }

    async fn take(&self, batch: Batch) {
        let repository = &self.repository;
        let mut writer = repository.remote.writer.lock().await;
        let held = match repository.hold().await {
            Ok(held) => held,
            Err(fault) => {
                batch.outcome.send_replace(Some(Err(fault)));
                return;
            }
        };
        let outcome = repository.perform(&batch, &mut writer, &held).await;
        let is_fetched = outcome.is_ok();
        // Nobody waits for the tidying, which speaks to no host either.
        batch.outcome.send_replace(Some(outcome));
        if is_fetched && let Err(fault) = repository.tidy(&mut writer, &held).await {
            writer.is_swept = false;
            tracing::debug!(detail = fault.detail, "a repository could not be tidied");
        }
        // What was too large is gone at once, and not when it is asked for again.
        if repository.sweep(&mut writer).await.is_err() {
            tracing::debug!("a repository could not be swept");
        }
        repository.inner.make_room_behind();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if !self.is_done {
            *lock(&self.repository.remote.queue) = Queue::default();
        }
    }
}
