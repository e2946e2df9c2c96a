//! Running the `git` command, so that it never asks anybody, never outlives its bounds, and leaves no process behind.
//!
//! Commands that speak to a remote keep the user's and the system's configuration of git: `insteadOf`, credential
//! helpers, authorities, ssh. Commands that read what was fetched get none of it, because a filter, an attribute or an end
//! of line that one machine is set to would change the hash of a module.

mod running;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use stoa_module::ErrorClass;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

use crate::direct::GitSettings;
use crate::direct::access::RemoteEnv;
use crate::direct::command::running::Running;
use crate::direct::counters::Counters;
use crate::examine::Trouble;
use crate::failure::{Fault, Stage, span};
use crate::journey::{self, Leg};
use crate::settings::Environment;

/// Enough of the standard error to hold the last lines, which say why.
const WORDS: usize = 8 << 10;

/// The most that git may allocate at once, in bytes, unless the environment says otherwise: a few packed kilobytes may
/// well stand for gigabytes.
const ALLOC_LIMIT: (&str, &str) = ("GIT_ALLOC_LIMIT", "1073741824");
/// Of this many local commands one may be a costly one.
const COSTLY: usize = 4;

/// What would lead git elsewhere than where it is told to look, or have it print what it does.
const UNWANTED: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CEILING_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DEFAULT_HASH",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_QUARANTINE_PATH",
    "GIT_REFLOG_ACTION",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// The `git` command of this machine, and how many of it may run at once.
#[derive(Debug)]
pub(super) struct Git {
    /// The server's environment, without what has no business in a command.
    inherited: Environment,
    directory: PathBuf,
    /// Apart, because a slow remote must not keep anybody from what is here.
    remote: Semaphore,
    local: Semaphore,
    /// Of the local ones, those that take long and read all of a tree.
    costly: Semaphore,
    /// And those that nobody waits for.
    tidying: Semaphore,
    queue_timeout: Duration,
    version: OnceCell<Option<String>>,
    pub(super) counters: Counters,
}

/// One run.
#[derive(Debug)]
pub(super) struct Run<'r> {
    args: Vec<OsString>,
    repository: Option<&'r Path>,
    /// `None` for a command that must not depend on this machine's settings.
    remote: Option<&'r RemoteEnv>,
    /// Whether it speaks to a remote.
    speaks: bool,
    costly: bool,
    stdin: Input,
    stdout: Option<File>,
    growth: Option<Growth>,
    quiet: Duration,
    whole: Duration,
}

#[derive(Debug, Default)]
enum Input {
    #[default]
    Nothing,
    Bytes(Vec<u8>),
    /// An empty file: the command, and what it starts, hold its lock for as long as they live.
    Lock(File),
}

/// Something that grows while the command makes progress.
pub(super) struct Growth {
    /// Its size now, in bytes.
    pub(super) size: Box<dyn Fn() -> u64 + Send + Sync>,
    /// The most it may be.
    pub(super) most: u64,
    /// What it is, for a person: `the repository`.
    pub(super) what: &'static str,
}

impl std::fmt::Debug for Growth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Growth")
            .field("most", &self.most)
            .field("what", &self.what)
            .finish_non_exhaustive()
    }
}

/// What came of a run that ended within its bounds.
#[derive(Debug)]
pub(super) struct Ended {
    /// `None` if it was ended by a signal, or because the reader had enough.
    pub(super) code: Option<i32>,
    /// The reader had enough before the end.
    pub(super) enough: bool,
    /// The end of what it said on its standard error.
    pub(super) words: String,
}

impl Ended {
    pub(super) fn is_success(&self) -> bool {
        self.enough || self.code == Some(0)
    }
}

/// What a reader says to a piece of the standard output.
#[derive(Debug)]
pub(super) enum Wanted {
    More,
    /// The rest is not needed: the command is ended, and that is a success.
    Enough,
    /// The rest must not be read: the command is ended.
    Refused(Fault),
}

impl<'r> Run<'r> {
    /// A command that only reads what is here.
    pub(super) fn local(repository: &'r Path, settings: &GitSettings) -> Self {
        Self {
            args: Vec::new(),
            repository: Some(repository),
            remote: None,
            speaks: false,
            costly: false,
            stdin: Input::Nothing,
            stdout: None,
            growth: None,
            quiet: settings.local_timeout,
            whole: settings.local_timeout,
        }
    }

    /// A command that speaks to a remote.
    pub(super) fn remote(
        repository: Option<&'r Path>,
        remote: &'r RemoteEnv,
        settings: &GitSettings,
    ) -> Self {
        Self {
            remote: Some(remote),
            speaks: true,
            costly: false,
            repository,
            quiet: settings.stall_timeout,
            whole: settings.fetch_timeout,
            args: Vec::new(),
            stdin: Input::Nothing,
            stdout: None,
            growth: None,
        }
    }

    /// The command of git, for people.
    fn name(&self) -> String {
        // Behind options, some of which have a value.
        let is_option = |arg: &OsStr| {
            let bytes = arg.as_encoded_bytes();
            bytes.starts_with(b"-") || bytes.contains(&b'=')
        };
        let name = self.args.iter().find(|arg| !is_option(arg));
        name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// A command that asks what the user's configuration says, and nobody else.
    pub(super) fn configured(remote: &'r RemoteEnv, settings: &GitSettings) -> Self {
        Self { speaks: false, ..Self::remote(None, remote, settings) }
            .within(settings.local_timeout)
    }

    pub(super) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub(super) fn input(mut self, bytes: Vec<u8>) -> Self {
        self.stdin = Input::Bytes(bytes);
        self
    }

    pub(super) fn holding(mut self, lock: File) -> Self {
        self.stdin = Input::Lock(lock);
        self
    }

    /// Writes the standard output to a file.
    pub(super) fn into_file(mut self, file: File) -> Self {
        self.stdout = Some(file);
        self
    }

    pub(super) fn growing(mut self, growth: Growth) -> Self {
        self.growth = Some(growth);
        self
    }

    /// It says nothing before it is done.
    pub(super) fn silent(mut self) -> Self {
        self.quiet = self.whole;
        self
    }

    /// Fewer of these run at once than of other local commands.
    pub(super) fn costly(mut self) -> Self {
        self.costly = true;
        self
    }

    pub(super) fn within(mut self, whole: Duration) -> Self {
        self.whole = whole;
        self.quiet = self.quiet.min(whole);
        self
    }
}

impl Git {
    /// `directory` is where commands run that need no repository; it must exist and lie in none.
    pub(super) fn new(
        directory: PathBuf,
        settings: &GitSettings,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let is_wanted = |name: &OsStr| {
            let name = name.to_string_lossy();
            let unwanted = UNWANTED.contains(&&*name)
                || name.starts_with("GIT_TRACE")
                || name.starts_with("STOA_");
            !unwanted
        };
        Self {
            inherited: environment.into_iter().filter(|(name, _)| is_wanted(name)).collect(),
            directory,
            remote: Semaphore::new(settings.max_remote_commands.max(1)),
            local: Semaphore::new(settings.max_local_commands.max(1)),
            costly: Semaphore::new((settings.max_local_commands / COSTLY).max(1)),
            tidying: Semaphore::new((settings.max_local_commands / COSTLY).max(1)),
            queue_timeout: settings.queue_timeout,
            version: OnceCell::new(),
            counters: Counters::default(),
        }
    }

    /// Runs a command and hands its standard output to a reader.
    pub(super) async fn run(
        &self,
        run: Run<'_>,
        reader: &mut (dyn FnMut(&[u8]) -> Wanted + Send),
    ) -> Result<Ended, Fault> {
        let agent = if run.speaks { self.user_agent().await } else { None };
        self.run_as(run, agent, reader).await
    }

    /// Runs a command whose standard output is short, or of which only the beginning is wanted.
    pub(super) async fn output(&self, run: Run<'_>) -> Result<(Ended, Vec<u8>), Fault> {
        let mut output = Vec::new();
        let mut keep = |bytes: &[u8]| {
            let room = (64_usize << 10).saturating_sub(output.len());
            output.extend_from_slice(&bytes[..bytes.len().min(room)]);
            Wanted::More
        };
        let ended = self.run(run, &mut keep).await?;
        Ok((ended, output))
    }

    async fn run_as(
        &self,
        mut run: Run<'_>,
        agent: Option<&str>,
        reader: &mut (dyn FnMut(&[u8]) -> Wanted + Send),
    ) -> Result<Ended, Fault> {
        journey::enter_for(Leg::Git, &run.name());
        let Ok(_place) = tokio::time::timeout(self.queue_timeout, self.place(&run)).await else {
            let detail = format!(
                "git: no place among the commands at once within {}",
                span(self.queue_timeout)
            );
            return Err(Fault::new(ErrorClass::Unavailable, Stage::Git, detail));
        };
        let mut command = self.command(&run, agent);
        let input = match std::mem::take(&mut run.stdin) {
            Input::Nothing => {
                command.stdin(Stdio::null());
                None
            }
            Input::Bytes(bytes) => {
                command.stdin(Stdio::piped());
                Some(bytes)
            }
            Input::Lock(file) => {
                command.stdin(file);
                None
            }
        };
        match run.stdout.take() {
            Some(file) => command.stdout(file),
            None => command.stdout(Stdio::piped()),
        };
        let kind = if run.speaks { &self.counters.remote } else { &self.counters.local };
        let started = kind.start();
        let child = command.spawn().map_err(|error| not_started(&error))?;
        let outcome = Running::new(child, input).watch(&run, reader).await;
        started.ended(outcome.as_ref().is_ok_and(Ended::is_success));
        outcome
    }

    /// For a command that may take an hour, and can as well be run another time.
    pub(super) fn place_to_tidy(&self) -> Option<SemaphorePermit<'_>> {
        self.tidying.try_acquire().ok()
    }

    async fn place(&self, run: &Run<'_>) -> [Option<SemaphorePermit<'_>>; 2] {
        // Neither is ever closed. The costly ones first, so that none takes a place of the others while it waits.
        let costly = if run.costly { self.costly.acquire().await.ok() } else { None };
        let places = if run.speaks { &self.remote } else { &self.local };
        [costly, places.acquire().await.ok()]
    }

    fn command(&self, run: &Run<'_>, agent: Option<&str>) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("git");
        command.env_clear().current_dir(&self.directory).process_group(0).stderr(Stdio::piped());
        match run.remote {
            Some(remote) => self.speak(&mut command, remote, agent),
            None => self.isolate(&mut command),
        }
        // Where there is no repository, none that lies around the data directory must be taken for it.
        let nowhere = Path::new("/nonexistent");
        command.env("GIT_DIR", run.repository.unwrap_or(nowhere));
        command.args(&run.args);
        command
    }

    /// For a command that speaks to a remote. What the caller gives comes last, and so decides.
    fn speak(
        &self,
        command: &mut tokio::process::Command,
        remote: &RemoteEnv,
        agent: Option<&str>,
    ) {
        let is_set = |name: &str| self.inherited.get(name).is_some();
        command.envs(self.inherited.iter().cloned());
        // Nobody is there to answer. An askpass command that fails makes git give up at once.
        for (name, value) in [
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GCM_INTERACTIVE", "never"),
            ("GIT_ASKPASS", "false"),
            ("SSH_ASKPASS", "false"),
            ("SSH_ASKPASS_REQUIRE", "force"),
            ("LC_ALL", "C"),
            ("LANGUAGE", ""),
        ] {
            command.env(name, value);
        }
        if !is_set("GIT_ALLOW_PROTOCOL") {
            command.env("GIT_ALLOW_PROTOCOL", "https:ssh");
        }
        if !is_set(ALLOC_LIMIT.0) {
            command.env(ALLOC_LIMIT.0, ALLOC_LIMIT.1);
        }
        if let Some(agent) = agent
            && !is_set("GIT_HTTP_USER_AGENT")
        {
            command.env("GIT_HTTP_USER_AGENT", agent);
        }
        command.envs(remote.envs.iter().map(|(name, value)| (name, value)));
        for option in [
            // No hook, no monitor, no work behind our back.
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "gc.auto=0",
            "maintenance.auto=false",
            "fetch.recurseSubmodules=false",
            "fetch.prune=false",
            "fetch.pruneTags=false",
            "fetch.writeCommitGraph=false",
            // One pack for each fetch, whose growth can be watched.
            "fetch.unpackLimit=1",
            "transfer.unpackLimit=1",
            // Without it some servers leave out tags (golang.org/issue/56881).
            "protocol.version=2",
        ] {
            command.args(["-c", option]);
        }
        for option in &remote.options {
            command.args(["-c", option]);
        }
    }

    /// For a command that only reads: nothing of this machine's settings.
    fn isolate(&self, command: &mut tokio::process::Command) {
        let kept = ["PATH", "TMPDIR", "LD_LIBRARY_PATH", "GIT_EXEC_PATH", ALLOC_LIMIT.0];
        let kept = self.inherited.iter().filter(|(name, _)| kept.iter().any(|one| name == one));
        command.env(ALLOC_LIMIT.0, ALLOC_LIMIT.1);
        command.envs(kept.cloned());
        for (name, value) in [
            ("LC_ALL", "C"),
            ("HOME", "/nonexistent"),
            ("XDG_CONFIG_HOME", "/nonexistent"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_SYSTEM", "/dev/null"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_LITERAL_PATHSPECS", "1"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            // What a repository is made with where nothing else is asked for; later versions of git differ.
            ("GIT_DEFAULT_HASH", "sha1"),
            ("GIT_DEFAULT_REF_FORMAT", "files"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ALLOW_PROTOCOL", "none"),
        ] {
            command.env(name, value);
        }
        command.args(["-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0"]);
    }

    /// git's own name first, since some servers answer nothing else.
    async fn user_agent(&self) -> Option<&str> {
        let ask = async || {
            let settings = GitSettings::default();
            let run = Run::local(Path::new("/nonexistent"), &settings)
                .args(["version"])
                .within(Duration::from_secs(10));
            let mut text = Vec::new();
            let mut keep = |bytes: &[u8]| {
                text.extend_from_slice(bytes);
                if text.len() > WORDS { Wanted::Enough } else { Wanted::More }
            };
            self.run_as(run, None, &mut keep).await.ok()?;
            let text = String::from_utf8(text).ok()?;
            let version = text.trim().strip_prefix("git version ")?.split(' ').next()?;
            Some(format!("git/{version} {}", concat!("stoa/", env!("CARGO_PKG_VERSION"))))
        };
        self.version.get_or_init(ask).await.as_deref()
    }
}

fn not_started(error: &io::Error) -> Fault {
    let fault = |detail: String| Fault::new(ErrorClass::Unavailable, Stage::Git, detail);
    match error.kind() {
        io::ErrorKind::NotFound => fault("git: there is no git command on the server".to_owned())
            .hint("install git where the server runs")
            .proves(Trouble::GitMissing),
        _ => fault(format!("git: the command cannot be started: {error}")),
    }
}

#[cfg(test)]
mod tests;
