//! The runner, with scripts in the place of git.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

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
const HANGS: &str = "case $* in *version) exit;; esac; sleep 1000 & echo $$ $! > pids; wait";

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
        "case $1 in says) for i in $(seq 24); do sleep 0.05; echo $i% >&2; done;;\n\
         grows) for i in $(seq 24); do sleep 0.05; echo $i >> grown; done;; esac\necho done",
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
async fn what_it_leaves_behind_is_neither_waited_for_nor_left() {
    let check = async |end: &str, succeeds: bool| {
        let place = Place::new(&format!("sleep 30 & echo $! > pids; echo done; {end}"));
        let git = place.git(&[]);
        let began = Instant::now();
        let run = Run::local(place.root.path(), &place.settings);
        let (ended, output) = git.output(run).await.unwrap();
        assert_eq!((ended.is_success(), &output[..]), (succeeds, &b"done\n"[..]), "{end}");
        assert!(began.elapsed() < Duration::from_secs(10), "{end}: {:?}", began.elapsed());
        place.are_gone("pids").await;
    };
    // The last holds the standard error alone.
    tokio::join!(
        check("exit 0", true),
        check("exit 128", false),
        check("exec sh -c 'kill $(cat pids); sleep 30 >&- & echo $! > pids; exit 1'", false),
    );
}

#[tokio::test]
async fn whoever_leaves_after_the_end_leaves_no_process_either() {
    let place = Place::new("sleep 30 & echo $! > pids");
    let git = place.git(&[]);
    let run = Run::local(place.root.path(), &place.settings);
    // It has ended long before, but for its pipes.
    let left = tokio::time::timeout(Duration::from_secs(1), git.output(run)).await;
    assert!(left.is_err(), "{left:?}");
    place.are_gone("pids").await;
}

/// What the user's configuration means to stay, stays.
#[tokio::test]
async fn a_daemon_for_credentials_stays() {
    let real = std::process::Command::new("git").arg("--exec-path").output();
    let real = real.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    let Some(real) =
        real.filter(|path| Path::new(path.trim()).join("git-credential-cache").exists())
    else {
        return;
    };
    let cache = format!(
        "HOME=$PWD XDG_CACHE_HOME=$PWD/cache PATH='{}':/usr/bin:/bin exec git-credential-cache",
        real.trim()
    );
    let place = Place::new(&format!(
        "printf 'protocol=https\\nhost=h.test\\nusername=u\\npassword=p\\n\\n' >> asked\n\
         for word; do :; done; {cache} $word < asked"
    ));
    let git = place.git(&[]);
    let cache = async |action: &str| {
        let run = Run::local(place.root.path(), &place.settings).args([action]);
        let began = Instant::now();
        let (ended, output) = git.output(run).await.unwrap();
        assert!(began.elapsed() < running::GRACE, "{action} was waited for: {ended:?}");
        String::from_utf8(output).unwrap()
    };
    cache("store").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let known = cache("get").await;
    cache("exit").await;
    assert!(known.contains("password=p"), "{known:?}");
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
        "GIT_ALLOC_LIMIT=1073741824",
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
    for line in [
        "GIT_CONFIG_GLOBAL=/dev/null",
        "GIT_ALLOC_LIMIT=1073741824",
        "GIT_DEFAULT_HASH=sha1",
        "GIT_DEFAULT_REF_FORMAT=files",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} in {text}");
    }

    // Whoever sets another bound means it, for all commands.
    let git = place.git(&[("GIT_ALLOC_LIMIT", "5g")]);
    for run in
        [Run::remote(None, &remote, &place.settings), Run::local(&directory, &place.settings)]
    {
        let text = String::from_utf8(git.output(run).await.unwrap().1).unwrap();
        assert!(text.contains("GIT_ALLOC_LIMIT=5g\n"), "{text}");
    }
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

#[tokio::test]
async fn what_costs_much_leaves_places_to_the_rest() {
    let place = Place::new("for word; do :; done; case $word in archive) sleep 1000;; esac");
    let settings = GitSettings {
        max_local_commands: 8,
        queue_timeout: Duration::from_millis(50),
        ..place.settings.clone()
    };
    let place = Place { settings, ..place };
    let git = place.git(&[]);
    let archive =
        || git.output(Run::local(place.root.path(), &place.settings).costly().args(["archive"]));
    let (mut first, mut second) = (Box::pin(archive()), Box::pin(archive()));
    for running in [&mut first, &mut second] {
        assert!(tokio::time::timeout(Duration::from_millis(10), running).await.is_err());
    }
    let fault = archive().await.unwrap_err();
    assert!(fault.detail.contains("no place"), "{}", fault.detail);
    let other = Run::local(place.root.path(), &place.settings).args(["cat-file"]);
    assert!(git.output(other).await.unwrap().0.is_success());
}

/// A few bytes that say they are five gigabytes, which git would make room for.
#[tokio::test]
async fn memory_has_a_bound() {
    if !stoa_testkit::require_git() {
        return;
    }
    // One tree, whose size goes on in seven bits each, and the checksum of all that.
    let mut pack = b"PACK\0\0\0\x02\0\0\0\x01".to_vec();
    let size = 5_u64 << 30;
    pack.push(0x80 | 2 << 4 | (size & 15) as u8);
    let mut rest = size >> 4;
    while rest > 0 {
        pack.push((rest & 127) as u8 | if rest > 127 { 0x80 } else { 0 });
        rest >>= 7;
    }
    pack.extend([0x78, 0x9c, 0x03, 0, 0, 0, 0, 1]);
    let root = tempfile::tempdir().unwrap();
    let settings = GitSettings::default();
    let path = [("PATH".into(), std::env::var_os("PATH").unwrap())];
    let git = Git::new(root.path().to_owned(), &settings, path);
    let repository = root.path().join("r");
    let init = Run::local(&repository, &settings).args(["init", "-q", "--bare"]);
    assert!(git.output(init).await.unwrap().0.is_success());
    let run = Run::local(&repository, &settings).args(["index-pack", "--stdin"]).input(pack);
    let (ended, _) = git.output(run).await.unwrap();
    let fault = crate::direct::words::fault(&ended.words);
    assert_eq!(fault.class, ErrorClass::Corrupt, "{ended:?}");
}
