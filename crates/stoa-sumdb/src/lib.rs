//! The pure checksum-database verifier: signed notes, tree proofs, tiles.
//!
//! A checksum database is a transparency log. Its records say which hashes the files of a module
//! version have, a Merkle tree stands over the records, and a signed note (the tree head) commits to
//! the whole tree. Nothing a database sends is believed before it was proven in a signed tree:
//!
//! 1. [`Lookup::open`] reads a lookup answer and verifies the signature of the tree head in it.
//! 2. A [`Plan`] in the newest tree head collects what is to be proven (the lookup's record is in the
//!    tree, an older tree head is a prefix of it) and names every [`Tile`] this takes, all at once.
//! 3. The caller fetches these tiles, from anywhere, and [`Plan::authenticate`] checks each of them
//!    against the tree head.
//! 4. Of the [`Proven`] tiles the hash of the record and of the older tree are read and compared.
//!
//! **Architecture Invariant:** no I/O, no async, no clock, and no state: which tree head is the newest
//! is the caller's to keep.

mod error;
mod go_sum_db;
mod hash;
mod key;
mod lookup;
mod note;
mod plan;
mod tile;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use go_sum_db::{GoSumDb, InvalidGoSumDb};
pub use hash::{Hash, InvalidTreeHash, node_hash, record_hash};
pub use key::{InvalidVerifierKey, VerifierKey};
pub use lookup::{Lookup, RecordHashes, lookup_path};
pub use note::{SignedTreeHead, TreeHead};
pub use plan::{Plan, Proven};
pub use tile::{InvalidTilePath, Tile, TileLevel, right_edge};
