//! The files of checksum databases, at the go command's own places below `cache/download/sumdb`, where a `file://` client
//! looks for them. This room keeps bytes; what they prove is for others.
//!
//! Each is synced before it gets its name, since a tile is handed to clients without being proven again, and a torn tree head
//! would hide a rollback. Their directories are synced with the next flush, and before a tree head gets its name: a power cut
//! may lose the last of them, and never leaves a head without the tiles that prove it.

use std::path::Path;

use bytes::Bytes;

use crate::{
    durable::replace,
    error::Error,
    files::{Files, read_if_there},
    lists::names,
    stored_file::read_now,
};

/// The newest tree head.
pub(crate) const HEAD: &str = "latest";

/// The largest file that is read without a thread for it; tiles have 8 KiB, records less.
const SMALL: u64 = 16 << 10;

impl Files {
    /// What the kernel has in memory. Never blocks.
    pub(crate) fn sumdb_read_now(&self, name: &str, file: &str) -> Option<Bytes> {
        read_now(&self.layout.sumdb(name, file).ok()?, SMALL).map(Bytes::from)
    }

    pub(crate) fn sumdb_read(&self, name: &str, file: &str) -> Result<Option<Bytes>, Error> {
        let path = self.layout.sumdb(name, file)?;
        if path.is_dir() {
            return Ok(None);
        }
        Ok(read_if_there(&path)?.map(Bytes::from))
    }

    pub(crate) fn sumdb_write(&self, name: &str, file: &str, body: &[u8]) -> Result<(), Error> {
        let path = self.layout.sumdb(name, file)?;
        self.durable.ready()?;
        let temporary = self.durable.write_temporary(body, true)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        let mut change = self.durable.change()?;
        change.make_directories(&self.layout.download(), parent)?;
        if file == HEAD {
            // The head must not outlive the tiles that prove it.
            for dir in self.durable.batches.directories_below(&self.layout.sumdb_root()) {
                self.durable.sync_directory(&dir)?;
            }
        }
        replace(temporary, &path)?;
        Ok(change.settle()?)
    }

    /// The widths, from narrow to wide, of the partial tiles stored for a full tile such as `tile/8/0/001`.
    pub(crate) fn sumdb_partial_widths(&self, name: &str, tile: &str) -> Result<Vec<u16>, Error> {
        let dir = self.layout.sumdb(name, &format!("{tile}.p"))?;
        let mut widths: Vec<u16> = names(&dir)?
            .iter()
            .filter_map(|name| name.parse().ok().filter(|width: &u16| width.to_string() == *name))
            .filter(|width| (1..256).contains(width))
            .collect();
        widths.sort_unstable();
        Ok(widths)
    }
}
