//! Archives of a tree, as `git archive` makes them.

use std::fs::File;
use std::io::Seek as _;

use stoa_module::{ErrorClass, ZipLimits};

use crate::direct::command::{Growth, Run, Wanted};
use crate::direct::refs::ObjectId;
use crate::direct::repositories::Repository;
use crate::direct::words;
use crate::failure::{Fault, Stage};

/// Sizes in the repository differ from those in the archive by conversions of ends of lines and encodings, but not by
/// more than this.
const CONVERSION: u64 = 4;

impl Repository {
    /// The zip of a directory of a commit, each name with `prefix/` in front. `None` if the repository was found broken.
    ///
    /// The attributes in the tree hold, but for `export-subst` and `export-ignore`. What the machine is set to does not.
    pub(super) async fn archive(
        &self,
        commit: ObjectId,
        directory: &str,
    ) -> Result<Option<File>, Fault> {
        self.check_sizes(commit, directory).await?;
        let io = |error: &std::io::Error| {
            Fault::new(ErrorClass::Internal, Stage::Local, format!("git: {error}"))
        };
        let mut file = tempfile::tempfile_in(self.inner.temporary()).map_err(|e| io(&e))?;
        let written = file.try_clone().map_err(|e| io(&e))?;
        let settings = &self.inner.settings;
        let growth = Growth {
            size: Box::new(move || written.metadata().map_or(0, |metadata| metadata.len())),
            most: settings.max_archive_bytes,
            what: "the archive of the module's directory",
        };
        let run = Run::local(&self.remote.directory, settings)
            .costly()
            .growing(growth)
            .into_file(file.try_clone().map_err(|e| io(&e))?)
            .args(["-c", "core.autocrlf=input", "-c", "core.eol=lf"])
            .args(["archive", "--format=zip", "--prefix=prefix/", "--end-of-options"])
            .args([commit.to_string()])
            .args((!directory.is_empty()).then_some(directory));
        let (ended, _) = self.inner.git.output(run).await?;
        if !ended.is_success() {
            if self.finds_itself_broken(&ended) {
                return Ok(None);
            }
            let mut fault = words::fault(&ended.words);
            if ended.words.contains("did not match any files") {
                fault.class = ErrorClass::NotFound;
                fault.detail = format!("git: there is no directory {directory:?}");
            }
            return Err(fault);
        }
        let length = file.metadata().map_err(|e| io(&e))?.len();
        if length > settings.max_archive_bytes {
            return Err(too_large("archive of the module's directory", settings.max_archive_bytes));
        }
        file.rewind().map_err(|e| io(&e))?;
        Ok(Some(file))
    }

    /// Refuses what can never become a module zip before it is unpacked: a blob that is small only while it is packed.
    async fn check_sizes(&self, commit: ObjectId, directory: &str) -> Result<(), Fault> {
        let settings = &self.inner.settings;
        let most = settings.max_archive_bytes.saturating_mul(CONVERSION);
        let limits = ZipLimits::default();
        let run = Run::local(&self.remote.directory, settings)
            .costly()
            // With the trees, which may be without end and without a single file.
            .args(["ls-tree", "-r", "-t", "-l", "-z", "--full-tree", "--end-of-options"])
            .args([commit.to_string()])
            .args((!directory.is_empty()).then_some(directory));
        let (mut sum, mut sizes) = (0_u64, Sizes::default());
        let mut take = |bytes: &[u8]| {
            sum = sum.saturating_add(sizes.take(bytes));
            let what = "directory of the module in the repository";
            if sum > most.saturating_mul(CONVERSION) || sizes.largest > most {
                return Wanted::Refused(too_large(what, most));
            }
            if sizes.entries > limits.max_files {
                return Wanted::Refused(too_many(what, "files and directories", limits.max_files));
            }
            if sizes.names > limits.max_name_bytes {
                return Wanted::Refused(too_many(what, "bytes of names", limits.max_name_bytes));
            }
            Wanted::More
        };
        // If it fails, so does the archive, which then says why.
        self.inner.git.run(run, &mut take).await.map(drop)
    }
}

fn too_large(what: &str, most: u64) -> Fault {
    too_many(what, "bytes", most)
}

fn too_many(what: &str, of: &str, most: u64) -> Fault {
    let detail = format!("git: the {what} has more than {most} {of}");
    Fault::new(ErrorClass::NotFound, Stage::Git, detail)
}

/// Reads the sizes in the output of `git ls-tree -l -z` as it comes: `MODE TYPE HASH SIZE<tab>NAME<nul>`.
#[derive(Debug, Default)]
struct Sizes {
    /// Of the entry so far, without its name.
    entry: Vec<u8>,
    in_name: bool,
    largest: u64,
    entries: u64,
    /// The bytes of all names.
    names: u64,
}

impl Sizes {
    /// The sum of the sizes in these bytes.
    fn take(&mut self, bytes: &[u8]) -> u64 {
        let mut sum = 0_u64;
        for &byte in bytes {
            match byte {
                0 => {
                    self.entry.clear();
                    self.in_name = false;
                    self.entries += 1;
                }
                _ if self.in_name => self.names += 1,
                b'\t' => {
                    self.in_name = true;
                    let size = self.entry.rsplit(|&b| b == b' ').next().unwrap_or_default();
                    let size = std::str::from_utf8(size).ok().and_then(|size| size.parse().ok());
                    let size: u64 = size.unwrap_or(0);
                    self.largest = self.largest.max(size);
                    sum = sum.saturating_add(size);
                }
                _ if self.entry.len() < 200 => self.entry.push(byte),
                _ => {}
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let text = b"100644 blob a3ab     121\ta\tb\n c\x00160000 commit a3ab       -\ts\x00\
            120000 blob a3ab       7\tl\x00100755 blob a3ab 1234567890123\tx y 5\x00";
        for pieces in [1, 3, 4096] {
            let mut sizes = Sizes::default();
            let sum: u64 = text.chunks(pieces).map(|piece| sizes.take(piece)).sum();
            assert_eq!((sum, sizes.largest), (1_234_567_890_251, 1_234_567_890_123));
            assert_eq!((sizes.entries, sizes.names), (4, 13));
        }
    }
}
