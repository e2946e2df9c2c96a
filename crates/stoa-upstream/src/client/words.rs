//! An upstream's own words about its refusal.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// How much of a body is looked at.
pub(crate) const MAX_BYTES: usize = 4096;
const MAX_CHARS: usize = 200;
const MAX_LINES: usize = 2;

/// Whether an answer is plain text in UTF-8, the only kind whose words the go command would show.
pub(crate) fn are_plain(headers: &HeaderMap) -> bool {
    let Some(Ok(content_type)) = headers.get(CONTENT_TYPE).map(|value| value.to_str()) else {
        return false;
    };
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next().is_some_and(|media| media.eq_ignore_ascii_case("text/plain")) {
        return false;
    }
    parts.filter_map(|parameter| parameter.split_once('=')).all(|(name, value)| {
        let value = value.trim().trim_matches('"').to_ascii_lowercase();
        !name.trim().eq_ignore_ascii_case("charset")
            || matches!(value.as_str(), "utf-8" | "us-ascii")
    })
}

/// The first lines of a body, as one line. Nothing if the body is not text for a terminal.
pub(crate) fn from_body(body: &[u8]) -> Option<String> {
    let body = &body[..body.len().min(MAX_BYTES)];
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        // A character that was cut in two by the limit.
        Err(error) if body.len() == MAX_BYTES && error.error_len().is_none() => {
            std::str::from_utf8(&body[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    if !text.chars().all(is_shown) {
        return None;
    }
    let lines = text.trim_start().lines().map(str::trim).take_while(|line| !line.is_empty());
    let mut words = String::new();
    for line in lines.take(MAX_LINES) {
        match words.chars().last() {
            None => {}
            Some(':' | ';' | ',' | '.') => words.push(' '),
            Some(_) => words.push_str("; "),
        }
        words.push_str(line);
    }
    let words = words.replace('\t', " ");
    if let Some((end, _)) = words.char_indices().nth(MAX_CHARS) {
        let kept = words[..end].char_indices().next_back().map_or(0, |(last, _)| last);
        return Some(format!("{}…", &words[..kept]));
    }
    (!words.is_empty()).then_some(words)
}

/// Neither control characters nor those that hide or turn round what stands beside them.
pub(crate) fn is_shown(c: char) -> bool {
    let hides = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}');
    matches!(c, '\t' | '\n' | '\r') || !c.is_control() && !hides
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_plain_text_speaks() {
        let check = |content_type: Option<&'static str>, expected| {
            let mut headers = HeaderMap::new();
            if let Some(content_type) = content_type {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            }
            assert_eq!(are_plain(&headers), expected, "{content_type:?}");
        };
        check(Some("text/plain"), true);
        check(Some("text/plain; charset=utf-8"), true);
        check(Some("TEXT/Plain;charset=\"UTF-8\""), true);
        check(Some("text/plain; charset=us-ascii; format=flowed"), true);
        check(Some("text/plain; charset=iso-8859-1"), false);
        check(Some("text/html; charset=utf-8"), false);
        check(Some("application/json"), false);
        check(None, false);
    }

    #[test]
    fn takes_the_first_lines() {
        let check = |body: &[u8], expected: Option<&str>| {
            assert_eq!(from_body(body).as_deref(), expected, "{body:?}");
        };
        check(b"", None);
        check(b" \n \n", None);
        check(b"not found\n", Some("not found"));
        check(b"\n  not found: \r\n\tmodule x\nthird", Some("not found: module x"));
        check(b"one\ntwo\nthree\n", Some("one; two"));
        check(b"one\n\ntwo\n", Some("one"));
        check(b"a\tb", Some("a b"));
        check("zu groß".as_bytes(), Some("zu groß"));
        check(b"\x1b[31mred", None);
        check("bidi \u{202e}txt".as_bytes(), None);
        check(b"latin \xe9", None);
        let long = "ü".repeat(300);
        check(long.as_bytes(), Some(&format!("{}…", "ü".repeat(199))));
        check("y".repeat(200).as_bytes(), Some(&"y".repeat(200)));
        // The limit cuts the character at bytes 4095 and 4096 in two; that is no fault of the upstream.
        let cut = format!("x\n\n{}ü", "a".repeat(4092));
        check(cut.as_bytes(), Some("x"));
    }
}
