//! From an [`Answer`] to a response: headers, conditional requests, ranges (RFC 9110).

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use stoa_core::{Answer, Body as Content, Freshness, Kind, Lasting, Outcome};
use stoa_module::Sha256;

use crate::http::access_log::{Answered, Asked};
use crate::http::file_body::FileBody;
use crate::http::growing_body::GrowingBody;
use crate::http::max_age;
use crate::http::ready::{self, Ready};

/// The headers that say what a document is, made once for all who are sent it.
#[derive(Clone, Debug)]
pub struct Head {
    content_type: HeaderValue,
    cache_control: HeaderValue,
    etag: Option<HeaderValue>,
    warning: Option<HeaderValue>,
    length: u64,
    content_length: HeaderValue,
}

impl Head {
    fn of(answer: &Answer) -> Self {
        let length = match &answer.body {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File(_, length) => *length,
            Content::Growing(reader) => reader.length(),
        };
        let etag = match (&answer.digest, &answer.body) {
            (Some(digest), _) => Some(etag(digest)),
            (None, Content::Bytes(bytes)) => Some(etag(&Sha256::of(bytes))),
            (None, Content::File(..) | Content::Growing(_)) => None,
        };
        let warning = if answer.outcome == Outcome::Stale {
            Some("110 - \"Response is Stale\"")
        } else if answer.freshness == Freshness::Unverified {
            Some("199 - \"not yet compared with the checksum database\"")
        } else {
            None
        };
        Self {
            content_type: HeaderValue::from_static(content_type(answer.kind)),
            cache_control: cache_control(answer),
            etag: etag.and_then(|etag| HeaderValue::try_from(etag).ok()),
            warning: warning.map(HeaderValue::from_static),
            length,
            content_length: HeaderValue::from(length),
        }
    }

    /// Of the whole document, in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Without a length.
    fn headers(&self) -> HeaderMap {
        // Room for those of the other layers too.
        let mut headers = HeaderMap::with_capacity(12);
        headers.insert(header::CONTENT_TYPE, self.content_type.clone());
        headers.insert(header::CACHE_CONTROL, self.cache_control.clone());
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Some(warning) = &self.warning {
            headers.insert(header::WARNING, warning.clone());
        }
        if let Some(etag) = &self.etag {
            headers.insert(header::ETAG, etag.clone());
        }
        headers
    }

    /// Of a 200.
    pub fn whole(&self) -> HeaderMap {
        let mut headers = self.headers();
        headers.insert(header::CONTENT_LENGTH, self.content_length.clone());
        headers
    }
}

/// The answer to this request: 200, 206, 304 or 416. Among its extensions is how it was answered, and, if others will get
/// the same, the [`Ready`] answer for them.
pub fn respond(request: &Request<Body>, asked: Asked, answer: Answer) -> Response {
    let head = Head::of(&answer);
    let length = head.length();
    let answered = Answered {
        asked: Some(Arc::new(asked)),
        outcome: answer.outcome.as_str(),
        source: Some(answer.source.as_str().into()),
    };
    let etag = head.etag.as_ref().and_then(|etag| etag.to_str().ok()).unwrap_or("");
    let (status, headers, part) = if matches_any(request.headers(), etag) {
        (StatusCode::NOT_MODIFIED, head.headers(), None)
    } else {
        match wanted_range(request.headers(), etag, length) {
            Wanted::All => (StatusCode::OK, head.whole(), Some(0..length)),
            Wanted::Part(part) => {
                let mut headers = head.headers();
                let value = format!("bytes {}-{}/{length}", part.start, part.end - 1);
                if let Ok(value) = HeaderValue::try_from(value) {
                    headers.insert(header::CONTENT_RANGE, value);
                }
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
                (StatusCode::PARTIAL_CONTENT, headers, Some(part))
            }
            Wanted::Nothing => {
                let mut headers = head.headers();
                if let Ok(value) = HeaderValue::try_from(format!("bytes */{length}")) {
                    headers.insert(header::CONTENT_RANGE, value);
                }
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
                (StatusCode::RANGE_NOT_SATISFIABLE, headers, None)
            }
        }
    };
    let ready = ready(head, &answer, &answered);
    let body = match part {
        Some(part) if request.method() != Method::HEAD => body(answer.body, part),
        _ => Body::empty(),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.extensions_mut().insert(answered);
    if let Some(ready) = ready {
        response.extensions_mut().insert(Arc::new(ready));
    }
    response
}

/// The same for whoever asks next.
fn ready(head: Head, answer: &Answer, answered: &Answered) -> Option<Ready> {
    let content = match &answer.body {
        _ if matches!(answer.lasting, Lasting::Once) => return None,
        Content::Bytes(bytes) => ready::Content::Bytes(bytes.clone()),
        Content::File(file, _) => ready::Content::File(Arc::clone(file.stored_file()?)),
        Content::Growing(_) => return None,
    };
    let answered = Answered { outcome: Outcome::Hit.as_str(), ..answered.clone() };
    Some(Ready { head, content, lasting: answer.lasting, answered })
}

fn body(content: Content, part: Range<u64>) -> Body {
    match content {
        // In memory, so the range fits a usize.
        Content::Bytes(bytes) => Body::from(bytes.slice(part.start as usize..part.end as usize)),
        Content::File(file, _) => Body::new(FileBody::new(file, part)),
        // It was asked for as a whole.
        Content::Growing(reader) => Body::new(GrowingBody::new(reader)),
    }
}

fn content_type(kind: Kind) -> &'static str {
    match kind {
        Kind::List | Kind::Mod => "text/plain; charset=utf-8",
        Kind::Info => "application/json",
        Kind::Zip => "application/zip",
        Kind::SumdbText => "text/plain; charset=UTF-8",
        Kind::SumdbTile => "application/octet-stream",
    }
}

fn cache_control(answer: &Answer) -> HeaderValue {
    match (answer.freshness, answer.private) {
        (Freshness::Immutable, false) => {
            HeaderValue::from_static("public, max-age=31536000, immutable")
        }
        (Freshness::Immutable, true) => {
            HeaderValue::from_static("private, max-age=31536000, immutable")
        }
        (Freshness::Unverified, _) => HeaderValue::from_static("no-store"),
        (Freshness::For(Duration::ZERO), false) => HeaderValue::from_static("no-cache"),
        (Freshness::For(Duration::ZERO), true) => HeaderValue::from_static("private, no-cache"),
        (Freshness::For(keep), private) => {
            let who = if private { "private" } else { "public" };
            HeaderValue::try_from(format!("{who}, {}", max_age(keep)))
                .unwrap_or(HeaderValue::from_static("private, no-cache"))
        }
    }
}

/// A strong validator: the digest of the very bytes.
fn etag(digest: &Sha256) -> String {
    format!("\"{digest}\"")
}

/// `If-None-Match`, by weak comparison.
fn matches_any(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|tag| {
        let tag = tag.trim();
        tag == "*" || (!etag.is_empty() && tag.strip_prefix("W/").unwrap_or(tag) == etag)
    })
}

#[derive(Debug, Eq, PartialEq)]
enum Wanted {
    All,
    Part(Range<u64>),
    /// Out of the document: 416.
    Nothing,
}

/// A single `bytes` range. Several ranges, other units and malformed ones are answered with the whole document, as the
/// standard allows; so is a range whose `If-Range` names other bytes.
fn wanted_range(headers: &HeaderMap, etag: &str, length: u64) -> Wanted {
    let Some(range) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else {
        return Wanted::All;
    };
    if let Some(condition) = headers.get(header::IF_RANGE)
        && (etag.is_empty() || condition.as_bytes() != etag.as_bytes())
    {
        return Wanted::All;
    }
    parse_range(range, length)
}

fn parse_range(range: &str, length: u64) -> Wanted {
    let number = |text: &str| -> Option<u64> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        // More digits than a u64 has is beyond every document.
        Some(text.parse().unwrap_or(u64::MAX))
    };
    let Some((first, last)) = range
        .trim()
        .strip_prefix("bytes=")
        .map(str::trim)
        .filter(|range| !range.contains(','))
        .and_then(|range| range.split_once('-'))
    else {
        return Wanted::All;
    };
    match (first.trim(), last.trim()) {
        ("", last) => match number(last) {
            None => Wanted::All,
            Some(0) => Wanted::Nothing,
            Some(_) if length == 0 => Wanted::Nothing,
            Some(suffix) => Wanted::Part(length.saturating_sub(suffix)..length),
        },
        (first, last) => {
            let Some(first) = number(first) else { return Wanted::All };
            let end = match last {
                "" => length,
                last => match number(last) {
                    None => return Wanted::All,
                    Some(last) if last < first => return Wanted::All,
                    Some(last) => last.saturating_add(1).min(length),
                },
            };
            if first < length { Wanted::Part(first..end) } else { Wanted::Nothing }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let check = |range: &str, expected: Wanted| {
            assert_eq!(parse_range(range, 100), expected, "{range}");
        };
        check("bytes=0-9", Wanted::Part(0..10));
        check("bytes=90-", Wanted::Part(90..100));
        check("bytes=-10", Wanted::Part(90..100));
        check("bytes=-1000", Wanted::Part(0..100));
        check("bytes=50-1000", Wanted::Part(50..100));
        check("bytes=99-99", Wanted::Part(99..100));
        check(" bytes=1-2 ", Wanted::Part(1..3));
        check("bytes=100-", Wanted::Nothing);
        check("bytes=99999999999999999999999-", Wanted::Nothing);
        check("bytes=0-99999999999999999999999", Wanted::Part(0..100));
        check("bytes=-0", Wanted::Nothing);
        check("bytes=5-4", Wanted::All);
        check("bytes=0-1,3-4", Wanted::All);
        check("lines=0-1", Wanted::All);
        check("bytes=a-b", Wanted::All);
        check("bytes=+1-2", Wanted::All);
        check("bytes", Wanted::All);
        check("bytes=-", Wanted::All);
        assert_eq!(parse_range("bytes=0-", 0), Wanted::Nothing);
        assert_eq!(parse_range("bytes=-5", 0), Wanted::Nothing);
    }

    #[test]
    fn validators() {
        let with = |tag: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::try_from(tag).unwrap());
            headers
        };
        assert!(matches_any(&with("\"a\""), "\"a\""));
        assert!(matches_any(&with("\"b\", W/\"a\""), "\"a\""));
        assert!(matches_any(&with("*"), "\"a\""));
        assert!(!matches_any(&with("\"b\""), "\"a\""));
        assert!(!matches_any(&with("a"), "\"a\""));
        assert!(!matches_any(&HeaderMap::new(), "\"a\""));
        assert!(!matches_any(&with(""), ""));
    }

    #[test]
    fn a_range_of_other_bytes_is_not_given() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-1"));
        assert_eq!(wanted_range(&headers, "\"a\"", 9), Wanted::Part(0..2));
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"a\""));
        assert_eq!(wanted_range(&headers, "\"a\"", 9), Wanted::Part(0..2));
        headers.insert(header::IF_RANGE, HeaderValue::from_static("W/\"a\""));
        assert_eq!(wanted_range(&headers, "\"a\"", 9), Wanted::All);
        headers.insert(header::IF_RANGE, HeaderValue::from_static("Sat, 21 Nov 2026 09:00:00 GMT"));
        assert_eq!(wanted_range(&headers, "\"a\"", 9), Wanted::All);
    }
}
