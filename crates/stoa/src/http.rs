//! What the server says over HTTP: the module mirror protocol, and a few pages of its own, beside it or at a listener of
//! their own.
//!
//! Only this room knows status codes; [`error_text`] holds the one table from error class to status.

pub mod access_log;
pub mod answer;
pub mod door;
pub mod error_text;
pub mod explain;
pub mod file_body;
pub mod forwarded;
pub mod growing_body;
pub mod inflight;
pub mod metrics;
pub mod pages;
pub mod payload;
pub mod ready;
pub mod timing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::middleware;
use axum::response::Response;
use axum::routing::any;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use stoa_core::{Error, Mirror, Wish};
use stoa_module::ErrorClass;
use tower::ServiceExt as _;
use tower_http::catch_panic::CatchPanicLayer;

use crate::config::{Config, TrustedProxies};
use crate::http::access_log::Asked;
use crate::http::door::Door;
use crate::http::metrics::Metrics;
use crate::http::pages::View;
use crate::http::ready::ReadyAnswers;

/// The header that carries the request id, inwards and outwards.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest `Via`, in bytes; that of a request through fifty proxies is shorter. It is the one header of a client that is
/// passed on, and longer than an upstream takes it would make that upstream fail for the client's choice of module.
const MAX_VIA: usize = 4 << 10;

/// What every request needs to know of the server.
#[derive(Debug)]
pub struct App {
    pub mirror: Mirror,
    /// Names this process in `Via`, so that a chain that leads back here is noticed.
    pub instance_id: String,
    /// Longest request target in bytes; a longer one is answered 414.
    pub max_request_line: usize,
    pub site: Site,
    pub offline: bool,
    /// For whoever examines it.
    pub config: Arc<Config>,
    pub started: jiff::Timestamp,
    pub metrics: Arc<Metrics>,
    pub ready: ReadyAnswers,
}

/// Where the server is found.
#[derive(Debug)]
pub struct Site {
    /// `http://127.0.0.1:3000/goproxy`, or `unix:/path` where there is no URL.
    pub url: String,
    /// Of the first of the protocol's listeners that is no unix socket.
    pub address: Option<SocketAddr>,
    /// The protocol's listeners speak TLS.
    pub tls: bool,
    /// The pages have a listener of their own.
    pub admin_apart: bool,
    /// Empty, or like `/goproxy`.
    pub path_prefix: String,
    pub trusted_proxies: TrustedProxies,
}

/// What the protocol's listeners answer: everything, or the protocol alone where the pages have a listener of their own.
///
/// With a path prefix all of it is below the prefix. `/healthz`, `/readyz` and `/robots.txt` are at the root besides:
/// those who ask for them (load balancers, the kubelet, crawlers) know no prefix.
pub fn door(app: Arc<App>) -> Door {
    let Site { admin_apart, path_prefix, .. } = &app.site;
    let pages = if *admin_apart {
        pages_elsewhere()
    } else {
        pages().merge(insight(View::Public)).route("/", any(pages::home))
    };
    let mut router = pages.route("/robots.txt", any(pages::robots)).fallback(any(protocol));
    if !path_prefix.is_empty() {
        let below: Router = router.with_state(Arc::clone(&app));
        let at_root = if *admin_apart { Router::new() } else { health() };
        router = at_root.route("/robots.txt", any(pages::robots)).fallback(any(
            async |State(app): State<Arc<App>>, request: Request<Body>| {
                below_prefix(&app, below, request).await
            },
        ));
    }
    Door::of_modules(layered(router, Arc::clone(&app)), app)
}

/// What `server.admin-listen` answers: everything that is not the protocol, at the root whatever the path prefix.
pub fn admin_door(app: Arc<App>) -> Door {
    let other = async |State(app): State<Arc<App>>, request: Request<Body>| {
        let hint = format!("set GOPROXY={}", pages::goproxy_url_from_admin(&app, &request));
        nothing_here("this address serves no modules", hint, &request)
    };
    let router = pages()
        .merge(insight(View::All))
        .route("/", any(pages::home_at_admin))
        .route("/robots.txt", any(pages::robots))
        .fallback(any(other));
    Door::of_pages(layered(router, Arc::clone(&app)), app)
}

/// What is answered, in cleartext, to those who speak no TLS where the server does.
pub fn cleartext_door(app: Arc<App>) -> Door {
    let refuse = async |State(app): State<Arc<App>>, request: Request<Body>| {
        let error = Error {
            class: ErrorClass::Invalid,
            message: "this address speaks TLS, and was asked without".to_owned(),
            failures: Vec::new(),
            hint: Some(format!("set GOPROXY={}", pages::goproxy_url(&app, &request))),
            retry_after: None,
        };
        let id = access_log::request_id(&request);
        error_text::respond_with(StatusCode::BAD_REQUEST, &error, &id, true)
    };
    let router = layered(Router::new().fallback(any(refuse)), Arc::clone(&app));
    Door::of_pages(router, app)
}

/// What is the same at every listener that has pages. Further names of ours are below `/-/`, which no module can be.
fn pages() -> Router<Arc<App>> {
    health().route("/version", any(pages::version)).route("/metrics", any(metrics::page))
}

/// What goes on inside.
pub fn insight(view: View) -> Router<Arc<App>> {
    let inflight = async move |State(app): State<Arc<App>>, request: Request<Body>| {
        inflight::page(&app, view, &request)
    };
    let explain = async move |State(app): State<Arc<App>>, subject, request: Request<Body>| {
        explain::page(&app, view, subject, request).await
    };
    let of_nothing = async move |State(app): State<Arc<App>>, request: Request<Body>| {
        explain::page(&app, view, Ok(Path(String::new())), request).await
    };
    Router::new()
        .route("/-/inflight", any(inflight))
        .route("/-/explain", any(of_nothing))
        .route("/-/explain/", any(of_nothing))
        .route("/-/explain/{*subject}", any(explain))
}

fn health() -> Router<Arc<App>> {
    Router::new().route("/healthz", any(pages::healthz)).route("/readyz", any(pages::readyz))
}

/// The same paths where the pages have a listener of their own.
fn pages_elsewhere() -> Router<Arc<App>> {
    let elsewhere = async |request: Request<Body>| {
        let hint = "server.admin-listen says where".to_owned();
        nothing_here("this server's pages are at another address", hint, &request)
    };
    let mut router = Router::new();
    for path in ["/", "/healthz", "/readyz", "/version", "/metrics"] {
        router = router.route(path, any(elsewhere));
    }
    for path in ["/-/inflight", "/-/explain", "/-/explain/", "/-/explain/{*subject}"] {
        router = router.route(path, any(elsewhere));
    }
    router
}

fn layered(router: Router<Arc<App>>, app: Arc<App>) -> Router {
    router
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard))
        .layer(CatchPanicLayer::custom(error_text::panicked))
        .with_state(app)
}

/// Answers what is below the path prefix as if it were at the root.
async fn below_prefix(app: &App, below: Router, mut request: Request<Body>) -> Response {
    let Some(uri) = without_prefix(request.uri(), &app.site.path_prefix) else {
        let text = format!("everything of this server is below {}", app.site.path_prefix);
        let hint = format!("set GOPROXY={}", pages::goproxy_url(app, &request));
        return nothing_here(&text, hint, &request);
    };
    *request.uri_mut() = uri;
    match below.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The prefix itself is the root below it.
fn without_prefix(uri: &Uri, prefix: &str) -> Option<Uri> {
    let rest = uri.path_and_query()?.as_str().strip_prefix(prefix)?;
    let rest: PathAndQuery = match rest.chars().next() {
        Some('/') => rest.parse().ok()?,
        None | Some('?') => format!("/{rest}").parse().ok()?,
        Some(_) => return None,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(rest);
    Uri::from_parts(parts).ok()
}

fn nothing_here(why: &str, hint: String, request: &Request<Body>) -> Response {
    let error = Error {
        class: ErrorClass::Invalid,
        message: format!("not found: {why}"),
        failures: Vec::new(),
        hint: Some(hint),
        retry_after: None,
    };
    error_text::respond(&error, &access_log::request_id(request), true)
}

/// What is refused before anything looks at the path.
async fn guard(
    State(app): State<Arc<App>>,
    request: Request<Body>,
    next: middleware::Next,
) -> Response {
    let id = access_log::request_id(&request);
    let refuse = |status, class, text: &str| {
        let error = Error {
            class,
            message: text.to_owned(),
            failures: Vec::new(),
            hint: None,
            retry_after: None,
        };
        error_text::respond_with(status, &error, &id, true)
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let text = format!("{}: this server answers GET and HEAD only", request.method());
        let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, ErrorClass::Invalid, &text);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > app.max_request_line {
        let text = format!("a request target of {target} bytes is too long");
        return refuse(StatusCode::URI_TOO_LONG, ErrorClass::Invalid, &text);
    }
    next.run(request).await
}

/// `GET $base/M/@v/…`, `$base/M/@latest`, `$base/sumdb/…`.
async fn protocol(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let id = access_log::request_id(&request);
    let parsed = match stoa_module::Request::parse(request.uri().path()) {
        Ok(parsed) => parsed,
        Err(error) => {
            let error = Error {
                class: ErrorClass::Invalid,
                message: format!("not found: {error}"),
                failures: Vec::new(),
                hint: None,
                retry_after: None,
            };
            // Nobody knows whose it is: it may be a private module's name with a slip in it.
            return error_text::respond(&error, &id, true);
        }
    };
    let asked = Asked::of(&parsed);
    // The checksum database's files have module paths in their names, private ones when a client is set up wrongly.
    let private = parsed.path().is_none_or(|path| app.mirror.is_private(path));
    let via = via(request.headers());
    let mut timing = None;
    let error = if stoa_upstream::leads_back(&via, &app.instance_id) {
        leads_back().into()
    } else if via.len() > MAX_VIA {
        too_far().into()
    } else {
        let wish = Wish {
            via: &via,
            fresh: wants_fresh(request.headers()),
            as_it_comes: growing_body::suits(&request),
        };
        let trusted = &app.site.trusted_proxies;
        let asker = app
            .mirror
            .has_toll()
            .then(|| forwarded::asker(trusted, request.extensions().get(), request.headers()));
        let answered;
        (answered, timing) = app.mirror.answer_to(&id, asker, &parsed, wish).await;
        match answered {
            Ok(answer) => {
                let mut response = answer::respond(&request, asked, answer);
                if let Some(timing) = &timing {
                    timing::tell(response.headers_mut(), timing);
                }
                return response;
            }
            Err(error) => error,
        }
    };
    let mut response = error_text::respond(&error, &id, private);
    let (asked, outcome) = (Some(Arc::new(asked)), error.class.as_str());
    response.extensions_mut().insert(access_log::Answered { asked, outcome, source: None });
    if let Some(timing) = &timing {
        timing::tell(response.headers_mut(), timing);
    }
    response
}

/// All `Via` headers as one list.
fn via(headers: &HeaderMap) -> String {
    let values: Vec<&str> =
        headers.get_all(header::VIA).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(", ")
}

/// Whether what is remembered will not do for this client: `Cache-Control` says `no-cache` or `max-age=0`, or, where
/// there is none, `Pragma` says `no-cache` (RFC 9111, 5.2.1 and 5.4).
fn wants_fresh(headers: &HeaderMap) -> bool {
    let words = |name| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).map(str::trim)
    };
    if headers.contains_key(header::CACHE_CONTROL) {
        words(header::CACHE_CONTROL).any(|word| {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let seconds = value.trim().trim_matches('"').parse::<u64>();
            name.eq_ignore_ascii_case("no-cache")
                || (name.trim().eq_ignore_ascii_case("max-age") && seconds == Ok(0))
        })
    } else {
        words(header::PRAGMA).any(|word| word.eq_ignore_ascii_case("no-cache"))
    }
}

/// Denied and not unavailable, because those between here and here would try again what can never work.
fn leads_back() -> Error {
    Error {
        class: ErrorClass::Denied,
        message: "loop: this request began at this very server and has come back to it".to_owned(),
        failures: Vec::new(),
        hint: Some(
            "an upstream of this server (upstream.goproxy, or a route) leads back to it".to_owned(),
        ),
        retry_after: None,
    }
}

/// Denied like a loop, which it may be.
fn too_far() -> Error {
    Error {
        class: ErrorClass::Denied,
        message: format!("refused: the Via of this request has more than {MAX_VIA} bytes"),
        failures: Vec::new(),
        hint: Some("it has come through too many proxies, or the client made it up".to_owned()),
        retry_after: None,
    }
}

/// `max-age` in whole seconds.
pub(crate) fn max_age(keep: Duration) -> String {
    format!("max-age={}", keep.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_a_fresh_look() {
        let check = |lines: &[(&'static str, &str)], expected: bool| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::try_from(*value).unwrap());
            }
            assert_eq!(wants_fresh(&headers), expected, "{lines:?}");
        };
        check(&[], false);
        check(&[("cache-control", "no-cache")], true);
        check(&[("cache-control", "No-Cache")], true);
        check(&[("cache-control", "no-store, no-cache")], true);
        check(&[("cache-control", "no-store"), ("cache-control", "max-age=0")], true);
        check(&[("cache-control", "max-age=\"0\"")], true);
        check(&[("cache-control", "max-age=00")], true);
        check(&[("cache-control", "max-age=10")], false);
        check(&[("cache-control", "max-age")], false);
        check(&[("cache-control", "max-stale=0")], false);
        check(&[("cache-control", "x-no-cache")], false);
        check(&[("pragma", "no-cache")], true);
        check(&[("pragma", "no-cache"), ("cache-control", "max-age=60")], false);
    }
}
