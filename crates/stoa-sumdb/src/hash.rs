use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// The SHA-256 of a node of the tree (RFC 6962, section 2.1). Displayed as base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash([u8; 32]);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the base64 of a 32-byte hash")]
pub struct InvalidTreeHash;

impl Hash {
    /// Bytes in a hash, and in a tile per entry.
    pub const LEN: usize = 32;

    pub fn parse(text: &str) -> Result<Hash, InvalidTreeHash> {
        let bytes = STANDARD.decode(text).map_err(|_| InvalidTreeHash)?;
        Ok(Hash(bytes.try_into().map_err(|_| InvalidTreeHash)?))
    }

    pub fn from_bytes(bytes: [u8; 32]) -> Hash {
        Hash(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash of a tree without records.
    pub fn of_empty_tree() -> Hash {
        Hash(Sha256::digest([]).into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// The hash of a record: of its text with the final newline, without its id.
pub fn record_hash(text: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update([0]).chain_update(text).finalize().into())
}

/// The hash of a node above two others.
pub fn node_hash(left: Hash, right: Hash) -> Hash {
    Hash(
        Sha256::new()
            .chain_update([1])
            .chain_update(left.0)
            .chain_update(right.0)
            .finalize()
            .into(),
    )
}

/// The hash of the complete subtree over some entries of a tile: `Hash::LEN << height` bytes.
pub(crate) fn subtree_hash(entries: &[u8]) -> Hash {
    if let Ok(bytes) = entries.try_into() {
        return Hash(bytes);
    }
    debug_assert!(entries.len() > Hash::LEN && (entries.len() / Hash::LEN).is_power_of_two());
    let (left, right) = entries.split_at(entries.len() / 2);
    node_hash(subtree_hash(left), subtree_hash(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_only_canonical_base64_of_32_bytes() {
        #[track_caller]
        fn check(text: &str, expected: bool) {
            let parsed = Hash::parse(text);
            assert_eq!(parsed.is_ok(), expected, "{text:?}");
            if let Ok(hash) = parsed {
                assert_eq!(hash.to_string(), text);
            }
        }
        check("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", true);
        // Another last digit with the same 32 bytes.
        check("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=", false);
        check("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU", false);
        check("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuF==", false);
        check("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n", false);
        check("", false);
        check("é", false);
    }

    #[test]
    fn the_empty_tree_is_the_hash_of_nothing() {
        assert_eq!(
            Hash::of_empty_tree().to_string(),
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
        );
    }

    #[test]
    fn a_subtree_is_the_tree_of_its_entries() {
        let [a, b, c, d] = [b"a", b"b", b"c", b"d"].map(|text| record_hash(text));
        let entries = [a, b, c, d].map(|hash| *hash.as_bytes()).concat();
        assert_eq!(subtree_hash(&entries[..32]), a);
        assert_eq!(subtree_hash(&entries), node_hash(node_hash(a, b), node_hash(c, d)));
    }
}
