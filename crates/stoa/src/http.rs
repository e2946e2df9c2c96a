//! What the server says over HTTP: the module mirror protocol at the root, a few pages of its own beside it.
//!
//! Only this room knows status codes; [`error_text`] holds the one table from error class to status.

pub mod access_log;
pub mod answer;
pub mod error_text;
pub mod file_body;
pub mod metrics;
pub mod pages;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware;
use axum::response::Response;
use axum::routing::any;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use stoa_core::{Error, Mirror};
use stoa_module::ErrorClass;
use tower_http::catch_panic::CatchPanicLayer;

use crate::http::access_log::Asked;
use crate::http::metrics::Metrics;

/// The header that carries the request id, inwards and outwards.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What every request needs to know of the server.
#[derive(Debug)]
pub struct App {
    pub mirror: Mirror,
    /// Names this process in `Via`, so that a chain that leads back here is noticed.
    pub instance_id: String,
    /// Longest request target in bytes; a longer one is answered 414.
    pub max_request_line: usize,
    /// Where the server listens, for the page and the status.
    pub listening_on: String,
    pub offline: bool,
    pub started: jiff::Timestamp,
    pub metrics: Arc<Metrics>,
}

/// The whole service.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", any(pages::home))
        .route("/healthz", any(pages::healthz))
        .route("/readyz", any(pages::readyz))
        .route("/version", any(pages::version))
        .route("/metrics", any(metrics::page))
        .route("/robots.txt", any(pages::robots))
        .fallback(any(protocol))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard))
        .layer(CatchPanicLayer::custom(error_text::panicked))
        .layer(middleware::from_fn_with_state(Arc::clone(&app.metrics), access_log::log))
        .with_state(app)
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
    let mut outcome = "ok";
    let mut response = if stoa_upstream::leads_back(&via, &app.instance_id) {
        outcome = ErrorClass::Denied.as_str();
        error_text::respond(&leads_back(), &id, private)
    } else {
        match app.mirror.answer(&parsed, &via).await {
            Ok(answer) => {
                let mut response = answer::respond(&request, answer);
                if let Some(log) = response.extensions_mut().get_mut::<access_log::Answered>() {
                    log.asked = Some(asked.clone());
                }
                response
            }
            Err(error) => {
                outcome = error.class.as_str();
                error_text::respond(&error, &id, private)
            }
        }
    };
    if response.extensions().get::<access_log::Answered>().is_none() {
        response.extensions_mut().insert(access_log::Answered {
            asked: Some(asked),
            outcome,
            source: None,
        });
    }
    response
}

/// All `Via` headers as one list.
fn via(headers: &HeaderMap) -> String {
    let values: Vec<&str> =
        headers.get_all(header::VIA).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(", ")
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

/// `max-age` in whole seconds.
pub(crate) fn max_age(keep: Duration) -> String {
    format!("max-age={}", keep.as_secs())
}
