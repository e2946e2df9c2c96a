//! The case escape of paths and versions in URLs and file names: `Azure` is written `!azure`.
//!
//! A file system or a web server may take two casings of one name for the same file; after the escape no two names
//! differ in case alone.

/// Writes each upper-case letter as `!` and its lower case.
///
/// The text must be ASCII without `!`, which the types that call this have checked.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 4);
    for c in text.chars() {
        if c.is_ascii_uppercase() {
            escaped.push('!');
        }
        escaped.push(c.to_ascii_lowercase());
    }
    escaped
}

/// Undoes [`escape`]. `None` for what it cannot have written: an upper-case letter, anything but ASCII, or a `!` that
/// no lower-case letter follows.
pub(crate) fn unescape(escaped: &str) -> Option<String> {
    // As nearly all are.
    if escaped.bytes().all(|b| b.is_ascii() && b != b'!' && !b.is_ascii_uppercase()) {
        return Some(escaped.to_owned());
    }
    let mut text = String::with_capacity(escaped.len());
    let mut bang = false;
    for c in escaped.chars() {
        match c {
            'a'..='z' if bang => {
                text.push(c.to_ascii_uppercase());
                bang = false;
            }
            _ if bang => return None,
            '!' => bang = true,
            'A'..='Z' => return None,
            _ if c.is_ascii() => text.push(c),
            _ => return None,
        }
    }
    (!bang).then_some(text)
}
