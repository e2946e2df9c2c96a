//! What all that is done with repositories as directories has in common.

use std::path::Path;

use stoa_module::ErrorClass;
use tempfile::TempDir;

use crate::direct::repositories::Inner;
use crate::failure::{Fault, Stage};

/// The files in a directory and all below it, as far as they can be read.
pub(super) fn files_below(directory: &Path) -> impl Iterator<Item = fs_err::DirEntry> {
    let mut open = vec![directory.to_owned()];
    let mut entries = None;
    std::iter::from_fn(move || {
        loop {
            let Some(entry) = entries.as_mut().and_then(fs_err::ReadDir::next) else {
                entries = fs_err::read_dir(open.pop()?).ok();
                continue;
            };
            let Ok(entry) = entry else { continue };
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            } else {
                return Some(entry);
            }
        }
    })
}

impl Inner {
    /// Takes a repository out of everybody's way. It is removed with what is answered, which may take a while.
    pub(super) fn bury(&self, directory: &Path) -> std::io::Result<TempDir> {
        let grave = tempfile::Builder::new().prefix("buried-").tempdir_in(self.temporary())?;
        fs_err::rename(directory, grave.path().join("repository"))?;
        Ok(grave)
    }
}

/// A fault of our own disk; `what` failed.
pub(super) fn of_io(what: &str, error: &std::io::Error) -> Fault {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let class = match error.kind() {
        StorageFull | QuotaExceeded => ErrorClass::Full,
        _ => ErrorClass::Internal,
    };
    Fault::new(class, Stage::Local, format!("{what}: {error}"))
}
