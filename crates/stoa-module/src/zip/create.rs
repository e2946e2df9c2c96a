//! Making a module zip from a zip of the tree of a commit (`golang.org/x/mod/zip.Create`, and `codeRepo.Zip` of the go
//! command).
//!
//! For each file the rules are applied in Go's order, because the order decides: a file that is left out may have any
//! name, and a symbolic link, although left out itself, may still spoil the zip by its name.
//!
//! What is kept is copied as it is compressed; nothing but go.mod and LICENSE is ever unpacked. Memory: what the directory
//! takes (see [`super`]), about 100 bytes a file, and a buffer of 64 KiB.

use std::collections::HashSet;
use std::io::{self, Read, Seek, Write};

use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

use super::content::{DEFLATED, LOCAL_HEADER, LOCAL_HEADER_BYTES, STORED};
use super::directory::{Directory, Entry, Names};
use super::source::Source;
use super::{EntryProblem, ZipError, ZipLimits, collision, is_directory};
use crate::element::{PathProblem, check_file_path};
use crate::go_mod::GoMod;
use crate::unicode;
use crate::version::ModuleVersion;

/// Why there is no module zip for a tree.
#[derive(Debug, thiserror::Error)]
pub enum CreateZipError {
    /// The zip of the tree cannot be read, or is none.
    #[error("cannot read the archive of the repository")]
    Archive(#[source] ZipError),
    /// The module zip cannot be written.
    #[error("cannot write the module zip")]
    Write(#[source] io::Error),
    /// A file breaks a rule.
    #[error("{name:?} in the repository: {problem}")]
    File {
        /// The name, below the module's root.
        name: String,
        /// The rule.
        problem: EntryProblem,
    },
    /// One of the limits is passed.
    #[error("the module has more than {limit} {what}")]
    Limit {
        /// What is too much: the unit, and where.
        what: &'static str,
        /// The most it may be.
        limit: u64,
    },
}

/// A file of the module.
struct File<'d> {
    /// Below the module's root.
    name: &'d str,
    /// `None` for the LICENSE of the repository's root.
    entry: Option<&'d Entry>,
    size: u64,
}

/// Writes the module zip for a tree.
///
/// `archive` is what `git archive --format=zip` makes with one directory as the prefix of all names. The module's files
/// are those below `subdir` in it, a path without slashes at its ends, or empty. `license` is the LICENSE of the
/// repository's root, for a module in a directory that has none of its own; it is not to be given otherwise.
pub fn create_zip<R: Read + Seek>(
    archive: R,
    subdir: &str,
    license: Option<&[u8]>,
    module: &ModuleVersion,
    out: impl Write,
    limits: &ZipLimits,
) -> Result<(), CreateZipError> {
    let mut source = Source::new(archive).map_err(of_io)?;
    let directory =
        Directory::read(&mut source, "", Names::Any, limits).map_err(CreateZipError::Archive)?;
    let mut files = files(&directory, subdir)?;
    let license = license.filter(|_| !files.iter().any(|file| file.name == "LICENSE"));
    if let Some(license) = license {
        files.push(File { name: "LICENSE", entry: None, size: license.len() as u64 });
    }
    let go_mod = match files.iter().find(|file| file.name == "go.mod" && file.is_regular()) {
        Some(File { entry: Some(entry), .. }) if entry.size <= limits.max_go_mod_bytes => {
            unpack(&mut source, entry)?
        }
        _ => Vec::new(),
    };
    choose(&mut files, new_vendor_rule(&go_mod), limits)?;

    let mut writer = Writer::new(out, format!("{module}/"), limits.max_zip_bytes);
    for file in &files {
        match (file.entry, license) {
            (Some(entry), _) => {
                let data = Data {
                    method: entry.method,
                    crc: entry.crc,
                    compressed: entry.compressed,
                    size: entry.size,
                };
                seek_to_data(&mut source, entry)?;
                writer.begin(file.name, &data)?;
                copy(&mut source, entry.compressed, &mut writer)?;
            }
            (None, Some(license)) => writer.deflate(file.name, license)?,
            (None, None) => {}
        }
    }
    writer.finish()
}

impl File<'_> {
    fn is_regular(&self) -> bool {
        self.entry.is_none_or(|entry| !entry.is_symlink)
    }

    fn refuse(&self, problem: EntryProblem) -> CreateZipError {
        CreateZipError::File { name: self.name.to_owned(), problem }
    }
}

/// The files below the module's root, in their order.
fn files<'d>(directory: &'d Directory, subdir: &str) -> Result<Vec<File<'d>>, CreateZipError> {
    let malformed = |what| CreateZipError::Archive(ZipError::Format(what));
    let mut top = None;
    let mut files = Vec::new();
    for entry in &directory.entries {
        let name = directory.name(entry);
        let (first, below) =
            name.split_once('/').ok_or_else(|| malformed("it has no top-level directory"))?;
        if *top.get_or_insert(first) != first {
            return Err(malformed("it has more than one top-level directory"));
        }
        let name = match below.strip_prefix(subdir) {
            Some(name) if subdir.is_empty() => name,
            Some(name) => match name.strip_prefix('/') {
                Some(name) => name,
                None => continue,
            },
            None => continue,
        };
        if !is_directory(name) {
            files.push(File { name, entry: Some(entry), size: entry.size });
        }
    }
    Ok(files)
}

/// Leaves the files that belong in the zip, or says what forbids one.
fn choose(
    files: &mut Vec<File<'_>>,
    new_vendor_rule: bool,
    limits: &ZipLimits,
) -> Result<(), CreateZipError> {
    let modules: HashSet<&str> = files
        .iter()
        .filter(|file| file.is_regular())
        .filter_map(|file| file.name.rsplit_once('/'))
        .filter(|(_, base)| unicode::equal_fold(base, "go.mod"))
        .map(|(directory, _)| directory)
        .collect();
    let in_other_module = |name: &str| {
        name.match_indices('/').any(|(slash, _)| modules.contains(name.get(..slash).unwrap_or("")))
    };

    let mut named = Vec::new();
    for file in files.drain(..) {
        let name = file.name;
        if name.split('/').any(|element| matches!(element, "" | "." | "..")) {
            let problem = check_file_path(name).err().unwrap_or(PathProblem::EmptyElement);
            return Err(file.refuse(EntryProblem::Name(problem)));
        }
        let left_out = is_vendored(name, new_vendor_rule)
            || in_other_module(name)
            || name == ".hg_archival.txt";
        if left_out {
            continue;
        }
        check_file_path(name).map_err(|problem| file.refuse(EntryProblem::Name(problem)))?;
        if name != "go.mod" && name.eq_ignore_ascii_case("go.mod") {
            return Err(file.refuse(EntryProblem::GoModCase));
        }
        named.push(file);
    }
    check_collisions(&named)?;

    let mut left = limits.max_uncompressed_bytes;
    for file in named {
        if !file.is_regular() {
            continue;
        }
        let limit = |what, limit| Err(CreateZipError::Limit { what, limit });
        match left.checked_sub(file.size) {
            Some(after) => left = after,
            None => return limit("bytes of files", limits.max_uncompressed_bytes),
        }
        match file.name {
            "go.mod" if file.size > limits.max_go_mod_bytes => {
                return limit("bytes in go.mod", limits.max_go_mod_bytes);
            }
            "LICENSE" if file.size > limits.max_license_bytes => {
                return limit("bytes in LICENSE", limits.max_license_bytes);
            }
            _ => files.push(file),
        }
    }
    Ok(())
}

/// As for a received zip: in this order, names that collide are neighbours.
fn check_collisions(files: &[File<'_>]) -> Result<(), CreateZipError> {
    let mut sorted: Vec<&File<'_>> = files.iter().collect();
    sorted.sort_unstable_by(|a, b| unicode::compare_paths(a.name, b.name));
    for pair in sorted.windows(2) {
        if let [first, second] = pair
            && let Some(problem) = collision(first.name, second.name)
        {
            return Err(second.refuse(problem));
        }
    }
    Ok(())
}

/// Whether the `go` line says 1.24 or later. Before that, a mistake in the rule for `vendor` was kept, so that hashes
/// stayed what they were.
fn new_vendor_rule(go_mod: &[u8]) -> bool {
    let Some(go) = GoMod::parse_lax(go_mod).go else { return false };
    let mut numbers = go.splitn(3, '.').map(|part| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part.get(..end).unwrap_or_default()
    });
    let (major, minor) = (numbers.next().unwrap_or(""), numbers.next().unwrap_or(""));
    let at_least = |number: &str, least: &str| (number.len(), number) >= (least.len(), least);
    major != "1" && at_least(major, "1") || at_least(minor, "24")
}

/// Whether the file belongs to a vendored package, or lists them.
fn is_vendored(name: &str, new_rule: bool) -> bool {
    if new_rule && name == "vendor/modules.txt" {
        return true;
    }
    let from = if name.starts_with("vendor/") {
        "vendor/".len()
    } else if let Some(at) = name.find("/vendor/") {
        // The old rule forgot to add where it was found.
        if new_rule { at + "/vendor/".len() } else { "/vendor/".len() }
    } else {
        return false;
    };
    name.as_bytes().get(from..).is_some_and(|rest| rest.contains(&b'/'))
}

/// The content of a small file.
fn unpack<R: Read + Seek>(
    source: &mut Source<R>,
    entry: &Entry,
) -> Result<Vec<u8>, CreateZipError> {
    let truncated = || of_io(io::ErrorKind::UnexpectedEof.into());
    seek_to_data(source, entry)?;
    // Compressing makes nothing much larger.
    let most = entry.size + entry.size / 8 + 64;
    let length = usize::try_from(entry.compressed.min(most)).map_err(|_| truncated())?;
    let mut packed = vec![0; length];
    if source.read_full(&mut packed).map_err(of_io)? < length {
        return Err(truncated());
    }
    match entry.method {
        STORED => Ok(packed),
        DEFLATED => {
            let mut unpacked = Vec::new();
            let read = DeflateDecoder::new(&packed[..]).take(entry.size).read_to_end(&mut unpacked);
            read.map_err(of_io)?;
            Ok(unpacked)
        }
        method => Err(CreateZipError::Archive(ZipError::Entry {
            name: "go.mod".to_owned(),
            problem: EntryProblem::Method(method),
        })),
    }
}

/// Goes behind the local header of an entry.
fn seek_to_data<R: Read + Seek>(
    source: &mut Source<R>,
    entry: &Entry,
) -> Result<(), CreateZipError> {
    let no_header = || CreateZipError::Archive(ZipError::Format("an entry has no local header"));
    let offset = entry.offset().ok_or_else(no_header)?;
    source.seek_to(offset).map_err(of_io)?;
    let mut header = [0; LOCAL_HEADER_BYTES];
    let read = source.read_full(&mut header).map_err(of_io)?;
    if read < header.len() || !header.starts_with(&LOCAL_HEADER) {
        return Err(no_header());
    }
    let lengths = [26, 28].map(|at| u64::from(u16::from_le_bytes([header[at], header[at + 1]])));
    let data = offset + LOCAL_HEADER_BYTES as u64 + lengths[0] + lengths[1];
    source.seek_to(data).map_err(of_io)
}

fn copy<R: Read + Seek>(
    source: &mut Source<R>,
    mut left: u64,
    writer: &mut Writer<impl Write>,
) -> Result<(), CreateZipError> {
    while left > 0 {
        let bytes = source.peek().map_err(of_io)?;
        let length = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if length == 0 {
            return Err(of_io(io::ErrorKind::UnexpectedEof.into()));
        }
        writer.write(&bytes[..length])?;
        source.consume(length);
        left -= length as u64;
    }
    Ok(())
}

fn of_io(error: io::Error) -> CreateZipError {
    CreateZipError::Archive(ZipError::Io(error))
}

/// What the headers say of an entry's data.
#[derive(Clone, Copy)]
struct Data {
    method: u16,
    crc: u32,
    compressed: u64,
    size: u64,
}

/// Writes entries one after the other, and the directory at the end. No entry is larger than 4 GiB, since the whole is
/// bounded.
struct Writer<'d, W> {
    out: W,
    prefix: String,
    limit: u64,
    written: u64,
    /// The entries so far, and where each begins.
    entries: Vec<(&'d str, Data, u32)>,
}

const UTF8_NAME: u16 = 1 << 11;
const VERSION: u16 = 20;

impl<'d, W: Write> Writer<'d, W> {
    fn new(out: W, prefix: String, limit: u64) -> Self {
        Self { out, prefix, limit, written: 0, entries: Vec::new() }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CreateZipError> {
        self.written += bytes.len() as u64;
        if self.written > self.limit {
            return Err(CreateZipError::Limit { what: "bytes as a zip", limit: self.limit });
        }
        self.out.write_all(bytes).map_err(CreateZipError::Write)
    }

    /// The full name, and the fields that the local header and the directory share.
    fn header(&self, name: &str, data: &Data) -> Result<(String, Vec<u8>), CreateZipError> {
        let name = format!("{}{name}", self.prefix);
        let length = u16::try_from(name.len()).map_err(|_| CreateZipError::Limit {
            what: "bytes in the name of a file",
            limit: u16::MAX.into(),
        })?;
        let flags = if name.is_ascii() { 0 } else { UTF8_NAME };
        let mut fields = Vec::with_capacity(26);
        for field in [VERSION, flags, data.method, 0, 0] {
            fields.extend(field.to_le_bytes());
        }
        for field in [data.crc, narrow(data.compressed)?, narrow(data.size)?] {
            fields.extend(field.to_le_bytes());
        }
        fields.extend(length.to_le_bytes());
        fields.extend([0; 2]);
        Ok((name, fields))
    }

    /// The header of an entry, whose data are to be written next.
    fn begin(&mut self, name: &'d str, data: &Data) -> Result<(), CreateZipError> {
        self.entries.push((name, *data, narrow(self.written)?));
        let (name, fields) = self.header(name, data)?;
        self.write(&LOCAL_HEADER)?;
        self.write(&fields)?;
        self.write(name.as_bytes())
    }

    /// An entry of a small file.
    fn deflate(&mut self, name: &'d str, content: &[u8]) -> Result<(), CreateZipError> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).map_err(CreateZipError::Write)?;
        let packed = encoder.finish().map_err(CreateZipError::Write)?;
        let mut crc = Crc::new();
        crc.update(content);
        let data = Data {
            method: DEFLATED,
            crc: crc.sum(),
            compressed: packed.len() as u64,
            size: content.len() as u64,
        };
        self.begin(name, &data)?;
        self.write(&packed)
    }

    fn finish(mut self) -> Result<(), CreateZipError> {
        let offset = self.written;
        let entries = self.entries.len() as u64;
        for (name, data, start) in std::mem::take(&mut self.entries) {
            let (name, fields) = self.header(name, &data)?;
            self.write(b"PK\x01\x02")?;
            self.write(&VERSION.to_le_bytes())?;
            self.write(&fields)?;
            self.write(&[0; 10])?;
            self.write(&start.to_le_bytes())?;
            self.write(name.as_bytes())?;
        }
        let size = self.written - offset;
        // The plain record has 16 bits for the number of entries.
        let many = entries >= u64::from(u16::MAX);
        if many {
            let end64 = self.written;
            let mut record = b"PK\x06\x06".to_vec();
            record.extend(44_u64.to_le_bytes());
            record.extend([45_u16.to_le_bytes(), 45_u16.to_le_bytes()].concat());
            record.extend([0; 8]);
            for field in [entries, entries, size, offset] {
                record.extend(field.to_le_bytes());
            }
            record.extend(b"PK\x06\x07\0\0\0\0");
            record.extend(end64.to_le_bytes());
            record.extend(1_u32.to_le_bytes());
            self.write(&record)?;
        }
        // The whole is bounded below what 32 bits hold, or `begin` has refused it.
        let plain = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
        let count = u16::try_from(entries).unwrap_or(u16::MAX).to_le_bytes();
        let mut record = b"PK\x05\x06\0\0\0\0".to_vec();
        record.extend([count, count].concat());
        record.extend(plain(size));
        record.extend(plain(offset));
        record.extend([0; 2]);
        self.write(&record)?;
        self.out.flush().map_err(CreateZipError::Write)
    }
}

fn narrow(size: u64) -> Result<u32, CreateZipError> {
    let what = "bytes in one place of the zip";
    u32::try_from(size).map_err(|_| CreateZipError::Limit { what, limit: u32::MAX.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendored_packages() {
        // protocol: the same tree under two `go` lines.
        let check = |name: &str, old: bool, new: bool| {
            assert_eq!(is_vendored(name, false), old, "{name}, go 1.23");
            assert_eq!(is_vendored(name, true), new, "{name}, go 1.24");
        };
        check("vendor/top.go", false, false);
        check("vendor/modules.txt", false, true);
        check("vendor/a/a.go", true, true);
        check("pkg/vendor/vendor.go", true, false);
        check("pkg/vendor/foo/foo.go", true, true);
        check("a/b/vendor/bb.go", true, false);
        check("x/vendor/modules.txt", true, false);
        check("longpath/vendor/l.go", true, false);
        check("vendored/a/b.go", false, false);
        check("a/vendored/b.go", false, false);
        // In the middle of a character, which the old rule does not mind.
        check("ééé/vendor/é.go", true, false);
    }

    #[test]
    fn go_lines() {
        let check = |line: &str, expected: bool| {
            let go_mod = format!("module example.com/m\n\n{line}\n");
            assert_eq!(new_vendor_rule(go_mod.as_bytes()), expected, "{line}");
        };
        check("", false);
        check("go 1.9", false);
        check("go 1.23.99", false);
        check("go 1.24", true);
        check("go 1.24.0", true);
        check("go 1.24rc1", true);
        check("go 1.100", true);
        check("go 2.0", true);
        check("go 10.1", true);
        check("go x", false);
    }
}
