//! Proofs by tiles: what is genuine is proven, what is not is refused, and what is proven is what the log's owner knows.

use std::collections::HashMap;
use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use stoa_module::ErrorClass;
use stoa_sumdb::{Error, Hash, Plan, Tile, TileLevel, TreeHead, node_hash, record_hash};

const RECORDS: u64 = 70_000;

/// A log as its owner has it: by level, the hashes of the complete subtrees of `2^level` records.
static LOG: LazyLock<Vec<Vec<Hash>>> = LazyLock::new(|| {
    let mut levels =
        vec![(0..RECORDS).map(|id| record_hash(text(id).as_bytes())).collect::<Vec<_>>()];
    while let Some(below) = levels.last().filter(|level| level.len() > 1) {
        let above = below.chunks_exact(2).map(|pair| node_hash(pair[0], pair[1])).collect();
        levels.push(above);
    }
    levels
});

fn text(id: u64) -> String {
    format!("ex.com/m{id} v1.0.0 h1:{id}\n")
}

/// The hash of the records from `start` to `end`, by the definition of RFC 6962.
fn hash_of(start: u64, end: u64) -> Hash {
    let size = end - start;
    if size == 0 {
        return Hash::of_empty_tree();
    }
    if size.is_power_of_two() {
        return LOG[size.ilog2() as usize][(start / size) as usize];
    }
    let left = 1 << size.ilog2();
    node_hash(hash_of(start, start + left), hash_of(start + left, end))
}

fn genuine(tile: Tile) -> Bytes {
    let first = tile.index * 256;
    match tile.level {
        TileLevel::Data => (first..first + u64::from(tile.width))
            .flat_map(|id| [text(id), "\n".to_owned()])
            .collect::<String>()
            .into(),
        TileLevel::Hashes(level) => {
            let hashes = &LOG[usize::from(level) * 8][first as usize..][..usize::from(tile.width)];
            hashes.iter().flat_map(|hash| *hash.as_bytes()).collect::<Vec<_>>().into()
        }
    }
}

#[derive(Debug, Arbitrary)]
enum Goal {
    Record(u32),
    Tree(u32),
    Tile { level: Option<bool>, index: u16, width: u8 },
}

/// What is done to one of the tiles, which is chosen by the number.
#[derive(Debug, Arbitrary)]
enum Fault {
    Flip(u16),
    Cut(u16),
    Extend(u8),
    /// The bytes of another tile.
    Other(u8),
    Replace(Vec<u8>),
    Remove,
}

#[derive(Debug, Arbitrary)]
struct Case {
    size: u32,
    goals: Vec<Goal>,
    faults: Vec<(u8, Fault)>,
    /// Of the tree head.
    other_hash: bool,
}

pub fn check(data: &[u8]) {
    let Ok(case) = Case::arbitrary(&mut Unstructured::new(data)) else { return };
    let size = u64::from(case.size) % (RECORDS + 1);
    let head = TreeHead { size, hash: hash_of(0, size) };
    let mut plan = Plan::new(head);
    let (mut records, mut trees, mut asked) = (Vec::new(), Vec::new(), Vec::new());
    for goal in case.goals.iter().take(6) {
        let before = plan.clone();
        let more = match *goal {
            Goal::Record(id) => {
                // Mostly one that there is.
                let id = u64::from(id) % (size + 2);
                assert_eq!(plan.clone().record(id).is_ok(), id < size);
                records.extend(Some(id).filter(|&id| id < size));
                plan.record(id)
            }
            Goal::Tree(older) => {
                let older = u64::from(older) % (size + 2);
                assert_eq!(plan.clone().tree(older).is_ok(), older <= size);
                trees.extend(Some(older).filter(|&older| older <= size));
                plan.tree(older)
            }
            Goal::Tile { level, index, width } => {
                let level = level.map_or(TileLevel::Data, |level| TileLevel::Hashes(level.into()));
                let tile =
                    Tile { level, index: u64::from(index) % 300, width: u16::from(width) + 1 };
                assert_eq!(plan.clone().tile(tile).is_ok(), tile.exists_in(size));
                asked.extend(Some(tile).filter(|tile| tile.exists_in(size)));
                plan.tile(tile)
            }
        };
        plan = more.unwrap_or(before);
    }

    let needed = plan.tiles();
    assert!(needed.iter().all(|tile| tile.widest_in(size) == Some(*tile)), "{needed:?}");
    let all: HashMap<Tile, Bytes> = needed.iter().map(|&tile| (tile, genuine(tile))).collect();
    let proven = plan.authenticate(all.clone()).expect("all tiles are genuine");
    assert!(records.iter().all(|&id| proven.record_hash(id) == Some(LOG[0][id as usize])));
    assert!(trees.iter().all(|&older| proven.tree_hash(older) == Some(hash_of(0, older))));
    assert!(asked.iter().all(|tile| proven.tile(tile) == Some(&genuine(*tile))));

    let mut bad = all.clone();
    for (which, fault) in case.faults.iter().take(4) {
        let Some(&tile) = needed.get(usize::from(*which) % needed.len().max(1)) else { break };
        spoil(&mut bad, tile, fault, &needed);
    }
    let head = TreeHead { size, hash: if case.other_hash { record_hash(b"x") } else { head.hash } };
    let plan = if case.other_hash { Plan::new(head) } else { plan };
    let spoiled: Vec<_> = needed.iter().filter(|tile| bad.get(tile) != all.get(tile)).collect();
    match plan.authenticate(bad) {
        Ok(proven) => {
            assert!(!case.other_hash);
            // A data tile may end with or without a blank line; nothing else has two forms.
            assert!(spoiled.iter().all(|tile| tile.level == TileLevel::Data), "{spoiled:?}");
            assert!(records.iter().all(|&id| proven.record_hash(id) == Some(LOG[0][id as usize])));
            for tile in &asked {
                let (got, want) = (proven.tile(tile).expect("it was asked for"), genuine(*tile));
                assert_eq!(got.trim_ascii_end(), want.trim_ascii_end());
            }
        }
        Err(Error::MissingTile(tile)) => assert!(spoiled.contains(&&tile) || case.other_hash),
        Err(error) => {
            assert!(case.other_hash || !spoiled.is_empty(), "{error}");
            assert_eq!(error.class(), ErrorClass::Corrupt);
            let suspects = error.suspects();
            let hit = suspects.iter().any(|tile| spoiled.contains(&tile));
            assert!(case.other_hash || hit, "{error}: {spoiled:?}");
        }
    }
}

fn spoil(tiles: &mut HashMap<Tile, Bytes>, tile: Tile, fault: &Fault, needed: &[Tile]) {
    let Some(bytes) = tiles.get(&tile).map(|bytes| bytes.to_vec()) else { return };
    let mut bytes = bytes;
    match fault {
        Fault::Flip(bit) if !bytes.is_empty() => {
            let bit = usize::from(*bit) % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        Fault::Flip(_) => {}
        Fault::Cut(at) => bytes.truncate(usize::from(*at) % (bytes.len() + 1)),
        Fault::Extend(byte) => bytes.push(*byte),
        Fault::Other(which) => {
            if let Some(other) = tiles.get(&needed[usize::from(*which) % needed.len()]) {
                bytes = other.to_vec();
            }
        }
        Fault::Replace(other) => bytes.clone_from(other),
        Fault::Remove => {
            tiles.remove(&tile);
            return;
        }
    }
    tiles.insert(tile, bytes.into());
}

pub fn seeds() -> Vec<Vec<u8>> {
    // Numbers enough for every field; libFuzzer finds out which is which.
    (1..=8_u8)
        .map(|step| (0..120_u8).map(|n| n.wrapping_mul(step).wrapping_add(step)).collect())
        .chain([vec![0; 40], vec![255; 64]])
        .collect()
}
