//! A body on its way into the store.

use std::io::Seek;

use tempfile::TempPath;
use tokio::io::AsyncWriteExt;

use crate::{error::Error, spool::Room};

/// A file in `cache/tmp`, in the file system of the blobs, or one in memory while the disk cannot be written. It is gone
/// when dropped; one on disk also at the next open if the process was killed before.
#[derive(Debug)]
pub struct Temporary {
    file: fs_err::tokio::File,
    place: Place,
}

#[derive(Debug)]
pub(crate) enum Place {
    Disk(TempPath),
    Memory(Room),
}

impl Temporary {
    pub(crate) fn on_disk(file: fs_err::File, path: TempPath) -> Self {
        Self { file: fs_err::tokio::File::from_std(file), place: Place::Disk(path) }
    }

    pub(crate) fn in_memory(file: std::fs::File, room: Room) -> Self {
        let file = fs_err::File::from_parts(file, "a file in memory");
        Self { file: fs_err::tokio::File::from_std(file), place: Place::Memory(room) }
    }

    /// The file, to be written. Tokio's files write behind: [`Temporary::reader`] and a commit wait for that.
    pub fn file(&mut self) -> &mut fs_err::tokio::File {
        &mut self.file
    }

    /// The most bytes it may have. One on disk has as much as the disk takes.
    pub fn room(&self) -> u64 {
        match &self.place {
            Place::Disk(_) => u64::MAX,
            Place::Memory(room) => room.size(),
        }
    }

    pub fn is_on_disk(&self) -> bool {
        matches!(self.place, Place::Disk(_))
    }

    /// A second handle at the start of what has been written so far, for checks on a blocking thread. Nothing may be
    /// written after that: room in memory that it did not need is given back.
    pub async fn reader(&mut self) -> Result<std::fs::File, Error> {
        self.file.flush().await?;
        let (mut file, _) = self.file.try_clone().await?.into_std().await.into_parts();
        file.rewind()?;
        if let Place::Memory(room) = &mut self.place {
            room.shrink(file.metadata()?.len());
        }
        Ok(file)
    }

    /// Bytes written so far.
    pub(crate) async fn length(&self) -> u64 {
        self.file.metadata().await.map_or(0, |metadata| metadata.len())
    }

    /// Waits for what is being written and gives up the asynchronous side.
    pub(crate) async fn settle(mut self) -> Result<(fs_err::File, Place), Error> {
        self.file.flush().await?;
        Ok((self.file.into_std().await, self.place))
    }
}
