use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::hash::subtree_hash;
use crate::tile::HEIGHT;
use crate::{Error, Hash, Tile, TileLevel, TreeHead, node_hash, record_hash, right_edge};

/// What must be read to prove things in one tree: built goal by goal, then [authenticated](Plan::authenticate).
///
/// The tiles of the tree's right edge are always in it, because they alone give the tree's hash; for
/// each goal come the tiles that hold it and every tile between them and the edge.
#[derive(Debug, Clone)]
pub struct Plan {
    head: TreeHead,
    /// At their widths in the head's tree.
    tiles: BTreeSet<Tile>,
    /// The goals that are tiles, at the widths that were asked for.
    asked: BTreeSet<Tile>,
}

/// Tiles that were proven to be part of one tree.
#[derive(Clone)]
pub struct Proven {
    size: u64,
    tiles: HashMap<Tile, Bytes>,
}

impl Plan {
    pub fn new(head: TreeHead) -> Plan {
        let tiles = right_edge(head.size).into_iter().collect();
        Plan { head, tiles, asked: BTreeSet::new() }
    }

    /// Adds the goal to know the hash of a record.
    pub fn record(mut self, id: u64) -> Result<Plan, Error> {
        let size = self.head.size;
        if id >= size {
            return Err(Error::RecordOutsideTree { id, size });
        }
        self.add(node_tile(0, id));
        Ok(self)
    }

    /// Adds the goal to know the hash of the tree when it had that size: a signed head of that size
    /// with any other hash is of a forked tree.
    pub fn tree(mut self, size: u64) -> Result<Plan, Error> {
        if size > self.head.size {
            return Err(Error::TreeOutsideTree { older: size, size: self.head.size });
        }
        for tile in right_edge(size) {
            self.add(tile);
        }
        Ok(self)
    }

    /// Adds the goal to authenticate a tile, which may be narrower than it is in the head's tree.
    pub fn tile(mut self, tile: Tile) -> Result<Plan, Error> {
        if !tile.exists_in(self.head.size) {
            return Err(Error::TileOutsideTree { tile, size: self.head.size });
        }
        self.add(tile);
        self.asked.insert(tile);
        Ok(self)
    }

    fn add(&mut self, tile: Tile) {
        let mut next = Some(tile);
        while let Some(tile) = next.and_then(|tile| tile.widest_in(self.head.size)) {
            // Those above a tile that is there already are there too.
            if !self.tiles.insert(tile) {
                return;
            }
            next = match tile.level {
                TileLevel::Data => Some(Tile { level: TileLevel::Hashes(0), ..tile }),
                TileLevel::Hashes(_) => tile.parent(),
            };
        }
    }

    pub fn head(&self) -> TreeHead {
        self.head
    }

    /// The tiles to fetch, each at its width in the head's tree.
    pub fn tiles(&self) -> Vec<Tile> {
        self.tiles.iter().copied().collect()
    }

    /// Checks each of the plan's [`tiles`](Plan::tiles) against the tree head: first the right edge,
    /// which must hash to the head, then every other one, from the top down, against its parent.
    ///
    /// Other tiles in `data` are not looked at. The error is about the first bad tile.
    pub fn authenticate(&self, mut data: HashMap<Tile, Bytes>) -> Result<Proven, Error> {
        let size = self.head.size;
        let mut tiles = HashMap::with_capacity(self.tiles.len());
        for &tile in &self.tiles {
            let bytes = data.remove(&tile).ok_or(Error::MissingTile(tile))?;
            if let Some(want) = tile.bytes()
                && want != bytes.len()
            {
                return Err(Error::TileLength { tile, want, got: bytes.len() });
            }
            tiles.insert(tile, bytes);
        }
        // Nothing read from it is trusted until all of it has been checked.
        let mut proven = Proven { size, tiles };

        if proven.tree_hash(size) != Some(self.head.hash) {
            return Err(Error::BadEdge { tiles: right_edge(size), size });
        }
        for &tile in self.tiles.iter().rev() {
            let Some(bytes) = proven.tiles.get(&tile) else { return Err(Error::MissingTile(tile)) };
            let genuine = match tile.level {
                TileLevel::Data => proven.are_records_of(tile, bytes),
                TileLevel::Hashes(level) if tile.is_full() => {
                    let node_level = (u32::from(level) + 1) * HEIGHT;
                    proven.node(node_level, tile.index) == Some(subtree_hash(bytes))
                }
                // Of the right edge.
                TileLevel::Hashes(_) => true,
            };
            if !genuine {
                return Err(Error::BadTile { tile, size });
            }
        }

        for &tile in &self.asked {
            let narrow = tile.widest_in(size).and_then(|widest| {
                let bytes = proven.tiles.get(&widest)?;
                let end = match tile.bytes() {
                    Some(end) => end,
                    None => end_of_records(bytes, tile.width)?,
                };
                (end <= bytes.len()).then(|| bytes.slice(..end))
            });
            let narrow = narrow.ok_or(Error::BadTile { tile, size })?;
            proven.tiles.insert(tile, narrow);
        }
        Ok(proven)
    }
}

impl Proven {
    /// The hash of a record, if the plan had it or one of its neighbours as a goal.
    pub fn record_hash(&self, id: u64) -> Option<Hash> {
        self.node(0, id)
    }

    /// The hash of the tree when it had that size, if the plan had it as a goal.
    pub fn tree_hash(&self, size: u64) -> Option<Hash> {
        if size == 0 {
            return Some(Hash::of_empty_tree());
        }
        if size > self.size {
            return None;
        }
        // The tree is made of a complete subtree for each bit of its size, the largest at the left.
        let mut hash = None;
        for level in (0..u64::BITS).filter(|level| size >> level & 1 == 1) {
            let left = self.node(level, (size >> level) - 1)?;
            hash = Some(hash.map_or(left, |right| node_hash(left, right)));
        }
        hash
    }

    /// The content of a tile that the plan had as a goal, or needed at just this width.
    pub fn tile(&self, tile: &Tile) -> Option<&Bytes> {
        self.tiles.get(tile)
    }

    /// The hash of the node `number` among those over complete subtrees of `2^level` records.
    fn node(&self, level: u32, number: u64) -> Option<Hash> {
        let tile = node_tile(level, number).widest_in(self.size)?;
        let within = level % HEIGHT;
        let first = (number << within) % 256 * Hash::LEN as u64;
        let first = usize::try_from(first).ok()?;
        let entries = self.tiles.get(&tile)?.get(first..first + (Hash::LEN << within))?;
        Some(subtree_hash(entries))
    }

    /// Whether the bytes of a data tile are the records that the hashes under it stand for.
    fn are_records_of(&self, data: Tile, bytes: &[u8]) -> bool {
        let Some(records) = records(bytes) else { return false };
        records.len() == usize::from(data.width)
            && (data.index * 256..)
                .zip(records)
                .all(|(id, text)| self.record_hash(id) == Some(record_hash(&bytes[text])))
    }
}

/// Names the tiles only: what they hold is long.
impl fmt::Debug for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tiles: Vec<_> = self.tiles.keys().map(Tile::path).collect();
        tiles.sort();
        f.debug_struct("Proven").field("size", &self.size).field("tiles", &tiles).finish()
    }
}

/// The full tile that has, or is above, the node `number` of a level of the tree.
fn node_tile(level: u32, number: u64) -> Tile {
    let within = level % HEIGHT;
    let level = TileLevel::Hashes((level / HEIGHT) as u8);
    Tile { level, index: number >> (HEIGHT - within), width: 256 }
}

/// Where the texts of the records are in a data tile, or `None` if it is not made of records.
///
/// A blank line ends each record; databases differ on whether there is one after the last.
fn records(bytes: &[u8]) -> Option<Vec<Range<usize>>> {
    let mut texts = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let rest = &bytes[start..];
        let len = match rest.windows(2).position(|pair| pair == b"\n\n") {
            Some(before_blank) => before_blank + 1,
            None if rest.ends_with(b"\n") => rest.len(),
            None => return None,
        };
        texts.push(start..start + len);
        start += len + 1;
    }
    Some(texts)
}

/// Where the first `count` records of a data tile end, in the tile's own manner.
fn end_of_records(bytes: &[u8], count: u16) -> Option<usize> {
    let texts = records(bytes)?;
    let last = texts.get(usize::from(count).checked_sub(1)?)?;
    Some(last.end + usize::from(bytes.ends_with(b"\n\n")))
}
