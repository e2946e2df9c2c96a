//! The way in of every request: the answers that are ready, else the router; and the line for the log around both.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use tower::ServiceExt as _;

use crate::http::App;
use crate::http::access_log::{Answered, Line, Logged};
use crate::http::payload::Payload;
use crate::http::ready::Ready;
use crate::server::Way;
use crate::server::zero_copy::Outbox;

/// What a listener answers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Door {
    router: Router,
    /// For the log and the answers that are ready; none where nothing is logged.
    app: Option<Arc<App>>,
    serves_modules: bool,
}

impl Door {
    /// Of a listener that serves modules.
    pub fn of_modules(router: Router, app: Arc<App>) -> Self {
        Self { router, app: Some(app), serves_modules: true }
    }

    /// Of one that does not.
    pub fn of_pages(router: Router, app: Arc<App>) -> Self {
        Self { router, app: Some(app), serves_modules: false }
    }

    /// Of what is not worth a line in the log.
    pub fn unlogged(router: Router) -> Self {
        Self { router, app: None, serves_modules: false }
    }

    /// `outbox`: of the connection, if it can send files by itself.
    pub async fn answer(
        &self,
        mut request: Request<Incoming>,
        way: Way,
        outbox: Option<&Outbox>,
    ) -> Response<Logged> {
        let Some(app) = &self.app else {
            request.extensions_mut().insert(way);
            return self.route(request).await.map(Logged::unlogged);
        };
        let line = Line::begin(app, &request, way);
        if self.serves_modules
            && let Some(ready) = app.ready.find(&app.mirror, &request)
            && let Some(response) = ready.respond(outbox)
        {
            return line.answer(response, Some(ready.answered.clone()));
        }
        line.name(&mut request);
        request.extensions_mut().insert(way);
        let mut response = self.route(request).await;
        if let Some(ready) = response.extensions_mut().remove::<Arc<Ready>>() {
            app.ready.keep(line.path(), ready);
        }
        let answered = response.extensions_mut().remove::<Answered>();
        line.answer(response, answered)
    }

    async fn route(&self, request: Request<Incoming>) -> Response<Payload> {
        match self.router.clone().oneshot(request.map(Body::new)).await {
            Ok(response) => response.map(Payload::Other),
            Err(never) => match never {},
        }
    }
}
