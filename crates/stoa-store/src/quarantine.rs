//! Rejected bodies, kept for a person to look at: bounded in bytes, oldest out first, never under a cache name.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use serde::Serialize;
use stoa_module::Artifact;
use tempfile::TempPath;

use crate::{durable::Durable, error::Error};

/// What even an empty file takes on disk; it bounds the number of files, too.
const BLOCK: u64 = 4096;

/// Of the notes beside the bodies.
pub(crate) const NOTE_SUFFIX: &str = ".json";

/// Why a body was rejected, for the person who looks.
#[derive(Clone, Debug)]
pub struct QuarantineNote {
    /// `path@version`, or what else was asked for.
    pub module: String,
    pub artifact: Artifact,
    pub reason: String,
    /// Where it came from; never with a secret.
    pub source: String,
}

#[derive(Serialize)]
struct NoteOnDisk<'a> {
    module: &'a str,
    file: &'a str,
    reason: &'a str,
    source: &'a str,
    at: Timestamp,
    size: u64,
    /// False when the body alone is above the bound of the whole quarantine.
    kept: bool,
}

/// The directory and what it holds, oldest first.
#[derive(Debug)]
pub(crate) struct Quarantine {
    dir: PathBuf,
    bound: u64,
    held: Mutex<Option<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    /// Name without suffix, and bytes of its files.
    entries: VecDeque<(String, u64)>,
    bytes: u64,
    /// Makes names unique, however coarse the clock is.
    counter: u32,
}

impl Quarantine {
    pub(crate) fn new(dir: PathBuf, bound: u64) -> Self {
        Self { dir, bound, held: Mutex::new(None) }
    }

    /// Takes a file in; `suffix` ends its name.
    pub(crate) fn put(
        &self,
        durable: &Durable,
        body: &Path,
        suffix: &str,
        note: &QuarantineNote,
    ) -> Result<(), Error> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = match held.take() {
            Some(state) => state,
            None => self.load()?,
        };
        let result = self.put_into(&mut state, durable, body, suffix, note);
        if result.is_ok() {
            *held = Some(state);
        } // else: what lies there now is read again next time
        result
    }

    fn put_into(
        &self,
        held: &mut Held,
        durable: &Durable,
        body: &Path,
        suffix: &str,
        note: &QuarantineNote,
    ) -> Result<(), Error> {
        let size = fs_err::metadata(body)?.len();
        let now = Timestamp::now();
        held.counter = held.counter.wrapping_add(1);
        // Sorts by age, and can be no version: those begin with a v.
        let name = format!("{}-{:08x}", now.strftime("%Y%m%dT%H%M%S%9fZ"), held.counter);
        let file = format!("{name}.{suffix}");
        let kept = weight(size) + BLOCK <= self.bound;
        let text = NoteOnDisk {
            module: &note.module,
            file: &file,
            reason: &note.reason,
            source: &note.source,
            at: now,
            size,
            kept,
        };
        let text = serde_json::to_vec_pretty(&text).map_err(io::Error::other)?;
        let entry = weight(text.len() as u64) + if kept { weight(size) } else { 0 };
        while held.bytes + entry > self.bound {
            let Some((oldest, bytes)) = held.entries.pop_front() else { return Ok(()) };
            self.remove(&oldest)?;
            held.bytes -= bytes;
        }
        let note_path = self.dir.join(format!("{file}{NOTE_SUFFIX}"));
        crate::durable::replace(durable.write_temporary(&text, false)?, &note_path)?;
        held.entries.push_back((name, entry));
        held.bytes += entry;
        if kept {
            move_file(body, &self.dir.join(&file))?;
        }
        Ok(())
    }

    /// Removes the body and the note of one name.
    fn remove(&self, name: &str) -> Result<(), Error> {
        for entry in fs_err::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_str().and_then(stem) == Some(name) {
                fs_err::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn load(&self) -> Result<Held, Error> {
        fs_err::create_dir_all(&self.dir)?;
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        for entry in fs_err::read_dir(&self.dir)? {
            let entry = entry?;
            if let Some(name) = entry.file_name().to_str().and_then(stem) {
                *found.entry(name.to_owned()).or_default() += weight(entry.metadata()?.len());
            }
        }
        let bytes = found.values().sum();
        Ok(Held { entries: found.into_iter().collect(), bytes, counter: 0 })
    }
}

/// `20261121T091307123456789Z-00000001.zip.json` → `20261121T091307123456789Z-00000001`; `None` for a file that is not ours.
fn stem(name: &str) -> Option<&str> {
    let (stem, _) = name.split_once('.')?;
    (stem.len() == "20261121T091307123456789Z-00000001".len() && stem.starts_with("20"))
        .then_some(stem)
}

fn weight(size: u64) -> u64 {
    size.max(1).div_ceil(BLOCK) * BLOCK
}

/// A rename, or a copy where the quarantine is another file system than the cache.
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    match fs_err::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            fs_err::copy(from, to)?;
            fs_err::remove_file(from)
        }
        other => other,
    }
}

/// Takes in a temporary file.
pub(crate) fn put_temporary(
    quarantine: &Quarantine,
    durable: &Durable,
    body: TempPath,
    note: &QuarantineNote,
) -> Result<(), Error> {
    // The guard removes what is still there; a moved file is not.
    quarantine.put(durable, &body, note.artifact.extension(), note)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        dir: tempfile::TempDir,
        durable: Durable,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs_err::create_dir(dir.path().join("tmp")).unwrap();
            let durable = Durable::of_temporaries(dir.path().join("tmp"));
            Self { dir, durable }
        }

        fn quarantine(&self, bound: u64) -> Quarantine {
            Quarantine::new(self.dir.path().join("quarantine"), bound)
        }

        fn put(&self, quarantine: &Quarantine, body: &[u8], reason: &str) {
            let body = self.durable.write_temporary(body, false).unwrap();
            let note = QuarantineNote {
                module: "example.com/a@v1.0.0".into(),
                artifact: Artifact::Zip,
                reason: reason.into(),
                source: "proxy.example.com".into(),
            };
            put_temporary(quarantine, &self.durable, body, &note).unwrap();
        }

        /// Names, oldest first, with the reason of each note and the size of each body.
        fn contents(&self) -> Vec<String> {
            let mut names: Vec<_> = fs_err::read_dir(self.dir.path().join("quarantine"))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            names.sort();
            names
                .iter()
                .map(|path| {
                    if path.extension().unwrap() == "json" {
                        let text = fs_err::read_to_string(path).unwrap();
                        let note: serde_json::Value = serde_json::from_str(&text).unwrap();
                        format!("note {} kept {}", note["reason"].as_str().unwrap(), note["kept"])
                    } else {
                        format!("body {}", fs_err::metadata(path).unwrap().len())
                    }
                })
                .collect()
        }
    }

    #[test]
    fn oldest_go_first() {
        let place = Place::new();
        // Room for two bodies of one block with their notes.
        let quarantine = place.quarantine(4 * BLOCK);
        place.put(&quarantine, b"one", "first");
        place.put(&quarantine, b"three", "second");
        assert_eq!(
            place.contents(),
            ["body 3", "note first kept true", "body 5", "note second kept true"]
        );
        place.put(&quarantine, b"fifteen", "third");
        let expected = ["body 5", "note second kept true", "body 7", "note third kept true"];
        assert_eq!(place.contents(), expected);
        // Another process finds what this one left, and keeps the bound.
        let reopened = place.quarantine(4 * BLOCK);
        place.put(&reopened, b"x", "fourth");
        assert_eq!(
            place.contents(),
            ["body 7", "note third kept true", "body 1", "note fourth kept true"]
        );
        assert_eq!(fs_err::read_dir(place.dir.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_body_above_the_bound_leaves_a_note_only() {
        let place = Place::new();
        let quarantine = place.quarantine(2 * BLOCK);
        place.put(&quarantine, b"small", "first");
        place.put(&quarantine, &vec![0; 100_000], "huge");
        assert_eq!(place.contents(), ["note huge kept false"]);
        place.put(&place.quarantine(0), b"", "nothing may be kept");
        assert!(place.contents().is_empty(), "{:?}", place.contents());
        assert_eq!(fs_err::read_dir(place.dir.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn files_of_others_are_left_alone() {
        let place = Place::new();
        let dir = place.dir.path().join("quarantine");
        fs_err::create_dir(&dir).unwrap();
        fs_err::write(dir.join("README.txt"), "mine").unwrap();
        let quarantine = place.quarantine(2 * BLOCK);
        place.put(&quarantine, b"a", "first");
        place.put(&quarantine, b"b", "second");
        assert!(dir.join("README.txt").exists());
        assert_eq!(fs_err::read_dir(&dir).unwrap().count(), 3);
    }
}
