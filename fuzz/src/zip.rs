//! Module zips: refused, or exactly what the plainest reader finds in them.

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use arbitrary::{Arbitrary, Unstructured};
use stoa_module::{
    EntryProblem, ErrorClass, H1, ModuleVersion, Sha256, ZipError, ZipLimits, check_file_path,
    check_zip, create_zip,
};

use crate::zip_model;

#[expect(dead_code, reason = "the tests set more fields than these")]
#[path = "../../crates/stoa-module/tests/module/zip_writer.rs"]
mod zip_writer;

use zip_writer::{Archive, Entry};

const MODULE: &str = "example.com/m@v1.0.0";

/// The first byte chooses: the rest is a zip, or says what is written into one.
pub fn check(data: &[u8]) {
    let Some((&way, data)) = data.split_first() else { return };
    if way % 2 == 0 {
        return bytes(data, way);
    }
    if let Ok(made) = Made::arbitrary(&mut Unstructured::new(data)) {
        bytes(&made.bytes(), way);
    }
}

fn bytes(zip: &[u8], way: u8) {
    let module = ModuleVersion::parse(MODULE).expect("a module");
    let limits = ZipLimits::default();
    let checked = check_zip(Cursor::new(zip), &module, &limits);
    // However the bytes come.
    let trickle = Trickle { zip: Cursor::new(zip), most: usize::from(way / 2) + 1 };
    let again = check_zip(trickle, &module, &limits);
    // Of two faults in the data either may be found first.
    assert_eq!(checked.as_ref().ok(), again.as_ref().ok(), "{checked:?} {again:?}");

    created(zip, &module);
    let checked = match checked {
        Ok(checked) => checked,
        Err(error) => {
            // Memory never fails to be read.
            assert_eq!(error.class(), ErrorClass::Corrupt, "{error:?}");
            return;
        }
    };
    // Just as much as is allowed.
    let just = ZipLimits {
        max_zip_bytes: zip.len() as u64,
        max_uncompressed_bytes: checked.uncompressed_bytes,
        ..ZipLimits::default()
    };
    assert_eq!(check_zip(Cursor::new(zip), &module, &just).expect("just enough"), checked);
    let less = [
        ZipLimits { max_zip_bytes: just.max_zip_bytes - 1, ..just.clone() },
        ZipLimits { max_uncompressed_bytes: just.max_uncompressed_bytes.wrapping_sub(1), ..just },
    ];
    for less in less.iter().filter(|less| less.max_uncompressed_bytes != u64::MAX) {
        let refused = check_zip(Cursor::new(zip), &module, less);
        assert!(matches!(refused, Err(ZipError::Limit { .. })), "{refused:?}");
    }

    let Some(files) = zip_model::files(zip) else { return };
    let sums: Vec<_> =
        files.iter().map(|(name, text)| (name, *Sha256::of(text).as_bytes())).collect();
    let h1 = H1::of_files(sums.iter().map(|(name, sum)| (name.as_str(), *sum)));
    assert_eq!(Ok(checked.h1), h1);
    let inside: Vec<&str> = files
        .iter()
        .map(|(name, _)| name.strip_prefix(&format!("{MODULE}/")).expect("the prefix"))
        .collect();
    let plain: Vec<_> =
        inside.iter().filter(|name| !name.is_empty() && !name.ends_with('/')).collect();
    assert!(plain.iter().all(|name| check_file_path(name).is_ok()), "{plain:?}");
    assert_eq!(checked.files, plain.len() as u64);
    let sum: u64 = files.iter().map(|(_, text)| text.len() as u64).sum();
    assert_eq!(checked.uncompressed_bytes, sum);
    let mut folded: Vec<String> = plain.iter().map(|name| name.to_lowercase()).collect();
    folded.sort();
    folded.dedup();
    assert_eq!(folded.len(), plain.len(), "{plain:?}");
}

/// What is made of a tree is a module zip, unless the data themselves are broken, which are copied unread.
fn created(archive: &[u8], module: &ModuleVersion) {
    let mut zip = Vec::new();
    let limits = ZipLimits::default();
    if create_zip(Cursor::new(archive), "", None, module, &mut zip, &limits).is_err() {
        return;
    }
    match check_zip(Cursor::new(&zip), module, &limits) {
        Ok(_) => {}
        Err(ZipError::Entry { problem, name }) => {
            let in_data = matches!(
                problem,
                EntryProblem::Truncated
                    | EntryProblem::Deflate
                    | EntryProblem::Method(_)
                    | EntryProblem::TooMuchData(_)
                    | EntryProblem::TooLittleData(_)
                    | EntryProblem::Checksum
            );
            assert!(in_data, "{name:?}: {problem:?}");
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// A reader that gives a few bytes at a time.
struct Trickle<'z> {
    zip: Cursor<&'z [u8]>,
    most: usize,
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.most);
        self.zip.read(&mut buffer[..most])
    }
}

impl Seek for Trickle<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.zip.seek(to)
    }
}

const NAMES: [&str; 16] = [
    "go.mod",
    "GO.MOD",
    "a.go",
    "A.go",
    "d/x",
    "D/x",
    "d/",
    "d",
    "LICENSE",
    "v/go.mod",
    "é",
    "É",
    "con",
    "vendor/a/b.go",
    "\u{212a}",
    "k",
];

#[derive(Debug, Arbitrary)]
enum Name {
    Known(u8),
    Any(String),
    /// Not below the module's directory.
    Outside(String),
}

#[derive(Debug, Arbitrary)]
enum Change {
    Flags(u16),
    Method(u8),
    Crc(u32),
    Compressed(i8),
    Size(i8),
    Extra(Vec<u8>),
    LocalName(Vec<u8>),
    Attributes(u32),
    Offset(u16),
    NoLocal,
    Descriptor(Vec<u8>),
    Byte(u8, u8),
}

#[derive(Debug, Arbitrary)]
struct MadeEntry {
    name: Name,
    text: Vec<u8>,
    repeat: u8,
    kind: u8,
    changes: Vec<Change>,
}

#[derive(Debug, Arbitrary)]
struct Made {
    entries: Vec<MadeEntry>,
    before: u8,
    comment: Vec<u8>,
    after: u8,
    zip64: bool,
    records: i8,
    directory: (i8, i8),
}

impl Made {
    fn bytes(&self) -> Vec<u8> {
        Archive::of(self.entries.iter().take(12).map(MadeEntry::entry))
            .with(|archive| {
                // Mostly nothing, or hardly anything would be accepted.
                archive.before = vec![b'P'; usize::from(self.before.saturating_sub(240))];
                archive.comment.clone_from(&self.comment);
                archive.after = vec![0; usize::from(self.after.saturating_sub(250))];
                archive.zip64 = self.zip64;
                let rare = |number: i8| if number > 100 { number - 114 } else { 0 };
                archive.records = rare(self.records).into();
                archive.directory_size = rare(self.directory.0).into();
                archive.directory_offset = rare(self.directory.1).into();
            })
            .bytes()
    }
}

impl MadeEntry {
    fn entry(&self) -> Entry {
        let name = match &self.name {
            Name::Known(number) => {
                format!("{MODULE}/{}", NAMES[usize::from(*number) % NAMES.len()])
            }
            Name::Any(name) => format!("{MODULE}/{name}"),
            Name::Outside(name) => name.clone(),
        };
        let name: String = name.chars().take(2000).collect();
        // So that some are larger than the buffers.
        let text = self.text.repeat(usize::from(self.repeat).pow(2) % 700 + 1);
        let text = &text[..text.len().min(300_000)];
        let make = [Entry::stored, Entry::deflated, Entry::streamed][usize::from(self.kind % 3)];
        let mut entry = make(&name, if name.ends_with('/') { b"" } else { text });
        for change in self.changes.iter().take(3) {
            change.apply(&mut entry);
        }
        entry
    }
}

impl Change {
    fn apply(&self, entry: &mut Entry) {
        match self {
            Self::Flags(flags) => entry.flags ^= flags,
            Self::Method(method) => entry.method = u16::from(*method) % 10,
            Self::Crc(crc) => entry.crc = *crc,
            Self::Compressed(by) => {
                entry.compressed = entry.compressed.wrapping_add_signed((*by).into());
            }
            Self::Size(by) => entry.size = entry.size.wrapping_add_signed((*by).into()),
            Self::Extra(extra) => entry.extra.clone_from(extra),
            Self::LocalName(name) => entry.local_name = Some(name.clone()),
            Self::Attributes(attributes) => entry.attributes = *attributes,
            Self::Offset(offset) => entry.offset = Some((*offset).into()),
            Self::NoLocal => entry.local = false,
            Self::Descriptor(descriptor) => entry.descriptor.clone_from(descriptor),
            Self::Byte(at, byte) => {
                let length = entry.data.len().max(1);
                if let Some(it) = entry.data.get_mut(usize::from(*at) % length) {
                    *it = *byte;
                }
            }
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let full = |name: &str| format!("{MODULE}/{name}");
    let plain = || {
        Archive::of([
            Entry::deflated(&full("go.mod"), b"module example.com/m\n"),
            Entry::stored(&full("a.go"), b"package m\n"),
            Entry::streamed(&full("d/x.go"), &b"package d // and so on\n".repeat(20)),
            Entry::stored(&full("d/"), b""),
        ])
    };
    let archives = [
        plain(),
        plain().with(|zip| zip.zip64 = true),
        plain().with(|zip| zip.comment = b"a comment".to_vec()),
        plain().with(|zip| zip.before = b"in front".to_vec()),
        Archive::of([]),
        Archive::of([Entry::stored(&full("LICENSE"), b"do")]),
    ];
    let made = (1..=6_u8).map(|step| (0..200_u8).map(|n| n.wrapping_mul(step)).collect::<Vec<_>>());
    archives
        .iter()
        .map(|archive| [&[6], &archive.bytes()[..]].concat())
        .chain(made.map(|bytes| [&[1], &bytes[..]].concat()))
        .collect()
}
