//! What of a directory tree is known to be on disk, as the calls that were made tell, and not what anybody believes.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Mutex,
};

/// Off until a test asks for it.
#[derive(Debug, Default)]
pub(crate) struct Watched(Mutex<Option<OnDisk>>);

/// The files and names that a power cut must leave as they are.
#[derive(Debug, Default)]
pub(crate) struct OnDisk {
    /// By inode. Held open, so that no other file gets the number.
    files: HashMap<u64, (File, Vec<u8>)>,
    /// Of each directory, name and inode.
    directories: HashMap<PathBuf, BTreeMap<String, u64>>,
}

impl Watched {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// What is there by now counts as being on disk.
    pub(crate) fn begin(&self, root: &Path) {
        *self.0.lock().unwrap() = Some(OnDisk::default());
        let mut open = vec![root.to_owned()];
        while let Some(dir) = open.pop() {
            self.directory(&dir);
            for name in names(&dir).into_keys() {
                let path = dir.join(name);
                if path.is_dir() {
                    open.push(path);
                } else if path.is_file() {
                    self.file(fs_err::File::open(path).unwrap().file());
                }
            }
        }
    }

    pub(crate) fn end(&self) -> OnDisk {
        self.0.lock().unwrap().take().unwrap()
    }

    pub(crate) fn file(&self, file: &File) {
        if let Some(on_disk) = &mut *self.0.lock().unwrap() {
            let metadata = file.metadata().unwrap();
            let mut bytes = vec![0; metadata.len() as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            on_disk.files.insert(metadata.ino(), (file.try_clone().unwrap(), bytes));
        }
    }

    pub(crate) fn directory(&self, dir: &Path) {
        if let Some(on_disk) = &mut *self.0.lock().unwrap() {
            on_disk.directories.insert(dir.to_owned(), names(dir));
        }
    }
}

impl OnDisk {
    /// The bytes of a file that were synced.
    pub(crate) fn bytes(&self, inode: u64) -> Option<&[u8]> {
        self.files.get(&inode).map(|(_, bytes)| &**bytes)
    }

    /// What was synced of a directory; nothing when it never was.
    pub(crate) fn names(&self, dir: &Path) -> BTreeMap<String, u64> {
        self.directories.get(dir).cloned().unwrap_or_default()
    }
}

/// The names in a directory, with their inodes.
pub(crate) fn names(dir: &Path) -> BTreeMap<String, u64> {
    fs_err::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().ino())
        })
        .collect()
}
