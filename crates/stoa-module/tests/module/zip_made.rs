//! Zips that are generated, and zips that Go makes and that are then damaged: what we make of them and what Go does.
//!
//! The order in which rules are applied differs, so only the verdicts are compared, and the hash of what is accepted. Where we
//! refuse what Go takes, the rule must be one of those that `stoa_module`'s zip room names as stricter.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use crate::oracle::{ask, compare, sample};
use crate::zip_faults::{Mutation, mutate, mutation};
use crate::zip_hostile::{deliberate, zip_question};
use crate::zip_writer::{Archive, Entry};
use crate::zips::{check_bytes, full};

/// Names that meet each other, in case, as directories and as what a module may not have.
const NAMES: [&str; 34] = [
    "go.mod",
    "GO.MOD",
    "go.MOD",
    "LICENSE",
    "license",
    "a",
    "A",
    "a/",
    "A/",
    "a/b",
    "a/B",
    "A/b",
    "a/go.mod",
    "a/b/c",
    "é",
    "É",
    "e\u{0301}",
    "k",
    "K",
    "\u{212a}",
    "s",
    "ſ",
    "ß",
    "con",
    "a/nul.txt",
    "a//b",
    "a/./b",
    "../a",
    "/a",
    "a.",
    "a b",
    "x~1",
    "",
    "a\\b",
];

#[derive(Debug, Clone)]
enum Fault {
    Flags(u16),
    Method(u16),
    Crc(u32),
    Compressed(i32),
    Size(i32),
    LocalName(Vec<u8>),
    Attributes(u32),
    Offset(u32),
    NoLocal,
    Extra(Vec<u8>),
    Descriptor(Vec<u8>),
    Data(Mutation, prop::sample::Index),
}

fn fault() -> impl Strategy<Value = Fault> {
    let few = || prop_oneof![3 => -2..3_i32, 1 => -600..600_i32, 1 => any::<i32>()];
    prop_oneof![
        prop::sample::select(&[1_u16, 8, 9, 0x800, 0x2000, 0x40][..]).prop_map(Fault::Flags),
        prop::sample::select(&[0_u16, 8, 9, 12, 93, 99, 8 << 8][..]).prop_map(Fault::Method),
        prop_oneof![Just(0), any::<u32>()].prop_map(Fault::Crc),
        few().prop_map(Fault::Compressed),
        few().prop_map(Fault::Size),
        "[a-z@./]{0,30}".prop_map(|name| Fault::LocalName(name.into_bytes())),
        prop_oneof![Just(0o120_777 << 16), Just(0o040_755 << 16), any::<u32>()]
            .prop_map(Fault::Attributes),
        prop_oneof![0..700_u32, any::<u32>()].prop_map(Fault::Offset),
        Just(Fault::NoLocal),
        prop::collection::vec(any::<u8>(), 0..24).prop_map(Fault::Extra),
        prop::collection::vec(any::<u8>(), 0..24).prop_map(Fault::Descriptor),
        (mutation(), any::<prop::sample::Index>()).prop_map(|(it, at)| Fault::Data(it, at)),
    ]
}

impl Fault {
    fn apply(&self, entry: &mut Entry) {
        match self {
            Self::Flags(flags) => entry.flags ^= flags,
            Self::Method(method) => entry.method = *method,
            Self::Crc(crc) => entry.crc = *crc,
            Self::Compressed(by) => entry.compressed = entry.compressed.wrapping_add_signed(*by),
            Self::Size(by) => entry.size = entry.size.wrapping_add_signed(*by),
            Self::LocalName(name) => entry.local_name = Some(name.clone()),
            Self::Attributes(attributes) => entry.attributes = *attributes,
            Self::Offset(offset) => entry.offset = Some(*offset),
            Self::NoLocal => entry.local = false,
            Self::Extra(extra) => entry.extra.clone_from(extra),
            Self::Descriptor(descriptor) => entry.descriptor.clone_from(descriptor),
            Self::Data(mutation, at) => {
                if !entry.data.is_empty() {
                    let at = at.index(entry.data.len());
                    mutate(&mut entry.data, at, mutation);
                }
            }
        }
    }
}

fn entry() -> impl Strategy<Value = Entry> {
    let name = prop_oneof![
        12 => "[a-e]/[a-z]{2,6}\\.go",
        6 => prop::sample::select(&NAMES[..]).prop_map(str::to_owned),
        1 => "\\PC{0,6}",
    ];
    let outside = prop_oneof![
        40 => Just(full("")),
        1 => Just("example.com/m@v1.0.1/".to_owned()),
        1 => Just("example.com/m@v1.0.0".to_owned()),
        1 => Just(String::new()),
    ];
    let text = prop_oneof![
        3 => "[a-z ]{0,40}".prop_map(String::into_bytes),
        1 => (any::<u8>(), 0..200_000_usize).prop_map(|(byte, length)| vec![byte; length]),
        1 => prop::collection::vec(any::<u8>(), 0..600),
    ];
    let faults = prop_oneof![9 => Just(Vec::new()), 1 => prop::collection::vec(fault(), 1..3)];
    (outside, name, text, 0..3_usize, faults).prop_map(|(outside, name, text, kind, faults)| {
        let name = format!("{outside}{name}");
        let make = [Entry::stored, Entry::deflated, Entry::streamed][kind];
        let mut entry = make(&name, if name.ends_with('/') { b"" } else { &text });
        for fault in faults {
            fault.apply(&mut entry);
        }
        entry
    })
}

fn archive() -> impl Strategy<Value = Vec<u8>> {
    let around = prop_oneof![
        20 => Just(Archive::default()),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|before| Archive { before, ..Archive::default() }),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|comment| Archive { comment, ..Archive::default() }),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|after| Archive { after, ..Archive::default() }),
        1 => Just(Archive { zip64: true, ..Archive::default() }),
        1 => (-3..3_i16).prop_map(|records| Archive { records, ..Archive::default() }),
        1 => (-50..50_i32, -50..50_i32).prop_map(|(directory_size, directory_offset)| {
            Archive { directory_size, directory_offset, ..Archive::default() }
        }),
    ];
    (around, prop::collection::vec(entry(), 0..6))
        .prop_map(|(around, entries)| Archive { entries, ..around }.bytes())
}

/// Returns how many of the zips were accepted.
fn verdicts_agree(zips: &[Vec<u8>]) -> usize {
    compare(
        zips,
        |bytes| zip_question(bytes),
        |bytes, go| match check_bytes(bytes) {
            Ok(checked) => {
                assert_eq!(go["h1"], checked.h1.to_string(), "{go} {}", STANDARD.encode(bytes));
            }
            Err(error) => {
                let fine = go["error"] != "" || deliberate(&error);
                assert!(fine, "{error}: {}", STANDARD.encode(bytes));
            }
        },
    );
    zips.iter().filter(|bytes| check_bytes(bytes).is_ok()).count()
}

#[test]
fn go_agrees_on_generated_zips() {
    let zips = sample(archive(), 2000);
    let taken = verdicts_agree(&zips);
    assert!(taken > 300 && taken < zips.len() - 300, "both kinds are there: {taken}");
}

/// The zips that Go makes, which are those that proxies send, with faults at every level: bytes anywhere, fields of the
/// directory, names.
#[test]
fn go_agrees_on_damaged_zips_of_its_own() {
    let file = ("([a-c]/)?[a-z]{1,6}(\\.go|\\.txt)?", "([a-z]{1,8}[ \n]){0,200}");
    let trees = sample(prop::collection::btree_map(file.0, file.1, 1..8), 60);
    let questions: Vec<_> = trees
        .iter()
        .map(|tree| {
            let words = tree.iter().flat_map(|(name, text)| [name.clone(), text.clone()]);
            ["create", "example.com/m", "v1.0.0"]
                .map(str::to_owned)
                .into_iter()
                .chain(words)
                .collect()
        })
        .collect();
    let Some(answers) = ask(&questions) else { return };
    // A tree with a file in the place of a directory, or with `con.go`, makes none.
    let made: Vec<Vec<u8>> =
        answers.iter().filter_map(|answer| STANDARD.decode(answer["zip"].as_str()?).ok()).collect();
    assert!(made.len() > 30, "{}", made.len());
    assert_eq!(verdicts_agree(&made), made.len());

    let place = (any::<prop::sample::Index>(), 0..4_u8, mutation());
    let damaged = (prop::sample::select(made), prop::collection::vec(place, 1..3)).prop_map(
        |(mut zip, places)| {
            for (index, level, mutation) in places {
                damage(&mut zip, index, level, &mutation);
            }
            zip
        },
    );
    let zips = sample(damaged, 3000);
    let taken = verdicts_agree(&zips);
    assert!(taken > 300 && taken < zips.len() - 300, "both kinds are there: {taken}");
}

fn damage(zip: &mut Vec<u8>, index: prop::sample::Index, level: u8, mutation: &Mutation) {
    let headers: Vec<usize> =
        (0..zip.len()).filter(|&at| zip[at..].starts_with(b"PK\x01\x02")).collect();
    let header = if headers.is_empty() { None } else { Some(headers[index.index(headers.len())]) };
    let at = match (level, header) {
        // A field of a header of the directory.
        (1, Some(header)) => header + index.index(46),
        // A name in the directory.
        (2, Some(header)) => header + 46 + index.index(40),
        // The end record.
        (3, Some(_)) => zip.len().saturating_sub(1 + index.index(22)),
        _ => index.index(zip.len().max(1)),
    };
    if at < zip.len() {
        mutate(zip, at, mutation);
    }
}
