//! The program as a process: exit codes, one server to a directory, signals, and being killed.

use std::process::Command;
use std::time::{Duration, Instant};

use stoa_testkit::{Fault, Gate};

use crate::fixtures::{World, client, modules, noise, raw};
use crate::stoa::Setup;

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn wrong_settings_are_told_all_at_once() {
    let setup = Setup::new()
        .env("STOA_GOPRVATE", "typo.example.com")
        .env("STOA_UPSTREAM_TRIES", "many")
        .arg("--listen=nonsense");
    for subcommand in [&["serve"][..], &["config", "check"], &["healthcheck"]] {
        let output = setup.run(subcommand);
        assert_eq!(output.status.code(), Some(2), "{subcommand:?}");
        let text = stderr(&output);
        for words in ["STOA_GOPRVATE", "STOA_UPSTREAM_TRIES", "--listen"] {
            assert!(text.contains(words), "{words} is not in:\n{text}");
        }
    }
    assert_eq!(Setup::new().run(&["frobnicate"]).status.code(), Some(2));
    let check = Setup::new().run(&["config", "check"]);
    assert_eq!((check.status.code(), &check.stdout[..]), (Some(0), &b"ok\n"[..]));
    let show = Setup::new().run(&["config", "show"]);
    let text = String::from_utf8(show.stdout).unwrap();
    assert!(text.contains("goproxy = \"off\"") && text.contains("STOA_GOPROXY"), "{text}");
}

#[test]
fn what_keeps_it_from_starting_is_one_line() {
    let fails = |setup: &Setup, words: &[&str]| {
        let output = setup.run(&["serve"]);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let text = stderr(&output);
        let said: Vec<_> = text.lines().filter(|line| line.starts_with("stoa: ")).collect();
        assert_eq!(said.len(), 1, "{text}");
        for words in words {
            assert!(said[0].contains(words), "{words} is not in: {}", said[0]);
        }
    };
    // A second server on the directory: it says who holds it.
    let setup = Setup::new();
    let first = setup.start();
    fails(&setup, &["data", &first.pid().to_string(), &first.url]);
    // An address in use.
    let other = Setup::new().env("STOA_LISTEN", first.address());
    fails(&other, &["in use", first.address()]);
    drop(first);
    // A newer layout.
    let newer = Setup::new();
    fs_err::create_dir_all(newer.data_dir()).unwrap();
    fs_err::write(newer.data_dir().join("VERSION"), "99\n").unwrap();
    fails(&newer, &["99", "newer"]);
    // A directory that cannot be made.
    let blocked = Setup::new();
    fs_err::write(blocked.data_dir(), "a file").unwrap();
    fails(&blocked, &["data"]);
}

#[test]
fn a_healthcheck_of_nothing_fails() {
    let output = Setup::new().env("STOA_LISTEN", "127.0.0.1:1").run(&["healthcheck"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("127.0.0.1:1"), "{}", stderr(&output));
}

#[tokio::test]
async fn what_is_being_sent_is_finished_after_sigterm() {
    let world = World::new();
    let gate = Gate::new();
    let path = "ex.com/lib/@v/v1.0.0.zip";
    world.upstream.fault("*.zip", Fault::gate_after(&gate, 50));
    let mut stoa = world.setup().env("STOA_UPSTREAM_STALL_TIMEOUT", "30s").start();
    let waiting = tokio::spawn(client().get(format!("{}/{path}", stoa.url)).send());
    gate.wait_for_held(1).await;
    stoa.terminate();
    // It takes no more connections, and lets the one under way have its answer.
    let refused = async {
        while client().get(format!("{}/healthz", stoa.url)).send().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refused).await.expect("it stops listening");
    gate.open();
    let reply = waiting.await.unwrap().expect("an answer");
    assert_eq!(reply.status(), 200);
    assert!(reply.bytes().await.unwrap() == modules().zip("ex.com/lib@v1.0.0"));
    assert_eq!(stoa.wait().code(), Some(0));
}

#[tokio::test]
async fn the_drain_has_a_deadline() {
    let world = World::new();
    let gate = Gate::new();
    world.upstream.fault("*.zip", Fault::gate_after(&gate, 50));
    let setup = world.setup().env("STOA_UPSTREAM_STALL_TIMEOUT", "60s");
    let mut stoa = setup.env("STOA_SERVER_DRAIN_TIMEOUT", "300ms").start();
    let waiting =
        tokio::spawn(client().get(format!("{}/ex.com/lib/@v/v1.0.0.zip", stoa.url)).send());
    gate.wait_for_held(1).await;
    stoa.terminate();
    assert_eq!(stoa.wait().code(), Some(1));
    assert!(waiting.await.unwrap().is_err());
}

#[tokio::test]
async fn killed_in_the_middle_it_serves_nothing_torn() {
    let world = World::new();
    let path = "ex.com/lib/@v/v1.0.0.zip";
    let setup = world.setup();
    for after in [0, 50, 150] {
        let gate = Gate::new();
        world.upstream.clear_faults();
        world.upstream.fault("*.zip", Fault::gate_after(&gate, after));
        let mut stoa = setup.start();
        let waiting = tokio::spawn(client().get(format!("{}/{path}", stoa.url)).send());
        // The upstream has sent that much of the body and holds the rest.
        gate.wait_for_held(1).await;
        stoa.kill();
        assert!(waiting.await.unwrap().is_err());
        let leftovers = setup.data_dir().join("cache/tmp");
        assert_ne!(fs_err::read_dir(&leftovers).unwrap().count(), 0, "it was killed in the middle");
        let offline = setup.clone().offline().start();
        assert_eq!(fs_err::read_dir(&leftovers).unwrap().count(), 0, "leftovers are swept");
        offline.get(path).await.refused(404, "offline, not stored");
    }
    world.upstream.clear_faults();
    assert!(setup.start().get(path).await.ok() == modules().zip("ex.com/lib@v1.0.0"));
}

#[tokio::test]
async fn less_than_a_request_does_not_hold_a_connection() {
    let stoa = Setup::new().env("STOA_SERVER_HEADER_TIMEOUT", "300ms").start();
    let check = async |sent: &[u8], expected: &str| {
        let started = Instant::now();
        let answer = raw(&stoa, sent).await;
        let (sent, took) = (String::from_utf8_lossy(sent), started.elapsed());
        assert!(answer.starts_with(expected), "{sent:?}: {answer}");
        // Well below the default.
        assert!(took < Duration::from_secs(5), "{sent:?}: {took:?}");
    };
    check(b"", "").await;
    check(b"G", "").await;
    check(b"GET /healthz HTTP/1.1\r\nhost: x\r\n", "").await;
    check(b"PRI * HTTP/2.0\r\n", "").await;
    check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "").await;
    // A whole one, and then nothing more.
    check(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 200 OK").await;
    check(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /", "HTTP/1.1 200 OK").await;
    // A head that never ends is refused and not buffered.
    let mut head = b"GET /healthz HTTP/1.1\r\n".to_vec();
    for i in 0..20_000 {
        head.extend(format!("x-{i}: y\r\n").bytes());
    }
    let answer = raw(&stoa, &head).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(stoa.get("healthz").await.status, 200);
}

#[tokio::test]
async fn a_slow_reader_that_reads_is_not_cut_off() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let large = stoa_testkit::Modules::default().with(
        "ex.com/large@v1.0.0",
        [("go.mod", b"module ex.com/large\n".to_vec()), ("noise", noise(6 << 20))],
    );
    let upstream = stoa_testkit::FakeUpstream::start(large);
    let setup = Setup::new().goproxy(upstream.url()).env("STOA_SERVER_WRITE_TIMEOUT", "2s");
    let stoa = setup.start();
    let path = "ex.com/large/@v/v1.0.0.zip";
    let length = stoa.head(path).await.header("content-length").parse::<usize>().unwrap();
    let mut stream = tokio::net::TcpStream::connect(stoa.address()).await.unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    // Some 300 KB a second for twice the timeout, then the rest.
    let mut buffer = vec![0; 30 << 10];
    let mut read = 0;
    for _ in 0..40 {
        stream.read_exact(&mut buffer).await.expect("it is not cut off");
        read += buffer.len();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut rest = Vec::new();
    read += stream.read_to_end(&mut rest).await.expect("it is not cut off");
    assert!(read > length, "{read} of {length} and the head");
}

#[tokio::test]
async fn the_index_follows_from_the_store() {
    let world = World::new();
    let setup = world.setup();
    let stoa = setup.start();
    stoa.get("ex.com/lib/@v/v1.0.0.zip").await.ok();
    stoa.get("ex.com/old/@v/v2.0.0+incompatible.mod").await.ok();
    stoa.stop();
    for name in ["stoa.db", "stoa.db-wal", "stoa.db-shm"] {
        let _ = fs_err::remove_file(setup.data_dir().join(name));
    }
    let stoa = setup.offline().start();
    let counted = async {
        loop {
            let home = stoa.get("").await;
            if home.text().contains("Stored: 2 versions of 2 modules") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), counted).await.expect("the index is rebuilt");
}

#[test]
fn the_command_socket_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let setup = Setup::new();
    let stoa = setup.start();
    let socket = setup.data_dir().join("stoa.sock");
    let mode = fs_err::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (status, _) = stoa.stop();
    assert_eq!(status.code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn help_and_version_say_what_it_is() {
    let run = |arg: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_stoa")).arg(arg).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run("--version"), concat!("stoa ", env!("CARGO_PKG_VERSION"), "\n"));
    let help = run("--help");
    assert!(help.contains("serve") && help.contains("GOPROXY"), "{help}");
}

/// A limit of open files is raised as far as it goes, and connections are taken only as far as it reaches.
#[cfg(target_os = "linux")]
#[test]
fn open_files_are_made_to_suffice() {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    /// What it logs until it listens, and its limit of open files then.
    fn start(limits: &str) -> (String, String) {
        let setup = Setup::new();
        let mut child = setup.after(limits).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = String::new();
        for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
            log.push_str(&line);
            log.push('\n');
            if line.contains("stoa is listening") {
                break;
            }
        }
        let limits = fs_err::read_to_string(format!("/proc/{}/limits", child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        let limits = limits.unwrap();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert!(log.contains("stoa is listening"), "{log}");
        (log, files.split_whitespace().nth(3).unwrap().to_owned())
    }

    let warning = "server.max-connections is more than the limit of open files allows";
    let (log, files) = start("ulimit -Sn 300; ulimit -Hn 600");
    assert_eq!(files, "600");
    assert_eq!(log.matches(warning).count(), 1, "{log}");
    assert!(log.contains("max_connections=172"), "{log}");
    let (log, _) = start("export STOA_SERVER_MAX_CONNECTIONS=100; ulimit -Sn 300");
    assert!(!log.contains(warning), "{log}");
}
