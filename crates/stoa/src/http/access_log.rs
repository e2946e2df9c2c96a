//! Request ids, and one line in the log for each request once its answer has been sent (or given up).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::Bytes;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use stoa_module::Request as ModuleRequest;
use tracing::{info, warn};

use crate::http::REQUEST_ID;
use crate::http::metrics::Metrics;
use crate::http::payload::Payload;
use crate::http::{App, forwarded, growing_body};
use crate::server::{Peer, Way};

/// The id of a request, put among its extensions.
#[derive(Clone, Debug)]
struct Id(HeaderValue);

/// Longest id that is taken over from a client or a proxy before us.
const MAX_ID: usize = 64;

/// What a request was about.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `list`, `latest`, `query`, `info`, `mod`, `zip` or `sumdb`.
    pub kind: &'static str,
    /// Module path, and version or query; none for the checksum database, whose files are named by the path alone.
    pub module: Option<(String, String)>,
}

/// How it was answered; put among the response's extensions by whoever answers.
#[derive(Clone, Debug)]
pub struct Answered {
    pub asked: Option<Arc<Asked>>,
    pub outcome: &'static str,
    pub source: Option<Arc<str>>,
}

impl Asked {
    pub fn of(request: &ModuleRequest) -> Self {
        let of = |kind, path: &dyn ToString, version: &dyn ToString| Self {
            kind,
            module: Some((path.to_string(), version.to_string())),
        };
        match request {
            ModuleRequest::List(path) => of("list", path, &""),
            ModuleRequest::Latest(path) => of("latest", path, &""),
            ModuleRequest::Query { path, query } => of("query", path, query),
            ModuleRequest::Artifact { module, artifact } => {
                of(artifact.extension(), module.path(), module.version())
            }
            ModuleRequest::Sumdb { .. } => Self { kind: "sumdb", module: None },
        }
    }
}

/// The id of this request; "-" for one that did not pass a [`Line`].
pub fn request_id<B>(request: &Request<B>) -> String {
    let id = request.extensions().get::<Id>().and_then(|id| id.0.to_str().ok());
    id.unwrap_or("-").to_owned()
}

/// A proxy's or a client's own id, if it is short and plain.
fn given_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(&REQUEST_ID)?;
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (!id.is_empty() && id.len() <= MAX_ID && id.as_bytes().iter().all(plain)).then(|| id.clone())
}

/// Unique in this process and hard to mistake for one of another: its start and a count, in hexadecimal digits.
fn new_id() -> HeaderValue {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static START: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let start = START.get_or_init(|| jiff::Timestamp::now().as_microsecond().unsigned_abs());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // By hand, because every hit has one: eight digits, a hyphen, and as many digits as it takes, at least six.
    let mut text = [b'-'; 25];
    let mut write = |at: usize, digits: usize, number: u64| {
        for (place, byte) in text[at..at + digits].iter_mut().rev().enumerate() {
            *byte = DIGITS[(number >> (4 * place) & 0xf) as usize];
        }
    };
    let digits = (16 - count.leading_zeros() as usize / 4).max(6);
    write(0, 8, *start);
    write(9, digits, count);
    HeaderValue::from_bytes(&text[..9 + digits]).unwrap_or(HeaderValue::from_static("-"))
}

/// A request under way, of which a line is written when its answer has been sent or given up. hyper drops it with
/// everything that worked on the answer when the client leaves before there is one.
#[derive(Debug)]
pub struct Line(Option<Fields>);

#[derive(Debug)]
struct Fields {
    metrics: Arc<Metrics>,
    id: HeaderValue,
    client: Peer,
    method: Method,
    uri: Uri,
    /// None before there is an answer.
    status: Option<StatusCode>,
    answered: Option<Answered>,
    started: Instant,
}

impl Line {
    /// A request has come.
    pub fn begin<B>(app: &App, request: &Request<B>, way: Way) -> Self {
        app.metrics.began();
        Self(Some(Fields {
            metrics: Arc::clone(&app.metrics),
            id: given_id(request.headers()).unwrap_or_else(new_id),
            client: forwarded::client(&app.site.trusted_proxies, way.peer, request.headers()),
            method: request.method().clone(),
            uri: request.uri().clone(),
            status: None,
            answered: None,
            started: Instant::now(),
        }))
    }

    /// Gives the request its id, for those who answer it.
    pub fn name<B>(&self, request: &mut Request<B>) {
        if let Some(fields) = &self.0 {
            request.extensions_mut().insert(Id(fields.id.clone()));
        }
    }

    /// The path as it came.
    pub fn path(&self) -> &str {
        self.0.as_ref().map_or("", |fields| fields.uri.path())
    }

    /// The response, which is logged when it has been sent.
    pub fn answer(
        mut self,
        mut response: Response<Payload>,
        answered: Option<Answered>,
    ) -> Response<Logged> {
        let mut fields = self.0.take();
        if let Some(fields) = &mut fields {
            response.headers_mut().insert(REQUEST_ID, fields.id.clone());
            fields.status = Some(response.status());
            fields.answered = answered;
        }
        response.map(|body| Logged::new(body, fields))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(line) = self.0.take() {
            line.write(0, End::Unanswered);
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
enum End {
    Whole,
    BrokenOff,
    /// Broken off by ourselves: what was being sent was not what it should be.
    Refused,
    Unanswered,
}

impl End {
    /// The outcome as the metrics have it: one of a few words.
    fn counted_as(self, outcome: &'static str, status: Option<StatusCode>) -> &'static str {
        match (self, outcome) {
            (Self::Unanswered, _) => "left",
            (Self::BrokenOff, _) => "broken_off",
            // The server's own pages, and what was refused before anything looked at the path.
            (Self::Whole, "-") if status.is_some_and(|status| status.is_success()) => "ok",
            (Self::Whole, "-") => "refused",
            (Self::Whole | Self::Refused, outcome) => outcome,
        }
    }
}

impl Fields {
    fn write(self, bytes: u64, end: End) {
        let Self { metrics, id, client, method, uri, status, answered, started } = &self;
        let duration = started.elapsed();
        let duration_ms = duration.as_millis() as u64;
        let asked = answered.as_ref().and_then(|one| one.asked.as_ref());
        let (path, version) = asked
            .and_then(|asked| asked.module.as_ref())
            .map(|(path, version)| (path, version))
            .unzip();
        let (path, version) = (path.map(String::as_str), version.map(String::as_str));
        let kind = asked.map_or("-", |asked| asked.kind);
        let outcome = answered.as_ref().map_or("-", |one| one.outcome);
        metrics.ended(kind, end.counted_as(outcome, *status), bytes, duration);
        let source = answered.as_ref().and_then(|one| one.source.as_deref()).unwrap_or("");
        let target = (path.is_none() || !matches!(end, End::Whole)).then(|| uri.path());
        let status = status.map(|status| status.as_u16());
        let (id, method) = (id.to_str().unwrap_or("-"), method.as_str());
        macro_rules! line {
            ($level:ident, $text:literal) => {
                $level!(
                    target: "access", request_id = id, %client, method, status, kind, module.path = path,
                    module.version = version, url.path = target, outcome, source, bytes,
                    duration_ms, $text
                )
            };
        }
        match end {
            End::Whole => line!(info, "answered"),
            End::BrokenOff => line!(warn, "the client left, or the answer broke off"),
            End::Refused => line!(warn, "the answer was broken off, since its end is refused"),
            End::Unanswered => line!(info, "the client left before the answer"),
        }
    }
}

/// Counts what is sent, and writes the line when it ends.
#[derive(Debug)]
pub struct Logged {
    body: Payload,
    sent: u64,
    whole: bool,
    /// Its end was not given, by our own verdict.
    refused: bool,
    line: Option<Fields>,
}

impl Logged {
    /// Of what has no line.
    pub fn unlogged(body: Payload) -> Self {
        Self::new(body, None)
    }

    fn new(body: Payload, line: Option<Fields>) -> Self {
        Self { body, sent: 0, whole: false, refused: false, line }
    }
}

impl HttpBody for Logged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                self.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                self.whole = self.body.is_end_stream();
            }
            Some(Err(error)) => {
                self.whole = false;
                let answered = self.line.as_mut().and_then(|line| line.answered.as_mut());
                if let (Some(class), Some(answered)) = (growing_body::verdict(error), answered) {
                    answered.outcome = class.as_str();
                    self.refused = true;
                }
            }
            None => self.whole = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        // hyper does not poll a body that has nothing to say.
        let whole = self.whole || (self.sent == 0 && self.body.is_end_stream());
        if let Some(line) = self.line.take() {
            let end = match (whole, self.refused) {
                (true, _) => End::Whole,
                (false, true) => End::Refused,
                (false, false) => End::BrokenOff,
            };
            line.write(self.sent, end);
        }
    }
}
