//! Go's string literals.

/// The value of a literal in double quotes or backquotes. `None` if it is malformed or its value is not UTF-8.
pub(super) fn unquote(literal: &str) -> Option<String> {
    if let Some(rest) = literal.strip_prefix('`') {
        let raw = rest.strip_suffix('`').filter(|raw| !raw.contains('`'))?;
        return Some(raw.replace('\r', ""));
    }
    let text = literal.strip_prefix('"')?;
    let mut value = Vec::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => break,
            '\n' => return None,
            '\\' => {}
            c => {
                value.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
        }
        match chars.next()? {
            'a' => value.push(7),
            'b' => value.push(8),
            'f' => value.push(12),
            'n' => value.push(b'\n'),
            'r' => value.push(b'\r'),
            't' => value.push(b'\t'),
            'v' => value.push(11),
            '\\' => value.push(b'\\'),
            '"' => value.push(b'"'),
            'x' => value.push(u8::try_from(digits(&mut chars, 0, 2, 16)?).ok()?),
            'u' => push(&mut value, digits(&mut chars, 0, 4, 16)?)?,
            'U' => push(&mut value, digits(&mut chars, 0, 8, 16)?)?,
            c => value.push(u8::try_from(digits(&mut chars, c.to_digit(8)?, 2, 8)?).ok()?),
        }
    }
    if chars.next().is_some() {
        return None;
    }
    String::from_utf8(value).ok()
}

fn push(value: &mut Vec<u8>, code: u32) -> Option<()> {
    let c = char::from_u32(code)?;
    value.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    Some(())
}

fn digits(chars: &mut std::str::Chars<'_>, start: u32, count: u32, radix: u32) -> Option<u32> {
    (0..count).try_fold(start, |value, _| {
        value.checked_mul(radix)?.checked_add(chars.next()?.to_digit(radix)?)
    })
}
