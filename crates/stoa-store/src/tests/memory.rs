//! What is answered from memory, and that it never answers what was taken out.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use super::*;

/// Whether the next hit needs no file.
async fn in_memory(store: &Store, module: &ModuleVersion, artifact: Artifact) -> bool {
    let stored = store.open_artifact(module, artifact).await.unwrap().unwrap();
    matches!(stored.content, Content::Memory(_))
}

#[tokio::test]
async fn small_files_are_in_memory_once_they_were_asked_for() {
    let place = Place::new();
    let store = place.open().await;
    let a = module("example.com/a@v1.0.0");
    commit_all(&store, &a).await;
    let large = module("example.com/large@v1.0.0");
    let body = vec![b'x'; (64 << 10) + 1];
    commit_as(&store, &large, Artifact::Mod, &body, record(Artifact::Mod, &body)).await.unwrap();
    let empty = store.memory_bytes();
    assert_eq!(hits(&store, &a).await, "imz");
    let filled = store.memory_bytes();
    assert!(filled > empty, "{empty} {filled}");
    for (module, artifact, expected) in [
        (&a, Artifact::Info, true),
        (&a, Artifact::Mod, true),
        (&a, Artifact::Zip, false),
        (&large, Artifact::Mod, false),
    ] {
        assert_eq!(in_memory(&store, module, artifact).await, expected, "{module}{artifact}");
    }
    // They are the recorded bytes, whatever has become of the files.
    fs_err::remove_dir_all(place.layout().module_dir(a.path()).unwrap()).unwrap();
    assert_eq!(hits(&store, &a).await, "im-");
}

#[tokio::test]
async fn a_small_file_with_other_bytes_of_the_same_size_is_none() {
    let place = Place::new();
    let a = module("example.com/a@v1.0.0");
    let store = place.open().await;
    commit_all(&store, &a).await;
    store.close().await;
    let file = place.layout().version(&a).unwrap().artifact(Artifact::Mod);
    let mut bytes = fs_err::read(&file).unwrap();
    bytes[3] ^= 1;
    fs_err::write(&file, bytes).unwrap();
    let store = place.open().await;
    assert_eq!(hits(&store, &a).await, "i-z");
    commit(&store, &a, Artifact::Mod).await;
    assert_eq!(hits(&store, &a).await, "imz");
}

#[tokio::test]
async fn no_memory_at_all_is_enough() {
    let place = Place::new();
    let options = Options { memory_bytes: 0, ..Options::new(place.path()) };
    let store = Store::open(options).await.unwrap();
    let a = module("example.com/a@v1.0.0");
    commit_all(&store, &a).await;
    assert_eq!(hits(&store, &a).await, "imz");
    assert_eq!(store.memory_bytes(), 0);
    assert_eq!(versions(&store, "example.com/a").await, ["v1.0.0"]);
}

/// Readers fill the memory all the time while one version is committed, rejected and committed with other bytes.
#[test]
fn what_was_rejected_does_not_come_back_from_memory() {
    const ROUNDS: usize = 150;
    let place = Place::new();
    let layout = place.layout();
    let lock = crate::directory::open(&layout).unwrap().lock;
    let batches = crate::batches::Batches::open(true, None, true, 1);
    let files = crate::files::Files::new(layout, lock, batches, 1 << 20, 0);
    let a = module("example.com/a@v1.0.0");
    let of = |round: usize| format!("module example.com/a // {round}\n").into_bytes();
    // The round whose bytes may be seen now, at least; a reader that began before may be given earlier ones.
    let current = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let began = current.load(Ordering::SeqCst);
                    let Some(stored) = files.open(&a, Artifact::Mod).unwrap() else { continue };
                    let Content::Memory(bytes) = stored.content else { panic!("it is small") };
                    let text = std::str::from_utf8(&bytes).unwrap();
                    let round: usize = text.trim().rsplit(' ').next().unwrap().parse().unwrap();
                    assert!(round >= began, "{round} was rejected before {began} began");
                }
            });
        }
        for round in 0..ROUNDS {
            let body = of(round);
            let (mut file, path) = files.durable.new_temporary().unwrap();
            std::io::Write::write_all(&mut file, &body).unwrap();
            drop(file);
            files.commit(&a, Artifact::Mod, path, record(Artifact::Mod, &body)).unwrap();
            while files.remembered(&a, Artifact::Mod).is_none() {
                thread::yield_now();
            }
            files.reject(&a, Artifact::Mod, &note(Artifact::Mod), || {}).unwrap();
            current.store(round + 1, Ordering::SeqCst);
            for _ in 0..50 {
                assert!(files.remembered(&a, Artifact::Mod).is_none(), "round {round}");
            }
        }
        over.store(true, Ordering::SeqCst);
    });
}

/// The list without a network: read again when a name in the directory has changed, by whomever, and not before.
#[tokio::test]
async fn what_is_stored_of_a_module_is_remembered_as_long_as_its_directory_is_as_it_was() {
    let place = Place::new();
    let store = place.open().await;
    let (a, b) = (module("example.com/a@v1.0.0"), module("example.com/a@v1.1.0"));
    commit_all(&store, &a).await;
    let dir = place.layout().module_dir(a.path()).unwrap();
    // As if nothing had changed for a while.
    let rest = || {
        let past = std::time::SystemTime::now() - Duration::from_secs(10);
        fs_err::File::open(&dir).unwrap().file().set_modified(past).unwrap();
    };
    let stored = async || {
        let stored = store.stored_versions(a.path()).await.unwrap();
        let each = |one: &crate::StoredVersion| format!("{} {}", one.version, one.artifacts.len());
        stored.iter().map(each).collect::<Vec<_>>().join(", ")
    };
    rest();
    assert_eq!(stored().await, "v1.0.0 3");
    let first = store.stored_versions(a.path()).await.unwrap();
    let again = store.stored_versions(a.path()).await.unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &again), "it is not read again");
    commit_all(&store, &b).await;
    assert_eq!(stored().await, "v1.0.0 3, v1.1.0 3");
    rest();
    assert_eq!(stored().await, "v1.0.0 3, v1.1.0 3");
    fs_err::remove_file(place.layout().version(&a).unwrap().artifact(Artifact::Zip)).unwrap();
    assert_eq!(stored().await, "v1.0.0 2, v1.1.0 3");
    store.reject(&b, Artifact::Mod, note(Artifact::Mod)).await.unwrap();
    assert_eq!(stored().await, "v1.0.0 2, v1.1.0 2");
}
