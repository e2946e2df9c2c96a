//! Globs with the exact meaning of Go's `path.Match`.
//!
//! `*` stands for a run of anything but `/`, `?` for one character but `/`, `[a-z]` and `[^a-z]` for one character of a
//! class or outside it (a slash, too), and `\` takes the meaning from what follows it. The whole name must match.
//!
//! Names are taken as bytes, because that is how Go sees them: `*` may stop in the middle of a character, and a byte
//! that begins no character counts as U+FFFD.

/// A glob that means nothing: an unclosed or empty class, a range without an end, or a `\` at the end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed glob {0:?}: a class [...] is not closed or is empty, or it ends in a backslash")]
pub struct InvalidGlob(pub String);

/// Whether the whole name matches. A malformed glob is an error whatever the name is.
pub fn path_match(glob: &str, name: &str) -> Result<bool, InvalidGlob> {
    matches(glob.as_bytes(), name.as_bytes()).map_err(|Malformed| InvalidGlob(glob.to_owned()))
}

struct Malformed;

fn matches(mut glob: &[u8], mut name: &[u8]) -> Result<bool, Malformed> {
    'chunks: while !glob.is_empty() {
        let (star, chunk, rest) = split_chunk(glob);
        glob = rest;
        if star && chunk.is_empty() {
            return Ok(!name.contains(&b'/'));
        }
        // The last chunk must reach the end of the name.
        let fits = |left: &[u8]| left.is_empty() || !rest.is_empty();
        if let Some(left) = match_chunk(chunk, name)?.filter(|left| fits(left)) {
            name = left;
            continue;
        }
        if star {
            for skip in 0..name.len() {
                if name[skip] == b'/' {
                    break;
                }
                if let Some(left) = match_chunk(chunk, &name[skip + 1..])?.filter(|left| fits(left))
                {
                    name = left;
                    continue 'chunks;
                }
            }
        }
        // It does not match, but whether the rest means anything must not depend on the name.
        while !glob.is_empty() {
            let (_, chunk, rest) = split_chunk(glob);
            glob = rest;
            match_chunk(chunk, b"")?;
        }
        return Ok(false);
    }
    Ok(name.is_empty())
}

/// Splits off leading stars, if any, and what follows them up to the next star.
fn split_chunk(glob: &[u8]) -> (bool, &[u8], &[u8]) {
    let stars = glob.iter().take_while(|&&b| b == b'*').count();
    let glob_after = &glob[stars..];
    let mut in_class = false;
    let mut at = 0;
    while at < glob_after.len() {
        match glob_after[at] {
            b'\\' => at += 1,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'*' if !in_class => break,
            _ => {}
        }
        at += 1;
    }
    let (chunk, rest) = glob_after.split_at(at.min(glob_after.len()));
    (stars > 0, chunk, rest)
}

/// Matches a glob without stars against the beginning of the name. Returns what is left of the name, or `None` if it
/// does not match; the chunk is read to its end in any case, to see whether it is well formed.
fn match_chunk<'n>(mut chunk: &[u8], name: &'n [u8]) -> Result<Option<&'n [u8]>, Malformed> {
    let mut left = Some(name);
    while let Some((&operator, after)) = chunk.split_first() {
        left = left.filter(|name| !name.is_empty());
        match operator {
            b'[' => {
                let (class, after) = Class::parse(after, left.map(|name| decode(name).0))?;
                left = left.filter(|_| class.contains).map(|name| &name[decode(name).1..]);
                chunk = after;
            }
            b'?' => {
                left = left.filter(|name| name[0] != b'/').map(|name| &name[decode(name).1..]);
                chunk = after;
            }
            _ => {
                let (literal, after) = if operator == b'\\' {
                    after.split_first().ok_or(Malformed)?
                } else {
                    (&operator, after)
                };
                left = left.filter(|name| name[0] == *literal).map(|name| &name[1..]);
                chunk = after;
            }
        }
    }
    Ok(left)
}

struct Class {
    contains: bool,
}

impl Class {
    /// Reads a class behind its `[` and looks whether it contains the character.
    fn parse(mut text: &[u8], character: Option<u32>) -> Result<(Self, &[u8]), Malformed> {
        let negated = text.first() == Some(&b'^');
        if negated {
            text = &text[1..];
        }
        let mut contains = false;
        let mut ranges = 0;
        loop {
            if let [b']', after @ ..] = text
                && ranges > 0
            {
                return Ok((Self { contains: contains != negated }, after));
            }
            let (low, after) = class_character(text)?;
            text = after;
            let mut high = low;
            if let [b'-', after @ ..] = text {
                (high, text) = class_character(after)?;
            }
            contains |= character.is_some_and(|c| (low..=high).contains(&c));
            ranges += 1;
        }
    }
}

/// A character of a class, which must have something behind it, at least the `]`.
fn class_character(text: &[u8]) -> Result<(u32, &[u8]), Malformed> {
    let text = match text {
        [] | [b'-' | b']', ..] => return Err(Malformed),
        [b'\\', after @ ..] => after,
        _ => text,
    };
    if text.is_empty() {
        return Err(Malformed);
    }
    let (character, width) = decode(text);
    let after = &text[width..];
    if after.is_empty() || character == REPLACEMENT && width == 1 {
        return Err(Malformed);
    }
    Ok((character, after))
}

const REPLACEMENT: u32 = 0xfffd;

/// The first character of some bytes and its width; a byte that begins none is a replacement character of width 1, and
/// nothing is one of width 0.
fn decode(bytes: &[u8]) -> (u32, usize) {
    let Some(&first) = bytes.first() else { return (REPLACEMENT, 0) };
    if first.is_ascii() {
        return (first.into(), 1);
    }
    let window = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(window) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&window[..error.valid_up_to()]).unwrap_or_default(),
    };
    valid.chars().next().map_or((REPLACEMENT, 1), |c| (c.into(), c.len_utf8()))
}
