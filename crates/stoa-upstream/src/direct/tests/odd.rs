//! Repositories and modules that are not like others: in other places, of another format, broken by their authors, or larger
//! than the bounds.

use std::path::Path;
use std::time::Duration;

use stoa_module::{ErrorClass, H1, Info, ModuleVersion};
use stoa_testkit::{GitRemotes, require_git};

use super::fetching::{tagged, version};
use super::{Direct, zip_of};
use crate::direct::GitSettings;
use crate::failure::Fault;

#[tokio::test]
async fn hashes_of_sha256() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::new();
    fs_err::create_dir_all(remotes.path("s")).unwrap();
    remotes.git("s", &["init", "-q", "--object-format=sha256"]);
    remotes.write("s", "go.mod", "module github.com/ex/s\n");
    let commit = remotes.commit("s", 1_700_000_000);
    assert_eq!(commit.len(), 64);
    let direct = Direct::new(&remotes, GitSettings::default());
    let module = direct.module("github.com/ex/s");
    let info = module.query("main").await.unwrap();
    let expected = version(&format!("v0.0.0-20231114221320-{}", &commit[..12]));
    assert_eq!(Info::parse(info.as_bytes()).unwrap().version, expected);
    module.query(&commit).await.unwrap();
    zip_of(&module, "github.com/ex/s", &expected).await.unwrap();
}

/// What a hostile or unlucky repository may hold.
#[tokio::test]
async fn bad_repositories() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::new();
    tagged(&remotes, "m", 1);
    remotes.write("m", "evil", "");
    let git = |args: &[&str]| remotes.git("m", args).trim().to_owned();
    let blob = git(&["rev-parse", "HEAD:a.go"]);
    git(&["tag", "v1.2.0", &blob]);
    git(&["tag", "v1.3.0", "HEAD^{tree}"]);
    git(&["tag", "-m", "t", "v1.4.0", &blob]);
    // A submodule whose address would be a command, and links out of the tree.
    remotes.write(
        "m",
        ".gitmodules",
        "[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c touch% /tmp/stoa-pwned\n",
    );
    let head = git(&["rev-parse", "HEAD"]);
    git(&["update-index", "--add", "--cacheinfo", &format!("160000,{head},x")]);
    fs_err::os::unix::fs::symlink("/etc/passwd", remotes.path("m").join("link")).unwrap();
    remotes.write("m", ".gitattributes", "* filter=evil diff=evil\na.go export-ignore\n");
    remotes.git("m", &["add", ".gitattributes", ".gitmodules", "link", "evil"]);
    remotes.git("m", &["commit", "-q", "-m", "c"]);
    git(&["tag", "v1.5.0"]);

    let direct = Direct::new(&remotes, GitSettings::default());
    let module = direct.module("github.com/ex/m");
    for tag in ["v1.2.0", "v1.3.0", "v1.4.0"] {
        let failure = module.info(&version(tag)).await.unwrap_err();
        assert_eq!(failure.class, ErrorClass::NotFound, "{tag}: {failure}");
    }
    let zip = zip_of(&module, "github.com/ex/m", &version("v1.5.0")).await.unwrap();
    assert_eq!(zip.files, 5, "without the link and the submodule");
    for revision in [
        "--upload-pack=touch /tmp/stoa-pwned",
        "-x",
        "main:a",
        "main^",
        "main~1",
        "HEAD@{1}",
        "@",
        "ext::sh",
        "a\nb",
        "\u{0}",
        "",
        "refs/heads/main",
        "../x",
        "$(true)",
    ] {
        let failure = module.query(revision).await.unwrap_err();
        assert_eq!(failure.class, ErrorClass::NotFound, "{revision:?}: {failure}");
        assert!(!failure.to_string().contains('\n'), "{failure:?}");
    }
    assert!(!Path::new("/tmp/stoa-pwned").exists());
}

#[tokio::test]
async fn bounds() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::new();
    tagged(&remotes, "m", 3);
    let check = async |settings: GitSettings, expected: &str| {
        let direct = Direct::new(&remotes, settings);
        let module = direct.module("github.com/ex/m");
        let outcome = zip_of(&module, "github.com/ex/m", &version("v1.0.0")).await;
        let failure: Fault = outcome.map(|zip| zip.h1).unwrap_err();
        assert!(failure.to_string().contains(expected), "{failure}");
    };
    let settings = GitSettings::default;
    check(GitSettings { max_refs: 3, ..settings() }, "more than 3 branches and tags").await;
    check(GitSettings { max_archive_bytes: 1, ..settings() }, "more than 4 bytes").await;
    check(GitSettings { max_archive_bytes: 50, ..settings() }, "more than 50 bytes").await;

    // Small as long as it is packed.
    let big = remotes.path("m").join("big");
    fs_err::File::create(&big).unwrap().set_len(30 << 20).unwrap();
    remotes.commit("m", 1_700_001_000);
    remotes.git("m", &["tag", "v1.1.0"]);
    let direct = Direct::new(&remotes, GitSettings { max_archive_bytes: 1 << 20, ..settings() });
    let module = direct.module("github.com/ex/m");
    let failure =
        zip_of(&module, "github.com/ex/m", &version("v1.1.0")).await.map(|zip| zip.h1).unwrap_err();
    assert_eq!(failure.class, ErrorClass::NotFound);
    assert!(failure.to_string().contains("more than 4194304 bytes"), "{failure}");
    // The others are not harmed.
    module.info(&version("v1.1.0")).await.unwrap();
    zip_of(&module, "github.com/ex/m", &version("v1.0.0")).await.unwrap();
}

#[tokio::test]
async fn an_artifact_that_fails_fails_alone() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::of_fixtures();
    let direct = Direct::new(&remotes, GitSettings::default());
    for name in ["bad1", "bad2", "bad3"] {
        let path = format!("github.com/ex/{name}");
        let module = direct.module(&path);
        module.info(&version("v1.0.0")).await.unwrap();
        let go_mod = module.go_mod(&version("v1.0.0")).await.unwrap();
        H1::of_go_mod(&go_mod);
        let failure =
            zip_of(&module, &path, &version("v1.0.0")).await.map(|zip| zip.h1).unwrap_err();
        assert_eq!(failure.class, ErrorClass::NotFound, "{failure}");
        assert!(failure.to_string().contains("there can be no module zip"), "{failure}");
    }
}

#[tokio::test]
async fn missing_tags_of_directories_have_a_hint() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::of_fixtures();
    let direct = Direct::new(&remotes, GitSettings::default());
    let failure =
        direct.module("github.com/ex/r/sub/dir").info(&version("v1.0.1")).await.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "git: unknown revision sub/dir/v1.0.1: versions of a module in the directory sub/dir are tagged \
         sub/dir/v1.2.3; the tag v1.0.1 is one of the repository's root"
    );
    let failure = direct.module("github.com/ex/nothing").list().await.unwrap_err();
    assert_eq!(failure.class, ErrorClass::NotFound, "{failure}");
    assert!(failure.to_string().contains("no such repository"), "{failure}");
}

/// Go 1.25's fourth field of `go-import`, and paths whose root is the whole of them.
#[tokio::test]
async fn roots_and_directories() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::of_fixtures();
    let direct = Direct::new(&remotes, GitSettings::default());
    let code = |root: &str, subdir: &str| crate::discovery::CodeRoot {
        root: root.to_owned(),
        url: "https://github.com/ex/r".to_owned(),
        subdir: subdir.to_owned(),
    };
    let module = direct.module_at("example.com/d", &code("example.com/d", "sub/dir"));
    assert_eq!(module.list().await.unwrap(), "v1.2.3\n");
    let zip = zip_of(&module, "example.com/d", &version("v1.2.3")).await.unwrap();
    let same = direct.module("github.com/ex/r/sub/dir");
    let other = zip_of(&same, "github.com/ex/r/sub/dir", &version("v1.2.3")).await.unwrap();
    assert_eq!((zip.files, zip.uncompressed_bytes), (other.files, other.uncompressed_bytes));
    let path = stoa_module::ModulePath::parse("example.com/d").unwrap();
    let outside = code("example.com/d", "../x");
    let repository = direct.repositories.open(&outside, direct.access.clone()).unwrap();
    assert!(crate::direct::CodeModule::new(&path, &outside, repository).is_err());
    let _ = ModuleVersion::parse("example.com/d@v1.2.3").unwrap();
}

/// A branch in whose place there is a directory of branches now, and the other way round.
#[tokio::test]
async fn branches_that_become_directories() {
    if !require_git() {
        return;
    }
    let remotes = GitRemotes::new();
    tagged(&remotes, "m", 1);
    let settings = GitSettings {
        refs_ttl: Duration::ZERO,
        refs_min_interval: Duration::ZERO,
        ..GitSettings::default()
    };
    let direct = Direct::new(&remotes, settings);
    let module = direct.module("github.com/ex/m");
    for (step, (remove, branch)) in
        [("none", "a"), ("a", "a/b"), ("a/b", "a")].into_iter().enumerate()
    {
        if remove != "none" {
            remotes.git("m", &["checkout", "-q", "main"]);
            remotes.git("m", &["branch", "-q", "-D", remove]);
        }
        remotes.git("m", &["checkout", "-q", "-b", branch]);
        let commit = remotes.commit("m", 1_700_005_000 + i64::try_from(step).unwrap());
        let info = module.query(branch).await.unwrap();
        assert!(info.contains(&commit), "{branch}: {info}");
    }
}

#[tokio::test]
async fn addresses_that_are_none() {
    let directory = tempfile::tempdir().unwrap();
    let settings = GitSettings::default();
    let repositories =
        crate::direct::repositories::Repositories::new(directory.path(), settings, []).unwrap();
    let access = super::Access::to(&GitRemotes::new());
    for url in ["/srv/git/r", "host:path", "-x", "https://u:p@h/x", "https://h/a\nb", ""] {
        let code = crate::discovery::CodeRoot {
            root: "example.com/r".to_owned(),
            url: url.to_owned(),
            subdir: String::new(),
        };
        let failure = repositories.open(&code, access.clone()).map(drop).unwrap_err();
        assert_eq!(failure.class, ErrorClass::NotFound, "{url}: {failure}");
    }
}
