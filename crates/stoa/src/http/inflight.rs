//! `/-/inflight`: who waits, since when, and on which stage of which source.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::response::Response;
use http::Request;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stoa_core::Wait;
use stoa_upstream::journey::{Leg, Stand};

use crate::http::App;
use crate::http::pages::{self, View};

/// What one page has. Those who wait longest come first.
const MOST: usize = 500;

/// Characters of what is asked for.
const MAX_ASKED: usize = 500;

/// Takes the place of what is not for whoever asks.
const PRIVATE: &str = "(private)";

/// What `?format=json` answers. New fields may come; these stay.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct InFlight {
    pub at: Timestamp,
    /// That wait for a flight. What is served from the store waits for none.
    pub requests: usize,
    /// Pieces of work that any number of requests wait for, or none.
    pub flights: usize,
    /// At most 500, the oldest first.
    pub waits: Vec<Waiting>,
    pub left_out: usize,
}

/// A request, or a flight.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Waiting {
    /// `request`, or of a flight `file`, `answer` (a list, `@latest`, a branch), `verification`, `record` (of the checksum
    /// database), `tree`, `tile` or `read` (a tile for a proof).
    pub kind: String,
    /// `ex.com/m@v1.0.0 .zip`; `(private)` where the name is not for whoever asks.
    pub asked: String,
    pub private: bool,
    /// Of a request, as in the access log.
    pub request_id: Option<String>,
    pub since: Timestamp,
    pub seconds: f64,
    /// What it waits for now; several if several sources are asked at once.
    pub stages: Vec<Stage>,
}

/// Where somebody waits.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Stage {
    /// `disk`, `place`, `breaker`, `dns`, `connect`, `http`, `body`, `pause`, `git`, `lookup`, `verify` or `commit`.
    pub stage: String,
    /// None of this machine's own stages; `(private)` where it is not for whoever asks.
    pub source: Option<String>,
    /// At this stage.
    pub seconds: f64,
    /// The command of git, the host of a page, the stage of a look-up.
    pub detail: Option<String>,
    /// Bytes of a body, and of how many if that is known.
    pub received: Option<u64>,
    pub length: Option<u64>,
    /// All of it in words.
    pub text: String,
}

/// The page.
pub fn page(app: &Arc<App>, view: View, request: &Request<Body>) -> Response {
    let waits = app.mirror.who_waits(MOST);
    let now = (Timestamp::now(), Instant::now());
    let rows: Vec<_> = waits.rows.iter().map(|wait| waiting(wait, view, now)).collect();
    let shown = InFlight {
        at: now.0,
        requests: waits.requests,
        flights: waits.flights,
        left_out: waits.requests + waits.flights - rows.len(),
        waits: rows,
    };
    pages::as_wanted(request, &shown, || text(&shown))
}

fn waiting(wait: &Wait, view: View, (at, now): (Timestamp, Instant)) -> Waiting {
    let is_hidden = wait.is_private && view == View::Public;
    let age = now.saturating_duration_since(wait.since);
    let stages = wait.stands.iter().map(|stand| stage(stand, is_hidden, view, now));
    Waiting {
        kind: if wait.request_id.is_some() { "request" } else { wait.kind }.to_owned(),
        asked: if is_hidden { PRIVATE } else { &wait.asked }.chars().take(MAX_ASKED).collect(),
        private: wait.is_private,
        // It is the client's to choose.
        request_id: wait.request_id.as_deref().filter(|_| !is_hidden).map(str::to_owned),
        since: at.checked_sub(age).unwrap_or(at),
        seconds: pages::seconds(age),
        stages: stages.collect(),
    }
}

fn stage(stand: &Stand, is_hidden: bool, view: View, now: Instant) -> Stage {
    let mut stand = stand.clone();
    if view == View::Public {
        stand.source = stand.source.map(|source| match source.rsplit_once(" through ") {
            Some((database, name)) => format!("{database} through {}", pages::host_of(name)).into(),
            None => pages::host_of(&source).into(),
        });
    }
    if is_hidden {
        stand.source = stand.source.map(|_| PRIVATE.into());
        stand.detail = stand.detail.filter(|_| stand.leg == Leg::Git);
    }
    let is_body = stand.leg == Leg::Body;
    Stage {
        stage: stand.leg.to_string(),
        source: stand.source.as_deref().map(str::to_owned),
        seconds: pages::seconds(now.saturating_duration_since(stand.since)),
        text: stand.to_string(),
        received: (is_body && !is_hidden).then_some(stand.received),
        length: stand.length.filter(|_| !is_hidden),
        detail: stand.detail,
    }
}

/// For people: a line for each.
fn text(shown: &InFlight) -> String {
    let mut text = match (shown.requests, shown.flights) {
        (0, 0) => return "nobody waits\n".to_owned(),
        (requests, flights) => format!("waiting requests: {requests}, flights: {flights}\n\n"),
    };
    let width =
        shown.waits.iter().map(|wait| wait.asked.chars().count()).max().unwrap_or(0).min(80);
    for Waiting { kind, asked, request_id, seconds, stages, .. } in &shown.waits {
        let stages: Vec<_> =
            stages.iter().map(|stage| format!("{:.1} s: {}", stage.seconds, stage.text)).collect();
        let _ =
            write!(text, "{seconds:>8.1} s  {kind:<12}  {asked:<width$}  {}", stages.join("; "));
        if let Some(id) = request_id {
            let _ = write!(text, "  (request {id})");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    if shown.left_out > 0 {
        let _ = writeln!(text, "… and {} more", shown.left_out);
    }
    text
}
