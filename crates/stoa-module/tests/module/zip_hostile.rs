//! Zips that are odd, wrong or made to deceive, and what the go command makes of the same bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stoa_module::{EntryProblem, ZipError};

use crate::oracle::{compare, question};
use crate::zip_writer::{Archive, Entry};
use crate::zips::{check_bytes, full};

/// What is to become of a zip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Everybody takes it, and hashes it to the same.
    Taken,
    /// Nobody takes it.
    Refused,
    /// We refuse it, although the go command does not.
    RefusedByUs,
}

use Fate::{Refused, RefusedByUs, Taken};

struct Case {
    name: String,
    bytes: Vec<u8>,
    fate: Fate,
}

fn case(name: &str, archive: &Archive, fate: Fate) -> Case {
    Case { name: name.to_owned(), bytes: archive.bytes(), fate }
}

fn text() -> Vec<u8> {
    b"a text that is repeated, a text that is repeated".repeat(5)
}

fn a() -> Entry {
    Entry::deflated(&full("a"), &text())
}

fn b() -> Entry {
    Entry::deflated(&full("b"), b"b")
}

/// Entries `a`, changed, and `b`.
fn changed(change: impl FnOnce(&mut Entry)) -> Archive {
    Archive::of([a().with(change), b()])
}

pub(crate) fn extra(tag: u16, bytes: &[u8]) -> Vec<u8> {
    [&tag.to_le_bytes()[..], &(bytes.len() as u16).to_le_bytes(), bytes].concat()
}

fn framing() -> Vec<Case> {
    let plain = || Archive::of([a(), b()]);
    let end_record = Archive::default().bytes();
    let before = b"#!/bin/sh\n".to_vec();
    vec![
        case("plain", &plain(), Taken),
        case("something in front", &plain().with(|z| z.before = before.clone()), Taken),
        case(
            "something in front, and offsets that count it",
            &Archive::of([a().with(|e| e.offset = Some(10))]).with(|z| {
                z.before = before.clone();
                z.directory_offset = 10;
            }),
            Taken,
        ),
        case("a comment", &plain().with(|z| z.comment = b"hello".to_vec()), Taken),
        case("a long comment", &plain().with(|z| z.comment = vec![b'x'; 65_000]), Taken),
        case("the longest comment", &plain().with(|z| z.comment = vec![b'x'; 65_535]), Taken),
        case("a zip in the comment", &plain().with(|z| z.comment = end_record.clone()), Taken),
        case(
            "the beginning of an end record in the comment",
            &plain().with(|z| z.comment = end_record[..21].to_vec()),
            Taken,
        ),
        case(
            "a comment that is cut off",
            &Archive::of([a()]).with(|z| z.comment = vec![0; 9]),
            Taken,
        )
        .with(|bytes| bytes.truncate(bytes.len() - 1), Refused),
        case("something behind", &plain().with(|z| z.after = vec![0; 100]), Taken),
        case("2 KiB behind", &plain().with(|z| z.after = vec![0; 2048]), Taken),
        case("80 KiB behind", &plain().with(|z| z.after = vec![0; 80 << 10]), Refused),
        case("one record too many", &plain().with(|z| z.records = 1), Refused),
        case("one record too few", &plain().with(|z| z.records = -1), Refused),
        case("a directory said to be shorter", &plain().with(|z| z.directory_size = -10), Taken),
        case("a directory said to be longer", &plain().with(|z| z.directory_size = 10), Refused),
        case("a directory said to be empty", &plain().with(|z| z.directory_size = -112), Taken),
        case("a directory said to begin later", &plain().with(|z| z.directory_offset = 5), Refused),
        case(
            "a directory said to begin sooner",
            &plain().with(|z| z.directory_offset = -5),
            Refused,
        ),
        case("zip64", &plain().with(|z| z.zip64 = true), Taken),
        case(
            "zip64 with something in front",
            &plain().with(|z| {
                z.zip64 = true;
                z.before = before.clone();
            }),
            Taken,
        ),
        case(
            "zip64 with another number of records",
            &plain().with(|z| {
                z.zip64 = true;
                z.records = 1;
            }),
            Refused,
        ),
        case("two zips", &plain().with(|z| z.after = plain().bytes()), Taken),
        case("no entries", &Archive::default(), Taken),
        case("more entries than 16 bits count", &many(), Taken),
        Case {
            name: "zip64 because the directory has 65535 bytes".to_owned(),
            bytes: directory_of_65535_bytes(),
            fate: Refused,
        },
        Case {
            name: "a directory that ends with the file".to_owned(),
            bytes: directory_at_the_very_end(),
            fate: Refused,
        },
    ]
}

impl Case {
    fn with(mut self, change: impl FnOnce(&mut Vec<u8>), fate: Fate) -> Self {
        change(&mut self.bytes);
        self.fate = fate;
        self
    }
}

fn many() -> Archive {
    Archive::of((0..66_000).map(|n| Entry::stored(&full(&format!("{n}")), b"")))
}

/// Go takes this size for a sign of zip64, and then believes the zip64 end record, which is wrong here.
fn directory_of_65535_bytes() -> Vec<u8> {
    let padding = 0xffff - 46 - full("b").len();
    let archive = Archive::of([b().with(|e| e.comment = vec![b'x'; padding])]);
    let offset = 30 + full("b").len() as u32 + b().compressed;
    let mut bytes = archive
        .with(|z| {
            z.zip64 = true;
            z.records = 1;
        })
        .bytes();
    let fields = bytes.len() - 14;
    bytes[fields..fields + 4].copy_from_slice(&[1, 0, 1, 0]);
    bytes[fields + 4..fields + 8].copy_from_slice(&0xffff_u32.to_le_bytes());
    bytes[fields + 8..fields + 12].copy_from_slice(&offset.to_le_bytes());
    bytes
}

/// The end record in front of the directory, which is then read to the end of the file.
fn directory_at_the_very_end() -> Vec<u8> {
    let bytes = Archive::of([b()]).bytes();
    let end = bytes.len() - 22;
    let start = bytes.windows(4).rposition(|w| w == b"PK\x01\x02").expect("a header");
    let mut record = bytes[end..].to_vec();
    record[16..20].copy_from_slice(&(start as u32 + 22).to_le_bytes());
    [&bytes[..start], &record, &bytes[start..end]].concat()
}

fn data() -> Vec<Case> {
    let streamed = |change: &dyn Fn(&mut Entry)| {
        Archive::of([Entry::streamed(&full("a"), &text()).with(|e| change(e)), b()])
    };
    let size = text().len() as u32;
    vec![
        case("a wrong checksum", &changed(|e| e.crc ^= 1), Refused),
        case("no checksum", &changed(|e| e.crc = 0), Taken),
        case("a descriptor", &streamed(&|_| ()), Taken),
        case(
            "a descriptor without signature",
            &streamed(&|e| drop(e.descriptor.drain(..4))),
            Taken,
        ),
        case(
            "a descriptor of 64 bits",
            &streamed(&|e| {
                e.descriptor.splice(12..12, [0; 4]);
                e.descriptor.extend([0; 4]);
            }),
            Taken,
        ),
        case("a descriptor with a wrong checksum", &streamed(&|e| e.descriptor[4] ^= 1), Refused),
        case("a descriptor with wrong sizes", &streamed(&|e| e.descriptor[8] ^= 1), Taken),
        case("no descriptor where the flag says so", &streamed(&|e| e.descriptor.clear()), Refused),
        case("a descriptor and no checksum", &streamed(&|e| e.crc = 0), Refused),
        case(
            "no checksum, also not in the descriptor",
            &streamed(&|e| {
                e.crc = 0;
                e.descriptor[4..8].fill(0);
            }),
            Refused,
        ),
        case("a smaller size", &changed(|e| e.size -= 1), Refused),
        case("a larger size", &changed(|e| e.size += 1), Refused),
        case("no size", &changed(|e| e.size = 0), Refused),
        case("a smaller compressed size", &changed(|e| e.compressed -= 1), Refused),
        case("a larger compressed size", &changed(|e| e.compressed += 1), Taken),
        case("a compressed size beyond the end", &changed(|e| e.compressed = 1 << 30), Taken),
        case(
            "a compressed size beyond the end, with a descriptor",
            &streamed(&|e| e.compressed = 1 << 30),
            Refused,
        ),
        case(
            "something behind the compressed data",
            &changed(|e| {
                e.data.extend([0xff; 10]);
                e.compressed += 10;
            }),
            Taken,
        ),
        case("corrupt compressed data", &changed(|e| e.data[0] = 0xff), Refused),
        case(
            "stored, with another compressed size",
            &Archive::of([Entry::stored(&full("a"), &text()).with(|e| e.compressed = size - 1)]),
            Refused,
        ),
        case("stored, in place of deflated", &changed(|e| e.method = 0), Refused),
        case(
            "deflated, in place of stored",
            &Archive::of([Entry::stored(&full("a"), b"x").with(|e| e.method = 8)]),
            Refused,
        ),
        case("an empty file", &Archive::of([Entry::stored(&full("a"), b"")]), Taken),
        case("an empty file, deflated", &Archive::of([Entry::deflated(&full("a"), b"")]), Taken),
        case(
            "an empty file, deflated to nothing",
            &Archive::of([Entry::stored(&full("a"), b"").with(|e| e.method = 8)]),
            Refused,
        ),
        case("no local header", &changed(|e| e.local = false), Refused),
        case("a local header beyond the end", &changed(|e| e.offset = Some(1 << 20)), Refused),
        case("a local header that is none", &changed(|e| e.offset = Some(1)), Refused),
        case(
            "another name in the local header",
            &changed(|e| e.local_name = Some(b"../../evil".to_vec())),
            Taken,
        ),
        case("the data of another", &changed(|e| e.offset = Some(300)), Refused),
        case("encrypted", &changed(|e| e.flags |= 1), RefusedByUs),
        case("strongly encrypted", &changed(|e| e.flags |= 0x41), RefusedByUs),
        case("a symbolic link", &changed(|e| e.attributes = 0o12_0777 << 16), Taken),
    ]
    .into_iter()
    .chain(
        [1, 6, 9, 12, 14, 20, 93, 95, 98, 99, 0xffff].map(|method| {
            case(&format!("method {method}"), &changed(|e| e.method = method), Refused)
        }),
    )
    .collect()
}

fn names() -> Vec<Case> {
    let named =
        |names: &[&str]| Archive::of(names.iter().map(|name| Entry::stored(&full(name), b"")));
    let mut cases = vec![
        case("twice the same", &Archive::of([a(), b(), a()]), Refused),
        case(
            "twice the same, also where it lies",
            &Archive::of([a(), a().with(|e| e.offset = Some(0))]),
            Refused,
        ),
        case(
            "another module",
            &Archive::of([a(), Entry::stored("example.com/m@v1.0.1/a", b"")]),
            Refused,
        ),
        case("a name without the prefix", &Archive::of([Entry::stored("a", b"")]), Refused),
        case("an empty name", &Archive::of([Entry::stored("", b"")]), Refused),
        case("the module's directory", &Archive::of([a(), Entry::stored(&full(""), b"")]), Taken),
        case(
            "the module's directory with data",
            &Archive::of([Entry::stored(&full(""), b"x")]),
            Refused,
        ),
        case("a directory", &named(&["d/"]), Taken),
        case("a directory twice", &named(&["d/", "d/"]), Taken),
        case("a directory with data", &Archive::of([Entry::stored(&full("d/"), b"x")]), Refused),
        case(
            "a directory with compressed data of no size",
            &Archive::of([Entry::deflated(&full("d/"), b"").with(|e| e.crc = 7)]),
            Taken,
        ),
        case(
            "a directory of unknown method",
            &Archive::of([Entry::stored(&full("d/"), b"").with(|e| e.method = 99)]),
            Taken,
        ),
        case(
            "a directory, encrypted",
            &Archive::of([Entry::stored(&full("d/"), b"").with(|e| e.flags = 1)]),
            Taken,
        ),
        case(
            "a directory without local header",
            &Archive::of([b(), Entry::stored(&full("d/"), b"").with(|e| e.offset = Some(3))]),
            Refused,
        ),
        case(
            "a directory twice, once without local header",
            &Archive::of([
                Entry::stored(&full("d/"), b"").with(|e| e.offset = Some(3)),
                Entry::stored(&full("d/"), b""),
            ]),
            RefusedByUs,
        ),
        case(
            "a directory twice at one place",
            &Archive::of([
                Entry::stored(&full("d/"), b""),
                Entry::stored(&full("d/"), b"").with(|e| e.offset = Some(0)),
            ]),
            RefusedByUs,
        ),
        case(
            "UTF-8 with its flag",
            &Archive::of([Entry::stored(&full("é"), b"").with(|e| e.flags = 0x800)]),
            Taken,
        ),
        case(
            "bytes that are not UTF-8",
            &Archive::of([
                Entry::stored(&full("x"), b"").with(|e| *e.name.last_mut().expect("x") = 0x82)
            ]),
            Refused,
        ),
    ];
    for (names, fate) in [
        (&["é", "日本/ß"][..], Taken),
        (&["a", "a/b"], Refused),
        (&["a/b", "a"], Refused),
        (&["a/", "a"], Refused),
        (&["a/b", "a/"], Taken),
        (&["a", "A"], Refused),
        (&["a/x", "A/y"], Refused),
        (&["k", "\u{212a}"], Refused),
        (&["ſ/x", "S/y"], Refused),
        (&["σ", "ς"], Refused),
        (&["ß", "ss"], Taken),
        (&["ß", "ẞ"], Refused),
        (&["a.go", "a/b", "a0", "a-b/c"], Taken),
        (&["a", "a-b", "a.b", "a/b"], Refused),
        (&["go.mod"], Taken),
        (&["GO.MOD"], Refused),
        (&["x/go.mod"], Refused),
        (&["x/Go.Mod"], Refused),
        (&["go.mod/"], Taken),
        (&["Go.mod/x"], Taken),
        (&["../a"], Refused),
        (&["/a"], Refused),
        (&["a//b"], Refused),
        (&["./a"], Refused),
        (&["a/."], Refused),
        (&["a/./"], Refused),
        (&["//"], Refused),
        (&["/"], Refused),
        (&["a\\b"], Refused),
        (&["nul"], Refused),
        (&["nul/"], Refused),
        (&["a/CON.txt"], Refused),
        (&["a~1"], Taken),
        (&["a."], Refused),
        (&["e\u{301}"], Refused),
        (&["\u{1f600}"], Refused),
        (&["a\nb"], Refused),
        (&["a\0b"], Refused),
        (&["a b"], Taken),
    ] {
        cases.push(case(&format!("{names:?}"), &named(names), fate));
    }
    cases
}

fn extras() -> Vec<Case> {
    let wide = |fields: &[u64]| {
        extra(1, &fields.iter().flat_map(|field| field.to_le_bytes()).collect::<Vec<_>>())
    };
    let sizes = [u64::from(a().size), u64::from(a().compressed)];
    let all_wide = |e: &mut Entry| {
        (e.size, e.compressed, e.offset) = (u32::MAX, u32::MAX, Some(u32::MAX));
    };
    vec![
        case(
            "an extra field that nobody knows",
            &changed(|e| e.extra = extra(0x9999, b"abc")),
            Taken,
        ),
        case("half an extra field", &changed(|e| e.extra = vec![1, 0, 8]), Taken),
        case(
            "an extra field longer than there is",
            &changed(|e| e.extra = vec![1, 0, 8, 0, 0]),
            Taken,
        ),
        case("a short time", &changed(|e| e.extra = extra(0x5455, b"")), Taken),
        case("a comment of an entry", &changed(|e| e.comment = b"PK\x05\x06".to_vec()), Taken),
        case("zip64 fields that are not wanted", &changed(|e| e.extra = wide(&[1, 2, 3])), Taken),
        case(
            "zip64 size",
            &changed(|e| {
                e.size = u32::MAX;
                e.extra = wide(&sizes[..1]);
            }),
            Taken,
        ),
        case(
            "zip64, all fields",
            &changed(|e| {
                all_wide(e);
                e.extra = wide(&[sizes[0], sizes[1], 0]);
            }),
            Taken,
        ),
        case(
            "zip64, all fields behind another",
            &changed(|e| {
                all_wide(e);
                e.extra = [extra(7, b"x"), wide(&[sizes[0], sizes[1], 0])].concat();
            }),
            Taken,
        ),
        case(
            "zip64, two fields for one entry",
            &changed(|e| {
                all_wide(e);
                e.extra = [wide(&[sizes[0], sizes[1], 0]), wide(&[1, 2, 3])].concat();
            }),
            Taken,
        ),
        case(
            "zip64, one field missing",
            &changed(|e| {
                all_wide(e);
                e.extra = wide(&sizes);
            }),
            Refused,
        ),
        case("zip64, all fields missing", &changed(all_wide), Refused),
        case("a size of 32 ones that is meant", &changed(|e| e.size = u32::MAX), Refused),
        case(
            "zip64, an offset below zero",
            &changed(|e| {
                e.offset = Some(u32::MAX);
                e.extra = wide(&[u64::MAX]);
            }),
            Refused,
        ),
        case(
            "zip64, a compressed size below zero",
            &changed(|e| {
                e.compressed = u32::MAX;
                e.extra = wide(&[u64::MAX]);
            }),
            Taken,
        ),
        case(
            "zip64, a size below zero",
            &changed(|e| {
                e.size = u32::MAX;
                e.extra = wide(&[u64::MAX]);
            }),
            Refused,
        ),
        case(
            "the last header malformed, and not counted",
            &Archive::of([
                a(),
                b().with(|e| {
                    all_wide(e);
                    e.local = false;
                }),
            ])
            .with(|z| z.records = -1),
            Taken,
        ),
    ]
}

fn overlaps() -> Vec<Case> {
    // The second lies in the stored data of the first.
    let inner = Archive::of([Entry::stored(&full("b"), b"inner")]).bytes();
    let length = inner.windows(4).position(|w| w == b"PK\x01\x02").expect("a header");
    let outer = Entry::stored(&full("a"), &inner[..length]);
    let start = 30 + full("a").len() as u32;
    let quoted = Entry::stored(&full("b"), b"inner").with(|e| {
        e.offset = Some(start);
        e.local = false;
    });
    let same = |name| {
        a().with(|e| {
            e.name = full(name).into_bytes();
            e.offset = Some(0);
            e.local = false;
        })
    };
    vec![
        case("one file under two names", &Archive::of([a(), same("z")]), RefusedByUs),
        case("a file inside another", &Archive::of([outer, quoted]), RefusedByUs),
        case("a gap between files", &changed(|e| e.descriptor = vec![0; 100]), Taken),
        Case { name: "the directory in another order".to_owned(), bytes: shuffled(), fate: Taken },
    ]
}

/// The directory names the entries in another order than they lie in.
fn shuffled() -> Vec<u8> {
    let mut bytes = Archive::of([b(), a()]).bytes();
    let start = bytes.windows(4).position(|w| w == b"PK\x01\x02").expect("a header");
    let header = 46 + full("a").len();
    bytes[start..start + 2 * header].rotate_left(header);
    bytes
}

fn cases() -> Vec<Case> {
    [framing(), data(), names(), extras(), overlaps()].into_iter().flatten().collect()
}

#[test]
fn each_meets_its_fate() {
    let mut wrong = Vec::new();
    for Case { name, bytes, fate } in cases() {
        let result = check_bytes(&bytes);
        let as_documented = match &result {
            Err(error) if fate == RefusedByUs => {
                deliberate(error) || name.contains("without local header")
            }
            _ => true,
        };
        if result.is_ok() != (fate == Taken) || !as_documented {
            wrong.push(format!("{name}: {result:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The refusals that are documented as stricter than the go command's.
pub(crate) fn deliberate(error: &ZipError) -> bool {
    let ZipError::Entry { name, problem } = error else { return false };
    match problem {
        EntryProblem::Overlap | EntryProblem::Encrypted => true,
        // Of several entries for one directory Go looks at the last.
        EntryProblem::LocalHeader | EntryProblem::DirectoryData => name.ends_with('/'),
        _ => false,
    }
}

pub(crate) fn zip_question(bytes: &[u8]) -> Vec<String> {
    question(["zip", &STANDARD.encode(bytes), "example.com/m", "v1.0.0"])
}

#[test]
fn go_agrees_on_the_fates() {
    compare(
        &cases(),
        |case| zip_question(&case.bytes),
        |Case { name, bytes, fate }, go| {
            assert_eq!(go["error"] == "", *fate != Refused, "{name}: {}", go["error"]);
            if let Ok(checked) = check_bytes(bytes) {
                assert_eq!(go["h1"], checked.h1.to_string(), "{name}");
            }
        },
    );
}
