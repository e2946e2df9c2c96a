//! Memory for bodies that the disk does not take: anonymous files, few and small, gone with their last reader.
//!
//! Room is taken before a download begins, for the largest body that may come, and given back down to the true size when it
//! is there. Counting while bytes arrive would let many downloads at once fail each other half-way; so, those that find no
//! room wait for it.

use std::{fs::File, ops::Deref, sync::Arc, time::Duration};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::Errno,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{error::Error, stored_file::StoredFile};

/// Room is counted in these, since a semaphore counts no more than a few billion.
const UNIT: u64 = 1 << 10;

/// The room of all bodies together.
#[derive(Debug)]
pub(crate) struct Spool {
    free: Arc<Semaphore>,
    /// Of one body, in bytes.
    each: u64,
    all: u64,
}

/// Room that is taken, in memory; none of a file on disk.
#[derive(Debug)]
pub(crate) struct Room {
    permit: OwnedSemaphorePermit,
}

/// An open file with the bytes of an artifact. One that is not stored is gone with the last who holds this.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    stored: Option<Arc<StoredFile>>,
    _room: Option<Room>,
}

/// Why there is no room in memory.
pub(crate) enum NoRoom {
    /// One body may take this much.
    TooLarge(u64),
    /// All of this is taken.
    Taken(u64),
    /// The system has none.
    System(std::io::Error),
}

impl Spool {
    /// At most `each` bytes for one body and `all` together.
    pub(crate) fn new(each: u64, all: u64) -> Self {
        let units = usize::try_from(all / UNIT).unwrap_or(usize::MAX);
        let free =
            Arc::new(Semaphore::new(units.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS)));
        Self { free, each: each.min(all), all }
    }

    /// The largest body that fits.
    pub(crate) fn each(&self) -> u64 {
        self.each
    }

    /// Bytes that are taken.
    pub(crate) fn taken(&self) -> u64 {
        self.all.saturating_sub(self.free.available_permits() as u64 * UNIT)
    }

    /// An empty file with room for `most` bytes, or as many as one body may have. Waits for room no longer than `patience`.
    pub(crate) async fn file(&self, most: u64, patience: Duration) -> Result<(File, Room), NoRoom> {
        let units = u32::try_from(most.min(self.each).div_ceil(UNIT)).unwrap_or(u32::MAX);
        if self.each == 0 {
            return Err(NoRoom::TooLarge(0));
        }
        let permit = Arc::clone(&self.free).acquire_many_owned(units);
        // It is never closed.
        let Ok(Ok(permit)) = timeout(patience, permit).await else {
            return Err(NoRoom::Taken(self.all));
        };
        let file = anonymous().map_err(|errno| NoRoom::System(errno.into()))?;
        Ok((file, Room { permit }))
    }
}

/// Newer kernels may insist that nobody will ever execute it; older ones do not know the flag.
fn anonymous() -> Result<File, Errno> {
    let sealed = memfd_create("stoa", MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL);
    let file = match sealed {
        Err(Errno::INVAL) => memfd_create("stoa", MemfdFlags::CLOEXEC),
        other => other,
    };
    Ok(file?.into())
}

impl Room {
    /// In bytes.
    pub(crate) fn size(&self) -> u64 {
        self.permit.num_permits() as u64 * UNIT
    }

    /// Gives back what `bytes` do not need.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        let needed = usize::try_from(bytes.div_ceil(UNIT)).unwrap_or(usize::MAX);
        let surplus = self.permit.num_permits().saturating_sub(needed);
        drop(self.permit.split(surplus));
    }
}

impl OpenFile {
    pub(crate) fn new(file: File, room: Option<Room>) -> Self {
        Self { file, stored: None, _room: room }
    }

    pub(crate) fn stored(file: File, at: Arc<StoredFile>) -> Self {
        Self { file, stored: Some(at), _room: None }
    }

    /// Where it lies, if it is stored.
    pub fn stored_file(&self) -> Option<&Arc<StoredFile>> {
        self.stored.as_ref()
    }
}

impl Deref for OpenFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl From<File> for OpenFile {
    fn from(file: File) -> Self {
        Self::new(file, None)
    }
}

impl NoRoom {
    /// For the person who reads it, behind what is wrong with the disk.
    pub(crate) fn into_error(self, disk: &str) -> Error {
        Error::NoRoom(match self {
            Self::TooLarge(0) => disk.to_owned(),
            Self::TooLarge(each) => {
                format!("{disk}; unstored, no more than {} is passed through", size(each))
            }
            Self::Taken(all) => format!(
                "{disk}; the {} for what is passed through unstored are all taken",
                size(all)
            ),
            Self::System(error) => {
                format!("{disk}; nor is there memory to pass it through: {error}")
            }
        })
    }
}

/// In the largest unit that says it exactly enough for a person.
pub(crate) fn size(bytes: u64) -> String {
    if bytes >= 10 << 30 {
        format!("{} GiB", bytes >> 30)
    } else if bytes >= 1 << 20 {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{} KiB", bytes >> 10)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[tokio::test]
    async fn room_is_bounded_waited_for_and_given_back() {
        let spool = Spool::new(8 << 10, 20 << 10);
        let (file, mut first) = spool.file(100 << 10, NOW).await.ok().unwrap();
        assert_eq!(first.size(), 8 << 10, "no more than one body may have");
        let second = spool.file(u64::MAX, NOW).await.ok().unwrap();
        assert!(matches!(spool.file(5 << 10, NOW).await, Err(NoRoom::Taken(20480))));
        let third = spool.file(4 << 10, NOW).await.ok().unwrap();
        assert_eq!(spool.taken(), 20 << 10);
        first.shrink(1500);
        assert_eq!((first.size(), spool.taken()), (2 << 10, 14 << 10));
        first.shrink(4000);
        assert_eq!(first.size(), 2 << 10, "it does not grow");
        let waiting = spool.file(8 << 10, Duration::from_secs(30));
        let opened = OpenFile::new(file, Some(first));
        opened.write_all_at(b"body", 0).unwrap();
        let freeing = async {
            tokio::task::yield_now().await;
            drop((second, opened));
        };
        let (got, ()) = tokio::join!(waiting, freeing);
        drop((got.ok().unwrap(), third));
        assert_eq!(spool.taken(), 0);
    }

    #[tokio::test]
    async fn no_spool_at_all() {
        for spool in [Spool::new(0, 1 << 20), Spool::new(1 << 20, 0)] {
            assert!(matches!(spool.file(1, NOW).await, Err(NoRoom::TooLarge(0))));
        }
        assert_eq!(NoRoom::TooLarge(0).into_error("full").to_string(), "full");
    }
}
