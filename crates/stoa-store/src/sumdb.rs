//! The files of checksum databases, at the go command's own places below `cache/download/sumdb`, where a `file://` client
//! looks for them. This room keeps bytes; what they prove is for others.
//!
//! Each is synced before it gets its name, since a tile is handed to clients without being proven again, and a torn tree head
//! would hide a rollback. That is no wait for those who need it: tiles and records are kept in memory until the next flush writes
//! them, and read from there. A tree head is written behind all others and their directories: it must not outlive the tiles that prove
//! it. A kill or a power cut may lose the last of them, which are asked for again.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{
    durable::replace,
    error::Error,
    files::{Files, read_if_there},
    lists::names,
    stored_file::read_now,
};

/// The newest tree head.
const HEAD: &str = "latest";

/// What may wait to be written, in bytes with those of its names; what comes beyond is written at once.
const MOST_WAITING: usize = 4 << 20;

/// Files that wait to be written, by where they belong.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    files: BTreeMap<PathBuf, Bytes>,
    bytes: usize,
}

impl Waiting {
    fn get(&self, path: &Path) -> Option<Bytes> {
        self.held().files.get(path).cloned()
    }

    /// Whether there was room for it.
    fn put(&self, path: &Path, body: &[u8]) -> bool {
        let mut held = self.held();
        let bytes = path.as_os_str().len() + body.len();
        if held.bytes + bytes > MOST_WAITING {
            return false;
        }
        held.remove(path);
        held.bytes += bytes;
        held.files.insert(path.to_owned(), Bytes::copy_from_slice(body));
        true
    }

    fn all(&self) -> Vec<(PathBuf, Bytes)> {
        self.held().files.iter().map(|(path, body)| (path.clone(), body.clone())).collect()
    }

    /// What was written waits no longer, unless something else has taken its place.
    fn written(&self, path: &Path, body: &Bytes) {
        let mut held = self.held();
        if held.files.get(path).is_some_and(|waits| waits.as_ptr() == body.as_ptr()) {
            held.remove(path);
        }
    }

    /// The names in a directory.
    fn names_in(&self, dir: &Path) -> Vec<String> {
        let held = self.held();
        let from = held.files.range(dir.to_owned()..).map(|(path, _)| path);
        let below = from.take_while(|path| path.starts_with(dir));
        let names =
            below.filter(|path| path.parent() == Some(dir)).filter_map(|path| path.file_name());
        names.filter_map(|name| name.to_str().map(str::to_owned)).collect()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn remove(&mut self, path: &Path) {
        if let Some(body) = self.files.remove(path) {
            self.bytes -= path.as_os_str().len() + body.len();
        }
    }
}

/// The largest file that is read without a thread for it; tiles have 8 KiB, records less.
const SMALL: u64 = 16 << 10;

impl Files {
    /// What waits to be written, or what the kernel has in memory. Never blocks.
    pub(crate) fn sumdb_read_now(&self, name: &str, file: &str) -> Option<Bytes> {
        let path = self.layout.sumdb(name, file).ok()?;
        self.waiting.get(&path).or_else(|| read_now(&path, SMALL).map(Bytes::from))
    }

    pub(crate) fn sumdb_read(&self, name: &str, file: &str) -> Result<Option<Bytes>, Error> {
        let path = self.layout.sumdb(name, file)?;
        if let Some(body) = self.waiting.get(&path) {
            return Ok(Some(body));
        }
        if path.is_dir() {
            return Ok(None);
        }
        Ok(read_if_there(&path)?.map(Bytes::from))
    }

    pub(crate) fn sumdb_write(&self, name: &str, file: &str, body: &[u8]) -> Result<(), Error> {
        let path = self.layout.sumdb(name, file)?;
        self.durable.ready()?;
        if self.durable.batches.is_batched() && self.waiting.put(&path, body) {
            self.durable.batches.wakes().some.notify_one();
            return Ok(());
        }
        if file == HEAD {
            self.sumdb_flush()?;
        }
        self.sumdb_write_now(&path, body)
    }

    fn sumdb_write_now(&self, path: &Path, body: &[u8]) -> Result<(), Error> {
        if path.ends_with(HEAD) {
            for dir in self.durable.batches.directories_below(&self.layout.sumdb_root()) {
                self.durable.sync_directory(&dir)?;
            }
        }
        let temporary = self.durable.write_temporary(body, true)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        let mut change = self.durable.change()?;
        change.make_directories(&self.layout.download(), parent)?;
        replace(temporary, path)?;
        Ok(change.settle()?)
    }

    /// Writes what waits. What cannot be written goes on waiting.
    pub(crate) fn sumdb_flush(&self) -> Result<(), Error> {
        let mut all = self.waiting.all();
        // A head must not outlive the tiles that prove it.
        all.sort_by_key(|(path, _)| path.ends_with(HEAD));
        for (path, body) in all {
            self.sumdb_write_now(&path, &body)?;
            self.waiting.written(&path, &body);
        }
        Ok(())
    }

    /// The widths, from narrow to wide, of the partial tiles stored for a full tile such as `tile/8/0/001`.
    pub(crate) fn sumdb_partial_widths(&self, name: &str, tile: &str) -> Result<Vec<u16>, Error> {
        let dir = self.layout.sumdb(name, &format!("{tile}.p"))?;
        let mut all = names(&dir)?;
        all.extend(self.waiting.names_in(&dir));
        let mut widths: Vec<u16> = all
            .iter()
            .filter_map(|name| name.parse().ok().filter(|width: &u16| width.to_string() == *name))
            .filter(|width| (1..256).contains(width))
            .collect();
        widths.sort_unstable();
        widths.dedup();
        Ok(widths)
    }
}
