//! A company's git on an internet of its own, servers that reach it, and what must not be left behind there.

use std::path::Path;
use std::time::{Duration, Instant};

use stoa_testkit::{Access, Answer, GitRemotes, Host, Internet};

use crate::fixtures::brief;
use crate::stoa::{Setup, Stoa};

/// Where modules are called so, and their repositories are below `/r`.
pub const GIT: &str = "git.corp.example.com";
/// The only user that the company's git knows by name.
pub const USER: &str = "deploy";
/// What its git takes: with no character that base64 or percent-encoding would leave alone only sometimes.
pub const PASSWORD: &str = "Pa55wordOfTheDeployUser";
pub const TOKEN: &str = "TokenThatReadsEverything0123";

/// The repositories of a company and the hosts that have them.
pub struct Corp {
    pub remotes: GitRemotes,
    pub internet: Internet,
}

impl Corp {
    /// With the repository `lib`, whose modules are `HOST/lib` and, without a tag of its own, `HOST/lib/sub`.
    pub fn new() -> Self {
        let remotes = GitRemotes::new();
        repository(&remotes, "lib", &format!("{GIT}/lib"), &[]);
        Self { remotes, internet: Internet::start() }
    }

    /// A host with the module `HOST/MODULE` in the repository `https://HOST/r/REPOSITORY`.
    pub fn host(&self, name: &str, module: &str, repository: &str) -> Host {
        let url = format!("https://{name}/r/{repository}");
        self.internet.host(name).git("/r", &self.remotes).go_import(module, "git", &url)
    }

    /// The module `HOST/MODULE` is said to be at this address.
    pub fn import(&self, host: &str, module: &str, url: &str) -> Host {
        self.internet.host(host).go_import(module, "git", url)
    }

    /// A page with this as its whole body.
    pub fn page(&self, host: &str, path: &str, body: impl Into<Vec<u8>>) -> Host {
        let answer = Answer::new(200, "text/html", body.into());
        self.internet.host(host).page(path, answer)
    }

    /// A server, and a host that has nothing.
    pub fn setup_with(&self, host: &str) -> Setup {
        self.internet.host(host);
        self.setup()
    }

    /// A server, and the module `HOST/lib` for everybody.
    pub fn serving(&self) -> Setup {
        self.host(GIT, "lib", "lib");
        self.setup()
    }

    /// A server that goes out there only, and for which all hosts of the company are named.
    pub fn setup(&self) -> Setup {
        self.setup_without(&[])
    }

    /// The same without some variables of [`Internet::environment`].
    pub fn setup_without(&self, variables: &[&str]) -> Setup {
        let path = std::env::var("PATH").expect("a search path");
        let setup = brief(Setup::new())
            .env("PATH", path)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("STOA_GOPRIVATE", "*.corp.example.com")
            .env("STOA_GIT_LIST_TIMEOUT", "10s")
            .env("STOA_UPSTREAM_LIST_TIMEOUT", "14s")
            .env("STOA_UPSTREAM_FILE_TIMEOUT", "14s");
        let environment = self.internet.environment();
        let kept = environment.into_iter().filter(|(name, _)| !variables.contains(&&**name));
        kept.fold(setup, |setup, (name, value)| setup.env(&name, value))
    }
}

/// Whom the company's git lets in.
pub fn known_to_git() -> Access {
    Access::basic(USER, PASSWORD).or(Access::token(TOKEN))
}

/// A repository with one module, tagged v1.0.0, and more files in it.
pub fn repository(remotes: &GitRemotes, name: &str, module: &str, files: &[(&str, &[u8])]) {
    remotes.init(name);
    remotes.write(name, "go.mod", format!("module {module}\n\ngo 1.21\n"));
    remotes.write(name, "lib.go", "package lib\n");
    remotes.write(name, "sub/go.mod", format!("module {module}/sub\n"));
    for (file, content) in files {
        remotes.write(name, file, content);
    }
    remotes.commit(name, 1_700_000_000);
    remotes.git(name, &["tag", "v1.0.0"]);
}

/// Writes the settings file of a server, which is found where it starts.
pub fn settings(setup: Setup, toml: impl AsRef<str>) -> Setup {
    fs_err::write(setup.scratch().join("stoa.toml"), toml.as_ref()).unwrap();
    setup
}

/// What a process of a server has in its environment: a directory that no other has.
fn mark(setup: &Setup) -> String {
    setup.scratch().display().to_string()
}

/// The processes that a server has started, directly or not, wherever they hang now: their command lines.
pub fn processes(setup: &Setup, stoa: &Stoa) -> Vec<String> {
    let mark = mark(setup);
    let of = |entry: fs_err::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        // What has ended meanwhile, or is somebody else's, has none that can be read.
        let environment = fs_err::read(entry.path().join("environ")).ok()?;
        let is_ours = String::from_utf8_lossy(&environment).contains(&mark);
        let line = fs_err::read(entry.path().join("cmdline")).ok()?;
        (is_ours && pid != stoa.pid()).then(|| String::from_utf8_lossy(&line).replace('\0', " "))
    };
    fs_err::read_dir("/proc").unwrap().filter_map(|entry| of(entry.unwrap())).collect()
}

/// Waits until no process of a server is left but itself, and asks whether that is alive.
pub async fn is_well(setup: &Setup, stoa: &Stoa) {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let left = processes(setup, stoa);
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < until, "left behind: {left:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stoa.get("healthz").await.ok();
}

/// What a command of theirs would leave.
fn traces(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("pwned") {
            found.push(path.display().to_string());
        }
        if path.is_dir() && !path.is_symlink() {
            found.extend(traces(&path));
        }
    }
    found
}

/// Nothing of theirs was run, nothing is left, and the server is well.
pub async fn is_unharmed(corp: &Corp, setup: &Setup, stoa: &Stoa) {
    is_well(setup, stoa).await;
    assert_eq!(traces(setup.scratch()), Vec::<String>::new());
    assert_eq!(traces(&corp.remotes.path("")), Vec::<String>::new());
}

/// Every way in which a secret could stand in a text: as it is, and in base64 of whatever it is a part of.
pub struct Secrets(Vec<String>);

impl Secrets {
    pub fn of(secrets: &[&str]) -> Self {
        let mut forms = Vec::new();
        for secret in secrets {
            forms.push((*secret).to_owned());
            for before in 0..3 {
                let whole = base64(&[&vec![b'_'; before], secret.as_bytes()].concat());
                // The digits that hold nothing but bits of the secret.
                let (first, bits) = (before * 8, (before + secret.len()) * 8);
                forms.push(whole[first.div_ceil(6)..bits / 6].to_owned());
            }
        }
        Self(forms)
    }

    fn find(&self, text: &str) -> Option<&String> {
        self.0.iter().find(|secret| text.contains(*secret))
    }

    #[track_caller]
    pub fn are_not_in(&self, what: &str, text: &str) {
        let found = self.find(text);
        assert!(found.is_none(), "{found:?} is in {what}:\n{text}");
    }

    /// In no file of a directory, nor in a file's name.
    #[track_caller]
    pub fn are_not_below(&self, directory: &Path) {
        for entry in fs_err::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            self.are_not_in("a name", &path.display().to_string());
            let kind = fs_err::symlink_metadata(&path).unwrap();
            if kind.is_dir() {
                self.are_not_below(&path);
            } else if kind.is_file() {
                let bytes = fs_err::read(&path).unwrap();
                self.are_not_in(&path.display().to_string(), &String::from_utf8_lossy(&bytes));
            }
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let at = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}

#[test]
fn a_secret_is_found_in_base64() {
    let secrets = Secrets::of(&[TOKEN]);
    for user in ["", "a", "ab", "x-access-token:"] {
        let text = base64(format!("{user}{TOKEN}:").as_bytes());
        assert!(secrets.find(&text).is_some(), "{text}");
    }
    assert_eq!(base64(b"any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw");
    assert_eq!(secrets.find(&base64(b"x-access-token:other")), None);
}
