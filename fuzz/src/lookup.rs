//! Answers to lookups: what is read about a module stands in the record word for word.

use stoa_module::{ErrorClass, H1, ModuleVersion};
use stoa_sumdb::{Lookup, record_hash};

use crate::signer::{KEY, head, signed};

const MODULES: [&str; 3] =
    ["ex.com/M@v1.0.0", "ex.com/M/v2@v2.0.0-rc.1", "a.b/c@v2.0.0+incompatible"];
const SIZE: u64 = 1000;

/// The first byte chooses: the rest is a whole answer, or its id and record in front of a good tree head.
pub fn check(data: &[u8]) {
    let Some((&way, data)) = data.split_first() else { return };
    if way % 2 == 0 {
        match Lookup::open(data, &KEY) {
            Ok(lookup) => believed(data, &lookup),
            Err(error) => assert_eq!(error.class(), ErrorClass::Corrupt),
        }
        return;
    }
    let note = signed(&head(&SIZE.to_string()));
    let body = [data, b"\n", note.as_bytes()].concat();
    let opened = Lookup::open(&body, &KEY);
    assert_eq!(opened.as_ref().ok().map(|it| it.id), id_of(data), "{opened:?}");
    if let Ok(lookup) = opened {
        believed(&body, &lookup);
    }
}

/// The id of an answer that ends in front of the blank line, read in the plainest way.
fn id_of(data: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(data).ok()?;
    let (id, record) = text.split_once('\n')?;
    let number: u64 = id.parse().ok()?;
    let plain = number < SIZE && number.to_string() == id;
    // The record ends at the first blank line, and a note is behind it.
    let whole = record.ends_with('\n') && !record.contains("\n\n");
    let control = record.contains(|c: char| c < ' ' && c != '\n');
    (plain && whole && !control).then_some(number)
}

fn believed(body: &[u8], lookup: &Lookup) {
    // Written again it is the same answer.
    let written = [
        lookup.id.to_string().as_bytes(),
        b"\n",
        lookup.record.as_bytes(),
        b"\n",
        &lookup.signed.note,
    ]
    .concat();
    assert_eq!(written, body);
    assert!(lookup.id < lookup.signed.head.size);
    assert_eq!(lookup.record_hash(), record_hash(lookup.record.as_bytes()));
    for module in MODULES {
        let module = ModuleVersion::parse(module).expect("a module");
        let (zip, go_mod) =
            (said(&lookup.record, &module, ""), said(&lookup.record, &module, "/go.mod"));
        if let Ok(hashes) = lookup.hashes(&module) {
            assert_eq!(hashes.zip.map(|h1| h1.to_string()).as_slice(), &zip[..]);
            assert_eq!(hashes.go_mod.map(|h1| h1.to_string()).as_slice(), &go_mod[..]);
            assert!(!zip.is_empty() || !go_mod.is_empty());
            continue;
        }
        // None of a kind, several of a kind, or a line that is none.
        let odd = |hashes: &[String]| {
            hashes.len() > 1 || hashes.iter().any(|hash| H1::parse(hash).is_err())
        };
        let none = zip.is_empty() && go_mod.is_empty();
        let start = format!("{} {}", module.path(), module.version());
        let long = lookup
            .record
            .lines()
            .any(|line| line.strip_prefix(&start).is_some_and(|rest| rest.split(' ').count() != 2));
        assert!(none || odd(&zip) || odd(&go_mod) || long, "{lookup:?}");
    }
}

/// The different `h1:` texts that stand in lines about a file of a module.
fn said(record: &str, module: &ModuleVersion, file: &str) -> Vec<String> {
    let start = format!("{} {}{file} ", module.path(), module.version());
    let mut hashes: Vec<_> = record
        .lines()
        .filter_map(|line| line.strip_prefix(&start))
        .filter(|hash| hash.starts_with("h1:"))
        .map(str::to_owned)
        .collect();
    hashes.sort();
    hashes.dedup();
    hashes
}

pub fn seeds() -> Vec<Vec<u8>> {
    const A: &str = "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    const B: &str = "h1:O0jlIxwRb2vZYS1na726XLlaDCtCqKUVLld+AY32AGA=";
    let record = format!("ex.com/M v1.0.0 {A}\nex.com/M v1.0.0/go.mod {B}\n");
    let note = signed(&head("1000"));
    [
        (0, format!("7\n{record}\n{note}")),
        (1, format!("7\n{record}")),
        (1, format!("999\n{record}{record}")),
        (1, format!("0\nex.com/M v1.0.0 h2:x\na.b/c v2.0.0+incompatible {A}\n")),
        (1, format!("12\nex.com/M/v2 v2.0.0-rc.1 {A}\nex.com/M/v2 v2.0.0-rc.1 {B}\n")),
    ]
    .map(|(way, text)| [&[way], text.as_bytes()].concat())
    .to_vec()
}
