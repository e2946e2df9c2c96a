//! The server's own pages: alive, ready, version, robots, and one for people.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode, header};
use serde::Serialize;
use url::Url;

use crate::http::{App, Site, forwarded};

const TEXT: &str = "text/plain; charset=utf-8";

fn page(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, body).into_response()
}

/// Who asks: what may be shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum View {
    /// At `server.admin-listen` and over the command socket.
    All,
    /// Where modules are served: anybody, so nothing of private modules.
    Public,
}

/// Of a source's address or name: `https://host`, `host`, `file`; what is behind the host may be a secret.
pub fn host_of(source: &str) -> String {
    if source.starts_with("file:") {
        return "file".to_owned();
    }
    let (scheme, rest) =
        source.split_once("://").map_or(("", source), |(scheme, rest)| (scheme, rest));
    let host = rest.split('/').next().unwrap_or_default();
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
}

/// As text for people, or as JSON for those who ask for it by `?format=json` or `Accept`.
pub fn as_wanted<T: Serialize>(
    request: &Request<Body>,
    shown: &T,
    text: impl FnOnce() -> String,
) -> Response {
    let mut pairs = request.uri().query().unwrap_or_default().split('&');
    let format = pairs.find_map(|pair| pair.strip_prefix("format="));
    let accepts = || {
        let values = request.headers().get_all(header::ACCEPT).iter();
        values.filter_map(|value| value.to_str().ok()).any(|it| it.contains("application/json"))
    };
    if format.map_or_else(accepts, |format| format == "json") {
        let json = serde_json::to_string_pretty(shown).unwrap_or_default();
        page(StatusCode::OK, "application/json", json + "\n")
    } else {
        page(StatusCode::OK, TEXT, text())
    }
}

/// To the millisecond.
pub fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1e3
}

/// The process runs and answers.
pub async fn healthz() -> Response {
    page(StatusCode::OK, TEXT, "ok\n".to_owned())
}

/// It can serve: the disk takes writes and the index answers. Upstreams are not asked: a server whose upstream is down
/// still serves what it has, and must not be taken out of service for it. One that is offline has nothing to write.
pub async fn readyz(State(app): State<Arc<App>>) -> Response {
    let store = app.mirror.store();
    if app.offline && store.trouble().is_some() {
        let text = "ready: offline, and what is stored can be read; nothing can be written\n";
        return page(StatusCode::OK, TEXT, text.to_owned());
    }
    let (disk, index) = tokio::join!(store.check_writable(), store.check_index());
    let mut faults = String::new();
    for (part, outcome) in [("disk", disk), ("index", index)] {
        if let Err(error) = outcome {
            let _ = writeln!(faults, "{part}: {error}");
        }
    }
    if faults.is_empty() {
        page(StatusCode::OK, TEXT, "ready\n".to_owned())
    } else {
        page(StatusCode::SERVICE_UNAVAILABLE, TEXT, faults)
    }
}

pub async fn version() -> Response {
    page(StatusCode::OK, TEXT, format!("stoa {}\n", env!("CARGO_PKG_VERSION")))
}

pub async fn robots() -> Response {
    page(StatusCode::OK, TEXT, "User-agent: *\nDisallow: /\n".to_owned())
}

/// What this is, and the line to paste.
pub async fn home(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let base = goproxy_url(&app, &request);
    home_with(&app, &base).await
}

/// The same at `server.admin-listen`.
pub async fn home_at_admin(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let base = goproxy_url_from_admin(&app, &request);
    home_with(&app, &base).await
}

async fn home_with(app: &App, base: &str) -> Response {
    let stored = match app.mirror.store().counts().await {
        Ok(counts) => format!(
            "Stored: {} of {}, {}.",
            count(counts.versions, "version"),
            count(counts.modules, "module"),
            size(counts.bytes)
        ),
        Err(_) => {
            "The index cannot be read at the moment; modules are served all the same.".to_owned()
        }
    };
    let database = app.mirror.database().map_or_else(
        || "No checksum database is asked (GOSUMDB=off).".to_owned(),
        |database| {
            let when = if app.mirror.may_serve_unverified() {
                ", or after it where the database cannot be reached"
            } else {
                ""
            };
            format!(
                "Every module is compared with the checksum database {} before it is handed out{when}.",
                database.name()
            )
        },
    );
    let offline =
        if app.offline { "<p>This server is offline: it serves what is stored.</p>" } else { "" };
    let html = format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>stoa</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; padding: 0 1rem; }}
pre {{ padding: .8rem 1rem; border: 1px solid #8886; border-radius: .4rem; overflow-x: auto; }}
footer {{ color: #888; font-size: .85rem; margin-top: 3rem; }}
</style>
</head>
<body>
<h1>stoa</h1>
<p>A caching proxy for Go modules. To build through it:</p>
<pre>go env -w GOPROXY={base}</pre>
<p>Or for one shell:</p>
<pre>export GOPROXY={base}</pre>
{offline}<p>{database} {stored}</p>
<footer>stoa {version}</footer>
</body>
</html>
"#,
        version = env!("CARGO_PKG_VERSION"),
    );
    page(StatusCode::OK, "text/html; charset=utf-8", html)
}

/// The protocol's URL for whoever asks at its own listener.
pub(crate) fn goproxy_url(app: &App, request: &Request<Body>) -> String {
    let Site { path_prefix, trusted_proxies, .. } = &app.site;
    format!("{}{path_prefix}", forwarded::origin(trusted_proxies, request, &otherwise(&app.site)))
}

/// The protocol's URL for whoever asks at `server.admin-listen`: the same machine, another port.
pub(crate) fn goproxy_url_from_admin(app: &App, request: &Request<Body>) -> String {
    let Site { address, tls, path_prefix, trusted_proxies, .. } = &app.site;
    let origin = forwarded::origin(trusted_proxies, request, &otherwise(&app.site));
    let host = Url::parse(&origin).ok().and_then(|url| url.host_str().map(str::to_owned));
    let host = host.unwrap_or_else(|| "localhost".to_owned());
    let port = address.map(|address| format!(":{}", address.port())).unwrap_or_default();
    format!("{}://{host}{port}{path_prefix}", if *tls { "https" } else { "http" })
}

/// The host for those who name none.
fn otherwise(site: &Site) -> String {
    site.address.map_or_else(|| "localhost".to_owned(), |address| address.to_string())
}

/// For people: "1 module", "2 modules".
fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// For people: "1.5 GiB".
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (240 << 20, "240.0 MiB"),
            (1 << 50, "1024.0 TiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }
}
