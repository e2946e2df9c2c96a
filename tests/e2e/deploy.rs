//! What operators start: the container image, the systemd units, the compose file. Each is held against the program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fs_err as fs;

use crate::stoa::Setup;

const STOA: &str = env!("CARGO_BIN_EXE_stoa");
/// The status of `tests/container/run` when it cannot be done on this machine.
const NOT_HERE: i32 = 77;

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(in_repository(path)).unwrap()
}

/// Says that a test is skipped; with this variable set to 1 it panics instead.
fn skip(reason: &str, unless: &str) {
    let required = std::env::var_os(unless).is_some_and(|value| value == "1");
    assert!(!required, "{unless}=1, but {reason}");
    eprintln!("skipped: {reason}");
}

fn both(output: &Output) -> String {
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    format!("{stdout}{stderr}")
}

/// Performs a Dockerfile, with the program under test in place of a release build.
fn container(dockerfile: &Path, arguments: &[&str]) -> Output {
    Command::new(in_repository("tests/container/run"))
        .args(["--binary", STOA, "--dockerfile"])
        .arg(dockerfile)
        .args(arguments)
        .output()
        .expect("python3 for tests/container/run")
}

/// The image is made and started without a container engine, and the same with each fault is refused for that fault.
#[test]
fn the_image_serves_and_a_fault_in_it_is_found() {
    let dockerfile = in_repository("Dockerfile");
    let made = container(&dockerfile, &[]);
    if made.status.code() == Some(NOT_HERE) {
        return skip(both(&made).trim(), "STOA_REQUIRE_CONTAINER");
    }
    assert!(made.status.success(), "{}", both(&made));

    let text = fs::read_to_string(&dockerfile).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let check = |from: &str, to: &str, expected: &str| {
        assert_eq!(text.matches(from).count(), 1, "the Dockerfile has {from:?} once");
        let faulty = tempfile::NamedTempFile::new_in(dir.path()).unwrap();
        fs::write(faulty.path(), text.replace(from, to)).unwrap();
        // What is never healthy is given up soon; all other faults end it by themselves.
        let patience = if from.contains("healthcheck") { "--patience=2" } else { "--patience=60" };
        let output = container(faulty.path(), &[patience]);
        let said = both(&output);
        assert_eq!(output.status.code(), Some(1), "{to:?} for {from:?}:\n{said}");
        let is_said = said.contains(expected);
        assert!(is_said, "{expected:?} is not said of {to:?} for {from:?}:\n{said}");
    };
    // Each waits more than it computes.
    std::thread::scope(|scope| {
        for (from, to, expected) in [
            ("FROM debian:trixie-slim", "FROM debian:bookworm-slim", "is not Rust 1"),
            ("target/release/stoa /usr", "target/debug/stoa /usr", "there is no such file"),
            ("USER 10001:10001", "USER 0:0", "USER is root"),
            ("-m 0770", "-m 0700", "Permission denied"),
            ("CMD [\"serve\"]", "CMD [\"frobnicate\"]", "it ended with 2"),
            ("[\"stoa\", \"healthcheck\"]", "[\"curl\", \"localhost\"]", "the health check says"),
            ("COPY LICENSE ", "RUN rm /usr/bin/ssh\nCOPY LICENSE ", "ssh -G"),
            ("DRAIN_TIMEOUT=8s", "DRAIN_TIMEOUT=20s", "after which Docker kills"),
        ] {
            let check = &check;
            scope.spawn(move || check(from, to, expected));
        }
    });
}

/// The units as they are installed, but for the place of the program.
fn units(dir: &Path) -> Vec<PathBuf> {
    let mut units = Vec::new();
    for entry in fs::read_dir(in_repository("deploy/systemd")).unwrap() {
        let from = entry.unwrap().path();
        if from.extension().is_some_and(|it| it == "service" || it == "socket") {
            let text = fs::read_to_string(&from).unwrap().replace("/usr/local/bin/stoa", STOA);
            let unit = dir.join(from.file_name().unwrap());
            fs::write(&unit, text).unwrap();
            units.push(unit);
        }
    }
    units
}

#[test]
fn the_units_are_without_mistakes_and_hardened() {
    let systemd_analyze = |arguments: &[&str], units: &[PathBuf]| {
        Command::new("systemd-analyze").args(arguments).args(units).output()
    };
    if systemd_analyze(&["--version"], &[]).is_err() {
        return skip("there is no systemd-analyze", "STOA_REQUIRE_SYSTEMD");
    }
    let dir = tempfile::tempdir().unwrap();
    let units = units(dir.path());
    let check = |expected: bool, arguments: &[&str], units: &[PathBuf]| {
        let output = systemd_analyze(arguments, units).unwrap();
        assert_eq!(output.status.success(), expected, "{arguments:?}:\n{}", both(&output));
        both(&output)
    };
    let verify = ["verify", "--man=no"];
    // What systemd passes over with a warning is a mistake too.
    assert_eq!(check(true, &verify, &units), "");
    let service = dir.path().join("stoa.service");
    let services = [service.clone()];
    // Tenths: systemd's "OK" ends at 5.0, and a service that talks to the network does not come far below 1.
    check(true, &["security", "--offline=true", "--no-pager", "--threshold=15"], &services);

    let unit = fs::read_to_string(&service).unwrap();
    fs::write(&service, unit.replace("SystemCallFilter", "SystemCallsFilter")).unwrap();
    assert!(check(true, &verify, &units).contains("SystemCallsFilter"));
    check(false, &["security", "--offline=true", "--no-pager", "--threshold=15"], &services);
}

/// As the service's user, in the directory where an administrator happens to be.
#[test]
fn a_command_works_where_its_user_may_not_look() {
    if !rustix::process::geteuid().is_root() {
        return skip("not root", "STOA_REQUIRE_CONTAINER");
    }
    let place = tempfile::Builder::new().permissions(fs_mode(0o755)).tempdir().unwrap();
    let stoa = place.path().join("stoa");
    fs::copy(STOA, &stoa).unwrap();
    let private = place.path().join("private");
    fs::create_dir(&private).unwrap();
    let check = |mode: u32, expected: bool| {
        fs::set_permissions(&private, fs_mode(mode)).unwrap();
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&stoa);
        setpriv.args(["config", "check"]).current_dir(&private).env_clear().env("HOME", "/");
        let output = setpriv.output().unwrap();
        assert_eq!(output.status.success(), expected, "{mode:o}: {}", both(&output));
    };
    check(0o700, true);
    // A file that is there and cannot be read may be what is meant.
    fs::write(private.join("stoa.toml"), "").unwrap();
    fs::set_permissions(private.join("stoa.toml"), fs_mode(0o600)).unwrap();
    check(0o755, false);
}

/// By `ProcSubset=pid` a service sees nothing of `/proc` but processes.
#[tokio::test]
async fn a_hardened_service_knows_its_own_figures() {
    assert_eq!(value(&read("deploy/systemd/stoa.service"), "ProcSubset="), "pid");
    if !rustix::process::geteuid().is_root() {
        return skip("not root", "STOA_REQUIRE_CONTAINER");
    }
    let setup = Setup::new();
    let inside = setup.after("mount -t proc -o subset=pid proc /proc");
    let mut unshare = Command::new("unshare");
    unshare.arg("--mount").arg(inside.get_program()).args(inside.get_args()).env_clear();
    unshare.envs(inside.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let stoa = setup.try_start_by(unshare).unwrap_or_else(|log| panic!("{log}"));
    let hidden = fs::metadata(format!("/proc/{}/root/proc/stat", stoa.pid()));
    assert!(hidden.is_err(), "there is more in its /proc");
    let metrics = stoa.get("metrics").await;
    assert!(metrics.text().contains("\nprocess_resident_memory_bytes "), "{}", metrics.text());
}

fn fs_mode(mode: u32) -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}

/// The value after `name` in a file of lines.
#[track_caller]
fn value(text: &str, name: &str) -> String {
    let mut found = text.lines().filter_map(|line| line.trim().strip_prefix(name));
    let value = found.next().unwrap_or_else(|| panic!("no {name} in:\n{text}"));
    assert_eq!(found.next(), None, "{name} is there twice");
    value.trim().to_owned()
}

#[track_caller]
fn seconds(text: &str) -> u64 {
    text.strip_suffix('s').and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn a_stop_is_given_longer_than_the_drain() {
    let (compose, unit) = (read("docker-compose.yml"), read("deploy/systemd/stoa.service"));
    let default = value(&read("config/stoa.toml"), "#drain-timeout = ").replace('"', "");
    let drain = value(&compose, "- STOA_SERVER_DRAIN_TIMEOUT=");
    assert!(seconds(&value(&compose, "stop_grace_period:")) > seconds(&drain));
    assert!(seconds(&value(&unit, "TimeoutStopSec=")) > seconds(&default));
}

/// Whole files for some situations: each is without mistakes, and holds what it is there for.
#[test]
fn the_examples_do_what_they_say() {
    let check = |name: &str, expected: &[&str]| {
        let file = in_repository(&format!("config/examples/{name}.toml"));
        let run = |subcommand: &str| {
            let mut stoa = Command::new(STOA);
            stoa.args(["config", subcommand, "--config"]).arg(&file);
            stoa.env_clear().env("HOME", "/nonexistent").env("CORP_GOPROXY_TOKEN", "hunter2");
            let output = stoa.output().unwrap();
            assert!(output.status.success(), "{name}: {}", both(&output));
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(run("check"), "ok\n", "{name}");
        let shown = run("show");
        for line in expected {
            assert!(shown.contains(line), "{name}: no {line} in:\n{shown}");
        }
    };
    let here = "dir = \"/var/lib/stoa\"";
    let everyone = "listen = \":3000\"";
    check("office", &[everyone, here, "goprivate = \"*.corp.example.com,"]);
    check("offline-vm", &["listen = \"127.0.0.1:3000\"", here, "offline = true"]);
    // Nothing behind the gateway: there is no other way out.
    check("cut-off-network", &[here, "goproxy = \"https://goproxy.gateway.example.com/\""]);
    let chain = "goproxy = \"https://goproxy.cn/|https://proxy.golang.org/|direct\"";
    check("blocked-region", &[everyone, here, chain, "gosumdb = \"sum.golang.google.cn\""]);
}

/// A setting that is renamed would else keep a server from starting only where it is deployed.
#[test]
fn what_is_deployed_names_only_settings_that_there_are() {
    let reference = read("docs/configuration.md");
    let known: BTreeSet<_> = variables(&reference).collect();
    let mut deployed: Vec<_> = ["Dockerfile", "docker-compose.yml"].map(in_repository).into();
    for dir in ["deploy/systemd", "deploy/nginx"].map(in_repository) {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        deployed.extend(entries.map(|entry| entry.unwrap().path()));
    }
    let mut named = 0;
    for path in deployed {
        let text = fs::read_to_string(&path).unwrap();
        for variable in variables(&text) {
            assert!(known.contains(variable), "{variable} in {}: no setting", path.display());
            named += 1;
        }
    }
    assert!(named > 5, "{named}");
}

/// The words of a text that begin with `STOA_`.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split(|it: char| !it.is_ascii_uppercase() && it != '_')
        .filter(|word| word.len() > 5 && word.starts_with("STOA_"))
}
