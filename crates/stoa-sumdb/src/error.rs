use stoa_module::ErrorClass;

use crate::Tile;

/// Why something from a checksum database is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("malformed signed note: {0}")]
    MalformedNote(&'static str),
    #[error("the note is not signed with the key of {key}")]
    NotSigned { key: String },
    #[error("the note's signature with the key of {key} is wrong")]
    BadSignature { key: String },
    #[error("malformed tree head: {0}")]
    MalformedTreeHead(&'static str),
    #[error("malformed lookup answer: {0}")]
    MalformedLookup(&'static str),
    #[error("the record is not about {module}")]
    OtherModule { module: String },
    #[error("the record holds a malformed or contradictory line about {module}")]
    BadRecordLine { module: String },
    #[error("record {id} is outside the tree of size {size}")]
    RecordOutsideTree { id: u64, size: u64 },
    #[error("a tree of size {older} is not part of the tree of size {size}")]
    TreeOutsideTree { older: u64, size: u64 },
    #[error("{tile} does not exist in the tree of size {size}")]
    TileOutsideTree { tile: Tile, size: u64 },
    /// The caller did not bring what the plan asked for.
    #[error("{0} is missing")]
    MissingTile(Tile),
    #[error("{tile} has {got} bytes instead of {want}")]
    TileLength { tile: Tile, want: usize, got: usize },
    #[error("{tile} is not part of the tree of size {size}")]
    BadTile { tile: Tile, size: u64 },
    /// The tiles of the right edge stand or fall together: only all of them give the tree's hash.
    #[error("the right edge ({}) does not hash to the tree head of size {size}", list(.tiles))]
    BadEdge { tiles: Vec<Tile>, size: u64 },
}

impl Error {
    /// The class a server answers with.
    ///
    /// Nearly everything here is [`ErrorClass::Corrupt`]: somebody sent what cannot be proven.
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::TileOutsideTree { .. } => ErrorClass::NotFound,
            Error::MissingTile(_) => ErrorClass::Internal,
            _ => ErrorClass::Corrupt,
        }
    }

    /// The tiles among which a bad one is, so that copies of them can be dropped; else empty.
    pub fn suspects(&self) -> &[Tile] {
        match self {
            Error::TileLength { tile, .. } | Error::BadTile { tile, .. } => {
                std::slice::from_ref(tile)
            }
            Error::BadEdge { tiles, .. } => tiles,
            _ => &[],
        }
    }
}

fn list(tiles: &[Tile]) -> String {
    if tiles.is_empty() {
        return "no tiles".to_owned();
    }
    tiles.iter().map(Tile::path).collect::<Vec<_>>().join(", ")
}
