//! Random small repositories, compared with the real go command in direct mode: the same version lists, the same
//! versions, the same hashes, and an error where it has one.
//!
//! `STOA_GIT_CASES` is how many repositories are tried, other ones each time; by default a few, always the same.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRng, TestRunner};
use stoa_module::{H1, Info};
use stoa_testkit::{GitRemotes, Go, require_git, require_go};

use super::{Direct, zip_of};
use crate::direct::GitSettings;
use crate::failure::Fault;

const CASES: u32 = 4;
const ROOT: &str = "github.com/ex/p";

/// What is done to a repository, one after the other.
#[derive(Debug, Clone)]
enum Step {
    Write {
        file: &'static str,
        content: &'static str,
    },
    Remove {
        file: &'static str,
    },
    Link {
        file: &'static str,
    },
    GoMod {
        directory: &'static str,
        module: &'static str,
        more: &'static str,
    },
    Tag {
        name: &'static str,
        annotated: bool,
    },
    /// Onto a branch that begins here, or back to one that is there.
    Branch {
        name: &'static str,
    },
}

const FILES: &[&str] = &[
    "a.go",
    "LICENSE",
    "sub/b.go",
    "sub/LICENSE",
    "sub/deep/c.go",
    "v2/d.go",
    "other/o.go",
    "vendor/modules.txt",
    "vendor/x/y.go",
    "vendor/top.go",
    "pkg/vendor/vendor.go",
    "pkg/vendor/q/q.go",
    "longpath/vendor/l.go",
    "sub/vendor/x/z.go",
    "sub/vendor/modules.txt",
    "é.go",
    "sp ace.txt",
    ".github/w.yml",
    ".hg_archival.txt",
    "x/y/go.mod",
    "tilde~1.go",
    "crlf.txt",
    "-dash.go",
    ".gitmodules",
];

/// What spoils a zip, or may.
const ODD_FILES: &[&str] = &[
    "README.md",
    "readme.md",
    "License",
    "aux.go",
    "a:b.txt",
    "other/GO.MOD",
    "GO.MOD",
    "trail.",
    "em😀.go",
    "K.go",
    "k.go",
    "sub/Deep/d.go",
    "deep",
    "vendor/aux.go/x.go",
    "sub",
    "e\u{301}.go",
];

const CONTENTS: &[&str] =
    &["", "package p\n", "one\ntwo\r\nthree\n", "$Id$ $Format:%H$\n", "ünï\n"];

const ATTRIBUTES: &[&str] = &[
    "*.txt text eol=crlf\n",
    "* text=auto\n*.go ident\n",
    "a.go export-ignore\n*.txt export-subst\n",
    "* filter=lfs diff=lfs merge=lfs -text\n",
    "*.txt working-tree-encoding=ISO-8859-1\n",
    "[attr]mine text eol=crlf\n* mine\n",
];

/// Directories, and the `module` line that belongs there.
const PLACES: &[(&str, &str)] = &[
    ("", "module github.com/ex/p\n"),
    ("", "module github.com/ex/p\n"),
    ("sub/", "module github.com/ex/p/sub\n"),
    ("v2/", "module github.com/ex/p/v2\n"),
    ("sub/v2/", "module github.com/ex/p/sub/v2\n"),
    ("other/", "module github.com/ex/p/other\n"),
];

const MODULES: &[&str] = &[
    "module github.com/ex/p\n",
    "module github.com/ex/p/v2\n",
    "module github.com/ex/p/sub/v2\n",
    "module \"example.org/other\" // with a comment\n",
    "module gopkg.in/x.v3\n",
    "module (\n\tgithub.com/ex/p\n)\n",
    "// nothing\n",
];

const MORE: &[&str] = &[
    "",
    "go 1.16\n",
    "go 1.23\n",
    "go 1.24\n",
    "go 1.24rc1\n",
    "go 1.24.1\n",
    "retract v1.0.1\n",
    "go 1.24\nretract [v1.0.0, v1.9.0]\n",
    "retract v2.0.0\n",
];

const TAGS: &[&str] = &[
    "v0.1.0",
    "v1.0.0",
    "v1.0.1",
    "v1.1.0",
    "v1.2",
    "v1.2.0-rc.1",
    "v2.0.0",
    "v2.1.0",
    "v2.0.0+incompatible",
    "v3.0.0",
    "v10.0.0",
    "sub/v1.0.0",
    "sub/v1.1.0",
    "sub/v2.0.0",
    "sub/v2.1.0-pre",
    "other/v1.0.0",
    "release",
    "v1.0.1-0.20240101000000-abcdefabcdef",
    "sub/v0.0.0-20240101000000-abcdefabcdef",
    "abcdef1",
    "v1",
];

const BRANCHES: &[&str] = &["main", "v2", "feature/x", "v1.5.0"];

fn step() -> impl Strategy<Value = Step> {
    let one = |list: &'static [&'static str]| prop::sample::select(list);
    prop_oneof![
        16 => (one(FILES), one(CONTENTS)).prop_map(|(file, content)| Step::Write { file, content }),
        2 => one(ATTRIBUTES).prop_map(|content| Step::Write { file: ".gitattributes", content }),
        1 => (one(ODD_FILES), one(CONTENTS))
            .prop_map(|(file, content)| Step::Write { file, content }),
        4 => one(FILES).prop_map(|file| Step::Remove { file }),
        2 => one(FILES).prop_map(|file| Step::Link { file }),
        // Where it belongs, and anywhere.
        12 => (prop::sample::select(PLACES), one(MORE))
            .prop_map(|((directory, module), more)| Step::GoMod { directory, module, more }),
        4 => (prop::sample::select(PLACES), one(MODULES), one(MORE))
            .prop_map(|((directory, _), module, more)| Step::GoMod { directory, module, more }),
        16 => (one(TAGS), any::<bool>()).prop_map(|(name, annotated)| Step::Tag { name, annotated }),
        4 => one(BRANCHES).prop_map(|name| Step::Branch { name }),
    ]
}

/// Makes the repository, and answers with its commits.
fn make(remotes: &GitRemotes, steps: &[Step]) -> Vec<String> {
    remotes.init("p");
    let path = remotes.path("p");
    let mut time = 1_700_000_000;
    let mut commits = vec![remotes.commit("p", time)];
    let (mut tags, mut branches) = (BTreeSet::new(), BTreeSet::from(["main"]));
    for step in steps {
        let free = |file: &str| {
            // A file in the way of a directory, or the other way round, goes.
            let target = path.join(file);
            for above in target.ancestors().skip(1).take_while(|above| **above != path) {
                if above.is_file() || above.is_symlink() {
                    fs_err::remove_file(above).unwrap();
                }
            }
            if target.is_dir() && !target.is_symlink() {
                fs_err::remove_dir_all(&target).unwrap();
            } else if target.is_symlink() || target.exists() {
                fs_err::remove_file(&target).unwrap();
            }
        };
        match *step {
            Step::Write { file, content } => {
                free(file);
                remotes.write("p", file, content);
            }
            Step::Remove { file } => free(file),
            // git refuses links of these names.
            Step::Link { file } if file.starts_with(".git") => continue,
            Step::Link { file } => {
                free(file);
                fs_err::create_dir_all(path.join(file).parent().unwrap()).unwrap();
                fs_err::os::unix::fs::symlink("a.go", path.join(file)).unwrap();
            }
            Step::GoMod { directory, module, more } => {
                let file = format!("{directory}go.mod");
                free(&file);
                remotes.write("p", &file, format!("{module}{more}"));
            }
            Step::Tag { name, annotated } => {
                if tags.insert(name) {
                    let options: &[&str] =
                        if annotated { &["tag", "-m", "t", name] } else { &["tag", name] };
                    remotes.git("p", options);
                }
                continue;
            }
            Step::Branch { name } => {
                let new = branches.insert(name);
                let options: &[&str] =
                    if new { &["checkout", "-q", "-b"] } else { &["checkout", "-q"] };
                remotes.git("p", &[options, &[name, "--"]].concat());
                continue;
            }
        }
        time += 1000;
        commits.push(remotes.commit("p", time));
    }
    remotes.git("p", &["checkout", "-q", "main", "--"]);
    commits.dedup();
    commits
}

/// What is asked: all tags as versions, branches, and commits in several spellings.
fn queries(commits: &[String], tags: &[&str]) -> Vec<String> {
    let mut queries = Vec::new();
    for (module, tag_prefix) in [
        ("", ""),
        ("/v2", ""),
        ("/v3", ""),
        ("/sub", "sub/"),
        ("/sub/v2", "sub/"),
        ("/other", "other/"),
    ] {
        let mut ask = |revision: &str| queries.push(format!("{ROOT}{module}@{revision}"));
        for tag in tags.iter().filter_map(|tag| tag.strip_prefix(tag_prefix)) {
            // The go command takes these for the beginnings of versions.
            if !tag.contains('/') && !matches!(tag, "v1" | "v1.2") {
                ask(tag);
            }
        }
        for revision in
            ["main", "v2.0.0+incompatible", "v3.0.0+incompatible", "v1.5.0", "feature/x"]
        {
            ask(revision);
        }
        // A few, and not only the last.
        for (at, commit) in commits.iter().enumerate().rev().step_by(3).take(3) {
            let time = 1_700_000_000 + 1000 * i64::try_from(at).unwrap();
            let time = jiff::Timestamp::from_second(time).unwrap().strftime("%Y%m%d%H%M%S");
            let short = &commit[..12];
            ask(&commit[..7]);
            ask(commit);
            for base in ["v0.0.0-", "v1.0.1-0.", "v1.1.1-0.", "v2.0.0-", "v2.0.1-0."] {
                ask(&format!("{base}{time}-{short}"));
            }
            ask(&format!("v2.0.1-0.{time}-{short}+incompatible"));
        }
    }
    queries.sort();
    queries.dedup();
    queries
}

/// `version zip go.mod`, and where the commit was found.
async fn answer(direct: &Direct, query: &str) -> Result<(String, serde_json::Value), Fault> {
    let (path, revision) = query.split_once('@').unwrap();
    let module = direct.module(path);
    let info = module.query(revision).await?;
    let version = Info::parse(info.as_bytes()).unwrap().version;
    let go_mod = H1::of_go_mod(&module.go_mod(&version).await?);
    let zip = zip_of(&module, path, &version).await?;
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    Ok((format!("{version} {} {go_mod}", zip.h1), info["Origin"].clone()))
}

async fn compare(steps: &[Step]) -> Result<(), TestCaseError> {
    let remotes = GitRemotes::new();
    let commits = make(&remotes, steps);
    let mut go = Go::new().goproxy("direct").env("GOVCS", "*:all").env("GOPRIVATE", "*");
    for (name, value) in remotes.environment() {
        go = go.env(&name, value);
    }
    let direct = Direct::new(&remotes, GitSettings::default());
    let mut wrong = Vec::new();

    let modules = ["", "/v2", "/v3", "/sub", "/sub/v2", "/other"].map(|end| format!("{ROOT}{end}"));
    // With -retracted, so that it does not look for retractions, and fail on a tag that is no version.
    let format = "{{.Path}} {{with .Error}}error{{end}} {{join .Versions \",\"}}";
    let arguments = ["list", "-m", "-e", "-versions", "-retracted", "-f", format].into_iter();
    let arguments: Vec<&str> = arguments.chain(modules.iter().map(String::as_str)).collect();
    let listed = go.run(arguments).await;
    for path in &modules {
        let theirs = listed.stdout.lines().find_map(|line| line.strip_prefix(&format!("{path} ")));
        let ours = direct.module(path).list().await;
        // Where there is nothing to list the go command says so only when it has to choose one.
        let agree = match (theirs, &ours) {
            (Some(theirs), Ok(list)) => {
                theirs == format!(" {}", list.lines().collect::<Vec<_>>().join(","))
            }
            (Some(theirs), Err(_)) => theirs == " " || theirs.starts_with("error"),
            (None, _) => false,
        };
        if !agree {
            wrong.push(format!("list {path}: go: {theirs:?} {}, here: {ours:?}", listed.stderr));
        }
    }

    let tags = remotes.git("p", &["tag"]);
    let tags: Vec<&str> = tags.lines().chain(["v1.9.9"]).collect();
    let queries = queries(&commits, &tags);
    for queries in queries.chunks(60) {
        let arguments: Vec<&str> = ["mod", "download", "-json"]
            .into_iter()
            .chain(queries.iter().map(String::as_str))
            .collect();
        let output = go.run(arguments).await;
        let answers: Vec<serde_json::Value> = serde_json::Deserializer::from_str(&output.stdout)
            .into_iter()
            .collect::<Result<_, _>>()
            .unwrap_or_default();
        if answers.len() != queries.len() {
            return Err(TestCaseError::fail(format!("go mod download: {}", output.stderr)));
        }
        for (query, theirs) in queries.iter().zip(&answers) {
            let field = |name: &str| theirs[name].as_str().unwrap_or_default();
            let ours = answer(&direct, query).await;
            let error = field("Error");
            match (ours, error.is_empty()) {
                (Err(_), false) => {}
                (Ok((found, origin)), true) => {
                    let expected =
                        format!("{} {} {}", field("Version"), field("Sum"), field("GoModSum"));
                    if found != expected {
                        wrong.push(format!("{query}: go: {expected}, here: {found}"));
                    }
                    for name in ["VCS", "URL", "Subdir", "Hash"] {
                        if origin[name] != theirs["Origin"][name] {
                            wrong.push(format!(
                                "{query}: {name}: go: {}, here: {origin}",
                                theirs["Origin"]
                            ));
                        }
                    }
                }
                (Ok((found, _)), false) => {
                    wrong.push(format!("{query}: go: {error}, here: {found}"));
                }
                (Err(failure), true) => {
                    wrong.push(format!("{query}: go: {}, here: {failure}", field("Version")));
                }
            }
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(TestCaseError::fail(format!("\n{}\n", wrong.join("\n"))))
    }
}

/// What random ones have shown.
#[tokio::test]
async fn known_repositories() {
    if !require_git() || !require_go() {
        return;
    }
    let go_mod = |directory, module| Step::GoMod { directory, module, more: "" };
    let tag = |name| Step::Tag { name, annotated: false };
    let write = |file| Step::Write { file, content: "package p\n" };
    // The go command refuses a pseudo-version for a directory's module when the commit has a tag of the root that is equal
    // to its base.
    let steps = [
        go_mod("sub/", "module github.com/ex/p/sub\n"),
        tag("sub/v1.1.0"),
        write("a.go"),
        write("sub/b.go"),
        tag("v1.1.0"),
    ];
    compare(&steps).await.unwrap();
}

#[test]
fn random_repositories() {
    if !require_git() || !require_go() {
        return;
    }
    let cases = std::env::var("STOA_GIT_CASES").ok().and_then(|cases| cases.parse().ok());
    let config = Config {
        cases: cases.unwrap_or(CASES),
        failure_persistence: None,
        max_shrink_iters: 60,
        ..Config::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = if cases.is_some() {
        TestRunner::new(config)
    } else {
        let rng = TestRng::deterministic_rng(config.rng_algorithm);
        TestRunner::new_with_rng(config, rng)
    };
    let outcome = runner
        .run(&prop::collection::vec(step(), 3..25), |steps| runtime.block_on(compare(&steps)));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
