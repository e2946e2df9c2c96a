use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::key::is_valid_name;
use crate::{Error, Hash, VerifierKey};

/// The size and the hash of a tree: what the database commits to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeHead {
    /// Records in the tree, which have the ids below it.
    pub size: u64,
    pub hash: Hash,
}

/// A tree head whose signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTreeHead {
    pub head: TreeHead,
    /// The signed note as it was received.
    pub note: Bytes,
}

/// More text than this is no tree head (the go command's bound).
const MAX_TEXT_BYTES: usize = 1_000_000;
const MAX_SIGNATURES: usize = 100;

impl SignedTreeHead {
    /// Reads a signed note, verifies its signature, and reads the tree head in it.
    pub fn open(note: &[u8], key: &VerifierKey) -> Result<SignedTreeHead, Error> {
        let head = parse_tree_head(open_note(note, key)?)?;
        Ok(SignedTreeHead { head, note: Bytes::copy_from_slice(note) })
    }
}

/// The text of a note that `key` signed (golang.org/x/mod/sumdb/note).
///
/// The text ends before the last blank line; each line after it is a signature,
/// `— NAME base64(hash of the key, signature)`. Signatures of other keys are not looked at, so a
/// database can be signed by witnesses too.
fn open_note<'a>(note: &'a [u8], key: &VerifierKey) -> Result<&'a str, Error> {
    let malformed = Error::MalformedNote;
    let note = std::str::from_utf8(note).map_err(|_| malformed("not UTF-8"))?;
    if note.contains(|c: char| c < ' ' && c != '\n') {
        return Err(malformed("a control character"));
    }
    let split = note.rfind("\n\n").ok_or(malformed("no blank line before the signatures"))?;
    let (text, signatures) = (&note[..=split], &note[split + 2..]);
    let signatures =
        signatures.strip_suffix('\n').ok_or(malformed("no newline after the signatures"))?;

    let mut signed = false;
    for (number, line) in signatures.split('\n').enumerate() {
        if number == MAX_SIGNATURES {
            return Err(malformed("too many signatures"));
        }
        let (name, hash, signature) =
            parse_signature(line).ok_or(malformed("a malformed signature line"))?;
        if name != key.name() || hash != key.hash() || signed {
            continue;
        }
        if !key.verifies(text.as_bytes(), &signature) {
            return Err(Error::BadSignature { key: key.name().to_owned() });
        }
        signed = true;
    }
    if signed { Ok(text) } else { Err(Error::NotSigned { key: key.name().to_owned() }) }
}

fn parse_signature(line: &str) -> Option<(&str, u32, Vec<u8>)> {
    let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let signature = STANDARD.decode(signature).ok()?;
    let (hash, signature) = signature.split_first_chunk()?;
    (is_valid_name(name) && !signature.is_empty())
        .then(|| (name, u32::from_be_bytes(*hash), signature.to_vec()))
}

/// `go.sum database tree`, the size and the hash, a line each; more lines may follow.
fn parse_tree_head(text: &str) -> Result<TreeHead, Error> {
    let malformed = Error::MalformedTreeHead;
    if text.len() > MAX_TEXT_BYTES {
        return Err(malformed("too long"));
    }
    // What stands after the last newline is no line; the text of a note has nothing there.
    let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    if lines.next() != Some("go.sum database tree") {
        return Err(malformed("not a go.sum database tree"));
    }
    let size = lines.next().and_then(parse_decimal).ok_or(malformed("a malformed size"))?;
    let hash = lines
        .next()
        .and_then(|line| Hash::parse(line).ok())
        .ok_or(malformed("a malformed hash"))?;
    Ok(TreeHead { size, hash })
}

/// A number as Go prints an `int64` that is not negative: nothing else round-trips.
pub(crate) fn parse_decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    if !canonical || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|&number| i64::try_from(number).is_ok())
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    const GO: &str = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
    const HEAD: &str = "go.sum database tree
71769961
O0jlIxwRb2vZYS1na726XLlaDCtCqKUVLld+AY32AGA=

\u{2014} sum.golang.org Az3grufbQia/eVmOpUINcw1UBa6rB6ikK2tQHD1unUUvIMEXtMyuoYzc+kL7vaGESkPcmXTD1s5Cu55o14FrOYfragA=
";

    fn open(note: &str) -> Result<TreeHead, Error> {
        SignedTreeHead::open(note.as_bytes(), &VerifierKey::parse(GO).unwrap())
            .map(|signed| signed.head)
    }

    #[test]
    fn opens_a_head_of_sum_golang_org() {
        let key = VerifierKey::parse(GO).unwrap();
        let signed = SignedTreeHead::open(HEAD.as_bytes(), &key).unwrap();
        assert_eq!(signed.head.size, 71_769_961);
        assert_eq!(signed.head.hash.to_string(), "O0jlIxwRb2vZYS1na726XLlaDCtCqKUVLld+AY32AGA=");
        assert_eq!(signed.note, HEAD.as_bytes());
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let key = VerifierKey::parse(GO).unwrap();
        for bit in 0..HEAD.len() * 8 {
            let mut note = HEAD.as_bytes().to_vec();
            note[bit / 8] ^= 1 << (bit % 8);
            let opened = SignedTreeHead::open(&note, &key);
            assert!(opened.is_err(), "bit {bit}: {}", String::from_utf8_lossy(&note));
        }
        for len in 0..HEAD.len() {
            assert!(SignedTreeHead::open(&HEAD.as_bytes()[..len], &key).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn signatures_of_others_are_skipped_but_must_be_well_formed() {
        #[track_caller]
        fn check(more: &str, expected: bool) {
            let (text, signatures) = HEAD.rsplit_once("\n\n").unwrap();
            let before = open(&format!("{text}\n\n{more}{signatures}"));
            let after = open(&format!("{text}\n\n{signatures}{more}"));
            assert_eq!((before.is_ok(), after.is_ok()), (expected, expected), "{more:?}");
        }
        check("", true);
        check("\u{2014} witness AAAAAAE=\n", true);
        check("\u{2014} witness AAAAAAE=\n\u{2014} witness AAAAAAE=\n", true);
        // The right name with another key.
        check("\u{2014} sum.golang.org AAAAAAE=\n", true);
        check("\u{2014} witness AAAAAA==\n", false);
        check("\u{2014} witness \n", false);
        check("\u{2014} witness\n", false);
        check("\u{2014}  AAAAAAE=\n", false);
        check("\u{2014} wit+ness AAAAAAE=\n", false);
        check("\u{2014} wit\u{a0}ness AAAAAAE=\n", false);
        check("- witness AAAAAAE=\n", false);
        check("\u{2014} witness AAAAAAE= \n", false);
        check("\n", false);
        check(&"\u{2014} witness AAAAAAE=\n".repeat(99), true);
        check(&"\u{2014} witness AAAAAAE=\n".repeat(100), false);
    }

    #[test]
    fn says_what_is_wrong() {
        #[track_caller]
        fn check(note: &str, expected: Error) {
            assert_eq!(open(note), Err(expected), "{note:?}");
        }
        let (text, signature) = HEAD.rsplit_once("\n\n").unwrap();
        check("", Error::MalformedNote("no blank line before the signatures"));
        check(text, Error::MalformedNote("no blank line before the signatures"));
        check(&format!("{text}\n\n"), Error::MalformedNote("no newline after the signatures"));
        check(&format!("{text}\n\n\n"), Error::MalformedNote("no newline after the signatures"));
        check(&format!("{text}\r\n\n{signature}"), Error::MalformedNote("a control character"));
        check(
            &format!("{text}\n\n\u{2014} witness AAAAAAE=\n"),
            Error::NotSigned { key: "sum.golang.org".to_owned() },
        );
        check(
            &HEAD.replace("71769961", "71769962"),
            Error::BadSignature { key: "sum.golang.org".to_owned() },
        );
    }

    #[test]
    fn reads_tree_heads_as_go_does() {
        #[track_caller]
        fn check(text: &str, expected: Option<u64>) {
            // Signed, so that only the text decides.
            let signer = SigningKey::from_bytes(&[1; 32]);
            let key = VerifierKey::new("n", signer.verifying_key().as_bytes()).unwrap();
            let mut signature = key.hash().to_be_bytes().to_vec();
            signature.extend(signer.sign(text.as_bytes()).to_bytes());
            let note = format!("{text}\n\u{2014} n {}\n", STANDARD.encode(signature));
            let opened = SignedTreeHead::open(note.as_bytes(), &key);
            assert_eq!(
                opened.as_ref().ok().map(|it| it.head.size),
                expected,
                "{text:?} {opened:?}"
            );
        }
        let hash = "O0jlIxwRb2vZYS1na726XLlaDCtCqKUVLld+AY32AGA=";
        let of_size = |size: &str| format!("go.sum database tree\n{size}\n{hash}\n");
        check(&of_size("0"), Some(0));
        check(&of_size("942"), Some(942));
        check(&of_size("9223372036854775807"), Some(9_223_372_036_854_775_807));
        check(&of_size("9223372036854775808"), None);
        check(&of_size("18446744073709551616"), None);
        check(&of_size("00"), None);
        check(&of_size("01"), None);
        check(&of_size("+1"), None);
        check(&of_size("-1"), None);
        check(&of_size(" 1"), None);
        check(&of_size("1 "), None);
        check(&of_size(""), None);
        check(&format!("{}more\n", of_size("3")), Some(3));
        check(&format!("{}\n\nmore\n", of_size("3")), Some(3));
        check(&format!("{}{}", of_size("3"), "x\n".repeat(600_000)), None);
        check(&format!("go.sum database tree\n3\n{hash} \n"), None);
        check("go.sum database tree\n3\nAAAA\n", None);
        check("go.sum database tree\n3\n", None);
        check(&format!("go.sum database\n3\n{hash}\n"), None);
        check(&format!("\ngo.sum database tree\n3\n{hash}\n"), None);
    }
}
