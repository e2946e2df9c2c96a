//! The rules of a module zip, and its `h1:` hash.
//!
//! # Why there is a zip reader of our own
//!
//! What is checked and hashed here must be what the go command will see when it unpacks the same bytes. Zip files can be
//! written so that two readers see different files in them, and general libraries differ from Go's archive/zip exactly
//! there: they drop the first of two entries of one name, decode names by code pages, look for the directory in other
//! places, or trust other fields. So the directory is read here by the rules of archive/zip (see `zip/directory.rs`),
//! and only inflating is left to a library.
//!
//! Like Go, names, sizes, methods and checksums are taken from the central directory. Of an entry's local header only
//! the signature and the lengths that lead to the data are read, so a local header that names another file or size
//! changes nothing.
//!
//! # What is checked
//!
//! All that `golang.org/x/mod/zip.CheckZip` and the unpacking and hashing of the go command check: the prefix
//! `path@version/`, names by `CheckFilePath`, no two names equal but for case, no file that is a directory as well,
//! go.mod only at the root and in lower case, the limits on sizes, and that the data have the declared size and CRC.
//! Entries for directories are allowed; they are hashed, as `dirhash.HashZip` does, as empty files.
//!
//! # Where this is stricter than the go command
//!
//! * Entries whose data overlap are refused: only zip bombs have them.
//! * Encrypted entries are refused; Go takes the encrypted bytes for the data.
//! * Every entry needs a local header and data, also the earlier of two entries for one directory.
//! * There are limits on the number of entries and on the bytes of their names, since these are held in memory. The
//!   defaults are several times larger than the largest known module.
//! * Deflate data whose code-length code is incomplete are refused, as zlib does; no compressor writes them.
//!
//! Memory: the names, 64 bytes an entry (a list that grows may take twice that), and buffers of about 200 KiB. No file
//! is held.

mod content;
mod create;
mod directory;
mod source;

use std::io::{self, Read, Seek};
use std::ops::Range;

use crate::class::ErrorClass;
use crate::element::{PathProblem, check_file_path};
use crate::hash::{H1, TreeHasher};
use crate::unicode;
use crate::version::ModuleVersion;
use content::{ContentError, Contents};
use directory::{Directory, Names};

pub use create::{CreateZipError, create_zip};
use source::Source;

/// Bounds on a module zip. The first four are the go command's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZipLimits {
    /// The size of the zip itself, in bytes: 500 MiB.
    pub max_zip_bytes: u64,
    /// The sum of the declared sizes of the files, in bytes: 500 MiB.
    pub max_uncompressed_bytes: u64,
    /// The size of the go.mod file at the root, in bytes: 16 MiB.
    pub max_go_mod_bytes: u64,
    /// The size of the file LICENSE at the root, in bytes: 16 MiB.
    pub max_license_bytes: u64,
    /// The number of entries, directories included: a million.
    pub max_files: u64,
    /// The sum of the lengths of the names without their common prefix, in bytes: 64 MiB.
    pub max_name_bytes: u64,
}

impl Default for ZipLimits {
    fn default() -> Self {
        Self {
            max_zip_bytes: 500 << 20,
            max_uncompressed_bytes: 500 << 20,
            max_go_mod_bytes: 16 << 20,
            max_license_bytes: 16 << 20,
            max_files: 1_000_000,
            max_name_bytes: 64 << 20,
        }
    }
}

/// What a zip that keeps all rules holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckedZip {
    /// The hash to compare with the checksum database.
    pub h1: H1,
    /// The number of files, without entries for directories.
    pub files: u64,
    /// The sum of their sizes, in bytes.
    pub uncompressed_bytes: u64,
}

/// Why a zip is refused.
#[derive(Debug, thiserror::Error)]
pub enum ZipError {
    /// It could not be read. That is no fault of the zip.
    #[error("cannot read the zip")]
    Io(#[from] io::Error),
    /// No zip, or one whose directory is broken.
    #[error("not a valid zip file: {0}")]
    Format(&'static str),
    /// One of the limits is passed.
    #[error("the zip has more than {limit} {what}")]
    Limit {
        /// What is too much: the unit, and where.
        what: &'static str,
        /// The most it may be.
        limit: u64,
    },
    /// An entry breaks a rule.
    #[error("entry {name:?} of the zip: {problem}")]
    Entry {
        /// The full name, with invalid UTF-8 replaced.
        name: String,
        /// The rule.
        problem: EntryProblem,
    },
}

/// The rule that an entry breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryProblem {
    /// It is outside the module's directory.
    #[error("its name does not begin with {0:?}")]
    Prefix(String),
    /// The name is no valid path of a file.
    #[error("its name is not allowed: {0}")]
    Name(PathProblem),
    /// Another entry or a directory above one is spelled differently in case alone.
    #[error("its name differs from {0:?} in case alone")]
    CaseCollision(String),
    /// There is a directory of the same name.
    #[error("it is both a file and a directory")]
    FileAndDirectory,
    /// There is another file of the same name.
    #[error("there is more than one entry for this file")]
    Duplicate,
    /// A go.mod file, in whatever case, below the root.
    #[error("a go.mod file is allowed only in the root of a module")]
    NestedGoMod,
    /// A go.mod file at the root that is not written so.
    #[error("a go.mod file must have a lower-case name")]
    GoModCase,
    /// The data overlap those of another entry.
    #[error("its data overlap those of another entry")]
    Overlap,
    /// The data are encrypted.
    #[error("it is encrypted")]
    Encrypted,
    /// Neither stored nor deflated.
    #[error("compression method {0} is not supported")]
    Method(u16),
    /// There is no local header where the directory says.
    #[error("it has no local header")]
    LocalHeader,
    /// The data end early, in the file or in the compressed stream.
    #[error("its data are truncated")]
    Truncated,
    /// The compressed data are broken.
    #[error("its compressed data are corrupt")]
    Deflate,
    /// More data than the directory declares.
    #[error("it holds more than the declared {0} bytes")]
    TooMuchData(u64),
    /// Less data than the directory declares.
    #[error("it holds less than the declared {0} bytes")]
    TooLittleData(u64),
    /// An entry for a directory declares data.
    #[error("it is a directory, but has data")]
    DirectoryData,
    /// The data do not have the declared CRC-32.
    #[error("its data do not have the declared CRC-32")]
    Checksum,
}

impl ZipError {
    /// [`ErrorClass::Corrupt`], but [`ErrorClass::Internal`] if the zip could not be read.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Io(_) => ErrorClass::Internal,
            Self::Format(_) | Self::Limit { .. } | Self::Entry { .. } => ErrorClass::Corrupt,
        }
    }

    fn limit(what: &'static str, limit: u64) -> Self {
        Self::Limit { what, limit }
    }
}

/// Checks a received zip by the rules above and hashes it. Reads every byte of every file: call it where blocking is
/// allowed.
pub fn check_zip<R: Read + Seek>(
    reader: R,
    module: &ModuleVersion,
    limits: &ZipLimits,
) -> Result<CheckedZip, ZipError> {
    let mut source = Source::new(reader)?;
    if source.size() > limits.max_zip_bytes {
        return Err(ZipError::limit("bytes", limits.max_zip_bytes));
    }
    let prefix = format!("{module}/");
    let mut directory = Directory::read(&mut source, &prefix, Names::Utf8, limits)?;
    let (files, uncompressed_bytes) = check_names_and_sizes(&directory, limits)?;
    check_collisions(&mut directory)?;

    // In the order of the hash, which is nearly always that of the file as well.
    directory.sort_by(str::cmp);
    let mut contents = Contents::new(&mut source);
    let mut tree = TreeHasher::default();
    let mut spans = Vec::with_capacity(directory.entries.len());
    for (index, entry) in directory.entries.iter().enumerate() {
        let name = directory.name(entry);
        let read = contents.read(entry, is_directory(name)).map_err(|error| match error {
            ContentError::Io(error) => ZipError::Io(error),
            ContentError::Problem(problem) => directory.refuse(entry, problem),
        })?;
        tree.line(read.sha256, &[prefix.as_bytes(), name.as_bytes()]);
        spans.push((read.span, index));
    }
    check_overlaps(&directory, spans)?;
    Ok(CheckedZip { h1: tree.finish(), files, uncompressed_bytes })
}

/// Whether the name, without the prefix, is that of a directory; the empty one is the module's own.
fn is_directory(name: &str) -> bool {
    name.is_empty() || name.ends_with('/')
}

/// Returns the number of files and the sum of their declared sizes.
fn check_names_and_sizes(
    directory: &Directory,
    limits: &ZipLimits,
) -> Result<(u64, u64), ZipError> {
    let (mut files, mut sum) = (0, 0_u64);
    for entry in &directory.entries {
        let name = directory.name(entry);
        if name.is_empty() {
            continue;
        }
        let path = name.strip_suffix('/').unwrap_or(name);
        check_file_path(path)
            .map_err(|problem| directory.refuse(entry, EntryProblem::Name(problem)))?;
        if is_directory(name) {
            continue;
        }
        check_go_mod(path).map_err(|problem| directory.refuse(entry, problem))?;
        files += 1;
        sum = sum.saturating_add(entry.size);
        if sum > limits.max_uncompressed_bytes {
            return Err(ZipError::limit("bytes of files", limits.max_uncompressed_bytes));
        }
        match path {
            "go.mod" if entry.size > limits.max_go_mod_bytes => {
                return Err(ZipError::limit("bytes in go.mod", limits.max_go_mod_bytes));
            }
            "LICENSE" if entry.size > limits.max_license_bytes => {
                return Err(ZipError::limit("bytes in LICENSE", limits.max_license_bytes));
            }
            _ => {}
        }
    }
    Ok((files, sum))
}

fn check_go_mod(path: &str) -> Result<(), EntryProblem> {
    let base = path.rsplit('/').next().unwrap_or(path);
    if !unicode::equal_fold(base, "go.mod") || path == "go.mod" {
        return Ok(());
    }
    Err(if base == path { EntryProblem::GoModCase } else { EntryProblem::NestedGoMod })
}

/// Looks for names that a file system which ignores case would take for one, and for files that are also directories.
///
/// The entries are put into an order in which all that lie below one directory, and all that differ in case alone, are
/// neighbours. Then comparing neighbours finds every collision, without a set of all directories above all entries.
fn check_collisions(directory: &mut Directory) -> Result<(), ZipError> {
    directory.sort_by(|a, b| unicode::compare_paths(trim(a), trim(b)));
    for pair in directory.entries.windows(2) {
        if let [first, second] = pair
            && let Some(problem) = collision(directory.name(first), directory.name(second))
        {
            return Err(directory.refuse(second, problem));
        }
    }
    Ok(())
}

fn trim(name: &str) -> &str {
    name.strip_suffix('/').unwrap_or(name)
}

/// What is wrong with two names of which the first is not behind the second in the order of [`check_collisions`].
fn collision(first: &str, second: &str) -> Option<EntryProblem> {
    if first.is_empty() {
        return None;
    }
    let (mut firsts, mut seconds) = (trim(first).split('/'), trim(second).split('/'));
    loop {
        match (firsts.next(), seconds.next()) {
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) if unicode::equal_fold(a, b) => {
                return Some(EntryProblem::CaseCollision(first.to_owned()));
            }
            (Some(_), _) => return None,
            (None, below) => {
                return match (is_directory(first), below.is_some() || is_directory(second)) {
                    (true, true) => None,
                    (false, false) => Some(EntryProblem::Duplicate),
                    _ => Some(EntryProblem::FileAndDirectory),
                };
            }
        }
    }
}

fn check_overlaps(
    directory: &Directory,
    mut spans: Vec<(Range<u64>, usize)>,
) -> Result<(), ZipError> {
    spans.sort_unstable_by_key(|(span, _)| span.start);
    for pair in spans.windows(2) {
        if let [(first, _), (second, index)] = pair
            && first.end > second.start
            && let Some(entry) = directory.entries.get(*index)
        {
            return Err(directory.refuse(entry, EntryProblem::Overlap));
        }
    }
    Ok(())
}
