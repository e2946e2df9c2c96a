//! A disk that does not take what is written: what is answered all the same, and how it heals.

use rustix::io::Errno;

use super::*;
use crate::{
    Fault,
    killpoint::Act::{
        self, MakeTemporary, ReadBlob, ReadSidecar, RenameBlob, RenameSidecar, SyncBlob,
    },
};

/// For room in memory that is there.
const PATIENCE: Duration = Duration::from_secs(10);

fn fail(store: &Store, faults: &[(Act, Errno)]) {
    store.faults().set(faults);
}

pub(super) async fn healed(store: &Store) {
    let healed = async {
        while store.trouble().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), healed).await.expect("it heals by itself");
}

fn content(file: &std::fs::File, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; size as usize];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0).unwrap();
    bytes
}

/// Downloads and commits as a fetch does. `in memory`, `from disk` or `stored`; or the class of the error.
async fn fetch(store: &Store, module: &ModuleVersion, artifact: Artifact, body: &[u8]) -> String {
    let mut temporary = match store.temporary(1 << 30, Duration::ZERO).await {
        Ok(temporary) => temporary,
        Err(error) => return error.class().as_str().to_owned(),
    };
    let place = if temporary.is_on_disk() { "from disk" } else { "in memory" };
    assert!(body.len() as u64 <= temporary.room());
    temporary.file().write_all(body).await.unwrap();
    match store.commit(module, artifact, temporary, record(artifact, body)).await {
        Ok(Committed::Stored(_)) => "stored".to_owned(),
        Ok(Committed::Passed(file)) => {
            assert_eq!(content(&file, body.len() as u64), body);
            place.to_owned()
        }
        Err(error) => error.class().as_str().to_owned(),
    }
}

#[tokio::test]
async fn whatever_step_fails_the_bytes_are_passed_through_and_it_heals() {
    async fn check(act: Act, errno: Errno, expected: &str, fault: Option<Fault>) {
        let place = Place::new();
        // Where a body waits for no flush its sync is a step, too.
        let flush_interval = Duration::from_secs(if act == SyncBlob { 0 } else { 5 });
        let options = Options { flush_interval, ..Options::new(place.path()) };
        let store = Store::open(options).await.unwrap();
        let (a, b) = (module("example.com/a@v1.0.0"), module("example.com/b@v1.0.0"));
        commit_all(&store, &b).await;
        fail(&store, &[(act, errno)]);
        let bytes = body(&a, Artifact::Zip);
        assert_eq!(fetch(&store, &a, Artifact::Zip, &bytes).await, expected, "{act:?} {errno:?}");
        assert_eq!(store.trouble().map(|trouble| trouble.fault), fault, "{act:?} {errno:?}");
        assert_eq!(store.spool_counts().passed, 1);
        if fault.is_some() {
            assert_eq!(fetch(&store, &a, Artifact::Mod, b"module a\n").await, "in memory");
            assert!(store.check_writable().await.is_err());
        }
        // Hits go on, and nothing of it is a hit.
        assert_eq!(hits(&store, &b).await, "imz");
        assert_eq!(hits(&store, &a).await, "---");
        fail(&store, &[]);
        healed(&store).await;
        assert_eq!(store.spool_counts().bytes, 0);
        store.check_writable().await.unwrap();
        commit_all(&store, &a).await;
        assert_agreement(&place, &store, &[a, b]).await;
    }
    let (full, failing) = (Some(Fault::Full), Some(Fault::Failing));
    check(MakeTemporary, Errno::NOSPC, "in memory", full).await;
    check(MakeTemporary, Errno::ROFS, "in memory", Some(Fault::ReadOnly)).await;
    check(MakeTemporary, Errno::IO, "in memory", failing).await;
    check(MakeTemporary, Errno::ACCESS, "in memory", failing).await;
    // What was not synced may be lost any time: it is copied before it is handed out.
    check(SyncBlob, Errno::NOSPC, "from disk", full).await;
    check(SyncBlob, Errno::IO, "from disk", failing).await;
    check(RenameBlob, Errno::DQUOT, "from disk", full).await;
    check(RenameSidecar, Errno::NOSPC, "from disk", full).await;
    check(ReadSidecar, Errno::IO, "from disk", failing).await;
    // A name is at fault, and not the disk.
    check(RenameBlob, Errno::NOTDIR, "from disk", None).await;
}

#[tokio::test]
async fn a_process_out_of_files_is_no_disk_that_fails() {
    let place = Place::new();
    let store = place.open().await;
    fail(&store, &[(MakeTemporary, Errno::MFILE)]);
    let a = module("example.com/a@v1.0.0");
    assert_eq!(fetch(&store, &a, Artifact::Mod, b"module a\n").await, "internal");
    assert!(store.trouble().is_none());
}

#[tokio::test]
async fn large_bodies_and_too_many_are_refused() {
    let place = Place::new();
    let spool = Options {
        spool_file_bytes: 64 << 10,
        spool_bytes: 128 << 10,
        ..Options::new(place.path())
    };
    let store = Store::open(spool).await.unwrap();
    let a = module("example.com/a@v1.0.0");
    fail(&store, &[(RenameBlob, Errno::IO), (SyncBlob, Errno::IO)]);
    let large = vec![7; (64 << 10) + 1];
    assert_eq!(fetch(&store, &a, Artifact::Zip, &large).await, "full");
    // Safe on disk, it is handed out from there, however large.
    fail(&store, &[(RenameSidecar, Errno::IO), (MakeTemporary, Errno::IO)]);
    healed_by_hand(&store);
    let temporary = {
        fail(&store, &[]);
        let temporary = downloaded(&store, &large).await;
        fail(&store, &[(RenameSidecar, Errno::IO), (MakeTemporary, Errno::IO)]);
        temporary
    };
    let offered = record(Artifact::Zip, &large);
    match store.commit(&a, Artifact::Zip, temporary, offered).await.unwrap() {
        Committed::Passed(file) => assert_eq!(content(&file, large.len() as u64), large),
        Committed::Stored(_) => panic!("it cannot be"),
    }
    // Two have room, a third has none, and says so; a small one has none either, until one is over.
    let first = store.temporary(1 << 30, PATIENCE).await.unwrap();
    assert_eq!(first.room(), 64 << 10);
    let second = store.temporary(1 << 30, PATIENCE).await.unwrap();
    let error = store.temporary(1, Duration::ZERO).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("all taken") && text.contains("128 KiB"), "{text}");
    assert!(text.contains(place.path().to_str().unwrap()), "{text}");
    let text = store.outgrown().await.to_string();
    assert!(text.contains("64 KiB"), "{text}");
    drop(first);
    let third = store.temporary(1, Duration::ZERO).await.unwrap();
    assert_eq!(third.room(), 1 << 10);
    drop((second, third));
    let counts = store.spool_counts();
    assert_eq!((counts.bytes, counts.passed, counts.refused), (0, 1, 3));
}

#[tokio::test]
async fn what_is_looked_at_holds_no_more_room_than_it_needs() {
    let place = Place::new();
    let store = place.open().await;
    fail(&store, &[(MakeTemporary, Errno::NOSPC)]);
    let mut temporary = store.temporary(1 << 30, PATIENCE).await.unwrap();
    assert_eq!(store.spool_counts().bytes, 8 << 20);
    temporary.file().write_all(b"module a\n").await.unwrap();
    temporary.reader().await.unwrap();
    assert_eq!(store.spool_counts().bytes, 1 << 10);
    assert_eq!(temporary.room(), 1 << 10);
}

/// As if a check had just found the disk well.
fn healed_by_hand(store: &Store) {
    store.health().heal();
}

#[tokio::test]
async fn first_bytes_win_also_when_nothing_can_be_stored() {
    let place = Place::new();
    let store = place.open().await;
    let a = module("example.com/a@v1.0.0");
    commit_all(&store, &a).await;
    let files = place.layout().version(&a).unwrap();
    fs_err::remove_file(files.artifact(Artifact::Zip)).unwrap();
    fail(&store, &[(MakeTemporary, Errno::ROFS)]);
    assert_eq!(fetch(&store, &a, Artifact::Zip, b"other bytes").await, "mismatch");
    let right = body(&a, Artifact::Zip);
    assert_eq!(fetch(&store, &a, Artifact::Zip, &right).await, "in memory");
    // An .info may come with other bytes, once its file is lost.
    fs_err::remove_file(files.artifact(Artifact::Info)).unwrap();
    assert_eq!(fetch(&store, &a, Artifact::Info, b"{}").await, "in memory");
}

#[tokio::test]
async fn what_is_rejected_is_not_served_although_the_disk_still_records_it() {
    for (act, errno) in [(MakeTemporary, Errno::NOSPC), (ReadSidecar, Errno::IO)] {
        let place = Place::new();
        let store = place.open().await;
        let a = module("example.com/a@v1.0.0");
        for artifact in Artifact::ALL {
            let bytes = body(&a, artifact);
            let offered = ArtifactRecord { state: State::Unverified, ..record(artifact, &bytes) };
            commit_as(&store, &a, artifact, &bytes, offered).await.unwrap();
        }
        assert_eq!(hits(&store, &a).await, "imz");
        fail(&store, &[(act, errno)]);
        for artifact in [Artifact::Mod, Artifact::Zip] {
            store.reject(&a, artifact, note(artifact)).await.unwrap_err();
        }
        assert_eq!(served(&store, &a, Artifact::Mod).await, None, "{act:?}");
        assert_eq!(served(&store, &a, Artifact::Zip).await, None, "{act:?}");
        fail(&store, &[]);
        assert_eq!(hits(&store, &a).await, "i--", "{act:?}");
        // What a database vouches for takes its place, also where a read-only disk did not let go of the file.
        healed(&store).await;
        let files = place.layout().version(&a).unwrap();
        let kept = files.body(Artifact::Mod, &State::Unverified);
        fs_err::write(&kept, body(&a, Artifact::Mod)).unwrap();
        let right = b"module example.com/a\n";
        commit_as(&store, &a, Artifact::Mod, right, record(Artifact::Mod, right)).await.unwrap();
        assert_eq!(served(&store, &a, Artifact::Mod).await.unwrap(), right);
        assert!(!kept.exists());
        // Another process finds no file.
        store.close().await;
        let store = place.open().await;
        assert_eq!(served(&store, &a, Artifact::Zip).await, None);
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_fetched_and_healed() {
    let place = Place::new();
    let a = module("example.com/a@v1.0.0");
    place.open().await.close().await;
    for act in [ReadBlob, ReadSidecar] {
        let store = place.open().await;
        commit_all(&store, &a).await;
        store.close().await;
        let store = place.open().await;
        fail(&store, &[(act, Errno::IO)]);
        assert_eq!(hits(&store, &a).await, "---", "{act:?}");
        fail(&store, &[]);
        assert_eq!(hits(&store, &a).await, "imz", "{act:?}");
        store.close().await;
    }
}

#[tokio::test]
async fn answers_and_states_are_remembered_while_they_cannot_be_written() {
    let place = Place::new();
    let store = place.open().await;
    let a = module("example.com/a@v1.0.0");
    let bytes = body(&a, Artifact::Mod);
    let exempt = State::Exempt { pattern: "example.com".into() };
    let offered = ArtifactRecord { state: exempt, ..record(Artifact::Mod, &bytes) };
    commit_as(&store, &a, Artifact::Mod, &bytes, offered).await.unwrap();
    fail(&store, &[(MakeTemporary, Errno::NOSPC)]);
    let answer = |text: &'static str| crate::Answer {
        body: text.into(),
        fetched_at: "2026-01-02T03:04:05Z".parse().unwrap(),
        source: "proxy.example.com".into(),
    };
    let key = crate::AnswerKey::List(path("example.com/a"));
    // The first finds out, and is remembered all the same; the second is not even tried.
    store.put_answer(&key, answer("v1.0.0\n")).await.unwrap_err();
    assert_eq!(store.trouble().unwrap().fault, Fault::Full);
    assert_eq!(*store.answer(&key).await.unwrap().unwrap(), answer("v1.0.0\n"));
    store.put_answer(&key, answer("v1.1.0\n")).await.unwrap();
    assert_eq!(*store.answer(&key).await.unwrap().unwrap(), answer("v1.1.0\n"));
    let written = store.sumdb_write("sum.example.com", "latest", "x".into()).await;
    assert!(matches!(written, Err(Error::NotWritten(_))));
    let state = State::Verified { database: "sum.example.com".into() };
    let restated = store.restate(&a, Artifact::Mod, state.clone()).await.unwrap().unwrap();
    assert_eq!(restated.of(Artifact::Mod).unwrap().state, state);
    assert_eq!(store.open_artifact(&a, Artifact::Mod).await.unwrap().unwrap().record.state, state);
}

#[tokio::test]
async fn a_full_disk_counts_as_well_only_when_what_did_not_fit_would() {
    let place = Place::new();
    let store = place.open().await;
    let mut failed = downloaded(&store, &vec![1; 100_000]).await;
    failed.file().flush().await.unwrap();
    fail(&store, &[(MakeTemporary, Errno::NOSPC)]);
    let instead = store.temporary_instead(failed, "no storage space", 1 << 20, PATIENCE).await;
    assert!(!instead.unwrap().is_on_disk());
    assert_eq!(place.temporaries(), 0, "what was half there is gone");
    assert_eq!(store.health().need(), 100_000 + (64 << 10));
    assert_eq!(store.trouble().unwrap().fault, Fault::Full);
    fail(&store, &[]);
    healed(&store).await;
    assert_eq!(store.health().need(), 0);
}

#[tokio::test]
async fn a_mark_that_could_not_be_taken_is_not_believed_later() {
    let place = Place::new();
    let store = place.open().await;
    commit_all(&store, &module("example.com/a@v1.0.0")).await;
    let mark = place.layout().clean_mark();
    fs_err::write(&mark, "left by an open on a read-only disk").unwrap();
    fail(&store, &[(MakeTemporary, Errno::ROFS)]);
    store.check_writable().await.unwrap_err();
    fail(&store, &[]);
    healed(&store).await;
    assert!(!mark.exists());
}
