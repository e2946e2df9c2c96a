use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::upstream::bind;
use crate::{GitRemotes, PATIENCE};

/// Until the log is read again.
const AGAIN: Duration = Duration::from_millis(5);
/// The name under which [`SshServer::config_file`] looks for the host key, whatever the host is called.
const ALIAS: &str = "stoa-testkit";

/// A real sshd on 127.0.0.1, for the repositories of a [`GitRemotes`]. It lets in the user who runs the tests, with one
/// key, into whatever that user may read; the user must have a login shell.
#[derive(Debug)]
pub struct SshServer {
    directory: TempDir,
    user: String,
    remotes: PathBuf,
    port: u16,
    sshd: Child,
    /// Never listens; it keeps the port from everybody else.
    _port: TcpSocket,
}

/// Whether there are sshd, ssh, ssh-keygen and git. If not, says that the test is skipped; with `STOA_REQUIRE_SSHD=1` it
/// panics instead.
#[track_caller]
#[expect(clippy::print_stderr, reason = "a skipped test must say so")]
pub fn require_sshd() -> bool {
    if !crate::require_git() {
        return false;
    }
    let found = sshd().is_some() && ["ssh", "ssh-keygen"].iter().all(|it| in_path(it).is_some());
    if !found {
        let required = std::env::var_os("STOA_REQUIRE_SSHD").is_some_and(|value| value == "1");
        assert!(!required, "STOA_REQUIRE_SSHD=1, but there is no sshd, ssh or ssh-keygen");
        eprintln!("skipped: there is no sshd, ssh or ssh-keygen");
    }
    found
}

/// It must be called by its whole path.
fn sshd() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let usual = PathBuf::from("/usr/sbin/sshd");
        if usual.is_file() { Some(usual) } else { in_path("sshd") }
    };
    FOUND.get_or_init(find).as_deref()
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|it| it.is_file())
}

impl SshServer {
    /// With keys of its own. It can be reached when this returns.
    #[track_caller]
    pub fn start(remotes: &GitRemotes) -> SshServer {
        let sshd = sshd().expect("require_sshd() found one");
        let directory = tempfile::Builder::new().prefix("stoa-ssh-").tempdir();
        let directory = directory.expect("a test can make a temporary directory");
        for key in ["host", "other_host", "key", "other_key"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", key, "-f"]);
            run(keygen.arg(directory.path().join(key)));
        }
        let user = run(Command::new("id").arg("-un")).trim().to_owned();
        if rustix::process::geteuid().is_root() {
            // Where the sshd of root locks itself in. Where it cannot be made, sshd says so itself.
            _ = fs_err::create_dir_all("/run/sshd");
        }
        let held = bind((Ipv4Addr::LOCALHOST, 0).into()).expect("some port is free");
        let port = held.local_addr().expect("a bound socket has an address").port();

        let file = |name: &str| directory.path().join(name).display().to_string();
        let mut config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey \"{}\"\nAuthorizedKeysFile \"{}\"\n\
             AuthenticationMethods publickey\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nUsePAM no\n\
             StrictModes no\nPidFile none\nUseDNS no\nLogLevel VERBOSE\nMaxStartups 1000\n\
             PrintMotd no\nAcceptEnv GIT_PROTOCOL\n\
             SetEnv \"PATH={}\" \"GIT_CONFIG_GLOBAL={}\" GIT_CONFIG_NOSYSTEM=1\n",
            file("host"),
            file("key.pub"),
            std::env::var("PATH").unwrap_or_default(),
            remotes.config().display(),
        );
        // Newer ones lock out an address that shows wrong keys; older ones do not know the word.
        for line in ["PerSourcePenalties no\n", ""] {
            fs_err::write(file("config"), format!("{config}{line}")).expect("a file");
            let mut check = Command::new(sshd);
            check.args(["-t", "-f", &file("config")]).stdin(Stdio::null()).stderr(Stdio::null());
            if check.status().is_ok_and(|status| status.success()) {
                config += line;
                break;
            }
        }
        fs_err::write(file("config"), &config).expect("a file");
        for (to, key) in [("known_hosts", "host"), ("other_known_hosts", "other_host")] {
            let key = fs_err::read_to_string(file(&format!("{key}.pub"))).expect("a key");
            let known = format!("[127.0.0.1]:{port},{ALIAS} {key}");
            fs_err::write(file(to), known).expect("a file");
        }
        let client = format!(
            "HostName 127.0.0.1\nPort {port}\nUser {user}\nHostKeyAlias {ALIAS}\n\
             IdentityFile \"{}\"\nIdentitiesOnly yes\nIdentityAgent none\n\
             UserKnownHostsFile \"{}\"\nGlobalKnownHostsFile none\nStrictHostKeyChecking yes\n\
             BatchMode yes\n",
            file("key"),
            file("known_hosts")
        );
        fs_err::write(file("client"), client).expect("a file");

        let log = fs_err::File::create(file("log")).expect("a file");
        let child = Command::new(sshd)
            .args(["-D", "-e", "-f", &file("config")])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.into_file())
            .spawn()
            .expect("sshd can be run");
        let remotes = remotes.path("");
        let mut server = SshServer { directory, user, remotes, port, sshd: child, _port: held };
        server.wait_until_it_listens();
        server
    }

    #[track_caller]
    fn wait_until_it_listens(&mut self) {
        let until = Instant::now() + PATIENCE;
        while !self.log().contains("Server listening on 127.0.0.1") {
            let ended = self.sshd.try_wait().expect("a child can be looked after");
            assert!(ended.is_none() && Instant::now() < until, "sshd: {ended:?}\n{}", self.log());
            std::thread::sleep(AGAIN);
        }
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Who may log in.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// `ssh://USER@127.0.0.1:PORT/PATH` of a repository.
    pub fn url(&self, name: &str) -> String {
        format!("ssh://{}@127.0.0.1:{}{}", self.user, self.port, self.path(name))
    }

    /// `ssh://USER@HOST/PATH` of a repository, at a host that ssh finds here with the [`config_file`](Self::config_file).
    pub fn host_url(&self, host: &str, name: &str) -> String {
        format!("ssh://{}@{host}{}", self.user, self.path(name))
    }

    fn path(&self, name: &str) -> String {
        self.remotes.join(name).display().to_string()
    }

    /// The key that it accepts.
    pub fn key_file(&self) -> PathBuf {
        self.directory.path().join("key")
    }

    /// A key that it does not accept.
    pub fn other_key_file(&self) -> PathBuf {
        self.directory.path().join("other_key")
    }

    /// Its host key, as `known_hosts` has it.
    pub fn known_hosts_file(&self) -> PathBuf {
        self.directory.path().join("known_hosts")
    }

    /// Another host key in its place.
    pub fn other_known_hosts_file(&self) -> PathBuf {
        self.directory.path().join("other_known_hosts")
    }

    /// For `ssh -F`: whatever the host is called, it is this server, with the right key and the right host key. Only for
    /// the user of [`user`](Self::user): another one in a URL is not let in.
    pub fn config_file(&self) -> PathBuf {
        self.directory.path().join("client")
    }

    /// For `GIT_SSH_COMMAND`: ssh with nothing of the machine's own settings, with this key and these known hosts.
    pub fn command(&self, key: &Path, known_hosts: &Path) -> String {
        format!(
            "ssh -F none -i '{}' -oIdentitiesOnly=yes -oIdentityAgent=none -oBatchMode=yes \
             -oUserKnownHostsFile='{}' -oGlobalKnownHostsFile=none -oStrictHostKeyChecking=yes",
            key.display(),
            known_hosts.display()
        )
    }

    /// How many connections came until now, whatever became of them.
    pub fn connections(&self) -> usize {
        self.log().lines().filter(|line| line.starts_with("Connection from ")).count()
    }

    /// What it has said, of each connection in turn.
    pub fn log(&self) -> String {
        let log = fs_err::read(self.directory.path().join("log")).expect("it was made before sshd");
        String::from_utf8_lossy(&log).into_owned()
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        // Each connection is served by processes in sessions of their own, which would outlive it.
        let children = descendants(self.sshd.id());
        _ = self.sshd.kill();
        _ = self.sshd.wait();
        for child in children {
            _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
        }
    }
}

/// What a process has started, and what that has. Nothing where the kernel does not tell.
fn descendants(id: u32) -> Vec<rustix::process::Pid> {
    let children = fs_err::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let children = children.unwrap_or_default();
    let mut found = Vec::new();
    for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
        found.extend(rustix::process::Pid::from_raw(child));
        found.extend(descendants(child.cast_unsigned()));
    }
    found
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it can be run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
