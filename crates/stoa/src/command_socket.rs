//! The command socket: how a second `stoa` on the same data directory speaks to the server that holds it.
//!
//! HTTP/1.1 over a unix socket in the data directory that only its owner may open. `GET /-/status`: who are you?
//! `POST /-/refresh`: look at a module anew. `POST /-/doctor`: examine the sources. `GET /-/inflight`: who waits for what;
//! `GET /-/explain/MODULE[@VERSION]`: why it is answered as it is; private modules included.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use stoa_upstream::BreakerStatus;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::http::pages::View;
use crate::http::{App, insight, pages};
use crate::server::{Listener, SocketFile};
use crate::{doctor, refresh};

/// Who holds a data directory.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Status {
    pub pid: u32,
    pub version: String,
    /// The URL of the protocol, or `unix:/path`.
    pub listening_on: String,
    pub started: jiff::Timestamp,
    pub offline: bool,
    /// Times the checksum database contradicted itself since the start.
    pub security_errors: u64,
    /// Stored files that wait for the checksum database; none while they cannot be counted.
    pub unverified: Option<u64>,
    /// Every upstream that was asked so far, apart for modules and for the checksum database.
    #[serde(default)]
    pub upstreams: Vec<Upstream>,
}

/// Whether an upstream is asked, and why not.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Upstream {
    /// `host`, or `host:port`.
    pub host: String,
    /// `modules` or `database`.
    pub used_for: String,
    /// `closed`, `open` or `half-open`.
    pub breaker: String,
    pub reason: Option<String>,
    pub since: Option<jiff::Timestamp>,
    /// Absent also when the next request is the probe.
    pub next_probe: Option<jiff::Timestamp>,
}

impl From<BreakerStatus> for Upstream {
    fn from(status: BreakerStatus) -> Self {
        Self {
            host: status.host,
            used_for: status.used_for.as_str().to_owned(),
            breaker: status.state.as_str().to_owned(),
            reason: status.reason,
            since: status.since,
            next_probe: status.next_probe,
        }
    }
}

/// What the socket answers.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/-/status", get(status))
        .route(
            "/-/doctor",
            post(doctor::command::doctor).layer(DefaultBodyLimit::max(MAX_QUESTION)),
        )
        .route("/-/refresh", post(refresh::refresh).layer(DefaultBodyLimit::max(MAX_QUESTION)))
        .route("/healthz", get(pages::healthz))
        .route("/readyz", get(pages::readyz))
        .merge(insight(View::All))
        .with_state(app)
}

async fn status(State(app): State<Arc<App>>) -> Json<Status> {
    Json(Status {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        listening_on: app.site.url.clone(),
        started: app.started,
        offline: app.offline,
        security_errors: app.mirror.database().map_or(0, stoa_core::Database::security_errors),
        unverified: app.mirror.store().counts().await.ok().map(|counts| counts.unverified),
        upstreams: app.mirror.client().breakers().into_iter().map(Upstream::from).collect(),
    })
}

/// Binds the socket of a data directory whose lock we hold, so that whatever lies there is a leftover.
pub fn bind(path: &Path) -> io::Result<Listener> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    let file = SocketFile::new(path);
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Listener::Unix(Some(file), listener))
}

/// How long an answer may take: whoever asks is a person or a health check.
const PATIENCE: Duration = Duration::from_secs(5);
/// Enough for a full page of those who wait.
const MAX_ANSWER: u64 = 4 << 20;
/// The longest body of a request; it names one module.
const MAX_QUESTION: usize = 16 << 10;

/// Asks the server behind the socket who it is.
pub async fn ask_status(path: &Path) -> io::Result<Status> {
    let (code, body) = get_over(path, "/-/status").await?;
    if code != 200 {
        return Err(io::Error::other(format!("the command socket answered {code}")));
    }
    serde_json::from_str(&body).map_err(io::Error::other)
}

/// One `GET` over the socket: status and body.
pub async fn get_over(path: &Path, target: &str) -> io::Result<(u16, String)> {
    exchange(path, &format!("GET {target} HTTP/1.1\r\n"), "", PATIENCE).await
}

/// One `POST` of a JSON text over the socket, whose answer may take so long: status and body.
pub(crate) async fn post_over(
    path: &Path,
    target: &str,
    json: &str,
    patience: Duration,
) -> io::Result<(u16, String)> {
    let length = json.len();
    let head = format!(
        "POST {target} HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n"
    );
    exchange(path, &head, json, patience).await
}

async fn exchange(
    path: &Path,
    head: &str,
    body: &str,
    patience: Duration,
) -> io::Result<(u16, String)> {
    let exchanged = async {
        let mut stream = UnixStream::connect(path).await?;
        let request = format!("{head}host: stoa\r\nconnection: close\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await?;
        read_answer(stream).await
    };
    let late = format!("no answer within {} s", patience.as_secs());
    tokio::time::timeout(patience, exchanged)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, late))?
}

/// Status and body of an answer that ends with its connection.
pub(crate) async fn read_answer(
    stream: impl tokio::io::AsyncRead + Unpin,
) -> io::Result<(u16, String)> {
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer).await?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let code =
        head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).ok_or_else(malformed)?;
    let code = code.parse().map_err(|_| malformed())?;
    Ok((code, body.to_owned()))
}
