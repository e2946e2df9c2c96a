//! A body that broke off is continued where the source says by a strong validator that it is the same, byte for byte
//! (RFC 9110, 8.8.3, 13.1.5 and 14): two sources, or one source twice, may have compressed the same module differently.

use http::header::{ACCEPT_RANGES, CONTENT_RANGE, ETAG};
use http::{HeaderMap, HeaderValue};
use reqwest::Response;
use stoa_module::ErrorClass;
use url::Url;

use crate::credentials::same_origin;
use crate::failure::{Fault, Stage};

/// What a source says that a body of its is, and where that was.
#[derive(Clone, Debug)]
pub(crate) struct Strong {
    pub(crate) etag: HeaderValue,
    /// Bytes of the whole body.
    pub(crate) total: u64,
    /// After redirects: the validator of another host says nothing about this one's.
    url: Url,
}

/// The rest of a body whose beginning is here.
#[derive(Clone, Debug)]
pub(crate) struct Rest {
    pub(crate) of: Strong,
    /// The first byte of it.
    pub(crate) from: u64,
}

impl Strong {
    /// None where the source gives no strong validator, or no ranges.
    pub(crate) fn of(response: &Response, total: u64) -> Option<Self> {
        let headers = response.headers();
        let refuses = headers.get(ACCEPT_RANGES).is_some_and(|ranges| ranges == "none");
        let etag = strong_etag(headers).filter(|_| !refuses)?;
        Some(Self { etag: etag.clone(), total, url: response.url().clone() })
    }

    /// What is still to come behind the first `bytes`; none if that is nothing.
    pub(crate) fn behind(&self, bytes: u64) -> Option<Rest> {
        (0 < bytes && bytes < self.total).then(|| Rest { of: self.clone(), from: bytes })
    }
}

impl Rest {
    pub(crate) fn range(&self) -> HeaderValue {
        HeaderValue::try_from(format!("bytes={}-", self.from))
            .unwrap_or(HeaderValue::from_static("bytes=0-"))
    }
}

/// The one `ETag`, if it is a strong one.
fn strong_etag(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut etags = headers.get_all(ETAG).iter();
    let etag = etags.next().filter(|_| etags.next().is_none())?;
    let inner = etag.as_bytes().strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    (!inner.is_empty() && !inner.contains(&b'"')).then_some(etag)
}

/// Whether a 206, with a body of so many bytes if that is known, is the rest that was asked for.
pub(crate) fn part(response: &Response, length: Option<u64>, rest: &Rest) -> Result<(), Fault> {
    let Rest { of, from } = rest;
    let headers = response.headers();
    let range = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let refuse = |detail: String| {
        // It is the same question again, but the whole body may well come.
        Err(Fault::new(ErrorClass::Corrupt, Stage::Body, format!("body: {detail}")).passing())
    };
    if range.and_then(content_range) != Some((*from, of.total - 1, of.total)) {
        let sent = range.unwrap_or("no range at all");
        return refuse(format!("sent {sent} instead of bytes {from} to the end of {}", of.total));
    }
    if length.is_some_and(|length| length != of.total - from) {
        return refuse("the length of its rest is not that of the range".to_owned());
    }
    if strong_etag(headers) != Some(&of.etag) || !same_origin(response.url(), &of.url) {
        return refuse("it broke off, and the rest is of another document".to_owned());
    }
    Ok(())
}

/// `bytes 5-9/10` as first, last and whole length.
fn content_range(text: &str) -> Option<(u64, u64, u64)> {
    let number = |text: &str| {
        let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| is_plain)
    };
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((number(first)?, number(last)?, number(total)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strong_validators() {
        let check = |etags: &[&'static str], expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            for etag in etags {
                headers.append(ETAG, HeaderValue::from_static(etag));
            }
            let found = strong_etag(&headers).map(|etag| etag.to_str().unwrap());
            assert_eq!(found, expected, "{etags:?}");
        };
        check(&[], None);
        check(&["\"a\""], Some("\"a\""));
        check(&["W/\"a\""], None);
        check(&["w/\"a\""], None);
        check(&["a"], None);
        check(&["\"a"], None);
        check(&["\""], None);
        check(&["\"\""], None);
        check(&["\"a\", \"b\""], None);
        check(&["\"a\"", "\"b\""], None);
    }

    #[test]
    fn ranges_of_content() {
        let check = |text: &str, expected: Option<(u64, u64, u64)>| {
            assert_eq!(content_range(text), expected, "{text}");
        };
        check("bytes 5-9/10", Some((5, 9, 10)));
        check("bytes 5-9/*", None);
        check("bytes */10", None);
        check("bytes 5-9", None);
        check("bytes=5-9/10", None);
        check("lines 5-9/10", None);
        check("bytes +5-9/10", None);
        check("bytes 5-99999999999999999999/10", None);
        check("", None);
    }
}
