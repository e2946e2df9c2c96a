//! `GET /metrics`, for Prometheus: what was asked of this server and how it was answered, counted here as it happens;
//! and what the other rooms know of themselves, read when somebody asks.
//!
//! Every label has few values: kinds, outcomes and classes are words of this program, hosts are those of the settings.
//! No module path, no version and no client is ever one.

mod scrape;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::http::App;
use crate::http::metrics::scrape::Snapshot;

/// From a hit in memory to a zip that takes its time, in seconds.
const DURATIONS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0];

type Kind = [(&'static str, &'static str); 1];
type KindAndOutcome = [(&'static str, &'static str); 2];
type Durations = Family<KindAndOutcome, Histogram, fn() -> Histogram>;

/// What is counted of requests, in the memory of this process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<KindAndOutcome, Counter>,
    bytes: Family<Kind, Counter>,
    durations: Durations,
    in_progress: Gauge,
    /// Of hits, by the place of their kind in [`KINDS`]: looking them up by their labels is a good part of a hit's time.
    hits: [OnceLock<Counted>; KINDS.len()],
}

/// What requests can be for.
const KINDS: [&str; 7] = ["zip", "mod", "info", "sumdb", "list", "latest", "query"];

/// The counters of one kind and outcome.
#[derive(Clone, Debug)]
struct Counted {
    requests: Counter,
    bytes: Counter,
    durations: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("stoa");
        let requests = Family::default();
        registry.register(
            "requests",
            "Requests that ended, by what was asked and how it was answered",
            requests.clone(),
        );
        let bytes = Family::default();
        registry.register_with_unit(
            "sent",
            "Bytes of bodies sent to clients",
            Unit::Bytes,
            bytes.clone(),
        );
        let durations = Durations::new_with_constructor(|| Histogram::new(DURATIONS));
        registry.register_with_unit(
            "request_duration",
            "From a request's head to the last byte of its answer",
            Unit::Seconds,
            durations.clone(),
        );
        let in_progress = Gauge::default();
        registry.register(
            "requests_in_progress",
            "Requests whose answer is not sent yet",
            in_progress.clone(),
        );
        let hits = [const { OnceLock::new() }; KINDS.len()];
        Self { registry, requests, bytes, durations, in_progress, hits }
    }
}

impl Metrics {
    /// A request has come.
    pub(crate) fn began(&self) {
        self.in_progress.inc();
    }

    /// Its answer was sent, or will not be. `kind` is "-" for what is not of the protocol; `bytes` are of the body.
    pub(crate) fn ended(
        &self,
        kind: &'static str,
        outcome: &'static str,
        bytes: u64,
        duration: Duration,
    ) {
        self.in_progress.dec();
        let place = KINDS.iter().position(|one| *one == kind).filter(|_| outcome == "hit");
        let counted = match place {
            Some(place) => self.hits[place].get_or_init(|| self.counted(kind, outcome)),
            None => &self.counted(kind, outcome),
        };
        counted.requests.inc();
        counted.bytes.inc_by(bytes);
        counted.durations.observe(duration.as_secs_f64());
    }

    fn counted(&self, kind: &'static str, outcome: &'static str) -> Counted {
        let kind = ("kind", if kind == "-" { "other" } else { kind });
        let labels = [kind, ("outcome", outcome)];
        Counted {
            requests: self.requests.get_or_create_owned(&labels),
            bytes: self.bytes.get_or_create_owned(&[kind]),
            durations: self.durations.get_or_create_owned(&labels),
        }
    }
}

/// The page: `OpenMetrics` to those who ask for it, and the older text format to others.
pub async fn page(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let mut other = Registry::default();
    other.register_collector(Box::new(Snapshot::take(&app).await));
    let mut text = String::new();
    let encoded =
        prometheus_client::encoding::text::encode_registry(&mut text, &app.metrics.registry)
            .and_then(|()| prometheus_client::encoding::text::encode(&mut text, &other));
    if encoded.is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let wants_open = headers
        .get_all(header::ACCEPT)
        .iter()
        .any(|accept| accept.to_str().is_ok_and(|a| a.contains("application/openmetrics-text")));
    let (content_type, text) = if wants_open {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", text)
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", older_format(&text))
    };
    ([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-store")], text)
        .into_response()
}

/// The same in Prometheus' text format 0.0.4: there the name of a counter ends with `_total` also where it is described,
/// and there are neither units nor an end.
fn older_format(open: &str) -> String {
    let mut counters = HashSet::new();
    for line in open.lines() {
        if let Some(name) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter"))
        {
            counters.insert(name);
        }
    }
    let mut text = String::with_capacity(open.len());
    for line in open.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("EOF" | "UNIT"), ..) => {}
            (Some("#"), Some(what), Some(name), Some(rest)) if counters.contains(name) => {
                let _ = writeln!(text, "# {what} {name}_total {rest}");
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}
