//! An [`SshServer`] as git sees it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use stoa_testkit::{GitRemotes, PATIENCE, SshServer, require_sshd};

use crate::client::{Git, remotes};

fn world() -> (GitRemotes, SshServer, Git) {
    let remotes = remotes();
    let ssh = SshServer::start(&remotes);
    (remotes, ssh, Git::with(Vec::new()))
}

impl Git {
    fn ssh(&mut self, command: String) {
        self.env = vec![("GIT_SSH_COMMAND".to_owned(), command)];
    }
}

#[test]
fn the_right_key_and_the_right_host_key_open() {
    if !require_sshd() {
        return;
    }
    let (_remotes, ssh, mut git) = world();
    assert_eq!(ssh.connections(), 0);
    let (key, known) = (ssh.key_file(), ssh.known_hosts_file());
    git.ssh(ssh.command(&key, &known));
    git.ok(&["clone", "-q", &ssh.url("lib"), "a"]);
    assert_eq!(git.read("a/lib.go"), "package lib\n");
    git.ok(&["clone", "-q", &ssh.url("bare.git"), "b"]);
    assert_eq!(ssh.connections(), 2);

    git.fails(&["ls-remote", &ssh.url("none")], "does not appear to be a git repository");
    let ls = ["ls-remote", &ssh.url("lib")];
    git.ssh(ssh.command(&ssh.other_key_file(), &known));
    // More often than an sshd that keeps count of the failures would allow.
    for _ in 0..5 {
        git.fails(&ls, "Permission denied (publickey)");
    }
    git.ssh(ssh.command(&key, Path::new("/dev/null")));
    git.fails(&ls, "Host key verification failed");
    git.ssh(ssh.command(&key, &ssh.other_known_hosts_file()));
    git.fails(&ls, "REMOTE HOST IDENTIFICATION HAS CHANGED");
    assert_eq!(ssh.connections(), 10);

    git.ssh(format!("ssh -F '{}'", ssh.config_file().display()));
    git.ok(&["ls-remote", &ssh.host_url("git.corp.example.com", "lib")]);
    assert_eq!(ssh.connections(), 11);
}

/// Also a client that is in the middle of something is left.
#[test]
fn no_process_outlives_it() {
    if !require_sshd() {
        return;
    }
    let (_remotes, ssh, git) = world();
    let marker = git.home.path().join("there");
    let mut client = Command::new("ssh");
    client.arg("-F").arg(ssh.config_file()).arg("any.example.com");
    let mut client = client
        .arg(format!(
            "echo $$ > '{0}.new' && mv '{0}.new' '{0}' && exec sleep 1000",
            marker.display()
        ))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    wait_until(|| marker.exists());
    let process = fs_err::read_to_string(marker).unwrap();
    // That of a process which has ended and waits for an init is empty.
    let words = Path::new("/proc").join(process.trim()).join("cmdline");
    let lives = || fs_err::read(&words).is_ok_and(|words| !words.is_empty());
    assert!(lives());
    drop(ssh);
    wait_until(|| !lives());
    wait_until(|| client.try_wait().unwrap().is_some());
}

#[track_caller]
fn wait_until(mut it: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !it() {
        assert!(Instant::now() < until, "waited {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
