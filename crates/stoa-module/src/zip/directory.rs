//! The central directory, read as Go's archive/zip reads it.
//!
//! What that reader accepts is accepted here, with all its peculiarities, because the go command will read the same
//! bytes: the end record is looked for in the last 1 KiB and then the last 65 KiB; bytes in front of the zip are
//! allowed; headers are read until one is malformed, whatever number the end record gives, and then the number need only
//! be right modulo 65536; of a zip64 entry only the fields that the plain header marks as missing are taken.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::io::{self, Read, Seek};

use super::source::Source;
use super::{EntryProblem, ZipError, ZipLimits};
use crate::element::PathProblem;

const HEADER: [u8; 4] = *b"PK\x01\x02";
const HEADER_BYTES: usize = 46;
const END: [u8; 4] = *b"PK\x05\x06";
const END_BYTES: usize = 22;
const LOCATOR64: [u8; 4] = *b"PK\x06\x07";
const LOCATOR64_BYTES: usize = 20;
const END64: [u8; 4] = *b"PK\x06\x06";
const END64_BYTES: usize = 56;
const ZIP64_EXTRA: u16 = 1;

#[derive(Debug)]
pub(super) struct Directory {
    pub(super) entries: Vec<Entry>,
    /// The names of all entries without the prefix, one after the other.
    names: String,
    prefix: String,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// Where the local header is said to be; it may be below zero.
    offset: i64,
    /// The declared sizes, in bytes.
    pub(super) compressed: u64,
    pub(super) size: u64,
    pub(super) crc: u32,
    pub(super) method: u16,
    pub(super) flags: u16,
    pub(super) is_symlink: bool,
    name_length: u16,
    name_at: u32,
}

/// What names a directory may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    Utf8,
    /// Bytes that are not UTF-8 are kept as characters that no valid name of a file has, so that rules which pass over
    /// an entry can be applied before the one that refuses its name.
    Any,
}

impl Entry {
    /// Where the local header is, if any file can have one there.
    pub(super) fn offset(&self) -> Option<u64> {
        u64::try_from(self.offset).ok()
    }
}

impl Directory {
    /// Reads all headers. The names of all entries begin with the prefix.
    pub(super) fn read<R: Read + Seek>(
        source: &mut Source<R>,
        prefix: &str,
        names: Names,
        limits: &ZipLimits,
    ) -> Result<Self, ZipError> {
        let end = End::find(source)?;
        source.seek_to(end.directory)?;
        let mut directory =
            Self { entries: Vec::new(), names: String::new(), prefix: prefix.to_owned() };
        let mut variable = Vec::new();
        loop {
            match read_header(source, &mut variable)? {
                Next::Header(header) => {
                    directory.add(&header, &variable, end.base, names)?;
                    let (entries, names) = (directory.entries.len(), directory.names.len());
                    if entries as u64 > limits.max_files {
                        return Err(ZipError::limit("entries", limits.max_files));
                    }
                    if names as u64 > limits.max_name_bytes {
                        return Err(ZipError::limit("bytes of names", limits.max_name_bytes));
                    }
                }
                Next::Malformed => break,
                Next::NoMore => return Err(ZipError::Format("its directory has no end")),
            }
        }
        // The field is 16 bits wide, and zips with more entries are common.
        if directory.entries.len() as u64 % 0x1_0000 != end.records % 0x1_0000 {
            return Err(ZipError::Format(
                "its directory is malformed or has another length than it says",
            ));
        }
        Ok(directory)
    }

    fn add(
        &mut self,
        header: &Header,
        variable: &[u8],
        base: i64,
        names: Names,
    ) -> Result<(), ZipError> {
        let full = &variable[..usize::from(header.name_length)];
        let refuse =
            |problem| ZipError::Entry { name: String::from_utf8_lossy(full).into_owned(), problem };
        let name = full
            .strip_prefix(self.prefix.as_bytes())
            .ok_or_else(|| refuse(EntryProblem::Prefix(self.prefix.clone())))?;
        let name = match (std::str::from_utf8(name), names) {
            (Ok(name), _) => Cow::Borrowed(name),
            (Err(_), Names::Any) => Cow::Owned(with_private_characters(name)),
            (Err(_), Names::Utf8) => {
                return Err(refuse(EntryProblem::Name(PathProblem::Encoding)));
            }
        };
        let too_long = |_| ZipError::limit("bytes of names", u32::MAX.into());
        let name_length = u16::try_from(name.len()).map_err(too_long)?;
        let name_at = u32::try_from(self.names.len()).map_err(too_long)?;
        self.entries.push(Entry {
            offset: header.offset.wrapping_add(base),
            compressed: header.compressed,
            size: header.size,
            crc: header.crc,
            method: header.method,
            flags: header.flags,
            is_symlink: header.is_symlink,
            name_length,
            name_at,
        });
        self.names.push_str(&name);
        Ok(())
    }

    /// The name without the prefix.
    pub(super) fn name(&self, entry: &Entry) -> &str {
        name_in(&self.names, entry)
    }

    pub(super) fn sort_by(&mut self, order: impl Fn(&str, &str) -> Ordering) {
        let Self { entries, names, .. } = self;
        entries.sort_unstable_by(|a, b| order(name_in(names, a), name_in(names, b)));
    }

    pub(super) fn refuse(&self, entry: &Entry, problem: EntryProblem) -> ZipError {
        ZipError::Entry { name: format!("{}{}", self.prefix, self.name(entry)), problem }
    }
}

/// The text with each byte that is not UTF-8 as a character of the last private plane.
fn with_private_characters(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        let stands_for = |&byte| char::from_u32(0x10_ff00 + u32::from(byte));
        text.extend(chunk.invalid().iter().filter_map(stands_for));
    }
    text
}

fn name_in<'n>(names: &'n str, entry: &Entry) -> &'n str {
    let start = entry.name_at as usize;
    names.get(start..start + usize::from(entry.name_length)).unwrap_or_default()
}

/// What the end record says.
#[derive(Debug)]
struct End {
    records: u64,
    /// Where the directory begins.
    directory: u64,
    /// What is to be added to the offsets of entries, for a zip with something in front of it.
    base: i64,
}

impl End {
    fn find<R: Read + Seek>(source: &mut Source<R>) -> Result<Self, ZipError> {
        let (end_offset, record) = find_end_record(source)?;
        let mut fields = Fields(&record[8..]);
        let _records_on_disk = fields.u16();
        let mut records = u64::from(fields.u16());
        let mut size = u64::from(fields.u32());
        let mut offset = u64::from(fields.u32());
        let mut end = i64::try_from(end_offset).map_err(|_| MALFORMED)?;

        // The second condition is not what the format says (a size has 32 bits), but what Go does.
        let may_be_zip64 = records == 0xffff || size == 0xffff || offset == 0xffff_ffff;
        if may_be_zip64 && let Some(end64) = find_end64(source, end_offset)? {
            let mut record = [0; END64_BYTES];
            source.seek_to(end64.cast_unsigned())?;
            if source.read_full(&mut record)? < record.len() || !record.starts_with(&END64) {
                return Err(MALFORMED);
            }
            let mut fields = Fields(&record[32..]);
            (records, size, offset) = (fields.u64(), fields.u64(), fields.u64());
            end = end64;
        }

        let size = i64::try_from(size).map_err(|_| MALFORMED)?;
        let offset = i64::try_from(offset).map_err(|_| MALFORMED)?;
        let mut base = end.wrapping_sub(size).wrapping_sub(offset);
        let start = u64::try_from(base.wrapping_add(offset)).map_err(|_| MALFORMED)?;
        if start >= source.size() {
            return Err(MALFORMED);
        }
        // Some writers give a wrong size for the directory. If there is a header where the offset alone leads, that
        // is the place.
        if base > 0 {
            source.seek_to(offset.cast_unsigned())?;
            if let Next::Header(_) = read_header(source, &mut Vec::new())? {
                base = 0;
            }
        }
        let directory = u64::try_from(base.wrapping_add(offset)).map_err(|_| MALFORMED)?;
        Ok(Self { records, directory, base })
    }
}

const MALFORMED: ZipError = ZipError::Format("it has no directory at its end");

/// The offset of the end record and its fixed part.
fn find_end_record<R: Read + Seek>(
    source: &mut Source<R>,
) -> Result<(u64, [u8; END_BYTES]), ZipError> {
    for tail in [1 << 10, 65 << 10] {
        let length = source.size().min(tail);
        let start = source.size() - length;
        let mut block = vec![0; usize::try_from(length).map_err(|_| MALFORMED)?];
        source.seek_to(start)?;
        let filled = source.read_full(&mut block)?;
        block.truncate(filled);
        if let Some(at) = last_end_record(&block)
            && let Some(record) = block[at..].first_chunk()
        {
            return Ok((start + at as u64, *record));
        }
        if length == source.size() {
            break;
        }
    }
    Err(MALFORMED)
}

/// The last signature of an end record decides: if its comment is cut off, there is none.
fn last_end_record(block: &[u8]) -> Option<usize> {
    let at = block.windows(END_BYTES).rposition(|record| record.starts_with(&END))?;
    let comment = Fields(&block[at + END_BYTES - 2..]).u16();
    (at + END_BYTES + usize::from(comment) <= block.len()).then_some(at)
}

/// The offset that the zip64 locator in front of the end record gives, if there is a locator of one disk.
fn find_end64<R: Read + Seek>(
    source: &mut Source<R>,
    end_offset: u64,
) -> Result<Option<i64>, ZipError> {
    let Some(offset) = end_offset.checked_sub(LOCATOR64_BYTES as u64) else { return Ok(None) };
    let mut locator = [0; LOCATOR64_BYTES];
    source.seek_to(offset)?;
    if source.read_full(&mut locator)? < locator.len() || !locator.starts_with(&LOCATOR64) {
        return Ok(None);
    }
    let mut fields = Fields(&locator[4..]);
    let (disk, offset, disks) = (fields.u32(), fields.u64(), fields.u32());
    Ok(i64::try_from(offset).ok().filter(|_| disk == 0 && disks == 1))
}

/// The fields of a directory header that matter.
#[derive(Debug)]
struct Header {
    flags: u16,
    method: u16,
    crc: u32,
    compressed: u64,
    size: u64,
    is_symlink: bool,
    name_length: u16,
    offset: i64,
}

enum Next {
    Header(Header),
    /// No header, or one that is cut off in its middle: where the directory ends.
    Malformed,
    /// The zip ends where a header, or its variable part, should begin.
    NoMore,
}

/// Reads a header; `variable` then holds the name, the extra fields and the comment.
fn read_header<R: Read + Seek>(source: &mut Source<R>, variable: &mut Vec<u8>) -> io::Result<Next> {
    let mut fixed = [0; HEADER_BYTES];
    match source.read_full(&mut fixed)? {
        0 => return Ok(Next::NoMore),
        HEADER_BYTES if fixed.starts_with(&HEADER) => {}
        _ => return Ok(Next::Malformed),
    }
    let mut fields = Fields(&fixed[8..]);
    let (flags, method) = (fields.u16(), fields.u16());
    let _modified = fields.u32();
    let crc = fields.u32();
    let (compressed, size) = (fields.u32(), fields.u32());
    let lengths = [fields.u16(), fields.u16(), fields.u16()];
    let (attributes, offset) = (Fields(&fixed[38..]).u32(), Fields(&fixed[42..]).u32());
    // The mode is there if the entry was made on Unix or macOS.
    let is_symlink = matches!(fixed[5], 3 | 19) && attributes >> 16 & 0o170_000 == 0o120_000;

    let length = lengths.map(usize::from).iter().sum();
    variable.clear();
    variable.resize(length, 0);
    match source.read_full(variable)? {
        read if read == length => {}
        0 => return Ok(Next::NoMore),
        _ => return Ok(Next::Malformed),
    }
    let mut header = Header {
        flags,
        method,
        crc,
        compressed: compressed.into(),
        size: size.into(),
        is_symlink,
        name_length: lengths[0],
        offset: offset.into(),
    };
    let [name, extra, _] = lengths.map(usize::from);
    let complete = header.read_zip64(&variable[name..name + extra]);
    Ok(if complete { Next::Header(header) } else { Next::Malformed })
}

impl Header {
    /// Takes the fields that are too large for the plain header from the zip64 extra field. False if they are missing;
    /// only the size of the data may be, which then is what it says.
    fn read_zip64(&mut self, mut extra: &[u8]) -> bool {
        const MAX: u64 = 0xffff_ffff;
        let mut need_size = self.size == MAX;
        let mut need_compressed = self.compressed == MAX;
        let mut need_offset = self.offset.cast_unsigned() == MAX;
        while extra.len() >= 4 {
            let mut fields = Fields(extra);
            let (tag, length) = (fields.u16(), usize::from(fields.u16()));
            let Some((field, rest)) = extra[4..].split_at_checked(length) else { break };
            extra = rest;
            if tag != ZIP64_EXTRA {
                continue;
            }
            let mut values = field.chunks(8).map(|value| value.try_into().map(u64::from_le_bytes));
            for (need, to) in [
                (&mut need_size, Wide::Size),
                (&mut need_compressed, Wide::Compressed),
                (&mut need_offset, Wide::Offset),
            ] {
                if !std::mem::take(need) {
                    continue;
                }
                let Some(Ok(value)) = values.next() else { return false };
                match to {
                    Wide::Size => self.size = value,
                    Wide::Compressed => self.compressed = value,
                    Wide::Offset => self.offset = value.cast_signed(),
                }
            }
        }
        !need_compressed && !need_offset
    }
}

enum Wide {
    Size,
    Compressed,
    Offset,
}

/// Takes little-endian fields off the front; zeros behind the end, which no caller reaches.
struct Fields<'b>(&'b [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}
