//! Repositories that are too large in one way or another, and hosts that change between two questions.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use stoa_module::ErrorClass;
use stoa_testkit::{GitRemotes, require_git};

use super::fetching::{Witness, tagged, until, version};
use super::*;

const M: &str = "github.com/ex/m";
const URL: &str = "https://github.com/ex/m";

/// Nothing is joined before the answer; what is joined may take its time, and say nothing meanwhile.
#[tokio::test]
async fn nobody_waits_for_the_tidying() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::new();
    tagged(&remotes, "m", 4);
    let witness = Witness::with(
        "case \"$*\" in *' gc '*) until [ -e \"$here/go\" ]; do sleep 0.05; done; touch \"$here/went\";; esac",
    );
    let settings = GitSettings {
        max_packs: 1,
        local_timeout: Duration::from_secs(2),
        ..GitSettings::default()
    };
    let direct = Direct::with_path(&remotes, settings, &witness.path());
    let module = direct.module(M);
    module.info(&version("v1.0.0")).await.unwrap();
    module.info(&version("v1.0.1")).await.unwrap();
    until("gc", || witness.count("gc", "--auto") == 1).await;
    // Others that know what they need get it.
    module.info(&version("v1.0.1")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(!witness.file("went").exists());
    fs_err::write(witness.file("go"), "").unwrap();
    module.info(&version("v1.0.2")).await.unwrap();
    assert!(witness.file("went").exists(), "it was ended");
}

#[tokio::test]
async fn many_refs_become_one_file() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::new();
    tagged(&remotes, "m", 1);
    let head = remotes.git("m", &["rev-parse", "HEAD"]);
    let mut packed = String::from("# pack-refs with: peeled fully-peeled sorted \n");
    for at in 0..1_100 {
        writeln!(packed, "{} refs/tags/t{at:04}", head.trim()).unwrap();
    }
    fs_err::write(remotes.path("m").join(".git/packed-refs"), packed).unwrap();
    let witness = Witness::new();
    let direct = Direct::with_path(&remotes, GitSettings::default(), &witness.path());
    let module = direct.module(M);
    module.info(&version("v1.0.0")).await.unwrap();
    assert_eq!(witness.count("pack-refs", ""), 0);
    remotes.write("m", "b.go", "package a\n");
    module.info(&version("v0.0.0-20231114221320-0123456789ab")).await.unwrap_err();
    let tags = direct.repository().join("refs/tags");
    until("no files of refs", || fs_err::read_dir(&tags).map_or(0, Iterator::count) == 0).await;
    assert_eq!(witness.count("pack-refs", ""), 1);
    module.info(&version("v1.0.0")).await.unwrap();
    module.query("t0999").await.unwrap();
}

/// What is too large is not fetched again and again to be thrown away.
#[tokio::test]
async fn what_is_too_large_is_remembered() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::new();
    tagged(&remotes, "m", 3);
    let large = "head -c 2000000 /dev/zero > \"$GIT_DIR/objects/pack/tmp_pack_x\"; exec sleep 1000";
    let settings = GitSettings { max_repository_bytes: 1_000_000, ..GitSettings::default() };
    let too_large = "git: the repository has more than 1000000 bytes";

    let witness = Witness::with(&format!("case \"$*\" in *' fetch '*) {large};; esac"));
    let direct = Direct::with_path(&remotes, settings.clone(), &witness.path());
    let module = direct.module(M);
    for _ in 0..3 {
        let failure = module.info(&version("v1.0.0")).await.unwrap_err();
        assert_eq!((failure.class, failure.detail.as_str()), (ErrorClass::Corrupt, too_large));
    }
    assert_eq!(witness.count("fetch", ""), 1);
    let left = direct.repository().join("objects/pack/tmp_pack_x");
    until("what was fetched is gone", || !left.exists()).await;
    direct.repositories.look_anew(URL);
    module.info(&version("v1.0.0")).await.unwrap_err();
    assert_eq!(witness.count("fetch", ""), 2);

    // All of it may be too large where one version is not.
    let witness = Witness::with(&format!("case \"$*\" in *'refs/heads/*'*) {large};; esac"));
    let direct = Direct::with_path(&remotes, settings, &witness.path());
    let module = direct.module(M);
    let nowhere = version("v0.0.0-20231114221320-0123456789ab");
    for at in ["v1.0.0", "v1.0.1"] {
        let failure = module.info(&nowhere).await.unwrap_err();
        assert_eq!(failure.detail, too_large);
        module.info(&version(at)).await.unwrap();
    }
    assert_eq!(
        (witness.count("fetch", "refs/heads/*"), witness.count("fetch", "--depth=1")),
        (1, 2)
    );
}

/// A tree of a few objects that stands for 10^10 files, or for as many trees without a file.
#[tokio::test]
async fn trees_without_end() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::new();
    tagged(&remotes, "m", 1);
    let root = remotes.path("m");
    let made = |script: &str| {
        let script = format!("set -e; cd '{}'; {script}", root.display());
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let blob = made("git hash-object -w --stdin < /dev/null");
    let none = made("git mktree < /dev/null");
    for (tag, leaf) in
        [("v1.1.0", format!("100644 blob {blob}")), ("v1.2.0", format!("040000 tree {none}"))]
    {
        // Below `d`, so that go.mod is where it belongs.
        let bomb = made(&format!(
            "kind='{leaf}'; for level in 1 2 3 4 5 6 7 8 9 10; do \
             tree=$(for name in 0 1 2 3 4 5 6 7 8 9; do printf '%s\\t%s\\n' \"$kind\" $name; done | git mktree); \
             kind=\"040000 tree $tree\"; done; \
             {{ git ls-tree v1.0.0; printf '%s\\td\\n' \"$kind\"; }} | git mktree"
        ));
        let commit = remotes.git("m", &["commit-tree", "-m", "c", &bomb]);
        remotes.git("m", &["tag", tag, commit.trim()]);
    }
    let direct = Direct::new(&remotes, GitSettings::default());
    let module = direct.module(M);
    for tag in ["v1.1.0", "v1.2.0"] {
        module.info(&version(tag)).await.unwrap();
        let failure = zip_of(&module, M, &version(tag)).await.map(|zip| zip.h1).unwrap_err();
        assert_eq!(failure.class, ErrorClass::NotFound, "{failure}");
        assert!(failure.detail.contains("more than 1000000 files"), "{failure}");
    }
    zip_of(&module, M, &version("v1.0.0")).await.unwrap();
}

/// Leads git to where a redirect was followed to.
#[derive(Debug)]
struct Renamed {
    access: Arc<dyn RemoteAccess>,
    to: &'static str,
    followed: AtomicUsize,
}

impl RemoteAccess for Renamed {
    fn is_named(&self) -> bool {
        true
    }

    fn prepare<'a>(
        &'a self,
        url: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<RemoteEnv, Fault>> + Send + 'a>> {
        Box::pin(async move {
            let is_followed = self.followed.load(Ordering::SeqCst) > 0;
            let address = is_followed.then(|| self.to.to_owned());
            Ok(RemoteEnv { address, ..self.access.prepare(url).await? })
        })
    }

    fn follow<'a>(
        &'a self,
        _: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<(), Fault>> + Send + 'a>> {
        self.followed.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(()) })
    }
}

/// Or the memory of where it is ends between its list and its fetch.
#[tokio::test]
async fn a_repository_that_is_renamed_after_it_was_listed() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::new();
    tagged(&remotes, "m", 2);
    fs_err::rename(remotes.path("m"), remotes.path("new")).unwrap();
    fs_err::os::unix::fs::symlink(remotes.path("new"), remotes.path("m")).unwrap();
    let witness = Witness::with(
        "case \"$*\" in *' fetch '*https://github.com/ex/m*) \
         echo \"fatal: unable to access '/m/': The requested URL returned error: 301\" >&2; exit 128;; esac",
    );
    for (to, expected) in [
        ("https://github.com/ex/new", None),
        (URL, Some("git: https://github.com/ex/m redirects on and on")),
    ] {
        let before = witness.count("fetch", "");
        let mut direct = Direct::with_path(&remotes, GitSettings::default(), &witness.path());
        let access = Arc::clone(&direct.access);
        let renamed = Arc::new(Renamed { access, to, followed: AtomicUsize::new(0) });
        direct.access = renamed.clone();
        let outcome = direct.module(M).info(&version("v1.0.0")).await;
        assert_eq!(outcome.err().map(|fault| fault.detail).as_deref(), expected);
        assert_eq!(renamed.followed.load(Ordering::SeqCst), 1);
        assert_eq!(witness.count("fetch", "") - before, 2);
    }
}
