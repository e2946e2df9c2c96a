//! Room on the disk for all repositories together. They can all be fetched again, so those that nobody has used for the
//! longest time go first.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::direct::files::files_below;
use crate::direct::repositories::{Inner, lock};

/// How often it is looked whether they fit: each look reads the directories of all.
const AGAIN: Duration = Duration::from_mins(1);
/// What was used this shortly before stays, even if there is too much.
pub(super) const RECENT: Duration = Duration::from_mins(1);

/// A repository on the disk.
pub(super) struct Stored {
    directory: PathBuf,
    bytes: u64,
    /// Since somebody used it.
    age: Duration,
}

impl Inner {
    /// Has repositories that nobody uses removed, behind everything else, if all together are too large.
    pub(super) fn make_room_behind(self: &Arc<Self>) {
        let is_due = {
            let mut looked = lock(&self.looked);
            let is_due = looked.is_none_or(|when| when.elapsed() >= AGAIN);
            if is_due {
                *looked = Some(Instant::now());
            }
            is_due
        };
        if is_due {
            let inner = Arc::clone(self);
            tokio::task::spawn_blocking(move || inner.make_room(RECENT));
        }
    }

    /// Blocks while it reads directories and removes what is too much.
    pub(super) fn make_room(&self, recent: Duration) {
        let mut stored = self.stored();
        let mut sum: u64 = stored.iter().map(|one| one.bytes).sum();
        stored.sort_by_key(|one| std::cmp::Reverse(one.age));
        for one in stored {
            if sum <= self.settings.max_total_bytes || one.age < recent {
                return;
            }
            match self.evict(&one.directory) {
                Ok(true) => {
                    sum = sum.saturating_sub(one.bytes);
                    tracing::info!(
                        git.directory = %one.directory.display(),
                        git.bytes = one.bytes,
                        "a repository that nobody used lately made room for others"
                    );
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "a repository cannot be removed"),
            }
        }
    }

    pub(super) fn stored(&self) -> Vec<Stored> {
        let used: Vec<(PathBuf, Duration)> = lock(&self.remotes)
            .values()
            .map(|remote| (remote.directory.clone(), lock(&remote.used).elapsed()))
            .collect();
        let Ok(entries) = fs_err::read_dir(&self.directory) else { return Vec::new() };
        let of = |entry: fs_err::DirEntry| {
            let directory = entry.path();
            // Its lock says when somebody wrote in it last; nothing else here is locked.
            let written =
                fs_err::metadata(directory.with_extension("lock")).ok()?.modified().ok()?;
            let since = SystemTime::now().duration_since(written).unwrap_or_default();
            let own = used.iter().find(|(one, _)| *one == directory).map(|&(_, age)| age);
            let age = own.map_or(since, |own| own.min(since));
            entry.file_type().ok()?.is_dir().then(|| Stored {
                bytes: size(&directory),
                directory,
                age,
            })
        };
        entries.filter_map(|entry| of(entry.ok()?)).collect()
    }

    /// Takes it out of everybody's way and then removes it, unless somebody uses it.
    fn evict(&self, directory: &Path) -> std::io::Result<bool> {
        let grave = {
            let mut remotes = lock(&self.remotes);
            let known = remotes.iter().find(|(_, remote)| remote.directory == directory);
            if let Some((key, remote)) = known {
                if Arc::strong_count(remote) > 1 {
                    return Ok(false);
                }
                let key = key.clone();
                remotes.remove(&key);
            }
            // Under the lock, so that whoever opens it now finds none and fetches it anew.
            self.bury(directory)?
        };
        grave.close()?;
        Ok(true)
    }
}

/// The bytes of the files in a directory and all below it.
fn size(directory: &Path) -> u64 {
    files_below(directory).filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}
