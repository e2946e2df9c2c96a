//! A file on its way into the store.

use std::path::Path;

use tempfile::TempPath;
use tokio::io::AsyncWriteExt;

use crate::error::Error;

/// A file in `cache/tmp`, in the file system of the blobs. It is removed when dropped, and at the next open if the process
/// was killed before.
#[derive(Debug)]
pub struct Temporary {
    file: fs_err::tokio::File,
    path: TempPath,
}

impl Temporary {
    pub(crate) fn new(file: fs_err::File, path: TempPath) -> Self {
        Self { file: fs_err::tokio::File::from_std(file), path }
    }

    /// The file, to be written. Tokio's files write behind: [`Temporary::reader`] and a commit wait for that.
    pub fn file(&mut self) -> &mut fs_err::tokio::File {
        &mut self.file
    }

    /// Where it lies until it is committed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A second handle at the start of what has been written so far, for checks on a blocking thread.
    pub async fn reader(&mut self) -> Result<std::fs::File, Error> {
        self.file.flush().await?;
        let (file, _) = fs_err::tokio::File::open(&self.path).await?.into_std().await.into_parts();
        Ok(file)
    }

    /// Waits for what is being written and gives up the asynchronous side.
    pub(crate) async fn settle(mut self) -> Result<(fs_err::File, TempPath), Error> {
        self.file.flush().await?;
        Ok((self.file.into_std().await, self.path))
    }
}
