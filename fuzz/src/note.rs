//! Signed notes: only what was signed is believed, whatever stands around it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stoa_module::ErrorClass;
use stoa_sumdb::{Error, SignedTreeHead, TreeHead};

use crate::signer::{HASH, KEY, NAME, head, signature, signed};

/// The first byte chooses: the rest is a whole note, a text that is signed, or lines among the signatures of a good one.
pub fn check(data: &[u8]) {
    let Some((&way, data)) = data.split_first() else { return };
    match way % 3 {
        0 => whole(data),
        1 => text(data, way / 3),
        _ => among_signatures(data),
    }
}

fn whole(note: &[u8]) {
    match SignedTreeHead::open(note, &KEY) {
        Ok(opened) => believed(note, &opened),
        Err(error) => assert_eq!(error.class(), ErrorClass::Corrupt),
    }
}

/// What is believed begins with the head as it would be written, and the key's signature of the text is in it.
fn believed(note: &[u8], opened: &SignedTreeHead) {
    assert_eq!(opened.note, note);
    let note = std::str::from_utf8(note).expect("a note is UTF-8");
    let TreeHead { size, hash } = opened.head;
    assert!(i64::try_from(size).is_ok());
    let written = format!("go.sum database tree\n{size}\n{hash}\n");
    assert!(note.starts_with(&written), "{note:?}");
    let (text, signatures) = note.rsplit_once("\n\n").expect("a blank line");
    let ours = signature(&format!("{text}\n"));
    assert!(signatures.contains(ours.trim_end()), "{note:?} was never signed");
}

/// Signed, so that only the text decides; then with one bit changed.
fn text(data: &[u8], bit: u8) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let text = format!("{text}\n");
    let note = signed(&text);
    let opened = SignedTreeHead::open(note.as_bytes(), &KEY);
    assert_eq!(opened.as_ref().ok().map(|it| it.head.size), size_of(&text), "{opened:?}");
    if let Ok(opened) = &opened {
        believed(note.as_bytes(), opened);
    }
    let mut flipped = note.into_bytes();
    let at = usize::from(bit) * 97 % (text.len() * 8);
    flipped[at / 8] ^= 1 << (at % 8);
    let refused = SignedTreeHead::open(&flipped, &KEY).expect_err("another text was signed");
    assert_eq!(refused.class(), ErrorClass::Corrupt);
}

/// The size in a text, read in the plainest way.
fn size_of(text: &str) -> Option<u64> {
    if text.len() > 1_000_000 || text.contains(|c: char| c < ' ' && c != '\n') {
        return None;
    }
    let mut lines = text.lines();
    let (title, size, hash) = (lines.next()?, lines.next()?, lines.next()?);
    let number: u64 = size.parse().ok()?;
    let bytes = STANDARD.decode(hash).ok()?;
    let canonical = i64::try_from(number).is_ok()
        && number.to_string() == size
        && STANDARD.encode(&bytes) == hash;
    (title == "go.sum database tree" && canonical && bytes.len() == 32).then_some(number)
}

/// Lines of others neither make nor break a head, but must be signatures by their form.
fn among_signatures(data: &[u8]) {
    let Ok(lines) = std::str::from_utf8(data) else { return };
    let text = head("3");
    let ours = signature(&text);
    let (before, after) = (format!("{text}\n{lines}{ours}"), format!("{text}\n{ours}{lines}"));
    let (before, after) =
        [before, after].map(|note| SignedTreeHead::open(note.as_bytes(), &KEY)).into();
    let good: Option<Vec<_>> = lines.lines().map(signer_of).collect();
    let fine = lines.is_empty() || lines.ends_with('\n');
    let control = lines.contains(|c: char| c < ' ' && c != '\n');
    let Some(good) = good.filter(|good| fine && good.len() < 100 && !control) else {
        assert!(
            before.is_err() && (after.is_err() || lines.contains("\n\n")),
            "{before:?} {after:?}"
        );
        return;
    };
    // The first line with the key's own name and hash decides, and it must be right.
    let deciding = lines.lines().zip(&good).find(|(_, by)| **by == (NAME, KEY.hash()));
    let forged = deciding.is_some_and(|(line, _)| line != ours.trim_end());
    assert_eq!(before.is_err(), forged, "{before:?}");
    if forged {
        assert!(matches!(before, Err(Error::BadSignature { .. })), "{before:?}");
    }
    assert_eq!(after.expect("ours is first").head.hash.to_string(), HASH);
}

/// The name and the hash in a line that has the form of a signature.
fn signer_of(line: &str) -> Option<(&str, u32)> {
    let rest = line.strip_prefix("\u{2014} ")?;
    let (name, signature) = rest.split_once(' ')?;
    let bytes = STANDARD.decode(signature).ok()?;
    let named = !name.is_empty() && !name.contains('+') && !name.contains(char::is_whitespace);
    (named && bytes.len() > 4)
        .then(|| (name, u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])))
}

pub fn seeds() -> Vec<Vec<u8>> {
    let note = signed(&head("3"));
    let ours = signature(&head("3"));
    [
        (0, note.clone()),
        (0, note.replace("\n\n", "\n\n\u{2014} witness AAAAAAE=\n")),
        (0, "\u{2014} witness AAAAAAE=\n".to_owned()),
        (1, head("3").trim_end().to_owned()),
        (4, head("9223372036854775807") + "more\n\nand more"),
        (1, "go.sum database tree\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".to_owned()),
        (2, "\u{2014} witness AAAAAAE=\n\u{2014} sum.example AAAAAAE=\n".to_owned()),
        (2, ours),
        (2, String::new()),
    ]
    .map(|(way, text)| [&[way], text.as_bytes()].concat())
    .to_vec()
}
