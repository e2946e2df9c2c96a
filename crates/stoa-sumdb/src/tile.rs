use std::fmt;

use crate::Hash;

/// Entries of a full tile: tiles are 8 levels of the tree high.
pub(crate) const FULL: u16 = 256;
/// Levels of the tree that a tile spans.
pub(crate) const HEIGHT: u32 = 8;

/// A piece of the tree: `width` neighbouring nodes of one level, from number `256 * index` on.
///
/// Text form `tile/8/LEVEL/INDEX[.p/WIDTH]` (golang.org/x/mod/sumdb/tlog). What a tile holds never
/// changes; a wider one begins with the bytes of a narrower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    pub level: TileLevel,
    pub index: u64,
    /// Entries: 256 when full, 1 to 255 when partial.
    pub width: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TileLevel {
    /// The texts of the records under the tile of hashes at level 0 with the same index.
    Data,
    /// The hashes of the nodes at eight times this level of the tree.
    Hashes(u8),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed tile path")]
pub struct InvalidTilePath;

impl Tile {
    /// Reads exactly what [`path`](Tile::path) writes, without a leading slash.
    pub fn parse(path: &str) -> Result<Tile, InvalidTilePath> {
        let tile = parse_loosely(path).ok_or(InvalidTilePath)?;
        if tile.path() == path { Ok(tile) } else { Err(InvalidTilePath) }
    }

    pub fn path(&self) -> String {
        use fmt::Write as _;

        let mut thousands = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            thousands.push(rest % 1000);
            rest /= 1000;
        }
        let mut path = match self.level {
            TileLevel::Data => "tile/8/data".to_owned(),
            TileLevel::Hashes(level) => format!("tile/8/{level}"),
        };
        for (left, thousand) in thousands.iter().enumerate().rev() {
            let mark = if left == 0 { "" } else { "x" };
            _ = write!(path, "/{mark}{thousand:03}");
        }
        if !self.is_full() {
            _ = write!(path, ".p/{}", self.width);
        }
        path
    }

    /// The full tile of the same place.
    pub fn full(&self) -> Tile {
        Tile { width: FULL, ..*self }
    }

    pub fn is_full(&self) -> bool {
        self.width == FULL
    }

    /// How long a tile of hashes is; the length of a data tile is not known beforehand.
    pub fn bytes(&self) -> Option<usize> {
        match self.level {
            TileLevel::Data => None,
            TileLevel::Hashes(_) => Some(usize::from(self.width) * Hash::LEN),
        }
    }

    /// Whether a tree of that size has all entries of the tile.
    pub fn exists_in(&self, tree_size: u64) -> bool {
        self.width >= 1 && self.widest_in(tree_size).is_some_and(|it| self.width <= it.width)
    }

    /// The tile of the same place at its width in a tree of that size, if the tree has any of it.
    pub fn widest_in(&self, tree_size: u64) -> Option<Tile> {
        let entries = entries_at(self.level, tree_size);
        let first = self.index.checked_mul(u64::from(FULL))?;
        let width = entries.checked_sub(first)?.min(u64::from(FULL));
        (width > 0).then_some(Tile { width: width as u16, ..*self })
    }

    /// The full tile of the place that has this tile's hash as an entry; a data tile has none.
    pub(crate) fn parent(&self) -> Option<Tile> {
        let TileLevel::Hashes(level) = self.level else { return None };
        let level = TileLevel::Hashes(level.checked_add(1)?);
        Some(Tile { level, index: self.index >> HEIGHT, width: FULL })
    }
}

/// The partial tiles of a tree of that size, from the leaves up, one for each level that has one.
///
/// Their entries are the complete subtrees that the tree is made of, so they alone give its hash.
pub fn right_edge(tree_size: u64) -> Vec<Tile> {
    (0..u64::BITS.div_ceil(HEIGHT) as u8)
        .map(TileLevel::Hashes)
        .filter_map(|level| {
            let entries = entries_at(level, tree_size);
            let tile = Tile { level, index: entries >> HEIGHT, width: 1 };
            tile.widest_in(tree_size)
        })
        .collect()
}

fn entries_at(level: TileLevel, tree_size: u64) -> u64 {
    match level {
        TileLevel::Data => tree_size,
        TileLevel::Hashes(level) => tree_size.checked_shr(HEIGHT * u32::from(level)).unwrap_or(0),
    }
}

fn parse_loosely(path: &str) -> Option<Tile> {
    let (level, rest) = path.strip_prefix("tile/8/")?.split_once('/')?;
    let level = match level {
        "data" => TileLevel::Data,
        // The go command knows no more levels than these.
        level => TileLevel::Hashes(level.parse().ok().filter(|&level| level < 64)?),
    };
    let (index, width) = match rest.split_once(".p/") {
        Some((index, width)) => {
            (index, width.parse().ok().filter(|width| (1..FULL).contains(width))?)
        }
        None => (rest, FULL),
    };
    let index = index.split('/').try_fold(0u64, |index, thousand| {
        let thousand = thousand.strip_prefix('x').unwrap_or(thousand);
        let thousand: u64 = thousand.parse().ok().filter(|&it| it < 1000)?;
        index.checked_mul(1000)?.checked_add(thousand)
    })?;
    // Go has the index in an int64.
    i64::try_from(index).is_ok().then_some(Tile { level, index, width })
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(level: u8, index: u64, width: u16) -> Tile {
        Tile { level: TileLevel::Hashes(level), index, width }
    }

    fn data(index: u64, width: u16) -> Tile {
        Tile { level: TileLevel::Data, index, width }
    }

    #[test]
    fn paths_go_there_and_back() {
        #[track_caller]
        fn check(path: &str, expected: Tile) {
            assert_eq!(Tile::parse(path), Ok(expected), "{path:?}");
            assert_eq!(expected.path(), path);
        }
        check("tile/8/0/000", hashes(0, 0, 256));
        check("tile/8/0/000.p/1", hashes(0, 0, 1));
        check("tile/8/0/999.p/255", hashes(0, 999, 255));
        check("tile/8/1/x001/000", hashes(1, 1000, 256));
        check("tile/8/4/x001/x234/067.p/1", hashes(4, 1_234_067, 1));
        check("tile/8/4/x001/x234/067", hashes(4, 1_234_067, 256));
        check("tile/8/0/x202/849.p/92", hashes(0, 202_849, 92));
        check("tile/8/data/003.p/24", data(3, 24));
        check("tile/8/63/000", hashes(63, 0, 256));
        check(
            "tile/8/0/x009/x223/x372/x036/x854/x775/807",
            hashes(0, 9_223_372_036_854_775_807, 256),
        );
    }

    #[test]
    fn other_spellings_are_refused() {
        for path in [
            "",
            "tile",
            "tile/8",
            "tile/8/0",
            "tile/8/0/",
            "/tile/8/0/000",
            "tile/8/0/000/",
            "tile/9/0/000",
            "tile/08/0/000",
            "tile/8/00/000",
            "tile/8/64/000",
            "tile/8/-1/000",
            "tile/8/+1/000",
            "tile/8/0/0",
            "tile/8/0/00",
            "tile/8/0/0000",
            "tile/8/0/1000",
            "tile/8/0/x000",
            "tile/8/0/x000/001",
            "tile/8/0/001/000",
            "tile/8/0/x001/x000",
            "tile/8/0/X001/000",
            "tile/8/0/+01",
            "tile/8/0/-01",
            "tile/8/0/000.p/0",
            "tile/8/0/000.p/256",
            "tile/8/0/000.p/01",
            "tile/8/0/000.p/",
            "tile/8/0/000.p",
            "tile/8/0/000.p/1/",
            "tile/8/0/000.p/1.p/1",
            "tile/8/Data/000",
            "tile/8/data/0",
            "tile/8/0/000?x",
            "tile/8/0/ 00",
            "tile/8/0/../000",
            "tile/8/0/\u{0660}00",
            "tile/8/0/x009/x223/x372/x036/x854/x775/808",
            "tile/8/0/x018/x446/x744/x073/x709/x551/616",
            "tile/8/0/x100/x000/x000/x000/x000/x000/x000/000",
        ] {
            assert_eq!(Tile::parse(path), Err(InvalidTilePath), "{path:?}");
        }
    }

    #[test]
    fn a_tile_has_its_width_in_a_tree() {
        #[track_caller]
        fn check(tile: Tile, tree_size: u64, expected: Option<u16>) {
            let widest = tile.widest_in(tree_size);
            assert_eq!(widest.map(|it| it.width), expected, "{tile} in {tree_size}");
            for width in [1, 2, 91, 92, 93, 255, 256] {
                let tile = Tile { width, ..tile };
                let expected = expected.is_some_and(|widest| width <= widest);
                assert_eq!(tile.exists_in(tree_size), expected, "{tile} in {tree_size}");
            }
        }
        check(hashes(0, 0, 1), 0, None);
        check(hashes(0, 0, 1), 1, Some(1));
        check(hashes(0, 0, 1), 255, Some(255));
        check(hashes(0, 0, 1), 256, Some(256));
        check(hashes(0, 0, 1), u64::MAX, Some(256));
        check(hashes(0, 1, 1), 256, None);
        check(hashes(0, 1, 1), 257, Some(1));
        check(data(1, 1), 257, Some(1));
        check(hashes(1, 0, 1), 255, None);
        check(hashes(1, 0, 1), 256, Some(1));
        check(hashes(1, 0, 1), 92 * 256 + 255, Some(92));
        check(hashes(7, 0, 1), 1 << 63, Some(128));
        check(hashes(7, 0, 1), u64::MAX, Some(255));
        check(hashes(8, 0, 1), u64::MAX, None);
        check(hashes(255, 0, 1), u64::MAX, None);
        check(hashes(0, u64::MAX >> 8, 1), u64::MAX, Some(255));
        check(hashes(0, (u64::MAX >> 8) + 1, 1), u64::MAX, None);
        check(hashes(0, u64::MAX, 1), u64::MAX, None);
        // Not a tile at all, but it can be written down.
        assert!(!hashes(0, 0, 0).exists_in(1000));
        assert!(!hashes(0, 0, 257).exists_in(1000));
    }

    #[test]
    fn the_right_edge_is_the_partial_tiles() {
        #[track_caller]
        fn check(tree_size: u64, expected: &[&str]) {
            let edge: Vec<_> = right_edge(tree_size).iter().map(Tile::path).collect();
            assert_eq!(edge, expected, "{tree_size}");
        }
        check(0, &[]);
        check(1, &["tile/8/0/000.p/1"]);
        check(255, &["tile/8/0/000.p/255"]);
        check(256, &["tile/8/1/000.p/1"]);
        check(257, &["tile/8/0/001.p/1", "tile/8/1/000.p/1"]);
        check(65_536, &["tile/8/2/000.p/1"]);
        // As seen from the go command at that size of sum.golang.org.
        check(
            51_929_436,
            &[
                "tile/8/0/x202/849.p/92",
                "tile/8/1/792.p/97",
                "tile/8/2/003.p/24",
                "tile/8/3/000.p/3",
            ],
        );
        check(1 << 63, &["tile/8/7/000.p/128"]);
        assert_eq!(right_edge(u64::MAX).len(), 8);
    }

    #[test]
    fn says_how_long_it_is() {
        assert_eq!(hashes(0, 0, 256).bytes(), Some(8192));
        assert_eq!(hashes(3, 0, 3).bytes(), Some(96));
        assert_eq!(data(0, 256).bytes(), None);
        assert_eq!(data(1, 7).full(), data(1, 256));
    }
}
