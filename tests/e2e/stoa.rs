//! Runs the real `stoa` binary on loopback, with a data directory of its own and nothing of this machine's settings.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::tmpfs::Tmpfs;

/// Longest wait for anything the server does by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// The settings of a server under test.
#[derive(Clone, Debug)]
pub struct Setup {
    env: BTreeMap<String, String>,
    args: Vec<String>,
    dir: Arc<TempDir>,
    tmpfs: Option<Arc<Tmpfs>>,
}

impl Setup {
    /// A fresh data directory; no upstream, no checksum database.
    pub fn new() -> Self {
        Self::at(tempfile::tempdir().expect("a temporary directory"))
    }

    /// The same in memory where the system has a place for that, for tests that start hundreds of servers.
    pub fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() {
            Self::at(tempfile::tempdir_in(memory).expect("a temporary directory"))
        } else {
            Self::new()
        }
    }

    fn at(dir: TempDir) -> Self {
        let dir = Arc::new(dir);
        let mut env = BTreeMap::new();
        for (key, value) in [
            ("STOA_LISTEN", "127.0.0.1:0"),
            ("STOA_GOPROXY", "off"),
            ("STOA_GOSUMDB", "off"),
            ("STOA_LOG_LEVEL", "debug,hyper=info,h2=info,sqlx=warn,reqwest=info,rustls=info"),
            ("NO_COLOR", "1"),
        ] {
            env.insert(key.to_owned(), value.to_owned());
        }
        env.insert("HOME".to_owned(), dir.path().display().to_string());
        Self { env, args: Vec::new(), dir, tmpfs: None }
    }

    /// Sets an environment variable of the server.
    pub fn env(mut self, key: &str, value: impl ToString) -> Self {
        self.env.insert(key.to_owned(), value.to_string());
        self
    }

    pub fn goproxy(self, list: impl ToString) -> Self {
        self.env("STOA_GOPROXY", list)
    }

    pub fn gosumdb(self, database: impl ToString) -> Self {
        self.env("STOA_GOSUMDB", database)
    }

    pub fn arg(mut self, arg: impl ToString) -> Self {
        self.args.push(arg.to_string());
        self
    }

    pub fn offline(self) -> Self {
        self.arg("--offline")
    }

    /// The data directory; it outlives the servers on it and is removed with the last setup.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// With the data directory on a disk of that size; none where that cannot be, see [`Tmpfs`].
    pub fn on_tmpfs(mut self, size: &str) -> Option<Self> {
        fs_err::create_dir(self.data_dir()).expect("a fresh directory");
        self.tmpfs = Some(Tmpfs::mount(&self.data_dir(), size)?);
        Some(self)
    }

    pub fn tmpfs(&self) -> Arc<Tmpfs> {
        Arc::clone(self.tmpfs.as_ref().expect("a setup on a tmpfs"))
    }

    /// A place of this setup for other files.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    pub fn command(&self, subcommand: &[&str]) -> Command {
        let stoa = env!("CARGO_BIN_EXE_stoa");
        let mut command = match &self.tmpfs {
            Some(tmpfs) => tmpfs.enter(OsStr::new(stoa), self.dir.path()),
            None => Command::new(stoa),
        };
        command
            .args(subcommand)
            .args(&self.args)
            .arg("--data-dir")
            .arg(self.data_dir())
            .current_dir(self.dir.path())
            .env_clear()
            .envs(&self.env)
            .stdin(Stdio::null());
        command
    }

    /// Starts the server and waits until it listens.
    pub fn start(&self) -> Stoa {
        self.try_start().unwrap_or_else(|log| panic!("stoa did not start:\n{log}"))
    }

    /// Starts the server; what it wrote, if it ends before it listens.
    pub fn try_start(&self) -> Result<Stoa, String> {
        let mut command = self.command(&["serve"]);
        command.stdout(Stdio::null());
        self.try_start_by(command)
    }

    /// The server as a shell starts it, after this.
    pub fn after(&self, shell: &str) -> Command {
        let stoa = self.command(&["serve"]);
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{shell}; exec \"$0\" \"$@\""));
        command.arg(stoa.get_program()).args(stoa.get_args()).env_clear();
        command.envs(stoa.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(self.scratch()).stdin(Stdio::null());
        command
    }

    /// Starts the server by this command, which becomes it.
    pub fn try_start_by(&self, mut command: Command) -> Result<Stoa, String> {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the stoa binary");
        let stderr = child.stderr.take().expect("a pipe");
        let (announce, announced) = channel();
        let log = Arc::new(Mutex::new(String::new()));
        let reader = {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    {
                        let mut log = log.lock().unwrap();
                        log.push_str(&line);
                        log.push('\n');
                    }
                    if line.contains("stoa is listening") {
                        let url =
                            line.split("url=\"").nth(1).and_then(|rest| rest.split('"').next());
                        let _ = announce.send(url.expect("a url in the line").to_owned());
                    }
                }
            })
        };
        let dir = Arc::clone(&self.dir);
        let mut stoa = Stoa { child, url: String::new(), log, reader: Some(reader), _dir: dir };
        if let Some(url) = wait_for_url(&announced) {
            stoa.url = url;
            Ok(stoa)
        } else {
            stoa.kill();
            Err(stoa.log())
        }
    }

    /// Runs a subcommand to its end.
    pub fn run(&self, subcommand: &[&str]) -> std::process::Output {
        self.command(subcommand).output().expect("the stoa binary")
    }
}

fn wait_for_url(announced: &Receiver<String>) -> Option<String> {
    announced.recv_timeout(PATIENCE).ok()
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Stoa {
    child: Child,
    pub url: String,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    /// The directory stays while the server runs, also when its setup is gone.
    _dir: Arc<TempDir>,
}

impl Stoa {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        let (_, rest) = self.url.split_once("://").expect("a url");
        rest.split('/').next().unwrap_or(rest)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("a signal");
    }

    /// SIGTERM, and its exit status and log.
    pub fn stop(mut self) -> (ExitStatus, String) {
        self.terminate();
        let status = self.wait();
        (status, self.log())
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                if let Some(reader) = self.reader.take() {
                    let _ = reader.join();
                }
                return status;
            }
            assert!(Instant::now() < until, "stoa did not end; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Stoa {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of the stoa at {}:\n{}", self.url, self.log());
        }
    }
}
