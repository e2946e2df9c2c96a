use std::process::{Command, Output, Stdio};

use stoa_testkit::{GitRemotes, Host, Internet, PATIENCE};

pub(crate) const HOST: &str = "git.corp.example.com";

/// A git client with nothing of the machine's own settings.
pub(crate) struct Git {
    pub(crate) home: tempfile::TempDir,
    pub(crate) env: Vec<(String, String)>,
}

impl Git {
    pub(crate) fn with(env: Vec<(String, String)>) -> Git {
        Git { home: tempfile::tempdir().expect("a directory"), env }
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        // `timeout` is the bound on the wait.
        let mut command = Command::new("timeout");
        command
            .args([&PATIENCE.as_secs().to_string(), "git", "-c", "credential.helper="])
            .args(args)
            .current_dir(self.home.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command.output().expect("there is a timeout command")
    }

    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?}: {}\n{stderr}", output.status);
        String::from_utf8(output.stdout).expect("git writes UTF-8")
    }

    #[track_caller]
    pub(crate) fn fails(&self, args: &[&str], expected: &str) {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "git {args:?} succeeded");
        assert!(stderr.contains(expected), "git {args:?}: {expected:?} is not in\n{stderr}");
    }

    pub(crate) fn read(&self, file: &str) -> String {
        fs_err::read_to_string(self.home.path().join(file)).expect("the file is there")
    }
}

/// One module, in a repository with a working tree and in a bare one.
pub(crate) fn remotes() -> GitRemotes {
    let remotes = GitRemotes::new();
    remotes.init("lib");
    remotes.write("lib", "go.mod", format!("module {HOST}/team/lib\n"));
    remotes.write("lib", "lib.go", "package lib\n");
    remotes.commit("lib", 1_700_000_000);
    remotes.git("lib", &["tag", "v1.2.0"]);
    let bare = remotes.path("bare.git");
    remotes.git("lib", &["clone", "-q", "--bare", ".", bare.to_str().expect("a name")]);
    remotes
}

pub(crate) fn world() -> (GitRemotes, Internet, Host, Git) {
    let (remotes, internet) = (remotes(), Internet::start());
    let host = internet.host(HOST).git("/r", &remotes);
    let git = Git::with(internet.environment());
    (remotes, internet, host, git)
}
