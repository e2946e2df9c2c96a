//! Where the files of a version lie, and what of it was rejected: for people who ask.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize;
use stoa_module::{Artifact, ModuleVersion};

use crate::{
    error::Error, files::Files, layout::Layout, quarantine::NOTE_SUFFIX, record::Sidecar,
    sumdb::HEAD,
};

/// Notes of the quarantine that are looked at, the newest first; it may have more than anybody waits for.
const MOST_NOTES: usize = 1000;
/// Longest note that is read, in bytes: a reason may hold what an upstream said.
const MAX_NOTE: u64 = 64 << 10;

/// Where things lie in a data directory that a server may hold: for those who look without its lock, and write nothing.
#[derive(Clone, Debug)]
pub struct Places(Layout);

impl Places {
    pub fn of(dir: &Path) -> Self {
        Self(Layout::new(dir.to_owned()))
    }

    /// The running server's command socket.
    pub fn socket(&self) -> PathBuf {
        self.0.socket()
    }

    /// The directory of downloads under way.
    pub fn temporary(&self) -> PathBuf {
        self.0.temporary()
    }

    /// The newest tree head of a checksum database that was proven.
    pub fn tree_head(&self, database: &str) -> Result<PathBuf, Error> {
        self.0.sumdb(database, HEAD)
    }

    /// What there is of a version of which nothing is missing: its files as they lie when they are vouched for, and its sidecar.
    pub fn whole(&self, module: &ModuleVersion) -> Result<[PathBuf; 4], Error> {
        let version = self.0.version(module)?;
        let [info, go_mod, zip] = Artifact::ALL.map(|artifact| version.artifact(artifact));
        Ok([info, go_mod, zip, version.sidecar()])
    }
}

/// A file that is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePlace {
    pub artifact: Artifact,
    /// Relative to the data directory.
    pub path: PathBuf,
    /// False of a tombstone: the record stays when its file is lost.
    pub is_there: bool,
    /// Rejected, while the disk could not take that.
    pub is_withheld: bool,
}

/// A body in quarantine, or what is left to say about it.
#[derive(Clone, Debug, Deserialize)]
pub struct Rejected {
    /// `path@version`, or what else was asked for.
    module: String,
    /// In the quarantine's directory.
    pub file: String,
    pub reason: String,
    pub source: String,
    pub at: Timestamp,
    /// Whether the body is kept.
    pub kept: bool,
}

impl Files {
    /// Of what is recorded of a version, in the order `.info`, `.mod`, `.zip`.
    pub(crate) fn places(
        &self,
        module: &ModuleVersion,
        sidecar: &Sidecar,
    ) -> Result<Vec<FilePlace>, Error> {
        let version = self.layout.version(module)?;
        let place = |artifact, record: &crate::record::ArtifactRecord| {
            let bodies = version.bodies(artifact, &record.state);
            let there = bodies.iter().find(|body| body.exists());
            let path = there.or(bodies.first()).map_or(Path::new(""), PathBuf::as_path);
            FilePlace {
                artifact,
                path: path.strip_prefix(self.layout.root()).unwrap_or(path).to_owned(),
                is_there: there.is_some(),
                is_withheld: self.withheld.contains(module, artifact),
            }
        };
        Ok(sidecar.records().map(|(artifact, record)| place(artifact, record)).collect())
    }

    /// What was rejected of a version, the newest first.
    pub(crate) fn rejected(
        &self,
        module: &ModuleVersion,
        most: usize,
    ) -> Result<Vec<Rejected>, Error> {
        let module = module.to_string();
        let mut notes = Vec::new();
        let entries = match fs_err::read_dir(self.layout.quarantine()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.to_str().is_some_and(|path| path.ends_with(NOTE_SUFFIX)) {
                notes.push(path);
            }
        }
        // Their names begin with the time.
        notes.sort_unstable_by(|a, b| b.cmp(a));
        let read = |path: &PathBuf| -> Option<Rejected> {
            // It may have been thrown out meanwhile, and a damaged one says nothing.
            let size = fs_err::metadata(path).ok()?.len();
            let text = (size <= MAX_NOTE).then(|| fs_err::read(path).ok())??;
            serde_json::from_slice(&text).ok()
        };
        let read = notes.iter().take(MOST_NOTES).filter_map(read);
        Ok(read.filter(|note| note.module == module).take(most).collect())
    }
}
