use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};

/// The algorithm byte in front of an Ed25519 key.
const ED25519: u8 = 1;

/// The name and the public key of who signs a checksum database: `NAME+HASH+BASE64`.
///
/// Displayed as that text, which can be public.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: Arc<str>,
    hash: u32,
    key: Arc<VerifyingKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidVerifierKey {
    #[error("not a verifier key of the form name+hash+base64")]
    Malformed,
    #[error("malformed name in a verifier key")]
    Name,
    #[error("verifier key of an unknown algorithm (only Ed25519 is known)")]
    Algorithm,
    #[error("the hash in the verifier key does not fit its name and key (a typing mistake?)")]
    Hash,
}

impl VerifierKey {
    pub fn parse(text: &str) -> Result<VerifierKey, InvalidVerifierKey> {
        use InvalidVerifierKey::{Algorithm, Malformed, Name};
        // The base64 may hold a plus itself.
        let (name, rest) = text.split_once('+').ok_or(Malformed)?;
        let (hash, key) = rest.split_once('+').ok_or(Malformed)?;
        if hash.len() != 8 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Malformed);
        }
        let hash = u32::from_str_radix(hash, 16).map_err(|_| Malformed)?;
        if !is_valid_name(name) {
            return Err(Name);
        }
        let key = STANDARD.decode(key).map_err(|_| Malformed)?;
        if hash != key_hash(name, &key) {
            return Err(InvalidVerifierKey::Hash);
        }
        match key.split_first() {
            Some((&ED25519, key)) => VerifierKey::new(name, key.try_into().map_err(|_| Malformed)?),
            Some(_) => Err(Algorithm),
            None => Err(Malformed),
        }
    }

    /// The key of a signer's name and raw Ed25519 public key.
    pub fn new(name: &str, public: &[u8; 32]) -> Result<VerifierKey, InvalidVerifierKey> {
        if !is_valid_name(name) {
            return Err(InvalidVerifierKey::Name);
        }
        let key = VerifyingKey::from_bytes(public).map_err(|_| InvalidVerifierKey::Malformed)?;
        let hash = key_hash(name, &encoded(&key));
        Ok(VerifierKey { name: name.into(), hash, key: Arc::new(key) })
    }

    /// The database's name, such as `sum.golang.org`; it may hold slashes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What stands in front of each of its signatures, big-endian.
    pub fn hash(&self) -> u32 {
        self.hash
    }

    pub(crate) fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.key.verify_strict(text, &signature).is_ok())
    }
}

fn encoded(key: &VerifyingKey) -> [u8; 33] {
    let mut encoded = [ED25519; 33];
    encoded[1..].copy_from_slice(key.as_bytes());
    encoded
}

fn key_hash(name: &str, key: &[u8]) -> u32 {
    let digest: [u8; 32] =
        Sha256::new().chain_update(name).chain_update(b"\n").chain_update(key).finalize().into();
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

pub(crate) fn is_valid_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+')
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode(encoded(&self.key));
        write!(f, "{}+{:08x}+{key}", self.name, self.hash)
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GO: &str = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";

    #[test]
    fn parses_the_key_of_sum_golang_org() {
        let key = VerifierKey::parse(GO).unwrap();
        assert_eq!(key.name(), "sum.golang.org");
        assert_eq!(key.hash(), 0x033d_e0ae);
        assert_eq!(key.to_string(), GO);
        assert_eq!(VerifierKey::new("sum.golang.org", key.key.as_bytes()), Ok(key));
    }

    #[test]
    fn refuses_what_is_not_a_key() {
        #[track_caller]
        fn check(text: &str, expected: InvalidVerifierKey) {
            assert_eq!(VerifierKey::parse(text), Err(expected), "{text:?}");
        }
        use InvalidVerifierKey::{Algorithm, Hash, Malformed, Name};
        check("", Malformed);
        check("sum.golang.org", Malformed);
        check("sum.golang.org+033de0ae", Malformed);
        check("sum.golang.org+033de0ae+", Hash);
        check("sum.golang.org+33de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8", Malformed);
        check("sum.golang.org++33de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8", Malformed);
        check("sum.golang.org+033de0af+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8", Hash);
        check("sum.golang.com+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8", Hash);
        check("sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn9", Hash);
        check("sum.golang.org+033de0ae+Ac4zctda0e5e", Hash);
        check("sum.golang.org+033de0ae+Ac4zctda0e5eza", Malformed);
        check("+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8", Name);
        check("sum golang+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8", Name);
        check("n+033de0ae+*", Malformed);
        let with_hash =
            |key: &[u8]| format!("n+{:08x}+{}", key_hash("n", key), STANDARD.encode(key));
        check(&with_hash(&[]), Malformed);
        check(&with_hash(&[2; 33]), Algorithm);
        check(&with_hash(&[1; 32]), Malformed);
        check(&with_hash(&[1; 34]), Malformed);
    }
}
