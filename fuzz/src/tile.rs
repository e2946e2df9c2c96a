//! Tiles by their paths: one text for each tile, one tile for each text.

use arbitrary::{Arbitrary, Unstructured};
use stoa_sumdb::{Plan, Tile, TileLevel, TreeHead, record_hash, right_edge};

/// The first byte chooses: the rest is a path, or the numbers of a tile and of a tree.
pub fn check(data: &[u8]) {
    let Some((&way, data)) = data.split_first() else { return };
    if way % 2 == 0 {
        let Ok(path) = std::str::from_utf8(data) else { return };
        if let Ok(tile) = Tile::parse(path) {
            assert_eq!(tile.path(), path);
            assert!(is_one(tile), "{tile:?}");
        }
        return;
    }
    if let Ok((level, index, width, size, shift)) =
        <(Option<u8>, u64, u16, u64, u8)>::arbitrary(&mut Unstructured::new(data))
    {
        let level = level.map_or(TileLevel::Data, TileLevel::Hashes);
        numbers(Tile { level, index, width }, size >> (shift % 64));
    }
}

/// What a path can name.
fn is_one(tile: Tile) -> bool {
    let level = match tile.level {
        TileLevel::Data => true,
        TileLevel::Hashes(level) => level < 64,
    };
    level && (1..=256).contains(&tile.width) && i64::try_from(tile.index).is_ok()
}

fn numbers(tile: Tile, size: u64) {
    let path = tile.path();
    assert_eq!(Tile::parse(&path) == Ok(tile), is_one(tile), "{path}");
    // Its last entry is one of the tree.
    let level = match tile.level {
        TileLevel::Data => 0,
        TileLevel::Hashes(level) => u32::from(level),
    };
    let entries = u128::from(size).checked_shr(8 * level).unwrap_or(0);
    let exists = tile.width >= 1
        && tile.width <= 256
        && u128::from(tile.index) * 256 + u128::from(tile.width) <= entries;
    assert_eq!(tile.exists_in(size), exists, "{tile:?} in {size}");
    if let Some(widest) = tile.widest_in(size) {
        assert!(widest.exists_in(size) && widest.width >= 1 && widest.width <= 256);
        assert!((widest.level, widest.index) == (tile.level, tile.index));
        let wider = Tile { width: widest.width + 1, ..widest };
        assert!(!wider.exists_in(size));
    }

    let head = TreeHead { size, hash: record_hash(b"x") };
    let Ok(plan) = Plan::new(head).tile(tile) else {
        assert!(!exists);
        return;
    };
    assert!(exists);
    // Eight levels at the right edge, and one more of each between the tile and the top.
    let tiles = plan.tiles();
    assert!(tiles.len() <= 17, "{tiles:?}");
    assert!(tiles.iter().all(|it| it.widest_in(size) == Some(*it)), "{tiles:?} in {size}");
    assert!(tiles.iter().any(|it| (it.level, it.index) == (tile.level, tile.index)));
    assert!(right_edge(size).iter().all(|it| tiles.contains(it)));
}

pub fn seeds() -> Vec<Vec<u8>> {
    [
        "tile/8/0/000",
        "tile/8/0/x202/849.p/92",
        "tile/8/data/003.p/24",
        "tile/8/63/x009/x223/x372/x036/x854/x775/807",
    ]
    .map(|path| [&[0], path.as_bytes()].concat())
    .into_iter()
    .chain([vec![1; 24], [vec![1, 1, 0], vec![0; 20]].concat(), vec![255; 24]])
    .collect()
}
