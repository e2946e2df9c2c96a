//! Request ids, and one line in the log for each request once its answer has been sent (or given up).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderValue, Request, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use stoa_module::Request as ModuleRequest;
use tracing::{info, warn};

use crate::http::REQUEST_ID;
use crate::http::metrics::Metrics;
use crate::http::{App, forwarded};
use crate::server::{Peer, Way};

/// The id of a request, put among its extensions.
#[derive(Clone, Debug)]
struct Id(String);

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
    pub asked: Option<Asked>,
    pub outcome: &'static str,
    pub source: Option<String>,
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

/// The id of this request; "-" for one that did not pass [`log`].
pub fn request_id<B>(request: &Request<B>) -> String {
    request.extensions().get::<Id>().map_or_else(|| "-".to_owned(), |id| id.0.clone())
}

/// The outermost layer: gives the request its id and logs the answer.
pub async fn log(State(app): State<Arc<App>>, mut request: Request<Body>, next: Next) -> Response {
    let started = Instant::now();
    let id = given_id(&request).unwrap_or_else(new_id);
    request.extensions_mut().insert(Id(id.clone()));
    app.metrics.began();
    let mut awaited = Awaited(Some(Line {
        metrics: Arc::clone(&app.metrics),
        id: id.clone(),
        client: client(&app, &request),
        method: request.method().to_string(),
        target: request.uri().path().to_owned(),
        status: None,
        answered: None,
        started,
    }));
    let mut response = next.run(request).await;
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let mut line = awaited.0.take();
    if let Some(line) = &mut line {
        line.status = Some(response.status());
        line.answered = response.extensions_mut().remove::<Answered>();
    }
    response.map(|body| Body::new(Logged { body, sent: 0, whole: false, line }))
}

/// Who asked; none where the request did not come over a listener of ours.
fn client(app: &App, request: &Request<Body>) -> Option<Peer> {
    let way = request.extensions().get::<Way>()?;
    Some(forwarded::client(&app.site.trusted_proxies, way.peer, request.headers()))
}

/// A proxy's or a client's own id, if it is short and plain.
fn given_id(request: &Request<Body>) -> Option<String> {
    let id = request.headers().get(&REQUEST_ID)?.to_str().ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (!id.is_empty() && id.len() <= MAX_ID && id.bytes().all(plain)).then(|| id.to_owned())
}

/// Unique in this process and hard to mistake for one of another: its start and a count.
fn new_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static START: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let start = START.get_or_init(|| jiff::Timestamp::now().as_microsecond().unsigned_abs());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:08x}-{count:06x}", start & 0xffff_ffff)
}

#[derive(Debug)]
struct Line {
    metrics: Arc<Metrics>,
    id: String,
    client: Option<Peer>,
    method: String,
    target: String,
    /// None before there is an answer.
    status: Option<StatusCode>,
    answered: Option<Answered>,
    started: Instant,
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
enum End {
    Whole,
    BrokenOff,
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
            (Self::Whole, outcome) => outcome,
        }
    }
}

impl Line {
    fn write(self, bytes: u64, end: End) {
        let Self { metrics, id, client, method, target, status, answered, started } = &self;
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
        let target = (path.is_none() || !matches!(end, End::Whole)).then_some(target.as_str());
        let status = status.map(|status| status.as_u16());
        let client = client.map(tracing::field::display);
        macro_rules! line {
            ($level:ident, $text:literal) => {
                $level!(
                    target: "access", request_id = id, client, method, status, kind, module.path = path,
                    module.version = version, url.path = target, outcome, source, bytes,
                    duration_ms, $text
                )
            };
        }
        match end {
            End::Whole => line!(info, "answered"),
            End::BrokenOff => line!(warn, "the client left, or the answer broke off"),
            End::Unanswered => line!(info, "the client left before the answer"),
        }
    }
}

/// The line of a request that has no answer yet. When its client leaves, hyper drops it with everything that worked on
/// the answer.
#[derive(Debug)]
struct Awaited(Option<Line>);

impl Drop for Awaited {
    fn drop(&mut self) {
        if let Some(line) = self.0.take() {
            line.write(0, End::Unanswered);
        }
    }
}

/// Counts what is sent, and writes the line when it ends.
#[derive(Debug)]
struct Logged {
    body: Body,
    sent: u64,
    whole: bool,
    line: Option<Line>,
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
            Some(Err(_)) => self.whole = false,
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
            line.write(self.sent, if whole { End::Whole } else { End::BrokenOff });
        }
    }
}
