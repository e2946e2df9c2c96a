//! Zips and deflate data with faults at random places, and what Go makes of the same bytes.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compression, Decompress, FlushDecompress, Status, write::DeflateEncoder};
use proptest::prelude::*;
use stoa_module::Sha256;

use crate::oracle::{compare, question, sample};
use crate::zip_hostile::{deliberate, extra, zip_question};
use crate::zip_writer::{Archive, Entry};
use crate::zips::{check_bytes, full};

/// A place in a zip and what is done there.
#[derive(Debug, Clone)]
pub(crate) enum Mutation {
    Bit(u8),
    Byte(u8),
    Small(i8),
    Wide(u32),
    Half(u16),
    Remove(usize),
    Insert(Vec<u8>),
    Cut,
}

pub(crate) fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        4 => (0..8_u8).prop_map(Mutation::Bit),
        2 => any::<u8>().prop_map(Mutation::Byte),
        4 => (-3..3_i8).prop_map(Mutation::Small),
        1 => prop_oneof![Just(u32::MAX), Just(0), Just(0xffff), Just(1 << 31)].prop_map(Mutation::Wide),
        1 => prop_oneof![Just(u16::MAX), Just(0), Just(8)].prop_map(Mutation::Half),
        1 => (1..20_usize).prop_map(Mutation::Remove),
        1 => prop::collection::vec(any::<u8>(), 1..5).prop_map(Mutation::Insert),
        1 => Just(Mutation::Cut),
    ]
}

pub(crate) fn mutate(bytes: &mut Vec<u8>, at: usize, mutation: &Mutation) {
    let mut put = |new: &[u8]| {
        let end = bytes.len().min(at + new.len());
        bytes[at..end].copy_from_slice(&new[..end - at]);
    };
    match mutation {
        Mutation::Bit(bit) => bytes[at] ^= 1 << bit,
        Mutation::Byte(byte) => put(&[*byte]),
        Mutation::Small(by) => bytes[at] = bytes[at].wrapping_add_signed(*by),
        Mutation::Wide(value) => put(&value.to_le_bytes()),
        Mutation::Half(value) => put(&value.to_le_bytes()),
        Mutation::Remove(count) => drop(bytes.drain(at..bytes.len().min(at + count))),
        Mutation::Insert(new) => drop(bytes.splice(at..at, new.iter().copied())),
        Mutation::Cut => bytes.truncate(at),
    }
}

/// Small zips of all kinds, with a few things changed. Half of the changes are in the directory.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let wide = Entry::streamed(&full("c/d"), b"streamed").with(|e| {
        e.extra = extra(
            1,
            &[&u64::from(e.size).to_le_bytes()[..], &u64::from(e.compressed).to_le_bytes()]
                .concat(),
        );
        (e.size, e.compressed) = (u32::MAX, u32::MAX);
    });
    let all = [
        Entry::stored(&full("a"), b"stored"),
        Entry::deflated(&full("go.mod"), b"module example.com/m\n"),
        Entry::streamed(&full("x/Y"), b"streamed"),
        Entry::stored(&full("x/"), b""),
        wide,
    ];
    let plain = Archive::of(all.clone());
    let archives = [
        plain.clone(),
        plain.clone().with(|z| z.zip64 = true),
        plain.clone().with(|z| z.before = vec![0; 20]),
        plain.with(|z| z.comment = b"PK\x05\x06 comment of the zip".to_vec()),
        Archive::of([all[0].clone()]),
        Archive::of([all[2].clone()]),
    ]
    .map(|archive| archive.bytes());
    let place = (any::<prop::sample::Index>(), any::<bool>(), mutation());
    (prop::sample::select(archives.to_vec()), prop::collection::vec(place, 1..4)).prop_map(
        |(mut bytes, places)| {
            for (index, in_directory, mutation) in places {
                let headers = bytes.windows(4).position(|w| w == b"PK\x01\x02").unwrap_or(0);
                let from = if in_directory { headers } else { 0 };
                if from < bytes.len() {
                    let at = from + index.index(bytes.len() - from);
                    mutate(&mut bytes, at, &mutation);
                }
            }
            bytes
        },
    )
}

#[test]
fn go_agrees_on_mutated_zips() {
    let inputs = sample(mutated(), 5_000);
    let taken = inputs.iter().filter(|bytes| check_bytes(bytes).is_ok()).count();
    assert!(taken > 500 && taken < inputs.len() - 500, "both kinds are there: {taken}");
    compare(
        &inputs,
        |bytes| zip_question(bytes),
        |bytes, go| match check_bytes(bytes) {
            Ok(checked) => assert_eq!(go["h1"], checked.h1.to_string(), "{}", go["error"]),
            Err(error) => {
                let same = go["error"] != "" || deliberate(&error);
                assert!(same, "{error}: {}", STANDARD.encode(bytes));
            }
        },
    );
}

/// Raw deflate data with faults, and short nonsense.
fn deflated() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..600),
        "[ab ]{0,600}".prop_map(String::into_bytes),
        "([a-z]{1,6} ){0,200}".prop_map(String::into_bytes),
    ];
    let place = (any::<prop::sample::Index>(), any::<bool>(), mutation());
    let changed =
        (text, 0..10_u32, prop::collection::vec(place, 0..3)).prop_map(|(text, level, places)| {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(level));
            encoder.write_all(&text).expect("memory");
            let mut bytes = encoder.finish().expect("memory");
            for (index, near, mutation) in places {
                // The codes of a block are at its beginning.
                let reach = if near { bytes.len().min(40) } else { bytes.len() };
                if reach > 0 {
                    mutate(&mut bytes, index.index(reach), &mutation);
                }
            }
            bytes
        });
    prop_oneof![4 => changed, 1 => prop::collection::vec(any::<u8>(), 0..40)]
}

/// The library that inflates and Go's take the same data for good, and make the same of them.
#[test]
fn go_agrees_on_deflated_data() {
    let inputs = sample(deflated(), 20_000);
    compare(
        &inputs,
        |bytes| question(["inflate", &STANDARD.encode(bytes)]),
        |bytes, go| {
            let mut inflate = Decompress::new(false);
            let mut output = vec![0; 1 << 20];
            let result = inflate.decompress(bytes, &mut output, FlushDecompress::Finish);
            let good = matches!(result, Ok(Status::StreamEnd));
            assert_eq!(good, go["error"] == "", "{}: {}", go["error"], STANDARD.encode(bytes));
            if good {
                let made = &output[..usize::try_from(inflate.total_out()).expect("small")];
                assert_eq!(go["sha256"], Sha256::of(made).to_string());
            }
        },
    );
}
