use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

use crate::modules::parse_txtar;

/// The real `go` command in a project of its own, with no setting of the machine and nothing in its
/// caches. What it writes is removed with it, but for the build cache, which all share.
///
/// Every wait is bounded: `run` panics when the command takes longer than a few minutes.
#[derive(Debug)]
pub struct Go {
    root: TempDir,
    env: Vec<(String, String)>,
}

/// What a run of the `go` command left.
#[derive(Debug, Clone)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

const PATIENCE: Duration = Duration::from_mins(3);

/// Whether the `go` command is there. If not, says that the test is skipped; with `STOA_REQUIRE_GO=1`
/// it panics instead.
#[track_caller]
#[expect(clippy::print_stderr, reason = "a skipped test must say so")]
pub fn require_go() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = *FOUND.get_or_init(|| {
        let mut go = std::process::Command::new("go");
        go.arg("version").stdout(Stdio::null()).stderr(Stdio::null());
        go.status().is_ok_and(|status| status.success())
    });
    if !found {
        let required = std::env::var_os("STOA_REQUIRE_GO").is_some_and(|value| value == "1");
        assert!(!required, "STOA_REQUIRE_GO=1, but there is no go command");
        eprintln!("skipped: there is no go command");
    }
    found
}

impl Go {
    /// With GOPROXY=off and GOSUMDB=off until they are set, no version control, and no toolchain but
    /// the one that is installed.
    #[expect(clippy::new_without_default, reason = "it makes directories")]
    pub fn new() -> Go {
        let root = tempfile::Builder::new()
            .prefix("stoa-go-")
            .tempdir()
            .expect("a test can make a temporary directory");
        let path = |name: &str| {
            let path = root.path().join(name);
            fs_err::create_dir_all(&path).expect("a new directory can be written");
            path.to_string_lossy().into_owned()
        };
        // Else a child of the command goes on writing to HOME after the command has ended.
        let telemetry = format!("{}/mode", path("home/.config/go/telemetry"));
        fs_err::write(telemetry, "off").expect("a new directory can be written");
        path("project");
        let build_cache = build_cache().to_string_lossy().into_owned();
        let env = [
            ("HOME", path("home").as_str()),
            ("TMPDIR", &path("tmp")),
            ("GOPATH", &path("gopath")),
            ("GOMODCACHE", &path("modcache")),
            ("GOCACHE", &build_cache),
            ("CGO_ENABLED", "0"),
            ("GIT_ALLOW_PROTOCOL", "none"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GOAUTH", "off"),
            ("GOENV", "off"),
            ("GOFLAGS", "-modcacherw"),
            ("GOINSECURE", ""),
            ("GONOPROXY", ""),
            ("GONOSUMDB", ""),
            ("GOPRIVATE", ""),
            ("GOPROXY", "off"),
            ("GOSUMDB", "off"),
            ("GOTOOLCHAIN", "local"),
            ("GOVCS", "*:off"),
            ("GOWORK", "off"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Go { env: env.to_vec(), root }
    }

    /// Sets one variable of its environment.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Go {
        self.env.retain(|(other, _)| other != name);
        self.env.push((name.to_owned(), value.into()));
        self
    }

    pub fn goproxy(self, value: impl Into<String>) -> Go {
        self.env("GOPROXY", value)
    }

    pub fn gosumdb(self, value: impl Into<String>) -> Go {
        self.env("GOSUMDB", value)
    }

    pub fn gonosumdb(self, value: impl Into<String>) -> Go {
        self.env("GONOSUMDB", value)
    }

    /// Writes the files of a txtar into the project.
    #[track_caller]
    pub fn project(self, text: &str) -> Go {
        for (name, content) in parse_txtar(text) {
            self.write(name, content);
        }
        self
    }

    /// Writes a file of the project.
    #[track_caller]
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.project_dir().join(name);
        let parent = path.parent().expect("a file of the project is in it");
        fs_err::create_dir_all(parent).expect("the project can be written");
        fs_err::write(&path, content).expect("the project can be written");
    }

    /// Reads a file of the project.
    #[track_caller]
    pub fn read(&self, name: &str) -> String {
        fs_err::read_to_string(self.project_dir().join(name)).expect("the file is in the project")
    }

    /// What the command is run with, for those who run it in another way.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let path = std::env::var("PATH").unwrap_or_default();
        self.env.iter().cloned().chain([("PATH".to_owned(), path)]).collect()
    }

    pub fn project_dir(&self) -> PathBuf {
        self.root.path().join("project")
    }

    pub fn gopath(&self) -> PathBuf {
        self.root.path().join("gopath")
    }

    pub fn modcache(&self) -> PathBuf {
        self.root.path().join("modcache")
    }

    /// Empties GOMODCACHE.
    pub fn clear_modcache(&self) {
        empty(&self.modcache());
    }

    /// Empties GOPATH, where the tree heads of checksum databases are kept.
    pub fn clear_gopath(&self) {
        empty(&self.gopath());
    }

    /// Runs the command, whatever comes of it.
    pub async fn run<A: AsRef<str>>(&self, args: impl AsRef<[A]>) -> Output {
        let args: Vec<_> = args.as_ref().iter().map(AsRef::as_ref).collect();
        let mut command = Command::new("go");
        command
            .args(&args)
            .current_dir(self.project_dir())
            .env_clear()
            .envs(self.environment())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output())
            .await
            .unwrap_or_else(|_| panic!("go {} took longer than {PATIENCE:?}", args.join(" ")))
            .unwrap_or_else(|error| panic!("cannot run go {}: {error}", args.join(" ")));
        Output {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs the command, which must succeed, and answers with its standard output.
    pub async fn ok<A: AsRef<str>>(&self, args: impl AsRef<[A]>) -> String {
        let output = self.run(args.as_ref()).await;
        assert!(output.status.success(), "go {} {output}", joined(args.as_ref()));
        output.stdout
    }

    /// Runs the command, which must fail, and answers with its standard error.
    pub async fn fails<A: AsRef<str>>(&self, args: impl AsRef<[A]>) -> String {
        let output = self.run(args.as_ref()).await;
        assert!(!output.status.success(), "go {} {output}", joined(args.as_ref()));
        output.stderr
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ended with {}\n{}{}", self.status, self.stdout, self.stderr)
    }
}

fn joined<A: AsRef<str>>(args: &[A]) -> String {
    args.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ")
}

/// One for all tests, beside their binaries, so that the standard library is compiled once and
/// `cargo clean` removes it.
fn build_cache() -> PathBuf {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.parent()?.join("stoa-go-build"));
    beside().unwrap_or_else(|| std::env::temp_dir().join("stoa-go-build"))
}

fn empty(dir: &Path) {
    fs_err::remove_dir_all(dir).expect("what go wrote can be removed");
    fs_err::create_dir(dir).expect("a directory that was there can be made again");
}
