//! The whole way from a signed note to a proven record, against a tree that is hashed naively.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;

use super::*;

/// A log as its owner has it: every hash of every complete subtree.
struct Log {
    texts: Vec<String>,
    /// By level: the hashes of the complete subtrees of `2^level` records.
    levels: Vec<Vec<Hash>>,
}

impl Log {
    fn new(texts: impl IntoIterator<Item = String>) -> Log {
        let texts: Vec<_> = texts.into_iter().collect();
        let mut levels =
            vec![texts.iter().map(|it| record_hash(it.as_bytes())).collect::<Vec<_>>()];
        while levels[levels.len() - 1].len() > 1 {
            let below = &levels[levels.len() - 1];
            levels.push(below.chunks_exact(2).map(|pair| node_hash(pair[0], pair[1])).collect());
        }
        Log { texts, levels }
    }

    fn of_size(size: u64) -> Log {
        Log::new((0..size).map(text))
    }

    fn size(&self) -> u64 {
        self.texts.len() as u64
    }

    /// The hash of the records from `start` to `end`, by the definition of RFC 6962.
    fn hash_of(&self, start: u64, end: u64) -> Hash {
        let size = end - start;
        if size == 0 {
            return Hash::of_empty_tree();
        }
        if size.is_power_of_two() {
            return self.levels[size.ilog2() as usize][(start / size) as usize];
        }
        let left = 1 << size.ilog2();
        node_hash(self.hash_of(start, start + left), self.hash_of(start + left, end))
    }

    fn head(&self, size: u64) -> TreeHead {
        TreeHead { size, hash: self.hash_of(0, size) }
    }

    fn tile(&self, tile: Tile) -> Bytes {
        let (first, width) = (tile.index as usize * 256, usize::from(tile.width));
        match tile.level {
            TileLevel::Data => self.texts[first..first + width]
                .iter()
                .flat_map(|it| [it.as_str(), "\n"])
                .collect::<String>()
                .into(),
            TileLevel::Hashes(level) => {
                let hashes = &self.levels[usize::from(level) * 8][first..first + width];
                hashes.iter().flat_map(|it| *it.as_bytes()).collect::<Vec<_>>().into()
            }
        }
    }

    fn tiles_of(&self, plan: &Plan) -> HashMap<Tile, Bytes> {
        plan.tiles().into_iter().map(|tile| (tile, self.tile(tile))).collect()
    }
}

fn text(id: u64) -> String {
    format!("ex.com/m{id} v1.0.0 h1:{id}\nex.com/m{id} v1.0.0/go.mod h1:{id}\n")
}

fn hashes(level: u8, index: u64, width: u16) -> Tile {
    Tile { level: TileLevel::Hashes(level), index, width }
}

fn data(index: u64, width: u16) -> Tile {
    Tile { level: TileLevel::Data, index, width }
}

fn flipped(bytes: &[u8], bit: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes.into()
}

#[test]
fn every_record_and_every_older_head_is_proven() {
    let log = Log::of_size(2000);
    for size in [1, 2, 3, 7, 255, 256, 257, 258, 511, 512, 513, 1023, 1024, 1025, 1999, 2000] {
        let mut plan = Plan::new(log.head(size));
        for id in 0..size {
            plan = plan.record(id).unwrap();
        }
        for older in 0..=size {
            plan = plan.tree(older).unwrap();
        }
        let proven = plan.authenticate(log.tiles_of(&plan)).unwrap();
        for id in 0..size {
            assert_eq!(proven.record_hash(id), Some(record_hash(text(id).as_bytes())));
        }
        for older in 0..=size {
            assert_eq!(proven.tree_hash(older), Some(log.head(older).hash), "{older} in {size}");
        }
        assert_eq!(proven.record_hash(size), None);
        assert_eq!(proven.tree_hash(size + 1), None);
    }
}

#[test]
fn a_large_tree_needs_few_tiles() {
    // Three levels of tiles: 256 * 256 and some more records.
    let log = Log::of_size(66_000);
    let plan = Plan::new(log.head(66_000)).record(1000).unwrap().tree(300).unwrap();
    let names: Vec<_> = plan.tiles().iter().map(Tile::path).collect();
    assert_eq!(
        names,
        [
            "tile/8/0/001",
            "tile/8/0/003",
            "tile/8/0/257.p/208",
            "tile/8/1/000",
            "tile/8/1/001.p/1",
            "tile/8/2/000.p/1",
        ]
    );
    let proven = plan.authenticate(log.tiles_of(&plan)).unwrap();
    assert_eq!(proven.record_hash(1000), Some(record_hash(text(1000).as_bytes())));
    assert_eq!(proven.tree_hash(300), Some(log.head(300).hash));
    // Never asked for, so not known.
    assert_eq!(proven.record_hash(600), None);
    assert_eq!(proven.tree_hash(600), None);
}

#[test]
fn the_plan_is_the_one_of_the_go_command() {
    // A fresh client in the tree of sum.golang.org, as protocol.md shows it.
    let head = TreeHead { size: 51_929_436, hash: Hash::of_empty_tree() };
    let plan = Plan::new(head).record(942).unwrap();
    let names: Vec<_> = plan.tiles().iter().map(Tile::path).collect();
    assert_eq!(
        names,
        [
            "tile/8/0/003",
            "tile/8/0/x202/849.p/92",
            "tile/8/1/000",
            "tile/8/1/792.p/97",
            "tile/8/2/000",
            "tile/8/2/003.p/24",
            "tile/8/3/000.p/3",
        ]
    );
    assert_eq!(plan.head(), head);
}

#[test]
fn every_flipped_bit_of_a_tile_is_found() {
    let log = Log::of_size(300);
    let plan = Plan::new(log.head(300)).record(280).unwrap();
    let genuine = log.tiles_of(&plan);
    for (tile, bytes) in &genuine {
        for bit in 0..bytes.len() * 8 {
            let mut tiles = genuine.clone();
            tiles.insert(*tile, flipped(bytes, bit));
            let error = plan.authenticate(tiles).unwrap_err();
            assert_eq!(error, Error::BadEdge { tiles: right_edge(300), size: 300 });
            assert!(error.suspects().contains(tile));
        }
    }

    // A full tile, whose bytes are many: another bit of each.
    let plan = plan.record(0).unwrap();
    let genuine = log.tiles_of(&plan);
    let full = hashes(0, 0, 256);
    for byte in 0..8192 {
        let mut tiles = genuine.clone();
        tiles.insert(full, flipped(&genuine[&full], byte * 8 + byte % 8));
        assert_eq!(plan.authenticate(tiles).unwrap_err(), Error::BadTile { tile: full, size: 300 });
    }
}

#[test]
fn every_flipped_bit_of_a_data_tile_is_found() {
    let log = Log::of_size(260);
    for tile in [data(0, 256), data(1, 4)] {
        let plan = Plan::new(log.head(260)).tile(tile).unwrap();
        let genuine = log.tiles_of(&plan);
        let bytes = &genuine[&tile];
        assert_eq!(plan.authenticate(genuine.clone()).unwrap().tile(&tile), Some(bytes));
        let step = if tile.is_full() { 33 } else { 1 };
        for bit in (0..bytes.len() * 8).step_by(step) {
            let mut tiles = genuine.clone();
            tiles.insert(tile, flipped(bytes, bit));
            let error = plan.authenticate(tiles).unwrap_err();
            assert_eq!(error, Error::BadTile { tile, size: 260 }, "bit {bit}");
        }
    }
}

#[test]
fn data_tiles_are_records_with_blank_lines_between() {
    #[track_caller]
    fn check(body: &str, width: u16, expected: Option<&str>) {
        let log = Log::new(["a\n", "b\nb\n", "c\n"].map(str::to_owned));
        let plan = Plan::new(log.head(3)).tile(data(0, width)).unwrap();
        let mut tiles = log.tiles_of(&plan);
        tiles.insert(data(0, 3), Bytes::copy_from_slice(body.as_bytes()));
        let proven = plan.authenticate(tiles);
        let got = proven.as_ref().ok().and_then(|it| it.tile(&data(0, width)));
        assert_eq!(got.map(|it| &it[..]), expected.map(str::as_bytes), "{body:?} at {width}");
    }
    check("a\n\nb\nb\n\nc\n\n", 3, Some("a\n\nb\nb\n\nc\n\n"));
    check("a\n\nb\nb\n\nc\n", 3, Some("a\n\nb\nb\n\nc\n"));
    check("a\n\nb\nb\n\nc\n\n", 2, Some("a\n\nb\nb\n\n"));
    check("a\n\nb\nb\n\nc\n", 2, Some("a\n\nb\nb\n"));
    check("a\n\nb\nb\n\nc\n\n", 1, Some("a\n\n"));
    check("a\n\nb\nb\n\nc", 3, None);
    check("a\n\nb\nb\n\nc\n\n\n", 3, None);
    check("a\n\nb\n\nb\n\nc\n\n", 3, None);
    check("a\n\nb\nb\n\n", 3, None);
    check("a\n\nb\nb\n\nc\n\nd\n\n", 3, None);
    check("b\nb\n\na\n\nc\n\n", 3, None);
    check("", 3, None);
    check("\n\n\n\n\n\n", 3, None);
}

#[test]
fn tiles_that_are_missing_or_of_another_length_are_named() {
    let log = Log::of_size(300);
    let plan = Plan::new(log.head(300)).record(0).unwrap();
    for tile in plan.tiles() {
        let mut tiles = log.tiles_of(&plan);
        let bytes = tiles.remove(&tile).unwrap();
        assert_eq!(plan.authenticate(tiles.clone()).unwrap_err(), Error::MissingTile(tile));
        for other in
            [bytes.slice(..bytes.len() - 1), bytes.slice(32..), [&bytes[..], &[0]].concat().into()]
        {
            let (want, got) = (bytes.len(), other.len());
            tiles.insert(tile, other);
            assert_eq!(
                plan.authenticate(tiles.clone()).unwrap_err(),
                Error::TileLength { tile, want, got }
            );
        }
    }
}

#[test]
fn a_narrower_tile_is_cut_from_the_widest() {
    let log = Log::of_size(300);
    let plan = Plan::new(log.head(300))
        .tile(hashes(0, 0, 7))
        .and_then(|plan| plan.tile(hashes(0, 1, 44)))
        .and_then(|plan| plan.tile(data(0, 2)))
        .unwrap();
    assert_eq!(plan.tiles(), [data(0, 256), hashes(0, 0, 256), hashes(0, 1, 44), hashes(1, 0, 1)]);
    let proven = plan.authenticate(log.tiles_of(&plan)).unwrap();
    for tile in [hashes(0, 0, 7), hashes(0, 0, 256), hashes(0, 1, 44), data(0, 2), data(0, 256)] {
        assert_eq!(proven.tile(&tile), Some(&log.tile(tile)), "{tile}");
    }
    assert_eq!(proven.tile(&hashes(0, 0, 8)), None);
}

#[test]
fn a_tree_without_records_has_one_hash() {
    let plan = Plan::new(TreeHead { size: 0, hash: Hash::of_empty_tree() });
    assert_eq!(plan.tiles(), []);
    assert_eq!(
        plan.authenticate(HashMap::new()).unwrap().tree_hash(0),
        Some(Hash::of_empty_tree())
    );
    let plan = Plan::new(TreeHead { size: 0, hash: record_hash(b"") });
    assert_eq!(
        plan.authenticate(HashMap::new()).unwrap_err(),
        Error::BadEdge { tiles: vec![], size: 0 }
    );
}

#[test]
fn goals_outside_the_tree_are_errors() {
    let plan = || Plan::new(TreeHead { size: 300, hash: Hash::of_empty_tree() });
    for id in [300, 301, 1 << 63, u64::MAX] {
        assert_eq!(plan().record(id).unwrap_err(), Error::RecordOutsideTree { id, size: 300 });
    }
    for older in [301, 1 << 63, u64::MAX] {
        assert_eq!(plan().tree(older).unwrap_err(), Error::TreeOutsideTree { older, size: 300 });
    }
    for tile in [
        hashes(0, 1, 45),
        hashes(0, 2, 1),
        hashes(1, 0, 2),
        hashes(2, 0, 1),
        hashes(63, 0, 1),
        hashes(255, u64::MAX, 256),
        hashes(0, u64::MAX, 256),
        hashes(0, 0, 0),
        hashes(0, 0, 257),
        data(1, 45),
        data(u64::MAX, 1),
    ] {
        assert_eq!(plan().tile(tile).unwrap_err(), Error::TileOutsideTree { tile, size: 300 });
    }
}

/// What a client does with a lookup answer, given the log's newest head and tiles.
fn verify(body: &[u8], key: &VerifierKey, log: &Log) -> Result<String, String> {
    let lookup = Lookup::open(body, key).map_err(|error| error.to_string())?;
    let plan = Plan::new(log.head(log.size()))
        .record(lookup.id)
        .and_then(|plan| plan.tree(lookup.signed.head.size))
        .map_err(|error| error.to_string())?;
    let proven = plan.authenticate(log.tiles_of(&plan)).map_err(|error| error.to_string())?;
    if proven.tree_hash(lookup.signed.head.size) != Some(lookup.signed.head.hash) {
        return Err("forked".to_owned());
    }
    if proven.record_hash(lookup.id) != Some(lookup.record_hash()) {
        return Err("altered".to_owned());
    }
    Ok(lookup.record)
}

fn signed(head: TreeHead, signer: &SigningKey, key: &VerifierKey) -> String {
    let text = format!("go.sum database tree\n{}\n{}\n", head.size, head.hash);
    let mut signature = key.hash().to_be_bytes().to_vec();
    signature.extend(signer.sign(text.as_bytes()).to_bytes());
    format!("{text}\n\u{2014} {} {}\n", key.name(), STANDARD.encode(signature))
}

#[test]
fn every_flipped_bit_of_a_lookup_is_refused() {
    let signer = SigningKey::from_bytes(&[3; 32]);
    let key = VerifierKey::new("sum.test.example", signer.verifying_key().as_bytes()).unwrap();
    let log = Log::of_size(400);
    // The head in the answer is older than the newest.
    let body = format!("271\n{}\n{}", text(271), signed(log.head(300), &signer, &key));
    assert_eq!(verify(body.as_bytes(), &key, &log), Ok(text(271)));
    for bit in 0..body.len() * 8 {
        let body = flipped(body.as_bytes(), bit);
        let verified = verify(&body, &key, &log);
        assert!(verified.is_err(), "bit {bit}: {}", String::from_utf8_lossy(&body));
    }
}

#[test]
fn a_fork_is_found_whatever_is_signed() {
    let signer = SigningKey::from_bytes(&[3; 32]);
    let key = VerifierKey::new("sum.test.example", signer.verifying_key().as_bytes()).unwrap();
    let log = Log::of_size(400);
    let fork = Log::new((0..400).map(|id| if id == 290 { text(9999) } else { text(id) }));
    let body = |size| format!("271\n{}\n{}", text(271), signed(fork.head(size), &signer, &key));
    // Up to the altered record the two are one.
    assert_eq!(verify(body(290).as_bytes(), &key, &log), Ok(text(271)));
    assert_eq!(verify(body(291).as_bytes(), &key, &log), Err("forked".to_owned()));
    assert_eq!(verify(body(400).as_bytes(), &key, &log), Err("forked".to_owned()));
    assert_eq!(
        verify(body(401 - 1).replace("\n400\n", "\n401\n").as_bytes(), &key, &log),
        Err("the note's signature with the key of sum.test.example is wrong".to_owned())
    );
}

#[test]
fn errors_have_a_class() {
    use stoa_module::ErrorClass;
    let tile = hashes(0, 0, 1);
    for (error, class) in [
        (Error::MalformedNote("x"), ErrorClass::Corrupt),
        (Error::BadTile { tile, size: 1 }, ErrorClass::Corrupt),
        (Error::RecordOutsideTree { id: 1, size: 1 }, ErrorClass::Corrupt),
        (Error::TileOutsideTree { tile, size: 0 }, ErrorClass::NotFound),
        (Error::MissingTile(tile), ErrorClass::Internal),
    ] {
        assert_eq!(error.class(), class, "{error}");
    }
    let error = Error::BadEdge { tiles: right_edge(257), size: 257 };
    assert_eq!(
        error.to_string(),
        "the right edge (tile/8/0/001.p/1, tile/8/1/000.p/1) does not hash to the tree head of size 257"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_random_tree_is_proven_and_any_change_is_found(
        (size, older, id, bit, salt) in (1u64..2000).prop_flat_map(|size| {
            (Just(size), 0..=size, 0..size, any::<prop::sample::Index>(), any::<u32>())
        }),
    ) {
        let log = Log::new((0..size).map(|id| format!("{salt} {}", text(id))));
        let plan = Plan::new(log.head(size)).record(id).unwrap().tree(older).unwrap();
        let genuine = log.tiles_of(&plan);
        let proven = plan.authenticate(genuine.clone()).unwrap();
        let record = record_hash(log.texts[id as usize].as_bytes());
        prop_assert_eq!(proven.record_hash(id), Some(record));
        prop_assert_eq!(proven.tree_hash(older), Some(log.head(older).hash));

        for (tile, bytes) in &genuine {
            let mut tiles = genuine.clone();
            tiles.insert(*tile, flipped(bytes, bit.index(bytes.len() * 8)));
            let error = plan.authenticate(tiles).unwrap_err();
            prop_assert!(error.suspects().contains(tile), "{error} for {tile}");
        }

        let wrong = TreeHead { size, hash: record_hash(b"wrong") };
        let plan = Plan::new(wrong).record(id).unwrap();
        prop_assert!(plan.authenticate(log.tiles_of(&plan)).is_err());
    }

    #[test]
    fn a_forked_tree_is_found(
        (size, fork_at, older) in (1u64..2000).prop_flat_map(|size| (Just(size), 0..size, 0..=size)),
    ) {
        let log = Log::of_size(size);
        let fork = Log::new((0..size).map(|id| if id == fork_at { text(9999) } else { text(id) }));
        let plan = Plan::new(fork.head(size)).tree(older).unwrap();
        let proven = plan.authenticate(fork.tiles_of(&plan)).unwrap();
        let same = proven.tree_hash(older) == Some(log.head(older).hash);
        prop_assert_eq!(same, older <= fork_at);
        // The tiles of one history are not believed under the head of the other.
        let plan = Plan::new(log.head(size)).record(fork_at).unwrap();
        prop_assert!(plan.authenticate(fork.tiles_of(&plan)).is_err());
    }

    #[test]
    fn hostile_numbers_are_errors(
        size in any::<u64>(),
        shift in 0u32..64,
        id in any::<u64>(),
        tile in (any::<Option<u8>>(), any::<u64>(), any::<u16>()),
    ) {
        let size = size >> shift;
        let (level, index, width) = tile;
        let tile = Tile { level: level.map_or(TileLevel::Data, TileLevel::Hashes), index, width };
        let plan = || Plan::new(TreeHead { size, hash: record_hash(b"x") });
        for goal in [plan().record(id), plan().tree(id), plan().tile(tile), plan().tree(size / 2)] {
            let Ok(plan) = goal else { continue };
            prop_assert!(plan.tiles().len() <= 24);
            let garbage = |tile: &Tile| Bytes::from(vec![7; tile.bytes().unwrap_or(9)]);
            let tiles = plan.tiles().into_iter().map(|tile| (tile, garbage(&tile))).collect();
            prop_assert!(plan.authenticate(tiles).is_err());
        }
        prop_assert_eq!(tile.exists_in(size), plan().tile(tile).is_ok());
        prop_assert!(right_edge(size).iter().all(|tile| tile.exists_in(size)));
    }

    #[test]
    fn parsers_do_not_panic(text in "\\PC*", bytes in any::<Vec<u8>>(), tile in "tile/8/[0-9a-z]{0,3}(/x?[0-9]{0,4}){0,9}(.p/[0-9]{0,4})?") {
        let key = VerifierKey::new(
            "n",
            SigningKey::from_bytes(&[3; 32]).verifying_key().as_bytes(),
        )
        .unwrap();
        _ = VerifierKey::parse(&text);
        _ = GoSumDb::parse(&text);
        _ = Hash::parse(&text);
        for text in [&text, &tile] {
            if let Ok(parsed) = Tile::parse(text) {
                prop_assert_eq!(&parsed.path(), text);
            }
        }
        prop_assert!(SignedTreeHead::open(text.as_bytes(), &key).is_err());
        prop_assert!(SignedTreeHead::open(&bytes, &key).is_err());
        let lookup = format!("1\n{text}\n\n{text}\n\n\u{2014} n {text}\n");
        prop_assert!(Lookup::open(lookup.as_bytes(), &key).is_err());
        prop_assert!(Lookup::open(&bytes, &key).is_err());
    }
}
