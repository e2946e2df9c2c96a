//! Repositories that are made to do harm: very many refs, attributes, submodules, blobs without end, tags of anything.

use std::fmt::Write as _;
use std::time::Duration;

use stoa_testkit::{Fault, Go, require_git, require_go};

use crate::direct_world::{Corp, GIT, is_unharmed, repository};
use crate::fixtures::{bounded, noise};
use crate::stoa::Stoa;

const TAGS: usize = 20_000;
const TEXT: &str = "package lib // $Id$ $Format:%H$\n";
const ZEROS: u64 = 128 << 20;

fn module(corp: &Corp, name: &str, files: &[(&str, &[u8])]) {
    repository(&corp.remotes, name, &format!("{GIT}/{name}"), files);
    corp.host(GIT, name, name);
}

/// The most memory that a server had, in bytes.
fn peak(stoa: &Stoa) -> u64 {
    let status = fs_err::read_to_string(format!("/proc/{}/status", stoa.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn very_many_tags() {
    if !require_git() {
        return;
    }
    let corp = Corp::new();
    module(&corp, "many", &[]);
    let head = corp.remotes.git("many", &["rev-parse", "HEAD"]);
    let mut packed = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
    for at in 0..TAGS {
        // In the order that the first line promises.
        _ = writeln!(packed, "{} refs/tags/v0.{}.0", head.trim(), 10_000_000 + at);
    }
    fs_err::write(corp.remotes.path("many/.git/packed-refs"), packed).unwrap();
    let few = corp.setup().env("STOA_GIT_MAX_REFS", "1000");
    let stoa = few.start();
    let list = bounded(stoa.get("git.corp.example.com/many/@v/list")).await;
    list.refused(502, "the repository's list has more than 1000 branches and tags");
    is_unharmed(&corp, &few, &stoa).await;
    let setup = corp.setup();
    let stoa = setup.start();
    let list = bounded(stoa.get("git.corp.example.com/many/@v/list")).await.ok();
    assert_eq!(list.split(|&b| b == b'\n').filter(|line| !line.is_empty()).count(), TAGS + 1);
    for file in ["v1.0.0.zip", "v0.10000007.0.info", "main.info"] {
        bounded(stoa.get(&format!("git.corp.example.com/many/@v/{file}"))).await.ok();
    }
    assert!(peak(&stoa) < 200 << 20, "{} bytes", peak(&stoa));
    is_unharmed(&corp, &setup, &stoa).await;
}

#[tokio::test]
async fn attributes_and_submodules_change_nothing() {
    if !require_git() || !require_go() {
        return;
    }
    let attributes = "* filter=evil text eol=crlf working-tree-encoding=UTF-16 ident \
                      export-subst diff=evil merge=evil\nhidden.go export-ignore\n\
                      plain.go -text !eol !working-tree-encoding -ident export-subst\n\
                      [attr]evil filter=evil\n";
    let modules = "[submodule \"s\"]\n\tpath = s\n\turl = ext::sh -c touch% pwned\n\
                   [submodule \"t\"]\n\tpath = t\n\turl = --upload-pack=touch pwned\n";
    let corp = Corp::new();
    module(&corp, "evil", &[]);
    for file in ["text.go", "hidden.go", "plain.go"] {
        corp.remotes.write("evil", file, TEXT);
    }
    corp.remotes.commit("evil", 1_700_000_100);
    // Afterwards, so that nothing is changed on its way into the repository.
    for (file, content) in [(".gitattributes", attributes), (".gitmodules", modules)] {
        corp.remotes.write("evil", file, content);
        let blob = corp.remotes.git("evil", &["hash-object", "-w", "--no-filters", file]);
        let entry = format!("100644,{},{file}", blob.trim());
        corp.remotes.git("evil", &["update-index", "--add", "--cacheinfo", &entry]);
    }
    let head = corp.remotes.git("evil", &["rev-parse", "HEAD"]);
    for submodule in ["s", "t"] {
        let entry = format!("160000,{},{submodule}", head.trim());
        corp.remotes.git("evil", &["update-index", "--add", "--cacheinfo", &entry]);
    }
    corp.remotes.git("evil", &["commit", "-q", "-m", "evil"]);
    corp.remotes.git("evil", &["tag", "v1.1.0"]);
    // The filter is one that the server's own user has.
    let setup = corp.setup();
    let config = setup.scratch().join("gitconfig");
    let filter = "[filter \"evil\"]\n\tsmudge = touch pwned\n\tclean = touch pwned\n\
                  \trequired = true\n[core]\n\tautocrlf = true\n";
    fs_err::write(&config, filter).unwrap();
    let setup = setup.env("GIT_CONFIG_GLOBAL", config.display());
    let stoa = setup.start();
    bounded(stoa.get("git.corp.example.com/evil/@v/v1.1.0.zip")).await.ok();
    is_unharmed(&corp, &setup, &stoa).await;
    // What is left of them is what the go command leaves, where nobody has such a filter.
    let through = Go::new().goproxy(&stoa.url);
    let mut direct = Go::new().goproxy("direct").env("GOVCS", "*:all");
    for (name, value) in corp.internet.environment() {
        direct = direct.env(&name, value);
    }
    let direct = direct.env("GIT_ALLOW_PROTOCOL", "https");
    let mut sums = Vec::new();
    for go in [&through, &direct] {
        go.write("go.mod", "module ex.com/app\n\ngo 1.21\n");
        go.ok(["get", "git.corp.example.com/evil@v1.1.0"]).await;
        sums.push(go.read("go.sum"));
    }
    assert_eq!(sums[0], sums[1]);
    let files = through.modcache().join("git.corp.example.com/evil@v1.1.0");
    assert_eq!(fs_err::read_to_string(files.join("plain.go")).unwrap(), TEXT);
    assert!(files.join("hidden.go").is_file());
    assert!(!files.join("s").exists());
}

#[tokio::test]
async fn blobs_that_are_too_large() {
    if !require_git() {
        return;
    }
    let corp = Corp::new();
    module(&corp, "noise", &[("noise.bin", &noise(3 << 20))]);
    module(&corp, "zeros", &[]);
    // Nearly nothing while it is packed.
    let file = fs_err::File::create(corp.remotes.path("zeros/zeros.bin")).unwrap();
    file.set_len(ZEROS).unwrap();
    corp.remotes.commit("zeros", 1_700_000_100);
    corp.remotes.git("zeros", &["tag", "v1.1.0"]);
    let setup = corp.setup().env("STOA_LIMITS_ZIP_SIZE", "64KiB");
    let stoa = setup.start();
    for version in ["noise/@v/v1.0.0", "zeros/@v/v1.1.0"] {
        let zip = bounded(stoa.get(&format!("{GIT}/{version}.zip"))).await;
        zip.refused(404, "the module has more than 65536 bytes as a zip");
        bounded(stoa.get(&format!("{GIT}/{version}.info"))).await.ok();
        bounded(stoa.get(&format!("{GIT}/{version}.mod"))).await.ok();
    }
    assert!(peak(&stoa) < ZEROS, "{} bytes", peak(&stoa));
    is_unharmed(&corp, &setup, &stoa).await;
    drop(stoa);
    // What is too large already on its way, which is looked at from time to time.
    let slowly = Fault::drip(64 << 10, Duration::from_millis(50));
    corp.internet.host(GIT).fault("/r/noise/git-upload-pack", slowly);
    let setup = corp.setup().env("STOA_GIT_REPOSITORY_SIZE", "1MiB");
    let stoa = setup.start();
    let info = bounded(stoa.get(&format!("{GIT}/noise/@v/v1.0.0.info"))).await;
    info.refused(502, "the repository has more than 1048576 bytes");
    is_unharmed(&corp, &setup, &stoa).await;
}

#[tokio::test]
async fn tags_of_what_is_no_commit() {
    if !require_git() {
        return;
    }
    let corp = Corp::new();
    module(&corp, "tags", &[]);
    let git = |args: &[&str]| corp.remotes.git("tags", args).trim().to_owned();
    let (blob, tree) = (git(&["rev-parse", "HEAD:lib.go"]), git(&["rev-parse", "HEAD^{tree}"]));
    git(&["tag", "v1.1.0", &blob]);
    git(&["tag", "v1.2.0", &tree]);
    git(&["tag", "-a", "-m", "a", "v1.3.0", &blob]);
    git(&["tag", "-a", "-m", "a", "v1.4.0", &tree]);
    git(&["tag", "-a", "-m", "a", "v1.5.0", "v1.0.0"]);
    git(&["tag", "-a", "-m", "a", "v1.6.0", "v1.5.0"]);
    let setup = corp.setup();
    let stoa = setup.start();
    for (version, status) in [
        ("v1.1.0", 404),
        ("v1.2.0", 404),
        ("v1.3.0", 404),
        ("v1.4.0", 404),
        ("v1.5.0", 200),
        ("v1.6.0", 200),
        ("v1.0.0", 200),
        ("main", 200),
    ] {
        for file in ["info", "mod", "zip"] {
            if version == "main" && file != "info" {
                continue;
            }
            let reply = bounded(stoa.get(&format!("{GIT}/tags/@v/{version}.{file}"))).await;
            if status == 200 {
                reply.ok();
            } else {
                reply.refused(status, version);
            }
        }
    }
    bounded(stoa.get(&format!("{GIT}/tags/@v/list"))).await.ok();
    is_unharmed(&corp, &setup, &stoa).await;
}
