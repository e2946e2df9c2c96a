//! What a version's files are when its repository is at odds with them: a zip that cannot be, a tag that is another now.

use std::time::{Duration, Instant};

use stoa_testkit::require_git;

use crate::direct_world::{Corp, GIT, repository};
use crate::fixtures::{BOUNDED, bounded};

#[tokio::test]
async fn what_fails_is_the_zip_alone() {
    if !require_git() {
        return;
    }
    let corp = Corp::new();
    for (name, files) in [
        ("device", &["aux.go"][..]),
        ("cases", &["Case.go", "case.go"]),
        ("character", &["a:b.go"]),
        ("quote", &["it's.go"]),
    ] {
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|file| (*file, b"package lib\n".as_slice())).collect();
        repository(&corp.remotes, name, &format!("{GIT}/{name}"), &files);
        corp.host(GIT, name, name);
    }
    let stoa = corp.setup().start();
    for (name, words) in
        [("device", "aux.go"), ("cases", "case.go"), ("character", "a:b.go"), ("quote", "it's.go")]
    {
        let path = format!("{GIT}/{name}/@v/v1.0.0");
        // First, so that neither of the others is there because of it.
        bounded(stoa.get(&format!("{path}.zip"))).await.refused(404, words);
        assert!(
            stoa.get(&format!("{path}.info")).await.ok().starts_with(b"{\"Version\":\"v1.0.0\"")
        );
        assert!(stoa.get(&format!("{path}.mod")).await.ok().starts_with(b"module git."));
    }
}

#[tokio::test]
async fn a_moved_tag_keeps_its_first_content() {
    if !require_git() {
        return;
    }
    let corp = Corp::new();
    corp.host(GIT, "lib", "lib");
    let path = format!("{GIT}/lib/@v/v1.0.0");
    let setup = || corp.setup().env("STOA_GIT_REFS_TTL", "1s").env("STOA_CACHE_LIST_TTL", "1s");
    // One has the whole version before the tag is moved, the other only the beginning.
    let (whole, half) = (setup().start(), setup().start());
    let mut first = Vec::new();
    for file in ["info", "mod", "zip"] {
        first.push(whole.get(&format!("{path}.{file}")).await.ok());
    }
    assert!(half.get(&format!("{path}.info")).await.ok() == first[0]);
    corp.remotes.write("lib", "go.mod", format!("module {GIT}/lib\n\ngo 1.22\n"));
    corp.remotes.commit("lib", 1_700_000_100);
    corp.remotes.git("lib", &["tag", "-f", "v1.0.0"]);
    for stoa in [&whole, &half] {
        let moved = async |count: usize| {
            let metrics = stoa.get("metrics").await;
            metrics.text().contains(&format!("stoa_git_moved_tags_total {count}\n"))
        };
        assert!(moved(0).await);
        let until = Instant::now() + BOUNDED;
        for at in 0.. {
            // What is not there is looked for anew.
            stoa.get(&format!("{GIT}/lib/@v/v9.9.{at}.info"))
                .await
                .refused(404, "unknown revision");
            if moved(1).await {
                break;
            }
            assert!(Instant::now() < until, "it goes unnoticed");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for (file, first) in ["info", "mod", "zip"].iter().zip(&first) {
            assert!(stoa.get(&format!("{path}.{file}")).await.ok() == *first, "{file}");
        }
    }
    // And again, when the list was renewed.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    for stoa in [whole, half] {
        stoa.get(&format!("{GIT}/lib/@v/v9.8.0.info")).await.refused(404, "unknown revision");
        let (_, log) = stoa.stop();
        assert_eq!(log.matches("a tag was moved").count(), 1, "{log}");
    }
}
