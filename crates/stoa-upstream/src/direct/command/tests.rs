//! The runner, with scripts in the place of git.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::*;

struct Place {
    root: TempDir,
    settings: GitSettings,
}

impl Place {
    /// With a shell script for the `git` command. What it is run with begins as `git` would have it.
    fn new(script: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("git");
        fs_err::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs_err::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let settings = GitSettings {
            stall_timeout: Duration::from_millis(400),
            fetch_timeout: Duration::from_secs(10),
            local_timeout: Duration::from_secs(10),
            ..GitSettings::default()
        };
        Self { root, settings }
    }

    fn git(&self, more: &[(&str, &str)]) -> Git {
        let path = format!("{}:/usr/bin:/bin", self.root.path().display());
        let mut environment: Vec<(OsString, OsString)> = vec![("PATH".into(), path.into())];
        environment.extend(more.iter().map(|(name, value)| (name.into(), value.into())));
        Git::new(self.root.path().to_owned(), &self.settings, environment)
    }

    fn read(&self, name: &str) -> String {
        fs_err::read_to_string(self.root.path().join(name)).unwrap()
    }

    /// Whether the processes whose numbers are in a file are gone.
    async fn are_gone(&self, name: &str) {
        let numbers = self.read(name);
        let is_alive = |number: &str| {
            let status = fs_err::read_to_string(format!("/proc/{number}/stat"));
            // One that nobody has waited for is dead, too.
            status.is_ok_and(|status| !status.contains(") Z "))
        };
        for _ in 0..500 {
            if !numbers.split_whitespace().any(is_alive) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("still there: {numbers}");
    }
}

/// A command that waits with a child of its own, and says who they are.
const HANGS: &str = "sleep 1000 & echo $$ $! > pids; wait";

fn env() -> RemoteEnv {
    RemoteEnv::default()
}

#[tokio::test]
async fn what_makes_no_progress_is_killed_whole() {
    let place = Place::new(HANGS);
    let git = place.git(&[]);
    let env = env();
    let run = Run::remote(None, &env, &place.settings).args(["fetch"]);
    let fault = git.output(run).await.unwrap_err();
    assert_eq!(
        (fault.class, fault.detail.as_str()),
        (ErrorClass::Timeout, "git: no progress for 400 ms")
    );
    place.are_gone("pids").await;
}

#[tokio::test]
async fn whoever_leaves_leaves_no_process() {
    let place = Place::new(HANGS);
    let git = place.git(&[]);
    let run = Run::local(place.root.path(), &place.settings).args(["log"]);
    {
        let running = git.output(run);
        tokio::pin!(running);
        let pids = place.root.path().join("pids");
        while fs_err::read_to_string(&pids).map_or(0, |text| text.len()) == 0 {
            let wait = tokio::time::timeout(Duration::from_millis(10), &mut running).await;
            assert!(wait.is_err(), "it hangs");
        }
    }
    place.are_gone("pids").await;
}

#[tokio::test]
async fn progress_is_what_it_says_or_what_grows() {
    let place = Place::new(
        "case $1 in says) for i in 1 2 3 4 5 6; do sleep 0.2; echo $i% >&2; done;;\n\
         grows) for i in 1 2 3 4 5 6; do sleep 0.2; echo $i >> grown; done;; esac\necho done",
    );
    // The options come first.
    let place = Place { root: place.root, settings: place.settings };
    let script = place.read("git").replace("case $1", "for word; do :; done; case $word");
    fs_err::write(place.root.path().join("git"), script).unwrap();
    let git = place.git(&[]);
    let env = env();
    let grown = place.root.path().join("grown");
    let size = move || fs_err::metadata(&grown).map_or(0, |metadata| metadata.len());
    let growth = |most| Growth { size: Box::new(size.clone()), most, what: "the repository" };

    let run = Run::remote(None, &env, &place.settings).args(["says"]);
    let (ended, output) = git.output(run).await.unwrap();
    assert!(ended.is_success() && output == b"done\n", "{ended:?}");
    let run = Run::remote(None, &env, &place.settings).args(["grows"]).growing(growth(1000));
    assert!(git.output(run).await.unwrap().0.is_success());
    let run = Run::remote(None, &env, &place.settings).args(["grows"]).growing(growth(14));
    let fault = git.output(run).await.unwrap_err();
    assert_eq!(fault.detail, "git: the repository has more than 14 bytes");
    let whole = Duration::from_millis(700);
    let run = Run::remote(None, &env, &place.settings).args(["says"]).within(whole);
    let fault = git.output(run).await.unwrap_err();
    assert_eq!(fault.detail, "git: timeout after 700 ms");
}

#[tokio::test]
async fn the_reader_may_stop_it() {
    let place = Place::new("echo $$ > pids; exec yes");
    let git = place.git(&[]);
    let mut seen = 0;
    let mut enough = |bytes: &[u8]| {
        seen += bytes.len();
        if seen > 1 << 20 { Wanted::Enough } else { Wanted::More }
    };
    let run = Run::local(place.root.path(), &place.settings);
    assert!(git.run(run, &mut enough).await.unwrap().is_success());
    place.are_gone("pids").await;
    let mut refuse =
        |_: &[u8]| Wanted::Refused(Fault::new(ErrorClass::Corrupt, Stage::Git, "too much"));
    let run = Run::local(place.root.path(), &place.settings);
    assert_eq!(git.run(run, &mut refuse).await.unwrap_err().detail, "too much");
    place.are_gone("pids").await;
}

#[tokio::test]
async fn nobody_waits_for_what_it_leaves_behind() {
    let place = Place::new("sleep 30 & echo $! > pids; echo done");
    let git = place.git(&[]);
    let began = Instant::now();
    let run = Run::local(place.root.path(), &place.settings);
    let (ended, output) = git.output(run).await.unwrap();
    assert!(ended.is_success() && output == b"done\n");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let left = place.read("pids").trim().parse().unwrap();
    rustix::process::kill_process(Pid::from_raw(left).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn environments() {
    let place = Place::new("env; echo args: \"$@\"; cat");
    let git = place.git(&[
        ("HOME", "/home/me"),
        ("SSH_AUTH_SOCK", "/run/agent"),
        ("STOA_GIT_TOKEN", "s3cret"),
        ("GIT_DIR", "/elsewhere"),
        ("GIT_TRACE_CURL", "1"),
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_SSH_COMMAND", "ssh -F mine"),
    ]);
    let mut remote = env();
    remote.envs.push(("GIT_ALLOW_PROTOCOL".into(), "file".into()));
    remote.options.push("http.followRedirects=initial".to_owned());
    let run = Run::remote(None, &remote, &place.settings).args(["fetch", "--end-of-options", "-x"]);
    let (_, output) = git.output(run).await.unwrap();
    let text = String::from_utf8(output).unwrap();
    let has = |line: &str| text.lines().any(|one| one == line);
    for line in [
        "HOME=/home/me",
        "SSH_AUTH_SOCK=/run/agent",
        "GIT_CONFIG_COUNT=1",
        "GIT_SSH_COMMAND=ssh -F mine",
        "GIT_ALLOW_PROTOCOL=file",
        "GIT_TERMINAL_PROMPT=0",
        "GIT_DIR=/nonexistent",
        "LC_ALL=C",
    ] {
        assert!(has(line), "{line} in {text}");
    }
    assert!(!text.contains("s3cret") && !text.contains("GIT_TRACE"), "{text}");
    assert!(text.contains("-c http.followRedirects=initial fetch --end-of-options -x\n"), "{text}");

    let directory = place.root.path().join("repository");
    let run = Run::local(&directory, &place.settings).args(["log"]).input(b"in\n".to_vec());
    let (_, output) = git.output(run).await.unwrap();
    let text = String::from_utf8(output).unwrap();
    assert!(text.ends_with(" log\nin\n"), "{text}");
    for absent in ["/home/me", "GIT_CONFIG_COUNT", "SSH", "s3cret"] {
        assert!(!text.contains(absent), "{absent} in {text}");
    }
    assert!(text.contains(&format!("GIT_DIR={}\n", directory.display())), "{text}");
    assert!(text.contains("GIT_CONFIG_GLOBAL=/dev/null\n"), "{text}");
}

#[tokio::test]
async fn no_place_and_no_git() {
    let place = Place::new(HANGS);
    let settings = GitSettings {
        max_local_commands: 1,
        queue_timeout: Duration::from_millis(50),
        ..place.settings.clone()
    };
    let place = Place { settings, ..place };
    let git = place.git(&[]);
    let first = git.output(Run::local(place.root.path(), &place.settings));
    tokio::pin!(first);
    // It takes its place at once.
    assert!(tokio::time::timeout(Duration::from_millis(10), &mut first).await.is_err());
    let fault = git.output(Run::local(place.root.path(), &place.settings)).await.unwrap_err();
    assert_eq!(fault.class, ErrorClass::Unavailable);
    assert!(fault.detail.contains("no place"), "{}", fault.detail);

    fs_err::remove_file(place.root.path().join("git")).unwrap();
    let path = place.root.path().as_os_str().to_owned();
    let git = Git::new(place.root.path().to_owned(), &place.settings, [("PATH".into(), path)]);
    let fault = git.output(Run::local(place.root.path(), &place.settings)).await.unwrap_err();
    assert_eq!(fault.detail, "git: there is no git command on the server");
}
