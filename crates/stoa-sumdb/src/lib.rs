//! The pure checksum-database verifier: signed notes, tree proofs, tiles.
