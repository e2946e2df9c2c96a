//! Opening a stored file again without waiting for the disk.

use std::{
    fs::File,
    io::IoSliceMut,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2},
    io::{ReadWriteFlags, preadv2},
};

use crate::spool::OpenFile;

/// Where a stored file lies, for those who hand it out again and again.
#[derive(Debug)]
pub struct StoredFile {
    path: PathBuf,
    /// In bytes, as recorded.
    size: u64,
}

impl StoredFile {
    pub(crate) fn new(path: PathBuf, size: u64) -> Arc<Self> {
        Arc::new(Self { path, size })
    }

    /// The file, if the kernel has all in memory that opening it needs and it has the recorded size. `None` says nothing about the
    /// file: the patient way, over [`Store::open_artifact`](crate::Store::open_artifact), finds out what is the matter. So it is
    /// with kernels before 5.12 and with sandboxes that know no `openat2`.
    pub fn open_now(self: &Arc<Self>) -> Option<OpenFile> {
        let (file, size) = open_now(&self.path)?;
        (size == self.size).then(|| OpenFile::stored(file, Arc::clone(self)))
    }
}

/// A file and its size in bytes.
fn open_now(path: &Path) -> Option<(File, u64)> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED).ok()?;
    let found = fstat(&file).ok()?;
    let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
    let size = u64::try_from(found.st_size).ok().filter(|_| is_file)?;
    Some((file.into(), size))
}

/// The bytes of a file of at most `most` bytes, if the kernel has all of them in memory. `None` says nothing about the file.
pub(crate) fn read_now(path: &Path, most: u64) -> Option<Vec<u8>> {
    let (file, size) = open_now(path).filter(|(_, size)| *size <= most)?;
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    if bytes.is_empty() {
        return Some(bytes);
    }
    let read = preadv2(&file, &mut [IoSliceMut::new(&mut bytes)], 0, ReadWriteFlags::NOWAIT);
    (read == Ok(bytes.len())).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_as_recorded_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.zip");
        fs_err::write(&path, "12345").unwrap();
        let five = StoredFile::new(path.clone(), 5);
        assert!(StoredFile::new(path.clone(), 4).open_now().is_none(), "another size");
        assert!(StoredFile::new(dir.path().to_owned(), 0).open_now().is_none(), "no file");
        if let Some(opened) = five.open_now() {
            assert_eq!(opened.metadata().unwrap().len(), 5);
            assert!(opened.stored_file().is_some_and(|again| Arc::ptr_eq(again, &five)));
        }
        assert!(read_now(&path, 5).is_none_or(|bytes| bytes == b"12345"));
        assert_eq!(read_now(&path, 4), None, "too large");
        fs_err::remove_file(&path).unwrap();
        assert!(five.open_now().is_none(), "gone");
        assert_eq!(read_now(&path, 5), None, "gone");
    }
}
