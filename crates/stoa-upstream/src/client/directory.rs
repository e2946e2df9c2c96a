//! `file:` sources: a directory laid out as a proxy serves it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use fs_err::tokio::File;
use stoa_module::ErrorClass;
use tokio::io::AsyncReadExt as _;

use crate::client::body::Answer;
use crate::client::budget::Budget;
use crate::failure::{Fault, Stage, span};
use crate::source::segments;

const READ_BYTES: usize = 256 * 1024;

/// An open file of the directory.
#[derive(Debug)]
pub(crate) struct Opened {
    file: File,
    length: u64,
}

pub(crate) fn locate(directory: &Path, path: &str) -> Result<PathBuf, Fault> {
    let mut file = directory.to_owned();
    file.extend(segments(path)?);
    Ok(file)
}

pub(crate) async fn open(path: &Path, waiting: &mut Budget) -> Result<Opened, Fault> {
    let opening = async {
        // A pipe must not be opened: that would wait for its writer, and no bound reaches a blocked thread.
        let metadata = fs_err::tokio::metadata(path).await.map_err(|error| of_read(&error))?;
        if !metadata.is_file() {
            return Err(Fault::new(ErrorClass::NotFound, Stage::Local, "not a file"));
        }
        let file = File::open(path).await.map_err(|error| of_read(&error))?;
        Ok(Opened { file, length: metadata.len() })
    };
    waiting.spend(opening).await.unwrap_or_else(|_| {
        let detail = format!("local: timeout after {}", span(waiting.whole()));
        Err(Fault::new(ErrorClass::Timeout, Stage::Local, detail))
    })
}

impl Opened {
    /// The rest of a file, from where it stands.
    pub(crate) async fn of(file: File) -> Result<Self, Fault> {
        let length = file.metadata().await.map_err(|error| of_read(&error))?.len();
        Ok(Self { file, length })
    }
}

impl Answer for Opened {
    fn length(&self) -> Option<u64> {
        Some(self.length)
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        let mut chunk = BytesMut::with_capacity(READ_BYTES);
        match self.file.read_buf(&mut chunk).await {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(chunk.freeze())),
            Err(error) => Err(of_read(&error)),
        }
    }
}

fn of_read(error: &std::io::Error) -> Fault {
    let (class, detail) = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename => {
            (ErrorClass::NotFound, "no such file".to_owned())
        }
        // As the go command has it, which takes this for a 403.
        ErrorKind::PermissionDenied => (ErrorClass::Denied, "permission denied".to_owned()),
        _ => (ErrorClass::Unavailable, error.to_string()),
    };
    Fault::new(class, Stage::Local, detail)
}
