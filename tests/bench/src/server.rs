//! A server under measurement: its process, and what that takes.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::data::Data;
use crate::load;

const PATIENCE: Duration = Duration::from_secs(30);

/// How a server is started.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Stoa {
        program: PathBuf,
        gosumdb: String,
        /// Besides what every process of this program gets: settings.
        environment: Vec<(String, String)>,
    },
    /// A cache of files without any check: what the machine can do at best.
    Nginx {
        program: PathBuf,
    },
    Command {
        name: String,
        command: String,
        gosumdb: String,
    },
}

/// A running server on an empty store. It ends with this value; the store stays in the directory for temporary files.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    url: String,
    dir: TempDir,
    /// The most that was seen of all its processes together, in KiB.
    seen: Arc<AtomicU64>,
    watcher: JoinHandle<()>,
    pub(crate) started_in: Duration,
}

pub(crate) fn find_nginx() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    dirs.map(|dir| dir.join("nginx")).find(|file| file.is_file())
}

impl Kind {
    /// With everything verified and no access log, as the others have none.
    pub(crate) fn stoa(program: &Path, data: &Data) -> Kind {
        Kind::stoa_logging(program, data, "info,access=off")
    }

    /// At a level of the log.
    pub(crate) fn stoa_logging(program: &Path, data: &Data, level: &str) -> Kind {
        Kind::Stoa {
            program: program.to_owned(),
            gosumdb: data.gosumdb().to_owned(),
            environment: vec![("STOA_LOG_LEVEL".to_owned(), level.to_owned())],
        }
    }

    fn command(&self, port: u16, dir: &Path, upstream: &str) -> anyhow::Result<Command> {
        let store = dir.join("store");
        fs_err::create_dir(&store)?;
        Ok(match self {
            Kind::Stoa { program, gosumdb, environment } => {
                let mut stoa = Command::new(program);
                // None of this machine's settings.
                stoa.env_clear();
                stoa.envs(environment.iter().map(|(name, value)| (name, value)));
                stoa.env("HOME", dir).arg("serve");
                stoa.arg("--listen").arg(format!("127.0.0.1:{port}")).arg("--data-dir").arg(store);
                stoa.args(["--goproxy", upstream, "--gosumdb", gosumdb]);
                stoa
            }
            Kind::Nginx { program } => {
                let file = dir.join("nginx.conf");
                fs_err::create_dir(dir.join("tmp"))?;
                fs_err::write(&file, nginx_config(port, dir, upstream))?;
                let mut nginx = Command::new(program);
                nginx.arg("-c").arg(file).arg("-p").arg(dir);
                nginx
            }
            Kind::Command { name, command, gosumdb } => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("exec {command} \"$@\""), name]);
                shell.arg(port.to_string()).arg(store).arg(upstream).env("GOSUMDB", gosumdb);
                shell
            }
        })
    }
}

impl Server {
    pub(crate) async fn start(kind: &Kind, upstream: &str) -> anyhow::Result<Server> {
        let dir = tempfile::Builder::new().prefix("server-").disable_cleanup(true).tempdir()?;
        let log = fs_err::File::create(dir.path().join("log"))?.into_file();
        let port = free_port()?;
        let mut command = kind.command(port, dir.path(), upstream)?;
        let started = Instant::now();
        let child = command
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} does not start", command.get_program().display()))?;
        let seen = Arc::new(AtomicU64::new(0));
        let watcher = tokio::spawn(watch(child.id(), seen.clone()));
        let url = format!("http://127.0.0.1:{port}");
        let mut server = Server { child, url, dir, seen, watcher, started_in: Duration::ZERO };
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if server.child.try_wait()?.is_some() || started.elapsed() > PATIENCE {
                bail!("it does not listen; its log:\n{}", server.log());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        server.started_in = started.elapsed();
        if matches!(kind, Kind::Stoa { .. }) {
            let (status, body) = load::get(&server.url, "/readyz").await?;
            if !status.is_success() {
                bail!("not ready: {}", String::from_utf8_lossy(&body));
            }
        }
        Ok(server)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The end of what it has written.
    pub(crate) fn log(&self) -> String {
        let text = fs_err::read(self.dir.path().join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// All that it has written.
    pub(crate) fn whole_log(&self) -> anyhow::Result<String> {
        Ok(fs_err::read_to_string(self.dir.path().join("log"))?)
    }

    pub(crate) fn store_dir(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// File descriptors of its processes.
    pub(crate) fn open_files(&self) -> usize {
        let of = |pid: u32| fs_err::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        tree(self.child.id()).into_iter().map(of).sum()
    }

    /// What its processes hold now, in MiB.
    pub(crate) fn resident(&self) -> f64 {
        kib(self.child.id(), "VmRSS:") as f64 / 1024.0
    }

    /// The most that its processes held, in MiB. Exact for one process; of those of several that have
    /// ended, what was seen of them.
    pub(crate) fn peak(&self) -> f64 {
        kib(self.child.id(), "VmHWM:").max(self.seen.load(Ordering::Relaxed)) as f64 / 1024.0
    }

    /// Processor time that its processes took until now, with the ended ones that they waited for.
    pub(crate) fn cpu(&self) -> Duration {
        let ticks: u64 = tree(self.child.id()).into_iter().filter_map(ticks).sum();
        let per_second = rustix::param::clock_ticks_per_second();
        Duration::from_secs_f64(ticks as f64 / per_second as f64)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.watcher.abort();
        let Some(group) = Pid::from_raw(self.child.id().cast_signed()) else { return };
        // What has ended by itself needs no signal.
        _ = kill_process_group(group, Signal::TERM);
        let until = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > until {
                _ = kill_process_group(group, Signal::KILL);
                _ = self.child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

async fn watch(pid: u32, seen: Arc<AtomicU64>) {
    loop {
        seen.fetch_max(kib(pid, "VmRSS:"), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A process and all that it started.
fn tree(root: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut queue = VecDeque::from([root]);
    while let Some(pid) = queue.pop_front() {
        found.push(pid);
        let children = format!("/proc/{pid}/task/{pid}/children");
        let children = fs_err::read_to_string(children).unwrap_or_default();
        queue.extend(children.split_whitespace().filter_map(|it| it.parse::<u32>().ok()));
    }
    found
}

/// The sum of a line of `/proc/PID/status` over a process and all that it started.
fn kib(root: u32, key: &str) -> u64 {
    let of = |pid: u32| -> Option<u64> {
        let status = fs_err::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    };
    tree(root).into_iter().filter_map(of).sum()
}

/// User and system time of `/proc/PID/stat`, its own and of children it waited for: fields 14 to 17.
fn ticks(pid: u32) -> Option<u64> {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may hold anything.
    let fields = stat.rsplit_once(") ")?.1.split(' ');
    fields.skip(11).take(4).map(|it| it.parse::<u64>().ok()).sum()
}

/// One that was free a moment ago.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn nginx_config(port: u16, dir: &Path, upstream: &str) -> String {
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let upstream = upstream.trim_start_matches("http://");
    let dir = dir.display();
    format!(
        "daemon off; worker_processes auto; pid {dir}/pid; error_log {dir}/log warn; {user}
events {{ worker_connections 4096; }}
http {{
  access_log off; default_type application/octet-stream;
  sendfile on; tcp_nopush on; keepalive_requests 1000000;
  client_body_temp_path {dir}/tmp; proxy_temp_path {dir}/tmp; fastcgi_temp_path {dir}/tmp;
  uwsgi_temp_path {dir}/tmp; scgi_temp_path {dir}/tmp;
  upstream up {{ server {upstream}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    root {dir}/store;
    location / {{ try_files $uri @up; }}
    location @up {{
      proxy_http_version 1.1; proxy_set_header Connection \"\";
      proxy_pass http://up$request_uri;
      proxy_store {dir}/store$uri; proxy_store_access user:rw group:r all:r;
    }}
  }}
}}
"
    )
}
