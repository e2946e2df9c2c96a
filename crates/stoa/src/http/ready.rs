//! Answers that were given lately and would be given again: for them all that can be done once for an artifact was done.
//! A request for one is a look into this memory, by the path as it came, and nothing is parsed, looked up or formatted.
//!
//! **Architecture invariant:** what is here is what the patient way would answer. Each answer says how long it lasts
//! ([`stoa_core::Lasting`]), and that is asked at each hit; a file is opened anew for each hit.

use std::sync::Arc;

use axum::body::Bytes;
use axum::response::Response;
use http::{HeaderMap, Method, Request, header};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use stoa_core::{Lasting, Mirror};
use stoa_store::StoredFile;

use crate::http::access_log::Answered;
use crate::http::answer::Head;
use crate::http::file_body::FileBody;
use crate::http::payload::Payload;
use crate::server::zero_copy::Outbox;

/// The largest body that is kept in memory, in bytes; a larger one would push out dozens of others.
const SMALL: usize = 64 << 10;

/// What an answer takes beside the bytes of its path and body: headers, the words for the log, the cache's own entry.
const OVERHEAD: usize = 640;

/// For this many the cache has room from the start.
const EXPECTED: usize = 1024;

/// A whole answer to a plain `GET`.
#[derive(Debug)]
pub struct Ready {
    pub head: Head,
    pub content: Content,
    pub lasting: Lasting,
    pub answered: Answered,
}

#[derive(Debug)]
pub enum Content {
    Bytes(Bytes),
    File(Arc<StoredFile>),
}

/// Bounded memory of them, by path.
#[derive(Debug)]
pub struct ReadyAnswers(Cache<Box<str>, Arc<Ready>, Weight>);

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<Box<str>, Arc<Ready>> for Weight {
    fn weight(&self, path: &Box<str>, ready: &Arc<Ready>) -> u64 {
        let body = match &ready.content {
            Content::Bytes(bytes) => bytes.len(),
            // About the length of its path.
            Content::File(_) => 2 * path.len(),
        };
        (OVERHEAD + path.len() + body) as u64
    }
}

impl ReadyAnswers {
    /// At most this many bytes of memory.
    pub fn new(bytes: u64) -> Self {
        Self(Cache::with_weighter(EXPECTED, bytes, Weight))
    }

    /// The answer to this request, if it is ready and still holds.
    pub fn find<B>(&self, mirror: &Mirror, request: &Request<B>) -> Option<Arc<Ready>> {
        if request.method() != Method::GET || !is_plain(request.headers()) {
            return None;
        }
        let path = request.uri().path();
        let ready = self.0.get(path)?;
        if mirror.lasts(ready.lasting) {
            return Some(ready);
        }
        self.0.remove(path);
        None
    }

    /// What answered a request for this path.
    pub fn keep(&self, path: &str, ready: Arc<Ready>) {
        let is_small = match &ready.content {
            Content::Bytes(bytes) => bytes.len() <= SMALL,
            Content::File(_) => true,
        };
        if is_small {
            self.0.insert(path.into(), ready);
        }
    }
}

impl Ready {
    /// `None` when its file cannot be opened just so; the patient way says why.
    pub fn respond(&self, outbox: Option<&Outbox>) -> Option<Response<Payload>> {
        let body = match &self.content {
            Content::Bytes(bytes) => Payload::Bytes(bytes.clone()),
            Content::File(file) => {
                let body = FileBody::new(Arc::new(file.open_now()?), 0..self.head.length());
                Payload::File(body.through(outbox.cloned()))
            }
        };
        let mut response = Response::new(body);
        *response.headers_mut() = self.head.whole();
        Some(response)
    }
}

/// Whether the headers ask for nothing but the document. A `Via` may say that the request has come in a circle.
fn is_plain(headers: &HeaderMap) -> bool {
    [header::RANGE, header::IF_NONE_MATCH, header::VIA]
        .iter()
        .all(|name| !headers.contains_key(name))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_plain_requests_are_answered_so() {
        let check = |name: &'static str, expected: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static("x"));
            assert_eq!(is_plain(&headers), expected, "{name}");
        };
        check("accept", true);
        check("cache-control", true);
        check("range", false);
        check("if-none-match", false);
        check("via", false);
    }
}
