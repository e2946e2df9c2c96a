//! Planning, proving and opening, as it is done for each record of a checksum database.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use divan::Bencher;
use ed25519_dalek::{Signer as _, SigningKey};
use stoa_sumdb::{
    Hash, Lookup, Plan, Tile, TileLevel, TreeHead, VerifierKey, node_hash, record_hash,
};

fn main() {
    divan::main();
}

const RECORDS: u64 = 70_000;

/// By level, the hashes of the complete subtrees of `2^level` records.
static LOG: LazyLock<Vec<Vec<Hash>>> = LazyLock::new(|| {
    let mut levels =
        vec![(0..RECORDS).map(|id| record_hash(&id.to_le_bytes())).collect::<Vec<_>>()];
    while let Some(below) = levels.last().filter(|level| level.len() > 1) {
        let above = below.chunks_exact(2).map(|pair| node_hash(pair[0], pair[1])).collect();
        levels.push(above);
    }
    levels
});

/// The tree of all records.
fn head() -> TreeHead {
    let mut hash = None;
    for level in (0..64).filter(|level| RECORDS >> level & 1 == 1) {
        let left = LOG[level][(RECORDS >> level) as usize - 1];
        hash = Some(hash.map_or(left, |right| node_hash(left, right)));
    }
    TreeHead { size: RECORDS, hash: hash.expect("there are records") }
}

fn tiles_of(plan: &Plan) -> HashMap<Tile, Bytes> {
    let bytes = |tile: Tile| -> Bytes {
        let TileLevel::Hashes(level) = tile.level else { return Bytes::new() };
        let first = tile.index as usize * 256;
        let hashes = &LOG[usize::from(level) * 8][first..first + usize::from(tile.width)];
        hashes.iter().flat_map(|hash| *hash.as_bytes()).collect::<Vec<_>>().into()
    };
    plan.tiles().into_iter().map(|tile| (tile, bytes(tile))).collect()
}

/// Which tiles a record and an older head take in a tree of the size of sum.golang.org's.
#[divan::bench]
fn plan() -> Vec<Tile> {
    let head = TreeHead { size: black_box(51_929_436), hash: Hash::of_empty_tree() };
    let plan = Plan::new(head).record(black_box(40_123_456)).expect("in the tree");
    plan.tree(black_box(51_900_000)).expect("in the tree").tiles()
}

/// That a record is in the tree.
#[divan::bench]
fn inclusion(bencher: Bencher<'_, '_>) {
    let plan = Plan::new(head()).record(12_345).expect("in the tree");
    let tiles = tiles_of(&plan);
    bencher.with_inputs(|| tiles.clone()).bench_local_values(|tiles| {
        plan.authenticate(tiles).expect("genuine").record_hash(12_345).expect("it was a goal")
    });
}

/// That the tree continues an older one.
#[divan::bench]
fn consistency(bencher: Bencher<'_, '_>) {
    let plan = Plan::new(head()).tree(54_321).expect("in the tree");
    let tiles = tiles_of(&plan);
    bencher.with_inputs(|| tiles.clone()).bench_local_values(|tiles| {
        plan.authenticate(tiles).expect("genuine").tree_hash(54_321).expect("it was a goal")
    });
}

#[divan::bench(args = ["tile/8/0/x202/849.p/92", "tile/8/2/003"])]
fn tile_path(path: &str) -> Tile {
    Tile::parse(black_box(path)).expect("a tile")
}

/// Reading an answer and verifying its signature.
#[divan::bench]
fn lookup(bencher: Bencher<'_, '_>) {
    const HASH: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let signer = SigningKey::from_bytes(&[3; 32]);
    let key = VerifierKey::new("sum.example", signer.verifying_key().as_bytes()).expect("a name");
    let text = format!("go.sum database tree\n1000\n{HASH}\n");
    let mut signature = key.hash().to_be_bytes().to_vec();
    signature.extend(signer.sign(text.as_bytes()).to_bytes());
    let signature = STANDARD.encode(signature);
    let body = format!(
        "7\nex.com/m v1.0.0 h1:{HASH}\nex.com/m v1.0.0/go.mod h1:{HASH}\n\n\
         {text}\n\u{2014} sum.example {signature}\n"
    );
    bencher.bench_local(|| Lookup::open(black_box(body.as_bytes()), &key).expect("it is signed"));
}
