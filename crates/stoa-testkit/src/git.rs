use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// The repositories of `fixtures/git`.
const BUNDLES: &[&str] =
    &["bad1", "bad2", "bad3", "leg", "m123", "m124", "r", "v123", "v124", "vnone", "wrongmod"];

/// Git repositories that pass for `https://github.com/ex/NAME`, through `insteadOf` in a configuration of their own.
#[derive(Debug)]
pub struct GitRemotes {
    root: TempDir,
}

/// Whether the `git` command is there. If not, says that the test is skipped; with `STOA_REQUIRE_GIT=1` it panics
/// instead.
#[track_caller]
#[expect(clippy::print_stderr, reason = "a skipped test must say so")]
pub fn require_git() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = *FOUND.get_or_init(|| {
        let mut git = Command::new("git");
        git.arg("version").stdout(Stdio::null()).stderr(Stdio::null());
        git.status().is_ok_and(|status| status.success())
    });
    if !found {
        let required = std::env::var_os("STOA_REQUIRE_GIT").is_some_and(|value| value == "1");
        assert!(!required, "STOA_REQUIRE_GIT=1, but there is no git command");
        eprintln!("skipped: there is no git command");
    }
    found
}

/// What the real go command (1.26.8, GOPROXY=direct) answers on the repositories of `fixtures/git`, line by line: a query
/// with version, hash of the zip and hash of go.mod, or with `error` and its text; and after `list` and a module
/// `latest=VERSION list=VERSIONS`, or nothing.
pub const GIT_VECTORS: &str = include_str!("../fixtures/git/vectors.tsv");

impl GitRemotes {
    /// None yet.
    #[expect(clippy::new_without_default, reason = "it makes directories")]
    #[track_caller]
    pub fn new() -> GitRemotes {
        let root = tempfile::Builder::new().prefix("stoa-git-").tempdir().expect("a directory");
        for directory in ["home", "remotes"] {
            fs_err::create_dir(root.path().join(directory)).expect("a directory");
        }
        let remotes = GitRemotes { root };
        let config = format!(
            "[url \"{}/\"]\n\tinsteadOf = https://github.com/ex/\n[safe]\n\tdirectory = *\n\
             [user]\n\tname = n\n\temail = a@b.c\n[init]\n\tdefaultBranch = main\n\
             [gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n",
            remotes.root.path().join("remotes").display()
        );
        fs_err::write(remotes.config(), config).expect("a file");
        remotes
    }

    /// Those of `fixtures/git`.
    #[track_caller]
    pub fn of_fixtures() -> GitRemotes {
        let remotes = GitRemotes::new();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/git");
        for name in BUNDLES {
            let bundle = fixtures.join(format!("{name}.bundle"));
            let bundle = bundle.to_str().expect("a name");
            let to = remotes.path(name);
            let to = to.to_str().expect("a name");
            remotes.git_in(remotes.root.path(), &["clone", "-q", "--mirror", bundle, to]);
        }
        remotes
    }

    /// An empty repository with a working tree; what is committed there is at `https://github.com/ex/NAME`.
    #[track_caller]
    pub fn init(&self, name: &str) {
        let path = self.path(name);
        fs_err::create_dir_all(&path).expect("a directory");
        self.git_in(&path, &["init", "-q"]);
    }

    /// Runs git in a repository, where it must succeed, and answers with its standard output.
    #[track_caller]
    pub fn git(&self, name: &str, args: &[&str]) -> String {
        self.git_in(&self.path(name), args)
    }

    /// Writes a file into the working tree of a repository.
    #[track_caller]
    pub fn write(&self, name: &str, file: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name).join(file);
        fs_err::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs_err::write(path, content).expect("a file");
    }

    /// Commits all that is in the working tree, with a fixed time, in seconds since 1970.
    #[track_caller]
    pub fn commit(&self, name: &str, time: i64) -> String {
        self.git(name, &["add", "-A"]);
        let date = format!("{time} +0000");
        let mut command = self.command(&self.path(name));
        command.args(["commit", "-q", "--allow-empty", "-m", "c"]);
        command.env("GIT_AUTHOR_DATE", &date).env("GIT_COMMITTER_DATE", &date);
        run(command);
        self.git(name, &["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Where a repository is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("remotes").join(name)
    }

    /// The configuration that leads git here.
    pub fn config(&self) -> PathBuf {
        self.root.path().join("gitconfig")
    }

    /// What a command must have in its environment to be led here, and only here.
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: PathBuf| path.to_str().expect("a name").to_owned();
        vec![
            ("GIT_CONFIG_GLOBAL".to_owned(), text(self.config())),
            ("GIT_CONFIG_NOSYSTEM".to_owned(), "1".to_owned()),
            ("GIT_ALLOW_PROTOCOL".to_owned(), "file".to_owned()),
            ("GIT_TERMINAL_PROMPT".to_owned(), "0".to_owned()),
        ]
    }

    /// The home of whoever runs git here; there is nothing in it.
    pub(crate) fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    #[track_caller]
    fn git_in(&self, directory: &Path, args: &[&str]) -> String {
        let mut command = self.command(directory);
        command.args(args);
        run(command)
    }

    fn command(&self, directory: &Path) -> Command {
        let mut command = Command::new("git");
        command
            .current_dir(directory)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home())
            .envs(self.environment())
            .stdin(Stdio::null());
        command
    }
}

#[track_caller]
fn run(mut command: Command) -> String {
    let output = command.output().expect("git can be run");
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stdout}{stderr}", output.status);
    stdout.into_owned()
}
