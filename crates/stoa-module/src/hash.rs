//! Hashes of module contents.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::Digest as _;

/// The `h1:` hash of a module zip or of a go.mod file, as go.sum and the checksum database hold it.
///
/// It is the SHA-256 of a text with one line for each file, sorted by name: the file's SHA-256 in hexadecimal, two
/// spaces, the name (golang.org/x/mod/sumdb/dirhash, `Hash1`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct H1([u8; 32]);

/// The SHA-256 of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256([u8; 32]);

/// A text that is no hash of the kind wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHash {
    /// Not `h1:` and the base64 of 32 bytes.
    #[error("{0:?} is not an h1: hash")]
    H1(String),
    /// Not 64 lower-case hexadecimal digits.
    #[error("{0:?} is not a SHA-256 in lower-case hexadecimal")]
    Sha256(String),
}

/// A file name that holds a newline, which an `h1:` hash cannot be made over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the file name {0:?} contains a newline")]
pub struct NewlineInName(pub String);

impl H1 {
    /// The hash of a go.mod file: that of a tree with the one file `go.mod`.
    pub fn of_go_mod(text: &[u8]) -> Self {
        let mut tree = TreeHasher::default();
        tree.line(Sha256::of(text), &[b"go.mod"]);
        tree.finish()
    }

    /// The hash of a tree, given the full name and the SHA-256 of each file in any order.
    pub fn of_files<'a>(
        files: impl IntoIterator<Item = (&'a str, [u8; 32])>,
    ) -> Result<Self, NewlineInName> {
        let mut files: Vec<_> = files.into_iter().collect();
        files.sort_by_key(|&(name, _)| name);
        let mut tree = TreeHasher::default();
        for (name, sha256) in files {
            if name.contains('\n') {
                return Err(NewlineInName(name.to_owned()));
            }
            tree.line(Sha256(sha256), &[name.as_bytes()]);
        }
        Ok(tree.finish())
    }

    /// Reads `h1:` and base64.
    pub fn parse(text: &str) -> Result<Self, InvalidHash> {
        let decode = |text: &str| -> Option<[u8; 32]> {
            STANDARD.decode(text.strip_prefix("h1:")?).ok()?.try_into().ok()
        };
        decode(text).map(Self).ok_or_else(|| InvalidHash::H1(text.to_owned()))
    }
}

impl Sha256 {
    /// Hashes bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// Takes a hash that was computed elsewhere.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, InvalidHash> {
        from_hex(text).map(Self).ok_or_else(|| InvalidHash::Sha256(text.to_owned()))
    }
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
    bytes?.try_into().ok()
}

/// An `h1:` hash in the making; the lines come sorted by name.
#[derive(Default)]
pub(crate) struct TreeHasher(sha2::Sha256);

impl TreeHasher {
    /// The name comes in pieces.
    pub(crate) fn line(&mut self, sha256: Sha256, name: &[&[u8]]) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [b' '; 66];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(sha256.0) {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        self.0.update(hex);
        for piece in name {
            self.0.update(piece);
        }
        self.0.update(b"\n");
    }

    pub(crate) fn finish(self) -> H1 {
        H1(self.0.finalize().into())
    }
}

impl fmt::Display for H1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "h1:{}", STANDARD.encode(self.0))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The traits that go through the text.
macro_rules! through_text {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidHash;

            fn from_str(text: &str) -> Result<Self, InvalidHash> {
                Self::parse(text)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

through_text!(H1);
through_text!(Sha256);
