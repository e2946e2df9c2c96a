//! What is fetched, how often, and what happens when a remote or a repository here is not as it should be.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stoa_module::{ErrorClass, Info, Version};
use stoa_testkit::{GitRemotes, require_git};

use super::{Direct, zip_of};
use crate::direct::GitSettings;

const R: &str = "github.com/ex/r";

pub(super) fn version(text: &str) -> Version {
    Version::parse(text).unwrap()
}

/// Done to a bare repository.
type Damage<'d> = &'d dyn Fn(&Path);

/// A `git` in front of the real one, which notes what it is run with.
pub(super) struct Witness(tempfile::TempDir);

impl Witness {
    pub(super) fn new() -> Self {
        Self::with("")
    }

    /// With lines of a shell's script that are run before, in the directory `$here`.
    pub(super) fn with(lines: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = std::env::var("PATH").unwrap();
        let program = root.path().join("git");
        let log = root.path().join("log");
        let script = format!(
            "#!/bin/sh\nhere='{}'\necho \"$*\" >> \"$here/log\"\n{lines}\nPATH='{path}' exec git \"$@\"\n",
            root.path().display()
        );
        fs_err::write(&program, script).unwrap();
        fs_err::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        fs_err::write(log, "").unwrap();
        Self(root)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn path(&self) -> String {
        format!("{}:{}", self.0.path().display(), std::env::var("PATH").unwrap())
    }

    /// How many commands of this name were run, and with this among their arguments.
    pub(super) fn count(&self, command: &str, with: &str) -> usize {
        let log = fs_err::read_to_string(self.0.path().join("log")).unwrap();
        let is_one = |line: &&str| line.contains(&format!(" {command} ")) && line.contains(with);
        log.lines().filter(is_one).count()
    }
}

pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// A repository with some tagged versions.
pub(super) fn tagged(remotes: &GitRemotes, name: &str, versions: usize) {
    remotes.init(name);
    remotes.write(name, "go.mod", format!("module github.com/ex/{name}\n"));
    for at in 0..versions {
        remotes.write(name, "a.go", format!("package a // {at}\n"));
        remotes.commit(name, 1_700_000_000 + i64::try_from(at).unwrap());
        remotes.git(name, &["tag", &format!("v1.0.{at}")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_at_once_are_one_clone() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::new();
    tagged(&remotes, "m", 20);
    let witness = Witness::new();
    let direct = Direct::with_path(&remotes, GitSettings::default(), &witness.path());
    let mut asked = tokio::task::JoinSet::new();
    for at in 0..20 {
        let module = direct.module("github.com/ex/m");
        asked.spawn(async move {
            let version = version(&format!("v1.0.{at}"));
            let zip = zip_of(&module, "github.com/ex/m", &version).await.unwrap();
            assert_eq!(zip.files, 2);
        });
    }
    while let Some(done) = asked.join_next().await {
        done.unwrap();
    }
    assert_eq!(witness.count("ls-remote", ""), 1);
    assert_eq!(witness.count("init", ""), 1);
    assert_eq!(witness.count("fetch", ""), 1);
}

#[tokio::test]
async fn what_is_here_asks_nobody() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::of_fixtures();
    let witness = Witness::new();
    let direct = Direct::with_path(&remotes, GitSettings::default(), &witness.path());
    let module = direct.module(R);
    module.info(&version("v1.0.1")).await.unwrap();
    fs_err::remove_dir_all(remotes.path("r")).unwrap();
    module.go_mod(&version("v1.0.1")).await.unwrap();
    zip_of(&module, R, &version("v1.0.1")).await.unwrap();
    let pseudo = module.info(&version("v0.0.0-20240102030405-a3ab0831a0ed")).await.unwrap();
    assert!(pseudo.contains(r#""Time":"2024-01-02T03:04:05Z""#), "{pseudo}");
    assert_eq!((witness.count("ls-remote", ""), witness.count("fetch", "")), (1, 1));
    let failure = module.info(&version("v9.9.9")).await.map(drop);
    // The list is new enough not to ask again at once.
    assert_eq!(failure.map_err(|failure| failure.class), Err(ErrorClass::NotFound));
}

#[tokio::test]
async fn history_is_fetched_once_and_added_to() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::new();
    tagged(&remotes, "m", 3);
    remotes.commit("m", 1_700_001_000);
    let settings = GitSettings {
        refs_ttl: Duration::ZERO,
        refs_min_interval: Duration::ZERO,
        ..GitSettings::default()
    };
    let witness = Witness::new();
    let direct = Direct::with_path(&remotes, settings, &witness.path());
    let module = direct.module("github.com/ex/m");
    module.info(&version("v1.0.1")).await.unwrap();
    assert_eq!(witness.count("fetch", "--depth=1"), 1);
    let main = module.query("main").await.unwrap();
    assert!(main.contains(r#""Version":"v1.0.3-0.20231114223000-"#), "{main}");
    assert_eq!(witness.count("fetch", "--unshallow"), 1);
    // From now on nothing is cut off any more.
    remotes.write("m", "b.go", "package a\n");
    let commit = remotes.commit("m", 1_700_002_000);
    remotes.git("m", &["tag", "v1.1.0"]);
    module.info(&version("v1.1.0")).await.unwrap();
    assert_eq!(witness.count("fetch", "--depth=1"), 1);
    assert_eq!(witness.count("fetch", "--unshallow"), 1);
    let pseudo = format!("v1.0.3-0.20231114224640-{}", &commit[..12]);
    module.info(&version(&pseudo)).await.unwrap();
    assert_eq!(witness.count("fetch", "refs/heads/*"), 2, "with the one before --unshallow");
}

#[tokio::test]
async fn little_is_fetched_whole() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::new();
    tagged(&remotes, "m", 3);
    remotes.commit("m", 1_700_001_000);
    // Whether the host is told what is here changes what it sends, and nothing else.
    let mut answers = Vec::new();
    for (whole_bytes, expected) in [(0, 0), (u64::MAX, 2)] {
        let witness = Witness::new();
        let settings = GitSettings { whole_bytes, ..GitSettings::default() };
        let direct = Direct::with_path(&remotes, settings, &witness.path());
        let module = direct.module("github.com/ex/m");
        let mut zips = Vec::new();
        for at in 0..3 {
            let version = version(&format!("v1.0.{at}"));
            zips.push(zip_of(&module, "github.com/ex/m", &version).await.unwrap().h1);
        }
        assert_eq!(witness.count("fetch", "--depth=1"), 3);
        assert_eq!(witness.count("fetch", "negotiationAlgorithm=noop"), expected);
        let main = module.query("main").await.unwrap();
        assert!(main.contains(r#""Version":"v1.0.3-0.20231114223000-"#), "{main}");
        assert_eq!(witness.count("fetch", "--unshallow"), 1);
        answers.push((zips, main));
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn a_new_tag_is_seen_at_once_and_a_moved_one_stays() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::new();
    tagged(&remotes, "m", 1);
    let settings = GitSettings { refs_min_interval: Duration::ZERO, ..GitSettings::default() };
    let direct = Direct::new(&remotes, settings);
    let module = direct.module("github.com/ex/m");
    let first = module.info(&version("v1.0.0")).await.unwrap();
    assert_eq!(module.info(&version("v1.0.1")).await.unwrap_err().class, ErrorClass::NotFound);

    remotes.write("m", "b.go", "package a\n");
    remotes.commit("m", 1_700_001_000);
    remotes.git("m", &["tag", "v1.0.1"]);
    remotes.git("m", &["tag", "-f", "v1.0.0"]);
    module.info(&version("v1.0.1")).await.unwrap();
    assert_eq!(module.info(&version("v1.0.0")).await.unwrap(), first);
    assert_eq!(zip_of(&module, "github.com/ex/m", &version("v1.0.0")).await.unwrap().files, 2);
    assert_eq!(zip_of(&module, "github.com/ex/m", &version("v1.0.1")).await.unwrap().files, 3);
    assert_eq!(direct.repositories.status().moved_tags, 1);
    // It was said once.
    module.info(&version("v9.9.9")).await.unwrap_err();
    assert_eq!(direct.repositories.status().moved_tags, 1);
    // A later process knows it as well, once it was written down.
    let repository = direct.repository();
    for _ in 0..500 {
        if repository.join("refs/stoa/tags/v1.0.0").exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let again = direct.again(&remotes);
    assert_eq!(again.module("github.com/ex/m").info(&version("v1.0.0")).await.unwrap(), first);
}

#[tokio::test]
async fn a_broken_repository_is_fetched_anew() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::of_fixtures();
    let packs = |repository: &Path| -> Vec<PathBuf> {
        let entries = fs_err::read_dir(repository.join("objects/pack")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    // They are not writable.
    let rewrite = |path: &Path, bytes: &[u8]| {
        fs_err::remove_file(path).unwrap();
        fs_err::write(path, bytes).unwrap();
    };
    let empty_packs = |repository: &Path| {
        for pack in packs(repository) {
            rewrite(&pack, b"");
        }
    };
    let no_packs = |repository: &Path| {
        for pack in packs(repository) {
            fs_err::remove_file(pack).unwrap();
        }
    };
    let torn_packs = |repository: &Path| {
        let is_pack = |path: &&PathBuf| path.extension().is_some_and(|end| end == "pack");
        for pack in packs(repository).iter().filter(is_pack) {
            let mut bytes = fs_err::read(pack).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle..].fill(0);
            rewrite(pack, &bytes);
        }
    };
    let no_head = |repository: &Path| fs_err::remove_file(repository.join("HEAD")).unwrap();
    let bad_config = |repository: &Path| rewrite(&repository.join("config"), b"[core");
    let breaks: [(&str, Damage<'_>); 5] = [
        ("empty packs", &empty_packs),
        ("no packs", &no_packs),
        ("torn packs", &torn_packs),
        ("no HEAD", &no_head),
        ("bad config", &bad_config),
    ];
    for (what, break_it) in breaks {
        let direct = Direct::new(&remotes, GitSettings::default());
        let module = direct.module(R);
        let before = zip_of(&module, R, &version("v1.0.1")).await.unwrap();
        break_it(&direct.repository());
        for direct in [&direct, &direct.again(&remotes)] {
            let module = direct.module(R);
            let main =
                module.query("main").await.unwrap_or_else(|failure| panic!("{what}: {failure}"));
            let main = Info::parse(main.as_bytes()).unwrap().version;
            zip_of(&module, R, &main).await.unwrap_or_else(|failure| panic!("{what}: {failure}"));
            let after = zip_of(&module, R, &version("v1.0.1")).await;
            assert_eq!(
                after.unwrap_or_else(|failure| panic!("{what}: {failure}")),
                before,
                "{what}"
            );
        }
    }
}

#[tokio::test]
async fn what_a_killed_git_leaves_is_swept() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::of_fixtures();
    let direct = Direct::new(&remotes, GitSettings::default());
    direct.module(R).info(&version("v1.0.1")).await.unwrap();
    let repository = direct.repository();
    let left = [
        "shallow.lock",
        "packed-refs.lock",
        "refs/tags/v1.0.0.lock",
        "objects/pack/tmp_pack_x",
        "config.lock",
    ];
    for name in left {
        fs_err::write(repository.join(name), "x").unwrap();
    }
    let again = direct.again(&remotes);
    again.module(R).info(&version("v1.0.0")).await.unwrap();
    again.module(R).query("main").await.unwrap();
    for name in left {
        assert!(!repository.join(name).exists(), "{name}");
    }
}

#[tokio::test]
async fn packs_are_joined() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::new();
    tagged(&remotes, "m", 8);
    let settings = GitSettings { max_packs: 3, ..GitSettings::default() };
    let direct = Direct::new(&remotes, settings);
    for at in 0..8 {
        direct.module("github.com/ex/m").info(&version(&format!("v1.0.{at}"))).await.unwrap();
    }
    let packs = || {
        let entries = fs_err::read_dir(direct.repository().join("objects/pack")).unwrap();
        let is_pack = |path: PathBuf| path.extension().is_some_and(|extension| extension == "pack");
        entries.filter(|entry| is_pack(entry.as_ref().unwrap().path())).count()
    };
    // Nobody waits for it.
    until("few packs", || packs() <= 4).await;
    zip_of(&direct.module("github.com/ex/m"), "github.com/ex/m", &version("v1.0.0")).await.unwrap();
}

#[tokio::test]
async fn two_processes_share_a_repository() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::new();
    tagged(&remotes, "m", 6);
    let first = Direct::new(&remotes, GitSettings::default());
    let second = first.again(&remotes);
    let mut asked = tokio::task::JoinSet::new();
    for at in 0..6 {
        let module = if at % 2 == 0 { &first } else { &second }.module("github.com/ex/m");
        asked.spawn(async move { module.info(&version(&format!("v1.0.{at}"))).await.unwrap() });
    }
    while let Some(done) = asked.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_leaves_does_not_undo_the_fetch() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::of_fixtures();
    let witness = Witness::new();
    let direct = Direct::with_path(&remotes, GitSettings::default(), &witness.path());
    let module = direct.module(R);
    let impatient = module.clone();
    let asking = tokio::spawn(async move { impatient.info(&version("v1.0.1")).await });
    while witness.count("fetch", "") == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    asking.abort();
    module.info(&version("v1.0.1")).await.unwrap();
    assert!(witness.count("fetch", "") <= 2);
    assert_eq!(witness.count("ls-remote", ""), 1);
}
