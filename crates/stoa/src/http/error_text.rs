//! Errors as a developer reads them in the terminal where `go` runs.
//!
//! The go command prints the body of an error only when it is `text/plain`, and of that at most 8 lines and some 600
//! bytes, up to the first blank line, and nothing at all when a character is not printable. So a body is: what was
//! asked and concluded; a line for each source; `hint:`; the request id, kept even when the rest must be cut.

use std::any::Any;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use stoa_core::Error;
use stoa_module::ErrorClass;
use tracing::{debug, error, warn};

use crate::http::{REQUEST_ID, max_age};

const MAX_BYTES: usize = 600;
const MAX_LINES: usize = 8;
/// No single line may take the whole text.
const MAX_LINE: usize = 240;
const MAX_MESSAGE: usize = 240;

/// The one place where a class becomes a status. 404 makes the go command ask its next proxy; nothing else here does.
pub fn status(error: &Error) -> StatusCode {
    match error.class {
        ErrorClass::Invalid | ErrorClass::NotFound => StatusCode::NOT_FOUND,
        ErrorClass::Denied | ErrorClass::Mismatch => StatusCode::FORBIDDEN,
        ErrorClass::Unavailable if error.retry_after.is_some() => StatusCode::SERVICE_UNAVAILABLE,
        ErrorClass::Corrupt | ErrorClass::Unavailable => StatusCode::BAD_GATEWAY,
        ErrorClass::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorClass::Full => StatusCode::INSUFFICIENT_STORAGE,
        ErrorClass::Limited => StatusCode::TOO_MANY_REQUESTS,
        ErrorClass::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The response, logged here once with its whole cause. `private`: what was asked may have a name that shared caches
/// must not keep.
pub fn respond(error: &Error, request_id: &str, private: bool) -> Response {
    respond_with(status(error), error, request_id, private)
}

pub fn respond_with(
    status: StatusCode,
    error: &Error,
    request_id: &str,
    private: bool,
) -> Response {
    match error.class {
        ErrorClass::Invalid | ErrorClass::NotFound => debug!(request_id, %error, "not found"),
        // A flood of these is what the log has had its line about.
        ErrorClass::Limited => debug!(request_id, %error, "refused"),
        ErrorClass::Internal => error!(request_id, %error, "a request failed"),
        _ => warn!(request_id, class = error.class.as_str(), %error, "a request failed"),
    }
    let mut response = Response::new(Body::from(text(error, request_id)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, cache_control(status, error, private));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(after) = error.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    response
}

/// Plain absences may be kept for a moment by those in between; a verdict about content or a source may not.
fn cache_control(status: StatusCode, error: &Error, private: bool) -> HeaderValue {
    let plain = error.hint.is_none() && status == StatusCode::NOT_FOUND;
    let keep = match error.class {
        ErrorClass::Invalid if plain => Duration::from_mins(1),
        ErrorClass::NotFound if plain => Duration::from_secs(10),
        _ => return HeaderValue::from_static("no-store"),
    };
    let who = if private { "private" } else { "public" };
    let value = format!("{who}, {}", max_age(keep));
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("no-store"))
}

/// At most [`MAX_LINES`] lines and [`MAX_BYTES`] bytes, printable, no blank line.
pub fn text(error: &Error, request_id: &str) -> String {
    let id = format!("request id: {}\n", line(request_id, 64));
    let hint = error.hint.as_ref().map(|hint| format!("hint: {}\n", line(hint, MAX_LINE)));
    let hint = hint.unwrap_or_default();
    let mut text = line(&error.message, MAX_MESSAGE);
    text.push('\n');
    let room = MAX_BYTES.saturating_sub(id.len() + hint.len());
    let lines = MAX_LINES - 2 - usize::from(!hint.is_empty());
    let said: Vec<_> =
        error.failures.iter().map(|f| format!("  {}\n", line(&f.to_string(), MAX_LINE))).collect();
    for (at, next) in said.iter().enumerate() {
        let left = said.len() - at;
        let more = format!("  … and {left} more\n");
        // The last line needs no room behind it for the one that says how many are missing.
        let behind = if left == 1 { 0 } else { more.len() };
        let last_line = at + 1 == lines;
        if text.len() + next.len() + behind > room || (last_line && left > 1) {
            text.push_str(&more);
            break;
        }
        text.push_str(next);
    }
    text + &hint + &id
}

/// One printable line of at most `max` bytes.
fn line(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        let word = plain(word);
        if out.len() + 1 + word.len() > max {
            let room = max.saturating_sub(out.len() + 4);
            let cut = (0..=room.min(word.len())).rev().find(|&at| word.is_char_boundary(at));
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(&word[..cut.unwrap_or(0)]);
            out.push('…');
            return out;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&word);
    }
    out
}

/// One character that the go command's tables do not have would cost the whole text, and its Unicode may be older than
/// ours: a run of what is not ASCII becomes one `?`, so that what stood around it does not look like one word.
fn plain(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    let mut dropped = false;
    for c in word.chars() {
        if is_graphic(c) {
            out.push(c);
        } else if !dropped {
            out.push('?');
        }
        dropped = !is_graphic(c);
    }
    out
}

fn is_graphic(c: char) -> bool {
    c.is_ascii_graphic() || c == '…'
}

/// A handler that panicked: the class for bugs.
pub fn panicked(payload: Box<dyn Any + Send + 'static>) -> Response {
    let what = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    error!(panic = what, "a request handler panicked");
    let mut response = Response::new(Body::from("internal error: the server's log has more\n"));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.remove(REQUEST_ID);
    response
}

#[cfg(test)]
mod tests {
    use stoa_upstream::{Failure, Stage};

    use super::*;

    fn error(class: ErrorClass, failures: usize) -> Error {
        let failure = |n: usize| Failure {
            class,
            stage: Stage::Http,
            source: format!("proxy-{n}.example.com"),
            detail: "http 500".to_owned(),
            text: Some("words\n\nof \u{7}the\u{200b} upstream ".repeat(20)),
            retry_after: None,
            tries: 3,
            hint: None,
            status: None,
            trouble: None,
        };
        Error {
            class,
            message: "example.com/m@v1.0.0 .zip: no source could be reached".to_owned(),
            failures: (0..failures).map(failure).collect(),
            hint: Some("look at the network".to_owned()),
            retry_after: None,
        }
    }

    #[test]
    fn texts_fit_what_the_go_command_prints() {
        for failures in 0..12 {
            let text = text(&error(ErrorClass::Unavailable, failures), "0123456789abcdef");
            assert!(text.len() <= MAX_BYTES, "{} bytes", text.len());
            assert!(text.lines().count() <= MAX_LINES, "{text}");
            assert!(text.lines().all(|line| !line.trim().is_empty()), "{text}");
            assert!(text.chars().all(|c| c == '\n' || c == ' ' || is_graphic(c)), "{text:?}");
            assert!(text.starts_with("example.com/m@v1.0.0 .zip: no source"), "{text}");
            assert!(text.contains("hint: look at the network\n"), "{text}");
            assert!(text.ends_with("request id: 0123456789abcdef\n"), "{text}");
        }
        assert!(text(&error(ErrorClass::Unavailable, 1), "id").contains("proxy-0.example.com"));
        assert!(text(&error(ErrorClass::Unavailable, 9), "id").contains("more\n"));
    }

    #[test]
    fn an_over_long_message_is_cut_and_not_lost() {
        let mut long = error(ErrorClass::NotFound, 0);
        long.message = "e".repeat(5_000);
        let text = text(&long, "id");
        assert!(text.len() <= MAX_BYTES && text.starts_with("eee") && text.contains('…'));
    }

    #[test]
    fn what_go_may_not_know_is_replaced_and_not_glued() {
        let check = |text: &str, expected: &str| assert_eq!(line(text, 100), expected, "{text:?}");
        check("two  words\t and\r\nmore", "two words and more");
        check("a\u{200b}b", "a?b");
        check("h\u{e9}llo w\u{f6}rld", "h?llo w?rld");
        // A letter of Unicode 16, which Go 1.25 does not have, and a run of them.
        check("x \u{105c0}\u{105c1}\u{105c2} y", "x ? y");
        check("cut…", "cut…");
        check("bell\u{7}rings", "bell rings");
        check("\u{202e}", "?");
        check("", "");
    }

    #[test]
    fn only_a_plain_absence_may_be_kept_and_a_private_one_by_its_asker_alone() {
        let check = |status: u16, class, hint: bool, private, expected: &str| {
            let mut error = error(class, 0);
            error.hint = hint.then(|| "a hint".to_owned());
            let status = StatusCode::from_u16(status).unwrap();
            let response = respond_with(status, &error, "id", private);
            let value = &response.headers()[header::CACHE_CONTROL];
            assert_eq!(value, expected, "{status} {class:?} hint: {hint}, private: {private}");
        };
        check(404, ErrorClass::NotFound, false, false, "public, max-age=10");
        check(404, ErrorClass::NotFound, false, true, "private, max-age=10");
        check(404, ErrorClass::Invalid, false, false, "public, max-age=60");
        check(404, ErrorClass::Invalid, false, true, "private, max-age=60");
        check(404, ErrorClass::NotFound, true, false, "no-store");
        check(405, ErrorClass::Invalid, false, false, "no-store");
        check(414, ErrorClass::Invalid, false, false, "no-store");
        check(502, ErrorClass::Unavailable, false, false, "no-store");
        check(403, ErrorClass::Mismatch, false, true, "no-store");
    }

    #[test]
    fn each_class_has_its_status() {
        let table = [
            (ErrorClass::Invalid, 404),
            (ErrorClass::NotFound, 404),
            (ErrorClass::Denied, 403),
            (ErrorClass::Mismatch, 403),
            (ErrorClass::Corrupt, 502),
            (ErrorClass::Unavailable, 502),
            (ErrorClass::Timeout, 504),
            (ErrorClass::Full, 507),
            (ErrorClass::Limited, 429),
            (ErrorClass::Internal, 500),
        ];
        for (class, expected) in table {
            assert_eq!(status(&error(class, 1)).as_u16(), expected, "{class:?}");
        }
        let mut busy = error(ErrorClass::Unavailable, 1);
        busy.retry_after = Some(Duration::from_secs(7));
        let response = respond(&busy, "id", false);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "7");
    }
}
