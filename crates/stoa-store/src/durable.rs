//! Names that survive a power cut: directories made, files replaced, directories synced together.
//!
//! A rename is on disk when its directory was synced; a directory is on disk when its parent was. Both cost a flush of
//! the disk, so callers that need the same directory synced share one call, and a directory whose name is known to be on
//! disk is not synced into its parent again.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use tempfile::TempPath;

use crate::{
    keyed::Keyed,
    killpoint::{Act, Faults},
};

/// Directories remembered as being on disk, as 64-bit hashes; past this the memory starts anew.
const REMEMBERED: usize = 8192;

/// Replaces files and syncs directories for one store.
#[derive(Debug)]
pub(crate) struct Durable {
    temporary: PathBuf,
    syncs: Keyed<PathBuf, DirectorySync>,
    on_disk: Mutex<HashSet<u64>>,
    pub(crate) faults: Faults,
}

/// The directories that [`Durable::settle`] must sync.
#[derive(Debug)]
#[must_use = "what was made is not on disk before it is settled"]
pub(crate) struct Unsettled {
    leaf: PathBuf,
    /// Parents of directories that are not known to be on disk.
    parents: Vec<PathBuf>,
    made: Vec<u64>,
}

impl Durable {
    /// `temporary` is where files are written before they are renamed into place.
    pub(crate) fn new(temporary: PathBuf) -> Self {
        Self {
            temporary,
            syncs: Keyed::new(),
            on_disk: Mutex::new(HashSet::new()),
            faults: Faults::default(),
        }
    }

    /// Makes `leaf` and what is missing between it and `root`, which exists.
    pub(crate) fn make_directories(&self, root: &Path, leaf: &Path) -> io::Result<Unsettled> {
        let mut unsettled =
            Unsettled { leaf: leaf.to_owned(), parents: Vec::new(), made: Vec::new() };
        let below = leaf.strip_prefix(root).map_err(io::Error::other)?;
        let mut dir = root.to_owned();
        for element in below.components() {
            let parent = dir.clone();
            dir.push(element);
            let made = match fs_err::create_dir(&dir) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) => return Err(error),
            };
            // Found, but perhaps made a moment ago by a commit that has not synced it yet, or by a process that was
            // killed before it could.
            let hash = hash_of(&dir);
            let known = || self.on_disk.lock().unwrap_or_else(PoisonError::into_inner);
            if made || !known().contains(&hash) {
                unsettled.parents.push(parent);
                unsettled.made.push(hash);
            }
        }
        Ok(unsettled)
    }

    /// Syncs the leaf and every parent that gained a directory; afterwards what was renamed into the leaf is on disk.
    pub(crate) fn settle(&self, unsettled: Unsettled) -> io::Result<()> {
        for dir in unsettled.parents.iter().chain([&unsettled.leaf]) {
            self.sync_directory(dir)?;
        }
        if !unsettled.made.is_empty() {
            let mut on_disk = self.on_disk.lock().unwrap_or_else(PoisonError::into_inner);
            if on_disk.len() + unsettled.made.len() > REMEMBERED {
                on_disk.clear();
            }
            on_disk.extend(unsettled.made);
        }
        Ok(())
    }

    /// Writes a new temporary file. It is removed on drop unless [`replace`] takes it.
    pub(crate) fn write_temporary(&self, body: &[u8], sync: bool) -> io::Result<TempPath> {
        let (mut file, path) = self.new_temporary()?;
        file.write_all(body)?;
        if sync {
            file.sync_all()?;
        }
        Ok(path)
    }

    /// An empty temporary file, readable as the umask allows: a `file://` client may be another user.
    pub(crate) fn new_temporary(&self) -> io::Result<(fs_err::File, TempPath)> {
        self.faults.at(Act::MakeTemporary)?;
        let (file, path) = tempfile::Builder::new()
            .prefix("stoa-")
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(&self.temporary)?
            .into_parts();
        let file = fs_err::File::from_parts(file, path.to_path_buf());
        Ok((file, path))
    }

    fn sync_directory(&self, dir: &Path) -> io::Result<()> {
        let shared: Arc<DirectorySync> = self.syncs.of(&dir.to_path_buf());
        shared.sync(|| fs_err::File::open(dir)?.sync_all())
    }
}

/// Renames a temporary file into place, over what is there.
pub(crate) fn replace(temporary: TempPath, to: &Path) -> io::Result<()> {
    fs_err::rename(&temporary, to)?;
    // The name is gone; only the guard is left to be disarmed, which cannot fail on Unix.
    let _: Result<PathBuf, _> = temporary.keep();
    Ok(())
}

fn hash_of(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

/// Lets callers share one sync: who arrives while one runs needs the next one, as the running one may have begun before
/// the caller's rename; all who wait by then share that next one.
#[derive(Debug, Default)]
struct DirectorySync {
    rounds: Mutex<Rounds>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Rounds {
    begun: u64,
    done: u64,
    running: bool,
    /// The last round that failed, and how. A later success does not undo it: the system reports a lost write once.
    failed: Option<(u64, io::ErrorKind, String)>,
}

impl DirectorySync {
    fn sync(&self, run: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = rounds.begun + 1;
        while rounds.done < wanted {
            if rounds.running {
                rounds = self.ended.wait(rounds).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            rounds.running = true;
            rounds.begun += 1;
            let round = rounds.begun;
            drop(rounds);
            let result = run();
            let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
            rounds.running = false;
            rounds.done = round;
            if let Err(error) = &result {
                rounds.failed = Some((round, error.kind(), error.to_string()));
            }
            self.ended.notify_all();
            return result;
        }
        match &rounds.failed {
            Some((round, kind, text)) if *round >= wanted => {
                Err(io::Error::new(*kind, text.clone()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Barrier,
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        thread,
    };

    use super::*;

    /// Waits until `count` callers wait for a round of `shared`, so that the test needs no sleep.
    fn arrive(shared: &DirectorySync, arrived: &AtomicUsize, count: usize) {
        while arrived.load(Ordering::SeqCst) < count {
            thread::yield_now();
        }
        // All have counted themselves in; those that hold no turn block on the mutex or the condition below it.
        drop(shared.rounds.lock().unwrap());
    }

    #[test]
    fn waiting_syncs_share_one_round() {
        let shared = DirectorySync::default();
        let runs = AtomicUsize::new(0);
        let (release, held) = mpsc::channel::<()>();
        let begun = Barrier::new(2);
        let arrived = AtomicUsize::new(0);
        thread::scope(|scope| {
            let (shared, runs, begun, arrived) = (&shared, &runs, &begun, &arrived);
            scope.spawn(move || {
                shared
                    .sync(|| {
                        begun.wait();
                        runs.fetch_add(1, Ordering::SeqCst);
                        held.recv().map_err(io::Error::other)
                    })
                    .unwrap();
            });
            begun.wait();
            for _ in 0..8 {
                scope.spawn(move || {
                    arrived.fetch_add(1, Ordering::SeqCst);
                    shared
                        .sync(|| {
                            runs.fetch_add(1, Ordering::SeqCst);
                            Ok(())
                        })
                        .unwrap();
                });
            }
            arrive(shared, arrived, 8);
            release.send(()).unwrap();
        });
        let runs = runs.load(Ordering::SeqCst);
        assert!((2..=9).contains(&runs), "{runs} rounds");
        assert!(shared.rounds.lock().unwrap().done >= 2, "who arrived late had a round of its own");
    }

    #[test]
    fn a_failed_round_fails_its_callers_and_no_later_one() {
        let shared = DirectorySync::default();
        assert!(shared.sync(|| Err(io::Error::other("disk"))).is_err());
        assert!(shared.sync(|| Ok(())).is_ok());
    }

    #[test]
    fn parents_are_synced_until_known() {
        let root = tempfile::tempdir().unwrap();
        let durable = Durable::new(root.path().to_owned());
        let leaf = root.path().join("a/b/@v");
        let first = durable.make_directories(root.path(), &leaf).unwrap();
        assert_eq!(
            first.parents,
            [root.path().to_owned(), root.path().join("a"), root.path().join("a/b")]
        );
        // Not settled: another commit must not rely on the first one's sync.
        let second = durable.make_directories(root.path(), &leaf).unwrap();
        assert_eq!(second.parents.len(), 3);
        durable.settle(first).unwrap();
        let third = durable.make_directories(root.path(), &leaf).unwrap();
        assert!(third.parents.is_empty());
        durable.settle(third).unwrap();
        durable.settle(second).unwrap();
        // Removed by somebody and made again.
        fs_err::remove_dir(&leaf).unwrap();
        let fourth = durable.make_directories(root.path(), &leaf).unwrap();
        assert_eq!(fourth.parents, [root.path().join("a/b")]);
    }

    #[test]
    fn temporaries_vanish_unless_they_replace() {
        let root = tempfile::tempdir().unwrap();
        let durable = Durable::new(root.path().to_owned());
        drop(durable.write_temporary(b"x", false).unwrap());
        assert_eq!(fs_err::read_dir(root.path()).unwrap().count(), 0);
        let to = root.path().join("file");
        replace(durable.write_temporary(b"x", true).unwrap(), &to).unwrap();
        replace(durable.write_temporary(b"yy", true).unwrap(), &to).unwrap();
        assert_eq!(fs_err::read(&to).unwrap(), b"yy");
        assert_eq!(fs_err::read_dir(root.path()).unwrap().count(), 1);
    }
}
