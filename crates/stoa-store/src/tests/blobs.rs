//! Commits and hits.

use std::os::unix::fs::PermissionsExt;

use stoa_module::ErrorClass;
use tokio::task::JoinSet;

use super::*;

#[tokio::test]
async fn a_version_is_laid_out_as_go_does() {
    let place = Place::new();
    let store = place.open().await;
    let big = module("github.com/BurntSushi/toml@v1.0.0-RC1");
    assert_eq!(hits(&store, &big).await, "---");
    commit(&store, &big, Artifact::Mod).await;
    assert_eq!(hits(&store, &big).await, "-m-");
    assert!(versions(&store, "github.com/BurntSushi/toml").await.is_empty());
    commit(&store, &big, Artifact::Info).await;
    commit(&store, &big, Artifact::Zip).await;
    assert_eq!(hits(&store, &big).await, "imz");

    let at = "github.com/!burnt!sushi/toml/@v";
    let published = place.published();
    let names: Vec<_> = published.keys().map(String::as_str).collect();
    let expected = ["list", "v1.0.0-!r!c1.info", "v1.0.0-!r!c1.mod", "v1.0.0-!r!c1.zip"];
    let mut expected: Vec<_> = expected.iter().map(|name| format!("{at}/{name}")).collect();
    expected.push(format!("{at}/v1.0.0-!r!c1.ziphash"));
    assert_eq!(names, expected);
    assert_eq!(published[&format!("{at}/list")], b"v1.0.0-RC1\n");
    assert_eq!(published[&format!("{at}/v1.0.0-!r!c1.ziphash")].len(), 47);
    let sidecar = store.sidecar(&big).await.unwrap().unwrap();
    let on_disk = fs_err::read(place.layout().version(&big).unwrap().sidecar()).unwrap();
    assert_eq!(serde_json::from_slice::<Sidecar>(&on_disk).unwrap(), *sidecar);
    assert_eq!(sidecar.records().count(), 3);
    assert_agreement(&place, &store, &[big]).await;
}

#[tokio::test]
async fn files_are_readable_as_the_umask_allows() {
    let place = Place::new();
    let store = place.open().await;
    let a = module("example.com/a@v1.0.0");
    commit_all(&store, &a).await;
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(umask);
    let files = place.layout().version(&a).unwrap();
    let list = place.layout().list(a.path()).unwrap();
    for file in [files.artifact(Artifact::Zip), files.sidecar(), files.zip_hash(), list] {
        let mode = fs_err::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o666 & !umask.as_raw_mode(), "{}", file.display());
    }
}

#[tokio::test]
async fn lists_are_sorted_by_version_and_hold_pseudo_versions() {
    let place = Place::new();
    let store = place.open().await;
    for version in ["v1.10.0", "v1.9.0", "v0.0.0-20240202030405-bbaab31090cb", "v1.9.0-rc.1"] {
        let one = module(&format!("example.com/a@{version}"));
        commit(&store, &one, Artifact::Info).await;
        commit(&store, &one, Artifact::Mod).await;
    }
    commit(&store, &module("example.com/a@v1.11.0"), Artifact::Info).await;
    commit(&store, &module("example.com/a@v1.12.0"), Artifact::Mod).await;
    // A module below another shares its directories, not its list.
    commit_all(&store, &module("example.com/a/b@v1.0.0")).await;
    let expected =
        ["v0.0.0-20240202030405-bbaab31090cb", "v1.9.0-rc.1", "v1.9.0", "v1.10.0"].as_slice();
    assert_eq!(versions(&store, "example.com/a").await, expected);
    let list = &place.published()["example.com/a/@v/list"];
    assert_eq!(String::from_utf8_lossy(list).lines().collect::<Vec<_>>(), expected);
    assert_eq!(versions(&store, "example.com/a/b").await, ["v1.0.0"]);
    assert!(versions(&store, "example.com").await.is_empty());

    let stored = store.stored_versions(&path("example.com/a")).await.unwrap();
    let of = |version: &str| {
        let found = stored.iter().find(|one| one.version.as_str() == version).unwrap();
        Artifact::ALL.map(|artifact| found.has(artifact))
    };
    assert_eq!(stored.len(), 6);
    assert!(stored.is_sorted_by_key(|one| one.version.clone()));
    assert_eq!(of("v1.9.0"), [true, true, false]);
    assert_eq!(of("v1.11.0"), [true, false, false]);
    assert_eq!(of("v1.12.0"), [false, true, false]);

    // Another process reads the same from the list alone.
    store.close().await;
    let store = place.open().await;
    assert!(store.counts().await.unwrap().complete, "a clean stop needs no rebuild");
    assert_eq!(versions(&store, "example.com/a").await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commits_of_one_version_do_not_lose_each_other() {
    let place = Place::new();
    let store = place.open().await;
    let modules: Vec<_> =
        (0..8).map(|n| module(&format!("example.com/m{}@v1.{n}.0", n % 3))).collect();
    let mut tasks = JoinSet::new();
    for one in &modules {
        for artifact in Artifact::ALL {
            // The same bytes twice, as two servers' importers might bring them.
            for _ in 0..2 {
                let (store, one) = (store.clone(), one.clone());
                tasks.spawn(async move { commit(&store, &one, artifact).await });
            }
        }
    }
    tasks.join_all().await;
    for one in &modules {
        assert_eq!(hits(&store, one).await, "imz", "{one}");
        assert_eq!(store.sidecar(one).await.unwrap().unwrap().records().count(), 3);
    }
    assert_agreement(&place, &store, &modules).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commits_of_one_module_do_not_lose_each_other() {
    let place = Place::new();
    let store = place.open().await;
    store.index_completed().await;
    let modules: Vec<_> = (0..64).map(|n| module(&format!("example.com/a@v1.{n}.0"))).collect();
    let mut tasks = JoinSet::new();
    for one in &modules {
        let (store, one) = (store.clone(), one.clone());
        tasks.spawn(async move {
            commit(&store, &one, Artifact::Info).await;
            commit(&store, &one, Artifact::Mod).await;
        });
    }
    tasks.join_all().await;
    assert_agreement(&place, &store, &modules).await;
}

#[tokio::test]
async fn first_bytes_win() {
    let place = Place::new();
    let store = place.open().await;
    let a = module("example.com/a@v1.0.0");
    commit_all(&store, &a).await;
    for artifact in Artifact::ALL {
        let other = b"something else".as_slice();
        let error =
            commit_as(&store, &a, artifact, other, record(artifact, other)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Mismatch);
        let Error::Conflict { had } = error else { panic!("{error}") };
        assert_eq!(had.sha256, Sha256::of(&body(&a, artifact)), "{artifact}");
    }
    // Nor another compression of the same content, while the first one is whole.
    let other = b"compressed otherwise".as_slice();
    let h1 = Some(H1::of_go_mod(&body(&a, Artifact::Zip)));
    let offered = ArtifactRecord { h1, ..record(Artifact::Zip, other) };
    let error = commit_as(&store, &a, Artifact::Zip, other, offered).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Mismatch);
    assert_eq!(hits(&store, &a).await, "imz");
    assert_eq!(place.temporaries(), 0);
}

#[tokio::test]
async fn the_same_bytes_change_nothing_but_can_raise_the_state() {
    let place = Place::new();
    let store = place.open().await;
    let a = module("example.com/a@v1.0.0");
    let zip = body(&a, Artifact::Zip);
    let verified = record(Artifact::Zip, &zip);
    let exempt = State::Exempt { pattern: "example.com/*".into() };
    let first = ArtifactRecord { state: exempt.clone(), ..verified.clone() };
    commit_as(&store, &a, Artifact::Zip, &zip, first.clone()).await.unwrap();
    let later = ArtifactRecord {
        first_seen: "2027-01-01T00:00:00Z".parse().unwrap(),
        source: "elsewhere.example.com".into(),
        ..first.clone()
    };
    let sidecar = commit_as(&store, &a, Artifact::Zip, &zip, later.clone()).await.unwrap();
    assert_eq!(sidecar.of(Artifact::Zip), Some(&first));

    let raised = ArtifactRecord { state: verified.state.clone(), ..later.clone() };
    let sidecar = commit_as(&store, &a, Artifact::Zip, &zip, raised).await.unwrap();
    let expected = ArtifactRecord { state: verified.state.clone(), ..first.clone() };
    assert_eq!(sidecar.of(Artifact::Zip), Some(&expected));
    // Never lowered again.
    let sidecar = commit_as(&store, &a, Artifact::Zip, &zip, later).await.unwrap();
    assert_eq!(sidecar.of(Artifact::Zip), Some(&expected));
    let sidecar = store.restate(&a, Artifact::Zip, exempt).await.unwrap().unwrap();
    assert_eq!(sidecar.of(Artifact::Zip), Some(&expected));
    // Another database vouches for it now.
    let state = State::Verified { database: "sum2.example.com".into() };
    let raised = ArtifactRecord { state, ..expected };
    let sidecar = commit_as(&store, &a, Artifact::Zip, &zip, raised.clone()).await.unwrap();
    assert_eq!(sidecar.of(Artifact::Zip), Some(&raised));
    let expected = raised;

    store.close().await;
    let store = place.open().await;
    assert_eq!(store.sidecar(&a).await.unwrap().unwrap().of(Artifact::Zip), Some(&expected));
}

#[tokio::test]
async fn a_state_is_restated_without_bytes() {
    let place = Place::new();
    let store = place.open().await;
    let a = module("example.com/a@v1.0.0");
    let state = State::Verified { database: "sum.example.com".into() };
    assert_eq!(store.restate(&a, Artifact::Mod, state.clone()).await.unwrap(), None);
    let text = body(&a, Artifact::Mod);
    let unverified = ArtifactRecord { state: State::Unverified, ..record(Artifact::Mod, &text) };
    commit_as(&store, &a, Artifact::Mod, &text, unverified).await.unwrap();
    store.restate(&a, Artifact::Mod, state.clone()).await.unwrap().unwrap();
    assert_eq!(store.restate(&a, Artifact::Zip, state.clone()).await.unwrap(), None);
    let exempt = State::Exempt { pattern: "example.com/*".into() };
    let other = State::Verified { database: "sum2.example.com".into() };
    for (restated, expected) in [
        (state.clone(), &state),
        (exempt, &state),
        (State::Unverified, &state),
        (other.clone(), &other),
        (State::Unverified, &other),
    ] {
        let sidecar = store.restate(&a, Artifact::Mod, restated).await.unwrap().unwrap();
        assert_eq!(sidecar.of(Artifact::Mod).unwrap().state, *expected);
        let stored = store.open_artifact(&a, Artifact::Mod).await.unwrap().unwrap();
        assert_eq!(stored.record.state, *expected);
        let on_disk = fs_err::read(place.layout().version(&a).unwrap().sidecar()).unwrap();
        assert_eq!(serde_json::from_slice::<Sidecar>(&on_disk).unwrap(), *sidecar);
    }
    assert_eq!(hits(&store, &a).await, "-m-");
}

#[tokio::test]
async fn damage_is_a_miss_and_the_same_bytes_heal_it() {
    async fn check(damage: impl Fn(&std::path::Path), expected: &str) {
        let place = Place::new();
        let store = place.open().await;
        let a = module("example.com/a@v1.0.0");
        // The sidecar is in memory from then on; the bytes of small files would be when they were asked for.
        commit_all(&store, &a).await;
        for artifact in [Artifact::Info, Artifact::Zip] {
            damage(&place.layout().version(&a).unwrap().artifact(artifact));
        }
        if expected == "-mz" {
            assert_eq!(served(&store, &a, Artifact::Info).await, None);
        } else {
            assert_eq!(hits(&store, &a).await, expected);
        }
        // Damaged or not, another content is another content.
        let other = record(Artifact::Zip, b"other");
        let refused = commit_as(&store, &a, Artifact::Zip, b"other", other).await;
        assert!(matches!(refused, Err(Error::Conflict { .. })));
        commit_all(&store, &a).await;
        assert_eq!(hits(&store, &a).await, "imz");
        assert_agreement(&place, &store, &[a]).await;
    }
    check(|file| fs_err::remove_file(file).unwrap(), "-m-").await;
    check(|file| fs_err::write(file, "").unwrap(), "-m-").await;
    check(|file| fs_err::write(file, "longer than it was".repeat(9000)).unwrap(), "-m-").await;
    // Bits that rot at the same length are seen only by who reads everything: of a zip, that is a commit.
    let rot = |file: &std::path::Path| {
        let mut bytes = fs_err::read(file).unwrap();
        bytes[3] ^= 1;
        fs_err::write(file, bytes).unwrap();
    };
    check(rot, "-mz").await;
    let directory = |file: &std::path::Path| {
        fs_err::remove_file(file).unwrap();
        fs_err::create_dir(file).unwrap();
        fs_err::remove_dir(file).unwrap();
    };
    check(directory, "-m-").await;
}

#[tokio::test]
async fn a_lost_zip_may_come_back_compressed_otherwise() {
    let place = Place::new();
    let store = place.open().await;
    let a = module("example.com/a@v1.0.0");
    commit_all(&store, &a).await;
    fs_err::remove_file(place.layout().version(&a).unwrap().artifact(Artifact::Zip)).unwrap();
    let other = b"compressed otherwise".as_slice();
    let h1 = Some(H1::of_go_mod(&body(&a, Artifact::Zip)));
    let later = "2027-01-01T00:00:00Z".parse().unwrap();
    let state = State::Unverified;
    let offered = ArtifactRecord { h1, state, first_seen: later, ..record(Artifact::Zip, other) };
    let sidecar = commit_as(&store, &a, Artifact::Zip, other, offered.clone()).await.unwrap();
    // The h1 is the same, so it is as verified as before.
    let ArtifactRecord { first_seen, state, .. } = record(Artifact::Zip, other);
    let expected = ArtifactRecord { state, first_seen, ..offered };
    assert_eq!(sidecar.of(Artifact::Zip), Some(&expected));
    assert_eq!(served(&store, &a, Artifact::Zip).await.unwrap(), other);
}

#[tokio::test]
async fn a_lost_info_may_come_back_with_other_bytes() {
    async fn check(damage: impl Fn(&std::path::Path), is_taken: bool) {
        let place = Place::new();
        let store = place.open().await;
        let a = module("example.com/a@v1.0.0");
        commit_all(&store, &a).await;
        damage(&place.layout().version(&a).unwrap().artifact(Artifact::Info));
        let other = br#"{"Version":"v1.0.0","Origin":{"VCS":"git"}}"#.as_slice();
        let first = record(Artifact::Info, other);
        let offered = ArtifactRecord {
            first_seen: "2027-01-01T00:00:00Z".parse().unwrap(),
            source: "elsewhere.example.com".into(),
            ..first.clone()
        };
        let result = commit_as(&store, &a, Artifact::Info, other, offered.clone()).await;
        if !is_taken {
            assert!(matches!(result, Err(Error::Conflict { .. })));
            assert_eq!(hits(&store, &a).await, "imz");
            return;
        }
        let expected = ArtifactRecord { first_seen: first.first_seen, ..offered };
        assert_eq!(result.unwrap().of(Artifact::Info), Some(&expected));
        assert_eq!(served(&store, &a, Artifact::Info).await.unwrap(), other);
        assert_eq!(versions(&store, "example.com/a").await, ["v1.0.0"]);
        // Now these are the first bytes.
        let body = body(&a, Artifact::Info);
        let earlier = record(Artifact::Info, &body);
        let refused = commit_as(&store, &a, Artifact::Info, &body, earlier).await;
        assert!(matches!(refused, Err(Error::Conflict { .. })));
        assert_eq!(served(&store, &a, Artifact::Info).await.unwrap(), other);
    }
    check(|_| (), false).await;
    check(|file| fs_err::remove_file(file).unwrap(), true).await;
    check(|file| fs_err::write(file, "torn").unwrap(), true).await;
    let rot = |file: &std::path::Path| {
        let length = fs_err::metadata(file).unwrap().len();
        fs_err::write(file, vec![b'x'; usize::try_from(length).unwrap()]).unwrap();
    };
    check(rot, true).await;
}

#[tokio::test]
async fn a_damaged_sidecar_is_a_miss_and_replaced() {
    for damaged in ["", "{", "\0\0\0\0\0\0", r#"{"stoa":9}"#, r#"{"stoa":1,"zip":7}"#] {
        let place = Place::new();
        let a = module("example.com/a@v1.0.0");
        let store = place.open().await;
        commit_all(&store, &a).await;
        store.close().await;
        let sidecar = place.layout().version(&a).unwrap().sidecar();
        fs_err::write(&sidecar, damaged).unwrap();

        let store = place.open().await;
        assert_eq!(hits(&store, &a).await, "---", "{damaged:?}");
        assert_eq!(store.sidecar(&a).await.unwrap(), None);
        commit(&store, &a, Artifact::Zip).await;
        assert_eq!(hits(&store, &a).await, "--z", "{damaged:?}");
        // The version is not whole any more, and nobody is told that it is.
        assert!(versions(&store, "example.com/a").await.is_empty());
        assert!(!place.published().contains_key("example.com/a/@v/list"));
        let kept: Vec<_> = fs_err::read_dir(place.layout().quarantine())
            .unwrap()
            .map(|entry| fs_err::read(entry.unwrap().path()).unwrap())
            .collect();
        assert_eq!(kept.len(), 2, "the damaged sidecar and a note");
        assert!(kept.contains(&damaged.as_bytes().to_vec()));
        commit_all(&store, &a).await;
        assert_agreement(&place, &store, &[a]).await;
    }
}

#[tokio::test]
async fn what_was_copied_in_is_not_served() {
    let place = Place::new();
    let store = place.open().await;
    let a = module("example.com/a@v1.0.0");
    let files = place.layout().version(&a).unwrap();
    fs_err::create_dir_all(&files.dir).unwrap();
    for artifact in Artifact::ALL {
        fs_err::write(files.artifact(artifact), body(&a, artifact)).unwrap();
    }
    fs_err::write(place.layout().list(a.path()).unwrap(), "v1.0.0\n").unwrap();
    assert_eq!(hits(&store, &a).await, "---");
    assert!(store.stored_versions(a.path()).await.unwrap().is_empty());
    // And it does not hinder a commit of other bytes.
    let own = b"ours".as_slice();
    commit_as(&store, &a, Artifact::Zip, own, record(Artifact::Zip, own)).await.unwrap();
    assert_eq!(served(&store, &a, Artifact::Zip).await.unwrap(), own);
}

#[tokio::test]
async fn a_file_of_another_size_than_recorded_is_refused() {
    let place = Place::new();
    let store = place.open().await;
    let a = module("example.com/a@v1.0.0");
    let record = record(Artifact::Mod, b"module example.com/a\n");
    let error = commit_as(&store, &a, Artifact::Mod, b"module", record).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "example.com/a@v1.0.0.mod is recorded with 21 bytes, but the file to commit has 6"
    );
    assert_eq!(error.class(), ErrorClass::Internal);
    assert_eq!(hits(&store, &a).await, "---");
    assert_eq!(place.temporaries(), 0);
}

#[tokio::test]
async fn names_that_no_file_system_holds() {
    fn check(layout: &Layout, text: &str, expected: Result<(), ErrorClass>) {
        let found = layout.version(&module(text)).map(|_| ()).map_err(|error| error.class());
        assert_eq!(found, expected, "{text}");
    }
    let place = Place::new();
    let store = place.open().await;
    let layout = place.layout();
    // "v1.0.0-" and ".mod.unverified" leave 233 of 255 bytes.
    check(&layout, &format!("example.com/a@v1.0.0-{}", "a".repeat(233)), Ok(()));
    check(&layout, &format!("example.com/a@v1.0.0-{}", "a".repeat(234)), Err(ErrorClass::Invalid));
    // Each capital takes two bytes.
    check(&layout, &format!("example.com/a@v1.0.0-{}", "A".repeat(116)), Ok(()));
    check(&layout, &format!("example.com/a@v1.0.0-{}", "A".repeat(117)), Err(ErrorClass::Invalid));
    check(&layout, &format!("example.com/{}@v1.0.0", "b".repeat(255)), Ok(()));
    check(&layout, &format!("example.com/{}@v1.0.0", "b".repeat(256)), Err(ErrorClass::Invalid));
    check(&layout, &format!("example.com{}@v1.0.0", "/b".repeat(3000)), Err(ErrorClass::Invalid));

    let long = module(&format!("example.com/a@v1.0.0-{}", "a".repeat(300)));
    let error = store.open_artifact(&long, Artifact::Zip).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Invalid);
    let error =
        commit_as(&store, &long, Artifact::Zip, b"", record(Artifact::Zip, b"")).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Invalid);
    assert!(error.to_string().len() < 200 && error.to_string().lines().count() == 1);
    let longest = module(&format!("example.com/a@v1.0.0-{}", "a".repeat(233)));
    commit_all(&store, &longest).await;
    assert_eq!(hits(&store, &longest).await, "imz");
}

#[tokio::test]
async fn temporaries_are_written_read_and_removed() {
    let place = Place::new();
    let store = place.open().await;
    let mut temporary = downloaded(&store, b"some").await;
    temporary.file().write_all(b" bytes").await.unwrap();
    let mut text = String::new();
    temporary.reader().await.unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "some bytes");
    assert!(temporary.is_on_disk());
    assert_eq!(place.temporaries(), 1);
    drop(temporary);
    assert_eq!(place.temporaries(), 0);
    store.check_writable().await.unwrap();
    assert_eq!(place.temporaries(), 0);
}

#[tokio::test]
async fn rejected_bodies_go_to_quarantine() {
    let place = Place::new();
    let options = Options { quarantine_bytes: 3 * 4096, ..Options::new(place.path()) };
    let store = Store::open(options).await.unwrap();
    for _ in 0..3 {
        let rejected = downloaded(&store, b"rejected").await;
        store.quarantine(rejected, note(Artifact::Zip)).await.unwrap();
    }
    let mut names: Vec<_> = fs_err::read_dir(place.layout().quarantine())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    assert_eq!(names.len(), 2, "only the last fits: {names:?}");
    assert_eq!(fs_err::read(&names[0]).unwrap(), b"rejected");
    let note: serde_json::Value =
        serde_json::from_slice(&fs_err::read(&names[1]).unwrap()).unwrap();
    assert_eq!(note["reason"], "does not match");
    assert_eq!(note["size"], 8);
    assert!(place.published().is_empty());
    assert_eq!(place.temporaries(), 0);
}

#[tokio::test]
async fn a_closed_store_reads_and_does_not_write() {
    let place = Place::new();
    let store = place.open().await;
    let a = module("example.com/a@v1.0.0");
    commit_all(&store, &a).await;
    let clone = store.clone();
    let temporary = downloaded(&clone, b"x").await;
    store.close().await;
    assert_eq!(hits(&clone, &a).await, "imz");
    let error =
        clone.commit(&a, Artifact::Zip, temporary, record(Artifact::Zip, b"x")).await.unwrap_err();
    assert!(matches!(error, Error::Closed));
    assert!(matches!(clone.counts().await, Err(Error::Index { .. })));
    clone.flush_index().await;
    clone.close().await;
    // The directory is free, although a clone lived on.
    place.open().await.close().await;
}

#[tokio::test]
async fn one_owner() {
    let place = Place::new();
    let store = place.open().await;
    let error = Store::open(Options::new(place.path())).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the data directory {} is in use by another stoa (process {})",
            place.path().display(),
            std::process::id()
        )
    );
    assert_eq!(store.dir(), place.path());
    assert_eq!(store.socket_path(), place.path().join("stoa.sock"));
    assert_eq!(store.git_dir(), place.path().join("git"));
    store.close().await;
    place.open().await;
}
