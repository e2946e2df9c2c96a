//! The data directory as a whole: whose it is, which layout it has, and what a killed process left in it.

use std::{
    io::{self, Read, Seek, Write},
    path::Path,
    process,
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    durable::{Durable, replace},
    error::Error,
    layout::Layout,
    trouble::Fault,
};

/// The layout this program writes.
const LAYOUT: u32 = 1;
/// What a fresh directory may hold: what file systems put there, what a person lays beside it, what another open is just
/// making.
const TOLERATED: [&str; 3] = ["lost+found", "cache", "git"];

/// The exclusive lock on a data directory; released on drop or by the end of the process, however it ends.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    file: fs_err::File,
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread is just starting shares the open file until it executes.
        let _: Result<(), rustix::io::Errno> = flock(self.file.file(), FlockOperation::Unlock);
    }
}

/// A data directory that is ours now.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) lock: DirectoryLock,
    /// It holds a store and cannot be written: full, read-only, failing.
    pub(crate) unwritable: Option<io::Error>,
}

/// Makes the directory, takes its lock, checks its version and sweeps `cache/tmp`.
pub(crate) fn open(layout: &Layout) -> Result<Opened, Error> {
    let failed = |source| Error::Directory { dir: layout.root().to_owned(), source };
    fs_err::create_dir_all(layout.root()).map_err(failed)?;
    // Before the lock, as not even a lock file is to be left in a directory that is somebody else's.
    refuse_foreign(layout)?;
    let lock = lock(layout)?;
    check_version(layout)?;
    match prepare(layout) {
        Ok(()) => Ok(Opened { lock, unwritable: None }),
        // There is something to serve.
        Err(error) if Fault::of(&error).is_some() && layout.version_file().exists() => {
            Ok(Opened { lock, unwritable: Some(error) })
        }
        Err(error) => Err(failed(error)),
    }
}

fn prepare(layout: &Layout) -> io::Result<()> {
    for dir in [layout.download(), layout.answers(), layout.temporary(), layout.quarantine()] {
        fs_err::create_dir_all(dir)?;
    }
    sweep(&layout.temporary())?;
    write_version(layout)?;
    sync(&layout.root().join("cache"))?;
    sync(layout.root())?;
    // What is already there is no sign that more can be written.
    Durable::of_temporaries(layout.temporary())
        .write_temporary(b"can this be written?\n", false)?;
    Ok(())
}

fn refuse_foreign(layout: &Layout) -> Result<(), Error> {
    let failed = |source| Error::Directory { dir: layout.root().to_owned(), source };
    if layout.version_file().exists() || layout.download().exists() {
        return Ok(());
    }
    for entry in fs_err::read_dir(layout.root()).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !name.starts_with("stoa.") && !TOLERATED.contains(&&*name) {
            return Err(Error::ForeignDirectory { dir: layout.root().to_owned(), found: name });
        }
    }
    Ok(())
}

fn lock(layout: &Layout) -> Result<DirectoryLock, Error> {
    let failed = |source| Error::Directory { dir: layout.root().to_owned(), source };
    let mut file = open_lock(layout).map_err(failed)?;
    if let Err(errno) = flock(file.file(), FlockOperation::NonBlockingLockExclusive) {
        if errno != rustix::io::Errno::WOULDBLOCK {
            return Err(failed(errno.into()));
        }
        let mut text = String::new();
        // Only for the message: a holder that has not written its id yet is a holder all the same.
        let _: io::Result<usize> = (&mut file).take(32).read_to_string(&mut text);
        return Err(Error::Locked { dir: layout.root().to_owned(), pid: text.trim().parse().ok() });
    }
    let write = |file: &mut fs_err::File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", process::id())
    };
    // The lock holds without the number, too.
    if let Err(error) = write(&mut file)
        && Fault::of(&error).is_none()
        && error.kind() != io::ErrorKind::InvalidInput
    {
        return Err(failed(error));
    }
    Ok(DirectoryLock { file })
}

/// The lock file; where the disk does not take one, the one that is there, or else the directory.
fn open_lock(layout: &Layout) -> io::Result<fs_err::File> {
    let mut options = fs_err::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    match options.open(layout.lock()) {
        Err(error) if Fault::of(&error).is_some() => {
            fs_err::File::open(layout.lock()).or_else(|_| fs_err::File::open(layout.root()))
        }
        other => other,
    }
}

/// A missing `VERSION` is fine: the directory is new, or was cut off from power while it was.
fn check_version(layout: &Layout) -> Result<(), Error> {
    let path = layout.version_file();
    let text = match fs_err::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Directory { dir: layout.root().to_owned(), source }),
    };
    let text: String = String::from_utf8_lossy(&text).chars().take(40).collect();
    match text.trim().parse() {
        Ok(LAYOUT) => Ok(()),
        Ok(found) if found > LAYOUT => {
            Err(Error::NewerLayout { dir: layout.root().to_owned(), found, known: LAYOUT })
        }
        _ => Err(Error::UnreadableVersion { path, text }),
    }
}

fn write_version(layout: &Layout) -> io::Result<()> {
    if layout.version_file().exists() {
        return Ok(());
    }
    let durable = Durable::of_temporaries(layout.temporary());
    let body = format!("{LAYOUT}\n");
    replace(durable.write_temporary(body.as_bytes(), true)?, &layout.version_file())
}

/// Nothing in `cache/tmp` is worth anything to a process that did not write it.
fn sweep(temporary: &Path) -> io::Result<()> {
    for entry in fs_err::read_dir(temporary)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs_err::remove_dir_all(entry.path())?;
        } else {
            fs_err::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Syncs a directory, alone.
pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    fs_err::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("data"));
        (dir, layout)
    }

    #[test]
    fn a_new_directory_gets_its_skeleton() {
        let (_dir, layout) = fresh();
        let _lock = open(&layout).unwrap().lock;
        assert_eq!(fs_err::read(layout.version_file()).unwrap(), b"1\n");
        let pid = fs_err::read_to_string(layout.lock()).unwrap();
        assert_eq!(pid.trim(), process::id().to_string());
        assert!(layout.download().is_dir() && layout.quarantine().is_dir());
    }

    #[test]
    fn versions() {
        fn check(version: Option<&[u8]>, beside: Option<&str>, expected: &str) {
            let (_dir, layout) = fresh();
            fs_err::create_dir_all(layout.root()).unwrap();
            if let Some(version) = version {
                fs_err::write(layout.version_file(), version).unwrap();
            }
            if let Some(beside) = beside {
                let path = layout.root().join(beside);
                fs_err::create_dir_all(path.parent().unwrap()).unwrap();
                fs_err::write(path, "").unwrap();
            }
            let said = match open(&layout) {
                Ok(_) => {
                    let text = fs_err::read_to_string(layout.version_file()).unwrap();
                    format!("version {}", text.trim())
                }
                Err(error) => error.to_string().replace(&*layout.root().to_string_lossy(), "DIR"),
            };
            assert_eq!(said, expected, "{version:?} {beside:?}");
        }
        check(None, None, "version 1");
        check(Some(b"1\n"), None, "version 1");
        check(Some(b"1"), Some("notes.txt"), "version 1");
        check(None, Some("cache/download/example.com/a/@v/list"), "version 1");
        check(None, Some("stoa.toml"), "version 1");
        check(None, Some(".hidden"), "version 1");
        check(
            Some(b"2\n"),
            None,
            "the data directory DIR has layout version 2, this program knows 1 at most: use a newer stoa",
        );
        check(Some(b""), None, "DIR/VERSION holds \"\", which is not a layout version");
        check(Some(b"0\n"), None, "DIR/VERSION holds \"0\\n\", which is not a layout version");
        check(
            Some(b"one\xff"),
            None,
            "DIR/VERSION holds \"one\u{fffd}\", which is not a layout version",
        );
        check(
            None,
            Some("holiday.jpg"),
            "the directory DIR is not empty and holds no stoa data (it has \"holiday.jpg\" and no VERSION): choose another one",
        );
    }

    #[test]
    fn a_foreign_directory_is_left_as_it_was() {
        let (_dir, layout) = fresh();
        fs_err::create_dir_all(layout.root()).unwrap();
        fs_err::write(layout.root().join("holiday.jpg"), "").unwrap();
        open(&layout).unwrap_err();
        assert_eq!(fs_err::read_dir(layout.root()).unwrap().count(), 1);
    }

    #[test]
    fn one_holder() {
        let (_dir, layout) = fresh();
        let lock = open(&layout).unwrap().lock;
        match open(&layout).unwrap_err() {
            Error::Locked { dir, pid } => {
                assert_eq!(dir, layout.root());
                assert_eq!(pid, Some(process::id()));
            }
            other => panic!("{other}"),
        }
        drop(lock);
        open(&layout).unwrap();
    }

    #[test]
    fn leftovers_are_swept() {
        let (_dir, layout) = fresh();
        drop(open(&layout).unwrap());
        fs_err::create_dir_all(layout.temporary().join("dir/below")).unwrap();
        fs_err::write(layout.temporary().join("stoa-abc"), "half").unwrap();
        open(&layout).unwrap();
        assert_eq!(fs_err::read_dir(layout.temporary()).unwrap().count(), 0);
    }

    #[test]
    fn a_place_that_is_no_directory() {
        let (_dir, layout) = fresh();
        fs_err::write(layout.root(), "a file").unwrap();
        let error = open(&layout).unwrap_err();
        assert!(matches!(error, Error::Directory { .. }), "{error}");
        assert_eq!(error.to_string().lines().count(), 1);
    }
}
