//! Writes zips, also wrong ones: every field can be set to what it should not be.

use std::io::Write;

use flate2::Compression;
use flate2::write::DeflateEncoder;

/// An entry as it is written. The constructors make good ones.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    /// The name in the local header, if it is another one.
    pub(crate) local_name: Option<Vec<u8>>,
    pub(crate) flags: u16,
    pub(crate) method: u16,
    pub(crate) crc: u32,
    /// The declared sizes, as the directory has them.
    pub(crate) compressed: u32,
    pub(crate) size: u32,
    /// Extra fields in the directory.
    pub(crate) extra: Vec<u8>,
    pub(crate) comment: Vec<u8>,
    /// The external attributes, in which Unix systems keep the kind of file.
    pub(crate) attributes: u32,
    /// What stands behind the local header.
    pub(crate) data: Vec<u8>,
    /// What stands behind the data.
    pub(crate) descriptor: Vec<u8>,
    /// Where the directory says the local header is, if that is wrong.
    pub(crate) offset: Option<u32>,
    /// Whether there is a local header with data at all.
    pub(crate) local: bool,
}

pub(crate) const STORED: u16 = 0;
pub(crate) const DEFLATED: u16 = 8;

impl Entry {
    pub(crate) fn stored(name: &str, text: &[u8]) -> Self {
        let size = u32::try_from(text.len()).expect("small");
        Self {
            name: name.as_bytes().to_vec(),
            local_name: None,
            flags: 0,
            method: STORED,
            crc: crc(text),
            compressed: size,
            size,
            extra: Vec::new(),
            comment: Vec::new(),
            attributes: 0,
            data: text.to_vec(),
            descriptor: Vec::new(),
            offset: None,
            local: true,
        }
    }

    pub(crate) fn deflated(name: &str, text: &[u8]) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).expect("memory");
        let data = encoder.finish().expect("memory");
        let compressed = u32::try_from(data.len()).expect("small");
        Self { method: DEFLATED, compressed, data, ..Self::stored(name, text) }
    }

    /// As Go and other writers of streams do it: what is not known in time stands behind the data.
    pub(crate) fn streamed(name: &str, text: &[u8]) -> Self {
        let mut entry = Self::deflated(name, text);
        entry.flags |= 8;
        entry.descriptor = b"PK\x07\x08".to_vec();
        for field in [entry.crc, entry.compressed, entry.size] {
            entry.descriptor.extend(field.to_le_bytes());
        }
        entry
    }

    /// The same with some fields changed.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// What stands around the entries.
#[derive(Debug, Clone, Default)]
pub(crate) struct Archive {
    pub(crate) entries: Vec<Entry>,
    /// Bytes in front of the zip.
    pub(crate) before: Vec<u8>,
    pub(crate) comment: Vec<u8>,
    /// Bytes behind the end record.
    pub(crate) after: Vec<u8>,
    /// Added to what the end record says.
    pub(crate) records: i16,
    pub(crate) directory_size: i32,
    pub(crate) directory_offset: i32,
    /// Whether a zip64 end record is written, and the plain one is filled with ones.
    pub(crate) zip64: bool,
}

impl Archive {
    pub(crate) fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        Self { entries: entries.into_iter().collect(), ..Self::default() }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let mut directory = Vec::new();
        for entry in &self.entries {
            let offset = u32::try_from(body.len()).expect("small");
            write_directory_header(&mut directory, entry, entry.offset.unwrap_or(offset));
            if entry.local {
                write_local_header(&mut body, entry);
                body.extend(&entry.data);
                body.extend(&entry.descriptor);
            }
        }
        let offset = body.len() as u64;
        let size = directory.len() as u64;
        body.extend(&directory);
        let records = self.entries.len() as u64;
        let mut bytes = self.before.clone();
        bytes.extend(body);

        let wrong_offset = offset.wrapping_add_signed(self.directory_offset.into());
        let wrong_size = size.wrapping_add_signed(self.directory_size.into());
        let wrong_records = records.wrapping_add_signed(self.records.into());
        if self.zip64 {
            let end64 = bytes.len() as u64;
            bytes.extend(b"PK\x06\x06");
            bytes.extend(44_u64.to_le_bytes());
            bytes.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            for field in [wrong_records, wrong_records, wrong_size, wrong_offset] {
                bytes.extend(field.to_le_bytes());
            }
            bytes.extend(b"PK\x06\x07\0\0\0\0");
            bytes.extend(end64.to_le_bytes());
            bytes.extend(1_u32.to_le_bytes());
        }
        bytes.extend(b"PK\x05\x06\0\0\0\0");
        let (records, size, offset) = if self.zip64 {
            (0xffff, u32::MAX, u32::MAX)
        } else {
            (wrong_records as u16, wrong_size as u32, wrong_offset as u32)
        };
        bytes.extend(records.to_le_bytes());
        bytes.extend(records.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes.extend((self.comment.len() as u16).to_le_bytes());
        bytes.extend(&self.comment);
        bytes.extend(&self.after);
        bytes
    }
}

fn write_directory_header(out: &mut Vec<u8>, entry: &Entry, offset: u32) {
    // Made on Unix, where there is a mode.
    let made_by = if entry.attributes >> 16 == 0 { 0 } else { 3 };
    out.extend(b"PK\x01\x02\x14");
    out.extend([made_by, 0x14, 0]);
    out.extend(entry.flags.to_le_bytes());
    out.extend(entry.method.to_le_bytes());
    out.extend([0; 4]);
    out.extend(entry.crc.to_le_bytes());
    out.extend(entry.compressed.to_le_bytes());
    out.extend(entry.size.to_le_bytes());
    for length in [entry.name.len(), entry.extra.len(), entry.comment.len()] {
        out.extend((length as u16).to_le_bytes());
    }
    out.extend([0; 4]);
    out.extend(entry.attributes.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out.extend(&entry.name);
    out.extend(&entry.extra);
    out.extend(&entry.comment);
}

fn write_local_header(out: &mut Vec<u8>, entry: &Entry) {
    let name = entry.local_name.as_ref().unwrap_or(&entry.name);
    out.extend(b"PK\x03\x04\x14\0");
    out.extend(entry.flags.to_le_bytes());
    out.extend(entry.method.to_le_bytes());
    out.extend([0; 4]);
    out.extend(entry.crc.to_le_bytes());
    out.extend(entry.compressed.to_le_bytes());
    out.extend(entry.size.to_le_bytes());
    out.extend((name.len() as u16).to_le_bytes());
    out.extend([0; 2]);
    out.extend(name);
}

fn crc(text: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(text);
    crc.sum()
}
