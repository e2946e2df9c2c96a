//! A power cut at any moment: of what was not synced, names are lost, come back as they were, or have no bytes, some of them,
//! or zeros.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::io::Errno;

use super::*;
use crate::killpoint::{
    Act::{self, MakeTemporary, ReadBlob, RemoveBlob, RenameSidecar},
    watched::{OnDisk, names},
};

/// What becomes of what was not synced.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Every name is as it was when its directory was synced.
    Names,
    Files(Damage),
    /// Only files with this ending; everything else arrived by itself.
    Only(&'static str, Damage),
    /// Each file and name by chance.
    Mixed(u64),
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    None,
    Empty,
    Short,
    Zeros,
}

impl Damage {
    fn of(self, mut bytes: Vec<u8>) -> Vec<u8> {
        match self {
            Self::None => {}
            Self::Empty => bytes.clear(),
            Self::Short => bytes.truncate(bytes.len() / 2),
            Self::Zeros => bytes.fill(0),
        }
        bytes
    }
}

impl Cut {
    /// Whether the name is as it was.
    fn is_undone(self, path: &Path) -> bool {
        match self {
            Self::Names => true,
            Self::Files(_) | Self::Only(..) => false,
            Self::Mixed(seed) => chance(seed, "name", path).is_multiple_of(3),
        }
    }

    fn damage(self, path: &Path) -> Damage {
        match self {
            Self::Names => Damage::Zeros,
            Self::Files(damage) => damage,
            Self::Only(ending, damage) if path.to_str().unwrap().ends_with(ending) => damage,
            Self::Only(..) => Damage::None,
            Self::Mixed(seed) => match chance(seed, "file", path) % 5 {
                0 => Damage::Empty,
                1 => Damage::Short,
                2 => Damage::Zeros,
                _ => Damage::None,
            },
        }
    }

    /// Makes the tree that the cut leaves.
    fn image(self, on_disk: &OnDisk, from: &Path, to: &Path) {
        fs_err::create_dir_all(to).unwrap();
        let (synced, now) = (on_disk.names(from), names(from));
        for name in synced.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
            let path = from.join(name);
            // The index has its own tests, and is built anew.
            if name.starts_with("stoa.db") || name == "stoa.sock" {
                continue;
            }
            let (was, is) = (synced.get(name), now.get(name));
            let inode = if was != is && self.is_undone(&path) { was } else { is };
            let Some(&inode) = inode else { continue };
            if path.is_dir() {
                self.image(on_disk, &path, &to.join(name));
                continue;
            }
            let bytes = match on_disk.bytes(inode) {
                Some(bytes) => bytes.to_vec(),
                None if fs_err::metadata(&path).is_ok_and(|found| found.ino() == inode) => {
                    self.damage(&path).of(fs_err::read(&path).unwrap())
                }
                // It never reached the disk, and is nowhere any more.
                None => Vec::new(),
            };
            fs_err::write(to.join(name), bytes).unwrap();
        }
    }
}

fn chance(seed: u64, what: &str, path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, what, path).hash(&mut hasher);
    hasher.finish()
}

/// A store that was cut off: what was flushed, and everything.
struct Cold {
    flushed: Vec<(ModuleVersion, Artifact)>,
    all: Vec<ModuleVersion>,
    /// Of these only the bytes count: their names were being changed.
    moved: Vec<ModuleVersion>,
}

async fn fill(place: &Place) -> (Cold, OnDisk) {
    let store = place.open_unflushed().await;
    store.index_completed().await;
    let files = store.files();
    files.durable.watched.begin(&place.path());
    let all: Vec<_> = [
        "example.com/a@v1.0.0",
        "example.com/a@v1.1.0",
        "example.com/a@v1.2.0",
        "example.com/b/deep/er@v0.1.0",
        "example.com/c@v1.0.0",
        "github.com/Upper/d@v2.0.0+incompatible",
    ]
    .map(module)
    .into();
    let moved = vec![module("example.com/moved@v1.0.0")];
    let mut flushed = Vec::new();
    for artifact in Artifact::ALL {
        commit(&store, &all[0], artifact).await;
        flushed.push((all[0].clone(), artifact));
    }
    for artifact in [Artifact::Info, Artifact::Mod] {
        commit(&store, &all[1], artifact).await;
        flushed.push((all[1].clone(), artifact));
    }
    let bytes = body(&moved[0], Artifact::Mod);
    let unverified = ArtifactRecord { state: State::Unverified, ..record(Artifact::Mod, &bytes) };
    commit_as(&store, &moved[0], Artifact::Mod, &bytes, unverified).await.unwrap();
    store.flush().await.unwrap();

    // A version of which more comes, new versions of a known module, and new modules.
    commit(&store, &all[1], Artifact::Zip).await;
    for one in &all[2..] {
        commit_all(&store, one).await;
    }
    let database = "sum.example.com".to_owned();
    let verified = State::Verified { database };
    store.restate(&moved[0], Artifact::Mod, verified).await.unwrap();
    let torn = module("example.com/rejected@v1.0.0");
    commit(&store, &torn, Artifact::Zip).await;
    store.reject(&torn, Artifact::Zip, note(Artifact::Zip)).await.unwrap();
    let on_disk = files.durable.watched.end();
    (Cold { flushed, all, moved }, on_disk)
}

#[tokio::test]
async fn no_power_cut_leaves_anything_torn_that_is_served() {
    let place = Place::in_memory();
    let (cold, on_disk) = fill(&place).await;
    let mut cuts = vec![Cut::Names];
    for damage in [Damage::None, Damage::Empty, Damage::Short, Damage::Zeros] {
        cuts.push(Cut::Files(damage));
        for ending in [".info", ".mod", ".zip", ".stoa", "list", ".ziphash"] {
            cuts.push(Cut::Only(ending, damage));
        }
    }
    cuts.extend((0..30).map(Cut::Mixed));
    let (mut lost, mut kept) = (0, 0);
    for cut in cuts {
        let after = Place::in_memory();
        cut.image(&on_disk, &place.path(), &after.path());
        let store = after.open_unflushed().await;
        assert!(store.files().durable.batches.has_doubt(), "{cut:?}");
        // Asked for at once, and in another order after each cut.
        let first = chance(1, &format!("{cut:?}"), &place.path()) as usize % cold.all.len();
        for one in cold.all[first..].iter().chain(&cold.all[..first]) {
            let hits = hits(&store, one).await;
            let count = hits.chars().filter(|&hit| hit != '-').count();
            (lost, kept) = (lost + 3 - count, kept + count);
        }
        for one in &cold.moved {
            hits(&store, one).await;
        }
        for (one, artifact) in &cold.flushed {
            let served = served(&store, one, *artifact).await;
            assert!(served.is_some(), "{cut:?}: {one}{artifact} was on disk");
        }
        for one in cold.all.iter().chain(&cold.moved) {
            let Some(sidecar) = store.sidecar(one).await.unwrap() else { continue };
            // An .info has no witness; what nobody vouched for gives way to what the database vouches for.
            let counts = |(one, record): &(Artifact, &ArtifactRecord)| {
                *one != Artifact::Info && record.state != State::Unverified
            };
            for (artifact, _) in sidecar.records().filter(counts) {
                let other = record(artifact, b"other");
                let refused = commit_as(&store, one, artifact, b"other", other).await;
                assert!(matches!(refused, Err(Error::Conflict { .. })), "{cut:?}: {one}{artifact}");
            }
        }
        let listed = versions(&store, "example.com/a").await;
        for one in &cold.all[..3] {
            let is_there = hits(&store, one).await.starts_with("im");
            assert_eq!(listed.contains(&one.version().to_string()), is_there, "{cut:?}");
        }
        let all = [cold.all.clone(), cold.moved.clone()].concat();
        for one in &all {
            commit_all(&store, one).await;
            assert_eq!(hits(&store, one).await, "imz", "{cut:?}");
        }
        fs_err::remove_dir_all(after.layout().download().join("example.com/rejected")).ok();
        assert_agreement(&after, &store, &all).await;
        store.flush().await.unwrap();
        assert!(!store.files().durable.batches.has_doubt(), "{cut:?}: all is settled");
        store.close().await;
        let store = after.open().await;
        assert!(!store.files().durable.batches.has_doubt(), "{cut:?}");
        assert_agreement(&after, &store, &all).await;
    }
    assert!(lost > 100 && kept > 100, "{lost} lost, {kept} kept: the cuts do something");
}

/// A store without a flusher, in which one version was flushed and another was not.
async fn flushed_and_not(place: &Place) -> (Store, ModuleVersion, ModuleVersion) {
    let store = place.open_unflushed().await;
    store.index_completed().await;
    let (old, new) = (module("example.com/a@v1.0.0"), module("example.com/a@v1.1.0"));
    commit_all(&store, &old).await;
    store.flush().await.unwrap();
    commit_all(&store, &new).await;
    (store, old, new)
}

/// What was flushed is not looked at again: a start after a power cut does not read the whole store.
#[tokio::test]
async fn what_was_flushed_is_not_read_again() {
    let place = Place::in_memory();
    let (store, old, new) = flushed_and_not(&place).await;
    drop(store);
    kill::wait_until_free(&place).await;
    let zeros = |one: &ModuleVersion| {
        let path = place.layout().version(one).unwrap().artifact(Artifact::Zip);
        let size = fs_err::metadata(&path).unwrap().len();
        fs_err::write(&path, vec![0; size as usize]).unwrap();
        path
    };
    let (_, torn) = (zeros(&old), zeros(&new));
    let store = place.open_unflushed().await;
    store.index_completed().await;
    let zip = store.open_artifact(&old, Artifact::Zip).await.unwrap();
    assert!(zip.is_some(), "a disk that changes what it has kept is not what this is about");
    assert!(!torn.exists(), "settled by the pass, though nobody asked");
    assert_eq!(hits(&store, &new).await, "im-");
    assert_eq!(versions(&store, "example.com/a").await, ["v1.0.0", "v1.1.0"]);
}

/// A second unclean stop before everything was settled forgets nothing, and neither does a clean one.
#[tokio::test]
async fn doubt_outlives_another_stop() {
    for is_clean in [true, false] {
        let place = Place::in_memory();
        let one = module("example.com/a@v1.0.0");
        let store = place.open_unflushed().await;
        commit_all(&store, &one).await;
        drop(store);
        kill::wait_until_free(&place).await;
        let file = place.layout().version(&one).unwrap().artifact(Artifact::Zip);
        let size = fs_err::metadata(&file).unwrap().len() as usize;

        // Nobody can settle it: it cannot be read.
        let store = place.open_unflushed().await;
        store.faults().set(&[(ReadBlob, Errno::IO)]);
        assert_eq!(hits(&store, &one).await, "---");
        commit(&store, &module("example.com/b@v1.0.0"), Artifact::Mod).await;
        store.flush().await.unwrap();
        assert!(store.files().durable.batches.has_doubt());
        if is_clean {
            store.close().await;
        } else {
            drop(store);
            kill::wait_until_free(&place).await;
        }
        fs_err::write(&file, vec![0; size]).unwrap();
        let store = place.open_unflushed().await;
        assert_eq!(hits(&store, &one).await, "im-");
    }
}

/// On a disk that takes nothing, what is whole is served from where it lies, and what is torn is not.
#[tokio::test]
async fn doubt_on_a_disk_that_cannot_be_written() {
    let place = Place::in_memory();
    let (whole, torn) = (module("example.com/a@v1.0.0"), module("example.com/a@v1.1.0"));
    let store = place.open_unflushed().await;
    commit_all(&store, &whole).await;
    commit_all(&store, &torn).await;
    drop(store);
    kill::wait_until_free(&place).await;
    for artifact in [Artifact::Mod, Artifact::Zip] {
        let file = place.layout().version(&torn).unwrap().artifact(artifact);
        let size = fs_err::metadata(&file).unwrap().len() as usize;
        fs_err::write(file, vec![0; size]).unwrap();
    }
    for act in [MakeTemporary, RenameSidecar, RemoveBlob] {
        let store = place.open_unflushed().await;
        store.faults().set(&[(act, Errno::ROFS), (RemoveBlob, Errno::ROFS)]);
        assert_eq!(hits(&store, &torn).await, "i--", "{act:?}");
        assert_eq!(hits(&store, &whole).await, "imz", "{act:?}");
        assert_eq!(versions(&store, "example.com/a").await, ["v1.0.0"], "{act:?}");
        let settled = store.files().durable.batches.has_doubt();
        assert!(settled, "{act:?}: the next open goes on");
        drop(store);
        kill::wait_until_free(&place).await;
    }
    let store = place.open_unflushed().await;
    assert_eq!(hits(&store, &torn).await, "i--");
    commit_all(&store, &torn).await;
    assert_agreement(&place, &store, &[whole, torn]).await;
}

/// What the disk did not keep when it was asked to: nobody trusts it, and it heals.
#[tokio::test]
async fn a_flush_that_fails() {
    async fn check(act: Act, after: &str) {
        let place = Place::in_memory();
        let (store, old, new) = flushed_and_not(&place).await;
        store.faults().set(&[(act, Errno::IO)]);
        store.flush().await.unwrap_err();
        assert_eq!(store.trouble().unwrap().fault, crate::Fault::Failing, "{act:?}");
        assert_eq!(hits(&store, &old).await, "imz", "{act:?}");
        // Small ones are still in memory, as they came.
        assert_eq!(hits(&store, &new).await, after, "{act:?}");
        store.faults().set(&[]);
        // First bytes win all the same.
        let other = record(Artifact::Zip, b"other");
        trouble::healed(&store).await;
        let refused = commit_as(&store, &new, Artifact::Zip, b"other", other).await;
        assert!(matches!(refused, Err(Error::Conflict { .. })), "{act:?}");
        store.flush().await.unwrap();
        commit_all(&store, &new).await;
        assert_agreement(&place, &store, &[old.clone(), new.clone()]).await;
        store.close().await;
        let store = place.open().await;
        assert!(!store.files().durable.batches.has_doubt(), "{act:?}");
        assert_agreement(&place, &store, &[old, new]).await;
    }
    check(Act::SyncBlob, "---").await;
    check(Act::SyncSidecar, "imz").await;
    check(Act::SyncDirectory, "imz").await;
}

/// A file that the disk lost, and does not let go of either, is not served, not even after a kill.
#[tokio::test]
async fn a_lost_file_that_cannot_be_removed() {
    let place = Place::in_memory();
    let store = place.open_unflushed().await;
    store.index_completed().await;
    let one = module("example.com/a@v1.0.0");
    commit_all(&store, &one).await;
    store.faults().set(&[(Act::SyncBlob, Errno::IO), (RemoveBlob, Errno::IO)]);
    store.flush().await.unwrap_err();
    assert_eq!(hits(&store, &one).await, "---");
    drop(store);
    kill::wait_until_free(&place).await;
    let file = place.layout().version(&one).unwrap().artifact(Artifact::Zip);
    let size = fs_err::metadata(&file).unwrap().len() as usize;
    fs_err::write(&file, vec![0; size]).unwrap();
    let store = place.open_unflushed().await;
    assert_eq!(hits(&store, &one).await, "im-", "the mark did not go past it");
}

/// More than waits for a flush: who commits then syncs for itself, and a flush begins early.
#[tokio::test]
async fn what_waits_is_bounded() {
    let place = Place::in_memory();
    let store = place.open_unflushed().await;
    let durable = &store.files().durable;
    let full = crate::batches::Pool {
        files: (0..crate::batches::MOST).map(|n| PathBuf::from(format!("/no/such/{n}"))).collect(),
        ..Default::default()
    };
    store.index_completed().await;
    durable.watched.begin(&place.path());
    durable.batches.add(full);
    let one = module("example.com/a@v1.0.0");
    // In the time of one blocking call no flush comes between.
    let (files, to_commit) = (store.files(), one.clone());
    let bytes = body(&one, Artifact::Zip);
    let (mut file, path) = files.durable.new_temporary().unwrap();
    std::io::Write::write_all(&mut file, &bytes).unwrap();
    files.commit(&to_commit, Artifact::Zip, path, record(Artifact::Zip, &bytes)).unwrap();
    let on_disk = durable.watched.end();
    let file = place.layout().version(&one).unwrap().artifact(Artifact::Zip);
    let inode = fs_err::metadata(&file).unwrap().ino();
    assert_eq!(on_disk.bytes(inode), Some(&*bytes));
    let flushed = async {
        while durable.batches.is_full() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), flushed).await.expect("an early flush");
}
