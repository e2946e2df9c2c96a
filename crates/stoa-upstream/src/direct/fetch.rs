//! Fetching into a bare repository: what several requests want at the same time in one `git fetch`, shallow as long as no
//! history is needed, under a lock that other processes see, and anew where the repository is found broken.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fs_err::OpenOptions;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use stoa_module::ErrorClass;
use tokio::sync::watch;

use crate::direct::access::RemoteEnv;
use crate::direct::command::{Ended, Growth, Run};
use crate::direct::refs::{ObjectId, Refs};
use crate::direct::repositories::{Repository, lock, lost_task};
use crate::direct::words;
use crate::failure::{Fault, Stage, span};

/// How long the first of several requests waits for the others, which come from the same answer of `ls-remote`.
const GATHER: Duration = Duration::from_millis(5);
/// The same before a clone, which takes so long that nobody notices: on a busy machine they come one after the other.
const GATHER_COLD: Duration = Duration::from_millis(30);
/// How often a lock that another process holds is tried again.
const RETRY_LOCK: Duration = Duration::from_millis(50);
/// Where HEAD is kept, if no branch has its commit.
const HEAD: &str = "refs/stoa/head";
const PINS: &str = "refs/stoa/tags/";
/// Says nothing to the host of what is here.
const WITHOUT_HAVES: &[&str] = &["-c", "fetch.negotiationAlgorithm=noop"];
/// Written into a repository when it is made: the format of its hashes, and its remote.
const MARK: &str = "stoa-remote";
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
    /// The refs of which all is here.
    complete: Option<Arc<Refs>>,
}

enum Trouble {
    Fault(Fault),
    /// The repository here is broken.
    Broken(Fault),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Fault(of_io(&error))
    }
}

fn of_io(error: &std::io::Error) -> Fault {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let class = match error.kind() {
        StorageFull | QuotaExceeded => ErrorClass::Full,
        _ => ErrorClass::Internal,
    };
    Fault::new(class, Stage::Local, format!("git: {error}"))
}

impl Repository {
    /// Waits until what is wanted was fetched, by whomever. That it then is here does not follow: a ref may be gone.
    pub(super) async fn fetch(&self, want: Want) -> Result<(), Fault> {
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
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(lost_task())),
            Err(_) => Err(lost_task()),
        }
    }

    /// Whether all that these refs reach is here.
    pub(super) async fn has_everything(&self, refs: &Arc<Refs>) -> bool {
        let writer = self.remote.writer.lock().await;
        writer.complete.as_ref().is_some_and(|complete| complete == refs)
            && !self.remote.broken.load(Ordering::SeqCst)
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
                Ok(()) => return Ok(file),
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

    async fn perform(&self, batch: &Batch) -> Result<(), Fault> {
        let mut writer = self.remote.writer.lock().await;
        let held = self.hold().await?;
        let env = self.prepare().await?;
        let _place = self.inner.hosts.place(&env).await?;
        let mut work = Work { repository: self, env: &env, held: &held, writer: &mut writer };
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
            Err(Trouble::Fault(fault) | Trouble::Broken(fault)) => Err(fault),
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
            let outcome = self.repository.perform(&batch).await;
            batch.outcome.send_replace(Some(outcome));
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if !self.is_done {
            *lock(&self.repository.remote.queue) = Queue::default();
        }
    }
}

/// A fetch under the lock.
struct Work<'w> {
    repository: &'w Repository,
    env: &'w RemoteEnv,
    held: &'w File,
    writer: &'w mut Writer,
}

impl Work<'_> {
    async fn perform(&mut self, batch: &Batch) -> Result<(), Trouble> {
        let refs = self.repository.known_refs();
        self.make_ready(refs.as_deref()).await?;
        if batch.everything {
            return self.everything(refs).await;
        }
        let mut wanted = batch.refs.clone();
        // A history that is whole stays so.
        let shallow = self.repository.is_shallow() || packs(&self.repository.remote.directory) == 0;
        while !wanted.is_empty() {
            let refspecs = wanted.iter().map(|name| match name.as_str() {
                "HEAD" => format!("HEAD:{HEAD}"),
                name => format!("{name}:{name}"),
            });
            let depth: &[&str] = if shallow { &["--depth=1"] } else { &[] };
            let config = if shallow && self.is_small() { WITHOUT_HAVES } else { &[] };
            let ended = self.fetch(config, depth, refspecs).await?;
            if ended.is_success() {
                return self.tidy().await;
            }
            // Deleted since it was listed.
            if let Some(missing) = words::missing_ref(&ended.words) {
                if wanted.remove(missing) {
                    continue;
                }
            } else if words::is_final(&ended.words) {
                return Err(words::of_remote(&ended.words, self.env).into());
            }
            // Whatever it was, such as a server that cannot fetch shallow: all of it may still come.
            return self.everything(refs).await;
        }
        Ok(())
    }

    async fn everything(&mut self, refs: Option<Arc<Refs>>) -> Result<(), Trouble> {
        let mut refspecs =
            vec!["refs/heads/*:refs/heads/*".to_owned(), "refs/tags/*:refs/tags/*".to_owned()];
        let head = refs.as_ref().and_then(|refs| refs.find("HEAD"));
        let is_reached = refs.iter().any(|refs| {
            refs.iter().any(|(name, id)| name.starts_with("refs/heads/") && Some(id) == head)
        });
        if head.is_some() && !is_reached {
            refspecs.push(format!("HEAD:{HEAD}"));
        }
        self.must(&["--prune"], &refspecs).await?;
        if self.repository.is_shallow() {
            // Apart from the first, which had to bring the refs that are not here yet: git would cut off their history
            // where that of others is cut off (golang.org/issue/34266).
            self.must(&["--unshallow"], &refspecs).await?;
        }
        self.writer.complete = refs;
        self.tidy().await
    }

    async fn must(&mut self, options: &[&str], refspecs: &[String]) -> Result<(), Trouble> {
        let ended = self.fetch(&[], options, refspecs.iter().cloned()).await?;
        if ended.is_success() {
            return Ok(());
        }
        let fault = words::of_remote(&ended.words, self.env);
        if words::is_broken(&ended.words) && !words::is_final(&ended.words) {
            return Err(Trouble::Broken(fault));
        }
        Err(fault.into())
    }

    /// Whether the files of one commit are few bytes: there is a pack for each fetch, and all were shallow until now.
    fn is_small(&self) -> bool {
        let Repository { inner, remote, .. } = self.repository;
        let size = size_of(&remote.directory.join("objects/pack"));
        let one = size.checked_div(packs(&remote.directory) as u64);
        one.is_some_and(|one| one <= inner.settings.whole_bytes)
    }

    async fn fetch(
        &mut self,
        config: &[&str],
        options: &[&str],
        refspecs: impl Iterator<Item = String>,
    ) -> Result<Ended, Trouble> {
        let Repository { inner, remote, .. } = self.repository;
        let objects = remote.directory.join("objects/pack");
        let growth = Growth {
            size: Box::new(move || size_of(&objects)),
            most: inner.settings.max_repository_bytes,
            what: "the repository",
        };
        let run = Run::remote(Some(&remote.directory), self.env, &inner.settings)
            .holding(self.held.try_clone()?)
            .growing(growth)
            .args(config)
            .args(["fetch", "-f", "--progress", "--no-tags", "--no-recurse-submodules"])
            .args(options)
            .args(["--end-of-options", self.env.address.as_deref().unwrap_or(&remote.url)])
            .args(refspecs);
        let ended = inner.git.output(run).await;
        if ended.as_ref().map_or(true, |(ended, _)| !ended.is_success()) {
            self.writer.is_swept = false;
        }
        Ok(ended?.0)
    }

    /// Makes the repository if it is not there, is broken, or is another one.
    async fn make_ready(&mut self, refs: Option<&Refs>) -> Result<(), Trouble> {
        let Repository { inner, remote, .. } = self.repository;
        let first = refs.and_then(|refs| refs.iter().next());
        let sha256 = first.is_some_and(|(_, id)| id.is_sha256());
        let mark = format!("{} {}\n", if sha256 { "sha256" } else { "sha1" }, remote.url);
        let is_right = || {
            let found = fs_err::read_to_string(remote.directory.join(MARK)).ok();
            // Without a ref nobody knows the format.
            let is_same = |found: &String| *found == mark || first.is_none();
            found.as_ref().is_some_and(is_same) && remote.directory.join("HEAD").exists()
        };
        if remote.broken.swap(false, Ordering::SeqCst) || !is_right() {
            *self.writer = Writer { is_swept: true, complete: None };
            *lock(&remote.pins) = Some(HashMap::new());
            discard(&remote.directory, &inner.temporary()).await?;
            let made = tempfile::Builder::new().prefix("init-").tempdir_in(inner.temporary())?;
            let run = Run::local(made.path(), &inner.settings)
                .args(["init", "--quiet", "--bare", "--template="])
                .args(sha256.then_some("--object-format=sha256"));
            let (ended, _) = inner.git.output(run).await?;
            if !ended.is_success() {
                return Err(words::fault(&ended.words).into());
            }
            fs_err::create_dir_all(made.path().join("info"))?;
            fs_err::write(made.path().join("info/attributes"), ATTRIBUTES)?;
            fs_err::write(made.path().join(MARK), mark)?;
            fs_err::rename(made.keep(), &remote.directory)?;
        }
        if !self.writer.is_swept {
            let directory = remote.directory.clone();
            let sweeping = tokio::task::spawn_blocking(move || sweep(&directory)).await;
            sweeping.map_err(|_| lost_task())?;
            self.writer.is_swept = true;
        }
        Ok(())
    }

    /// Joins packs when there are many. What nothing reaches any more goes with the time that git gives it.
    async fn tidy(&mut self) -> Result<(), Trouble> {
        let Repository { inner, remote, .. } = self.repository;
        if packs(&remote.directory) <= inner.settings.max_packs {
            return Ok(());
        }
        let run = Run::local(&remote.directory, &inner.settings)
            .holding(self.held.try_clone()?)
            .within(inner.settings.fetch_timeout)
            // Packs that are large already are left as they are.
            .args(["-c", "gc.auto=6700", "-c", "gc.bigPackThreshold=256m"])
            .args(["-c", "gc.autoDetach=false", "-c"])
            .args([format!("gc.autoPackLimit={}", inner.settings.max_packs)])
            .args(["gc", "--auto", "--quiet"]);
        let (ended, _) = inner.git.output(run).await?;
        if !ended.is_success() {
            self.writer.is_swept = false;
            tracing::debug!(git.words = ended.words, "a repository could not be tidied");
        }
        Ok(())
    }
}

/// Takes a repository out of the way.
async fn discard(directory: &Path, temporary: &Path) -> Result<(), Trouble> {
    if !directory.exists() {
        return Ok(());
    }
    let grave = tempfile::Builder::new().prefix("broken-").tempdir_in(temporary)?;
    fs_err::rename(directory, grave.path().join("repository"))?;
    let removing = tokio::task::spawn_blocking(move || grave.close()).await;
    removing.map_err(|_| lost_task())?.map_err(Trouble::from)
}

/// The bytes in a directory.
fn size_of(directory: &Path) -> u64 {
    let Ok(entries) = fs_err::read_dir(directory) else { return 0 };
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn packs(directory: &Path) -> usize {
    let Ok(entries) = fs_err::read_dir(directory.join("objects/pack")) else { return 0 };
    let is_pack = |entry: &fs_err::DirEntry| {
        Path::new(&entry.file_name()).extension().is_some_and(|extension| extension == "pack")
    };
    entries.filter_map(Result::ok).filter(is_pack).count()
}

/// Removes what a killed command leaves: its locks, and packs that were never finished. Nobody else writes here.
fn sweep(directory: &Path) {
    let is_left = |name: &str| {
        let is_lock = Path::new(name).extension().is_some_and(|extension| extension == "lock");
        is_lock
            || name == "gc.pid"
            || ["tmp_pack_", "tmp_idx_", "tmp_obj_", "tmp_rev_", ".tmp-"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
    };
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs_err::read_dir(&directory) else { continue };
        for entry in entries.filter_map(Result::ok) {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_directory {
                open.push(entry.path());
            } else if is_left(&entry.file_name().to_string_lossy()) {
                // It may be in the way of the next command, which then says so.
                let _ = fs_err::remove_file(entry.path());
            }
        }
    }
}
