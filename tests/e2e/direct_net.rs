//! A company's network and the public one around it, for tests of where modules are looked for.

use stoa_testkit::{FakeSumdb, FakeUpstream, GitRemotes, Go, Host, Internet, Modules};

use crate::fixtures::{brief, modules};
use crate::stoa::{Setup, Stoa};

pub const PROXY: &str = "proxy.public.example";
pub const SUMDB: &str = "sum.public.example";
/// Where private modules are at home, pages and repositories.
pub const CORP: &str = "git.corp.example.com";

/// Files of one version: the tag, and name and content of each. A tag without files is one more of the last commit.
type Version<'v> = (&'v str, &'v [(&'v str, &'v str)]);

/// A public proxy, a checksum database, and hosts that tests declare, all behind an outgoing proxy that sees what is asked.
pub struct Net {
    pub internet: Internet,
    pub remotes: GitRemotes,
    pub sumdb: FakeSumdb,
    pub proxy: FakeUpstream,
    /// Must live as long as its host.
    _database: FakeUpstream,
}

impl Net {
    /// The proxy and the database know the modules of [`modules`].
    pub fn new() -> Self {
        let (internet, modules) = (Internet::start(), modules());
        let sumdb = FakeSumdb::new(SUMDB, &modules);
        let proxy = FakeUpstream::start(modules);
        let database = FakeUpstream::start(Modules::default()).with_sumdb(&sumdb);
        internet.host(PROXY).upstream(&proxy);
        internet.host(SUMDB).upstream(&database);
        Self { internet, remotes: GitRemotes::new(), sumdb, proxy, _database: database }
    }

    /// A server in this network, with the public proxy and then `direct`.
    pub fn setup(&self) -> Setup {
        let setup = brief(Setup::in_memory())
            .goproxy(format!("https://{PROXY},direct"))
            .gosumdb(self.sumdb.verifier_key())
            .env("STOA_UPSTREAM_TRIES", "1")
            // What a busy machine needs for a clone.
            .env("STOA_UPSTREAM_LIST_TIMEOUT", "14s")
            .env("STOA_UPSTREAM_FILE_TIMEOUT", "14s")
            .env("PATH", std::env::var("PATH").unwrap())
            .env("GIT_CONFIG_NOSYSTEM", "1");
        self.internet.environment().iter().fold(setup, |setup, (key, value)| setup.env(key, value))
    }

    /// A go command that asks nobody but this server.
    pub fn client(&self, stoa: &Stoa) -> Go {
        let flags = "-modcacherw -mod=mod";
        Go::new().goproxy(&stoa.url).gosumdb(self.sumdb.verifier_key()).env("GOFLAGS", flags)
    }

    /// A go command in this network without any server, in direct mode.
    pub fn direct(&self) -> Go {
        let go =
            Go::new().goproxy("direct").env("GOVCS", "*:all").env("GIT_ALLOW_PROTOCOL", "https");
        let go = go.env("GOFLAGS", "-modcacherw -mod=mod");
        self.internet.environment().into_iter().fold(go, |go, (key, value)| go.env(&key, value))
    }

    /// A host with all the repositories at `/r`.
    pub fn host(&self, name: &str) -> Host {
        self.internet.host(name).git("/r", &self.remotes)
    }

    /// Makes a repository, or goes on with one.
    pub fn repository(&self, name: &str, versions: &[Version<'_>]) {
        if !self.remotes.path(name).join(".git").exists() {
            self.remotes.init(name);
        }
        for (tag, files) in versions {
            for (file, content) in *files {
                self.remotes.write(name, file, content);
            }
            if !files.is_empty() {
                let count = self.remotes.git(name, &["rev-list", "--all", "--count"]);
                let commits: i64 = count.trim().parse().unwrap();
                self.remotes.commit(name, 1_700_000_000 + 60 * commits);
            }
            if !tag.is_empty() {
                self.remotes.git(name, &["tag", tag]);
            }
        }
    }

    /// A repository with one version, `v1.0.0`.
    pub fn module(&self, repository: &str, path: &str) {
        let files = module_files(path);
        let files = files.each_ref().map(|(name, content)| (*name, content.as_str()));
        self.repository(repository, &[("v1.0.0", &files)]);
    }
}

/// The files of [`Net::module`].
pub fn module_files(path: &str) -> [(&'static str, String); 2] {
    let code = "package lib\n\nfunc Name() string { return \"lib\" }\n";
    [("go.mod", format!("module {path}\n\ngo 1.21\n")), ("lib.go", code.to_owned())]
}

/// With this settings file.
pub fn with_file(setup: Setup, toml: &str) -> Setup {
    fs_err::write(setup.scratch().join("stoa.toml"), toml).unwrap();
    setup
}

/// With these environment variables.
pub fn with(setup: Setup, settings: &[(&str, &str)]) -> Setup {
    settings.iter().fold(setup, |setup, (key, value)| setup.env(key, value))
}
