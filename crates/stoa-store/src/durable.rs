//! Names and bytes that survive a power cut: files synced, directories made, files replaced, directories synced together.
//!
//! A file's bytes are on disk when it was synced, a rename when its directory was; a directory is on disk when its parent
//! was. Each costs a flush of the disk, so it is done for many commits at once, see `batches`; callers that need the same
//! directory synced now share one call, and a directory whose name is known to be on disk is not synced into its parent
//! again.

mod shared;

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tempfile::TempPath;

use self::shared::DirectorySync;
use crate::{
    batches::{Batches, Mark, Pool},
    error::Error,
    files::is_absent,
    keyed::Keyed,
    killpoint::{Act, Faults, Step, Watched, reached},
    layout::SIDECAR_SUFFIX,
};

/// Directories remembered as being on disk, as 64-bit hashes; past this the memory starts anew.
const REMEMBERED: usize = 8192;
/// Threads of a flush at most, which do nothing but wait. The file system gathers what is synced at the same time: one thread
/// alone takes ten times as long.
const FLUSHERS: usize = 32;
/// As many for each of them at least.
const FEW: usize = 4;

/// Replaces files and syncs files and directories for one store.
#[derive(Debug)]
pub(crate) struct Durable {
    temporary: PathBuf,
    /// Where the mark of what is on disk belongs.
    mark: PathBuf,
    pub(crate) batches: Batches,
    /// Held by who flushes or writes the mark.
    flushing: Mutex<()>,
    syncs: Keyed<PathBuf, DirectorySync>,
    on_disk: Mutex<HashSet<u64>>,
    pub(crate) faults: Faults,
    pub(crate) watched: Watched,
}

/// What one change of the store writes, until it is durable or waits for a flush.
#[derive(Debug)]
#[must_use = "what was written is not on disk before it is settled"]
pub(crate) struct Change<'a> {
    durable: &'a Durable,
    batch: u64,
    wrote: Pool,
    /// This one does not wait for a flush.
    is_urgent: bool,
}

impl Change<'_> {
    /// What the sidecar has to name; 0 when everything is synced before it gets its name.
    pub(crate) fn batch(&self) -> u64 {
        self.batch
    }

    /// Whether files are synced before they get their names.
    pub(crate) fn syncs_first(&self) -> bool {
        self.batch == 0 || self.is_urgent
    }

    /// Makes `leaf` and what is missing between it and `root`, which exists.
    pub(crate) fn make_directories(&mut self, root: &Path, leaf: &Path) -> io::Result<()> {
        let below = leaf.strip_prefix(root).map_err(io::Error::other)?;
        // To ask for what is there takes no lock of the file system; to make it takes that of each parent, and of the first
        // ones everybody wants it.
        let is_there = leaf.is_dir();
        let mut dir = root.to_owned();
        for element in below.components() {
            let parent = dir.clone();
            dir.push(element);
            let made = !is_there
                && match fs_err::create_dir(&dir) {
                    Ok(()) => true,
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                    Err(error) => return Err(error),
                };
            // Found, but perhaps made a moment ago by a commit that has not synced it yet, or by a process that was
            // killed before it could.
            let hash = hash_of(&dir);
            if made || !self.durable.is_on_disk(hash) {
                self.wrote.directories.insert(parent);
                self.wrote.made.insert(hash);
            }
        }
        self.wrote.directories.insert(dir);
        Ok(())
    }

    /// A file got its name before it was synced.
    pub(crate) fn wrote(&mut self, path: PathBuf) {
        self.wrote.files.insert(path);
    }

    /// Syncs what was written, or leaves it to the next flush.
    pub(crate) fn settle(mut self) -> io::Result<()> {
        if self.syncs_first() || self.durable.batches.is_full() {
            self.durable.sync_now(&self.wrote)?;
            self.wrote = Pool::default();
        }
        Ok(())
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        // A change that failed in the middle may have given a name to a sidecar.
        if self.batch > 0 {
            self.durable.batches.leave(self.batch, std::mem::take(&mut self.wrote));
        }
    }
}

impl Durable {
    /// `temporary` is where files are written before they are renamed into place.
    pub(crate) fn new(temporary: PathBuf, mark: PathBuf, batches: Batches) -> Self {
        Self {
            temporary,
            mark,
            batches,
            flushing: Mutex::new(()),
            syncs: Keyed::new(),
            on_disk: Mutex::new(HashSet::new()),
            faults: Faults::default(),
            watched: Watched::new(),
        }
    }

    /// For temporary files alone: nothing else is known.
    pub(crate) fn of_temporaries(temporary: PathBuf) -> Self {
        let mark = temporary.join("mark");
        Self::new(temporary, mark, Batches::open(false, None, true, 0))
    }

    /// Writes the mark that must be there before the first commit. To be called before any lock is taken.
    pub(crate) fn ready(&self) -> io::Result<()> {
        if self.batches.is_ready() {
            return Ok(());
        }
        let _alone = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.batches.is_ready() {
            self.write_mark(self.batches.first_mark())?;
            self.batches.set_ready();
        }
        Ok(())
    }

    /// A change begins.
    pub(crate) fn change(&self) -> io::Result<Change<'_>> {
        if !self.batches.is_ready() {
            return Err(io::Error::other("the mark of what is on disk is not written"));
        }
        let batch = self.batches.join();
        Ok(Change { durable: self, batch, wrote: Pool::default(), is_urgent: false })
    }

    /// The same of one that must be on disk when it is settled.
    pub(crate) fn urgent_change(&self) -> io::Result<Change<'_>> {
        let mut change = self.change()?;
        change.is_urgent = true;
        Ok(change)
    }

    /// A file that follows from others got its name, or lost it. It is synced with the next flush, and need not be before.
    pub(crate) fn derived(&self, path: &Path) -> io::Result<()> {
        let mut wrote = Pool::default();
        wrote.files.insert(path.to_owned());
        wrote.directories.extend(path.parent().map(Path::to_owned));
        if self.batches.is_full() {
            return self.sync_now(&wrote);
        }
        self.batches.add(wrote);
        Ok(())
    }

    fn sync_now(&self, wrote: &Pool) -> io::Result<()> {
        for file in &wrote.files {
            self.sync_file(file)?;
        }
        for dir in &wrote.directories {
            self.sync_directory(dir)?;
        }
        self.are_on_disk(&wrote.made);
        Ok(())
    }

    /// Makes everything durable that was written until now, and says so in the mark. `lost` is told of each file that could
    /// not be synced, and sees to it that it is not trusted; until that works the mark stays where it is.
    pub(crate) fn flush(&self, lost: impl Fn(&Path) -> Result<(), Error>) -> io::Result<()> {
        let _alone = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut round) = self.batches.begin_round() else { return Ok(()) };
        reached(Step::BatchClosed);
        let pool = std::mem::take(&mut round.pool);
        let mut again = Pool::default();
        let mut failed: Option<io::Error> = None;
        for (path, error) in at_once(pool.files, |file| self.sync_file(file)) {
            again.lost.insert(path);
            failed.get_or_insert(error);
        }
        reached(Step::FilesFlushed);
        again.lost.extend(pool.lost);
        again.lost.retain(|path| match lost(path) {
            Ok(()) => false,
            Err(error) => {
                failed.get_or_insert_with(|| io::Error::other(error.to_string()));
                true
            }
        });
        for (dir, error) in at_once(pool.directories, |dir| self.sync_directory(dir)) {
            if !is_absent(&error) {
                again.directories.insert(dir);
                failed.get_or_insert(error);
            }
        }
        reached(Step::DirectoriesFlushed);
        if again.is_empty() {
            self.are_on_disk(&pool.made);
            let marked = self.write_mark(self.batches.mark_after(&round));
            reached(Step::Marked);
            self.batches.end_round(&round, marked.is_ok());
            marked?;
        } else {
            again.made = pool.made;
            self.batches.add(again);
        }
        failed.map_or(Ok(()), Err)
    }

    /// After the last flush: nothing is going to be written any more. False when something could not be made durable.
    pub(crate) fn close(&self) -> io::Result<bool> {
        let _alone = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mark) = self.batches.last_mark().filter(|_| self.batches.is_ready()) else {
            return Ok(false);
        };
        self.write_mark(mark)?;
        Ok(true)
    }

    fn write_mark(&self, mark: Mark) -> io::Result<()> {
        let mut text = serde_json::to_vec(&mark)?;
        text.push(b'\n');
        replace(self.write_temporary(&text, true)?, &self.mark)?;
        self.sync_directory(self.mark.parent().unwrap_or(Path::new("/")))
    }

    /// By its name: that what lies there now is on disk is as good, and that nothing does.
    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let is_sidecar = path.as_os_str().as_encoded_bytes().ends_with(SIDECAR_SUFFIX.as_bytes());
        self.faults.at(if is_sidecar { Act::SyncSidecar } else { Act::SyncBlob })?;
        match fs_err::File::open(path) {
            Ok(file) => self.sync(&file),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Syncs an open file.
    pub(crate) fn sync(&self, file: &fs_err::File) -> io::Result<()> {
        self.watched.file(file.file());
        file.sync_all()
    }

    fn is_on_disk(&self, hash: u64) -> bool {
        self.on_disk.lock().unwrap_or_else(PoisonError::into_inner).contains(&hash)
    }

    fn are_on_disk(&self, made: &HashSet<u64>) {
        if made.is_empty() {
            return;
        }
        let mut on_disk = self.on_disk.lock().unwrap_or_else(PoisonError::into_inner);
        if on_disk.len() + made.len() > REMEMBERED {
            on_disk.clear();
        }
        on_disk.extend(made);
    }

    /// Writes a new temporary file. It is removed on drop unless [`replace`] takes it.
    pub(crate) fn write_temporary(&self, body: &[u8], sync: bool) -> io::Result<TempPath> {
        let (mut file, path) = self.new_temporary()?;
        file.write_all(body)?;
        if sync {
            self.sync(&file)?;
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

    pub(crate) fn sync_directory(&self, dir: &Path) -> io::Result<()> {
        self.faults.at(Act::SyncDirectory)?;
        let shared: Arc<DirectorySync> = self.syncs.of(&dir.to_path_buf());
        shared.sync(|| {
            let open = fs_err::File::open(dir)?;
            self.watched.directory(dir);
            open.sync_all()
        })
    }
}

/// Those that could not be synced, with the reason.
fn at_once(
    paths: HashSet<PathBuf>,
    sync: impl Fn(&Path) -> io::Result<()> + Sync,
) -> Vec<(PathBuf, io::Error)> {
    let paths: Vec<_> = paths.into_iter().collect();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = sync(path) {
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.push((path.clone(), error));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..(paths.len() / FEW).min(FLUSHERS) {
            // Where the system has no more threads, this one does it.
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(root: &Path, batched: bool) -> Durable {
        let batches = Batches::open(batched, None, true, 7);
        let durable = Durable::new(root.to_owned(), root.join("mark"), batches);
        durable.ready().unwrap();
        durable
    }

    #[test]
    fn parents_are_synced_until_known() {
        for batched in [false, true] {
            let root = tempfile::tempdir().unwrap();
            let durable = opened(root.path(), batched);
            let leaf = root.path().join("a/b/@v");
            let change = || {
                let mut change = durable.change().unwrap();
                change.make_directories(root.path(), &leaf).unwrap();
                change
            };
            let dirs = |change: &Change| {
                let mut dirs: Vec<_> = change.wrote.directories.iter().cloned().collect();
                dirs.sort();
                dirs
            };
            let below = ["", "a", "a/b", "a/b/@v"].map(|dir| root.path().join(dir));
            let first = change();
            // `join` of nothing ends with a slash, which makes no other path.
            assert_eq!(dirs(&first), below);
            // Not settled: another commit must not rely on the first one's sync.
            let second = change();
            assert_eq!(dirs(&second), below);
            first.settle().unwrap();
            second.settle().unwrap();
            durable.flush(|_| Ok(())).unwrap();
            let third = change();
            assert_eq!(dirs(&third), below[3..]);
            third.settle().unwrap();
            // Removed by somebody and made again.
            fs_err::remove_dir(&leaf).unwrap();
            let fourth = change();
            assert_eq!(dirs(&fourth), below[2..]);
        }
    }

    #[test]
    fn temporaries_vanish_unless_they_replace() {
        let root = tempfile::tempdir().unwrap();
        let durable = opened(root.path(), true);
        fs_err::remove_file(root.path().join("mark")).unwrap();
        drop(durable.write_temporary(b"x", false).unwrap());
        assert_eq!(fs_err::read_dir(root.path()).unwrap().count(), 0);
        let to = root.path().join("file");
        replace(durable.write_temporary(b"x", true).unwrap(), &to).unwrap();
        replace(durable.write_temporary(b"yy", true).unwrap(), &to).unwrap();
        assert_eq!(fs_err::read(&to).unwrap(), b"yy");
        assert_eq!(fs_err::read_dir(root.path()).unwrap().count(), 1);
    }
}
