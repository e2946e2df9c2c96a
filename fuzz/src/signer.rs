//! A checksum database of our own, whose key the targets know.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use std::sync::LazyLock;
use stoa_sumdb::VerifierKey;

pub(crate) const NAME: &str = "sum.example";

static SIGNER: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[7; 32]));

pub(crate) static KEY: LazyLock<VerifierKey> = LazyLock::new(|| {
    VerifierKey::new(NAME, SIGNER.verifying_key().as_bytes()).expect("the name is one")
});

/// The line behind the text of a note, which ends with a newline.
pub(crate) fn signature(text: &str) -> String {
    let mut signature = KEY.hash().to_be_bytes().to_vec();
    signature.extend(SIGNER.sign(text.as_bytes()).to_bytes());
    format!("\u{2014} {NAME} {}\n", STANDARD.encode(signature))
}

pub(crate) fn signed(text: &str) -> String {
    format!("{text}\n{}", signature(text))
}

pub(crate) const HASH: &str = "O0jlIxwRb2vZYS1na726XLlaDCtCqKUVLld+AY32AGA=";

/// The text of a tree head.
pub(crate) fn head(size: &str) -> String {
    format!("go.sum database tree\n{size}\n{HASH}\n")
}
