//! What can go wrong in the store, and what class each fault has.

use std::{io, path::PathBuf};

use stoa_module::{Artifact, ErrorClass};

use crate::record::ArtifactRecord;

/// A fault of the store. Every message is one line; I/O errors name the path they are about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process serves from this directory.
    #[error("the data directory {} is in use by another stoa{}", .dir.display(), holder(*.pid))]
    Locked {
        dir: PathBuf,
        /// The holder's process id, as it wrote it into the lock file.
        pid: Option<u32>,
    },
    /// The directory was written by a newer program.
    #[error(
        "the data directory {} has layout version {found}, this program knows {known} at most: use a newer stoa",
        .dir.display()
    )]
    NewerLayout { dir: PathBuf, found: u32, known: u32 },
    /// `VERSION` holds something that is no layout version.
    #[error("{} holds {text:?}, which is not a layout version", .path.display())]
    UnreadableVersion { path: PathBuf, text: String },
    /// The directory has other people's files and no `VERSION`.
    #[error(
        "the directory {} is not empty and holds no stoa data (it has {found:?} and no VERSION): choose another one",
        .dir.display()
    )]
    ForeignDirectory { dir: PathBuf, found: String },
    /// The data directory, or a part of its skeleton, cannot be made or written.
    #[error("cannot use the data directory {}: {source}", .dir.display())]
    Directory { dir: PathBuf, source: io::Error },
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Other bytes than the ones first stored were offered for this artifact.
    #[error("other bytes were stored first, with sha256 {} from {}", .had.sha256, .had.source)]
    Conflict {
        /// What is recorded.
        had: Box<ArtifactRecord>,
    },
    /// The temporary file does not have the size its record says.
    #[error(
        "{module}{artifact} is recorded with {recorded} bytes, but the file to commit has {found}"
    )]
    SizeDiffers { module: String, artifact: Artifact, recorded: u64, found: u64 },
    /// A path element or version that no file system can hold as a name.
    #[error("{0:?}… is too long to be stored: a name has 255 bytes at most, a path 4000")]
    TooLong(String),
    /// A name that would leave its directory, or that no file should have.
    #[error("{0:?} is not a file name of a checksum database")]
    UnsafeName(String),
    /// The index cannot be asked right now. Nothing that is served depends on it.
    #[error("the index {} cannot be used: {reason}", .path.display())]
    Index { path: PathBuf, reason: String },
    /// The disk cannot be written, and there is no room in memory to pass the body through.
    #[error("{0}")]
    NoRoom(String),
    /// The disk cannot be written now, so this was not tried.
    #[error("the disk cannot be written: {0}")]
    NotWritten(String),
    /// The store was closed; it no longer writes.
    #[error("the store is closed")]
    Closed,
    /// A file task panicked or the runtime is going down.
    #[error("a file task did not finish: {0}")]
    Task(String),
}

impl Error {
    /// The class that decides the status (architecture, "Error classes").
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Io(source) | Self::Directory { source, .. } => class_of_io(source),
            Self::NoRoom(_) | Self::NotWritten(_) => ErrorClass::Full,
            Self::Conflict { .. } => ErrorClass::Mismatch,
            Self::TooLong(_) | Self::UnsafeName(_) => ErrorClass::Invalid,
            Self::Locked { .. }
            | Self::NewerLayout { .. }
            | Self::UnreadableVersion { .. }
            | Self::ForeignDirectory { .. }
            | Self::SizeDiffers { .. }
            | Self::Index { .. }
            | Self::Closed
            | Self::Task(_) => ErrorClass::Internal,
        }
    }
}

/// `fs_err` wraps the system's error and hides its number, but keeps its kind.
fn class_of_io(error: &io::Error) -> ErrorClass {
    match error.kind() {
        io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::FileTooLarge
        | io::ErrorKind::ReadOnlyFilesystem => ErrorClass::Full,
        io::ErrorKind::InvalidFilename => ErrorClass::Invalid,
        _ => ErrorClass::Internal,
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn classes_of_system_errors() {
        fn check(errno: Errno, expected: ErrorClass) {
            let plain = io::Error::from(errno);
            assert_eq!(Error::Io(plain).class().as_str(), expected.as_str(), "{errno:?}");
        }
        check(Errno::NOSPC, ErrorClass::Full);
        check(Errno::DQUOT, ErrorClass::Full);
        check(Errno::ROFS, ErrorClass::Full);
        check(Errno::FBIG, ErrorClass::Full);
        check(Errno::NAMETOOLONG, ErrorClass::Invalid);
        check(Errno::ACCESS, ErrorClass::Internal);
        check(Errno::IO, ErrorClass::Internal);
    }

    #[test]
    fn the_kind_survives_the_wrapper_that_names_the_path() {
        let long = "x".repeat(300);
        let error = fs_err::read(long).unwrap_err();
        assert_eq!(Error::Io(error).class().as_str(), ErrorClass::Invalid.as_str());
    }

    #[test]
    fn messages_are_one_line() {
        let locked = Error::Locked { dir: "/srv/stoa".into(), pid: Some(7) };
        assert_eq!(
            locked.to_string(),
            "the data directory /srv/stoa is in use by another stoa (process 7)"
        );
        let newer = Error::NewerLayout { dir: "/srv/stoa".into(), found: 2, known: 1 };
        assert_eq!(
            newer.to_string(),
            "the data directory /srv/stoa has layout version 2, this program knows 1 at most: use a newer stoa"
        );
    }
}
