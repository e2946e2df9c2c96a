//! How far one request has come before its answer: noted where names are looked up and connections are made, for the text
//! of a bound that is reached, and for those who wait.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use reqwest::dns::{Name, Resolve, Resolving};
use tower::{Layer, Service};

use crate::failure::Stage;
use crate::journey::{self, Journey, Leg};

tokio::task_local! {
    /// Set around each request.
    static PROGRESS: Arc<Progress>;
}

#[derive(Debug)]
pub(crate) struct Progress {
    /// Of [`Stage::Dns`], [`Stage::Connect`] and [`Stage::Http`].
    stage: AtomicU8,
    journey: Option<Arc<Journey>>,
    /// Who is asked, where the journey's source does not say so.
    host: Option<String>,
}

impl Progress {
    pub(crate) fn begin(host: Option<&str>) -> Arc<Self> {
        let host = host.map(str::to_owned);
        let journey = journey::current();
        let progress = Self { stage: AtomicU8::new(0), journey, host };
        // Where a connection is kept, nothing comes before that.
        progress.enter(Stage::Http);
        Arc::new(progress)
    }

    pub(crate) async fn scope<F: Future>(self: &Arc<Self>, sending: F) -> F::Output {
        PROGRESS.scope(Arc::clone(self), sending).await
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            DNS => Stage::Dns,
            CONNECT => Stage::Connect,
            _ => Stage::Http,
        }
    }

    fn enter(&self, stage: Stage) {
        let (leg, number) = match stage {
            Stage::Dns => (Leg::Dns, DNS),
            Stage::Connect => (Leg::Connect, CONNECT),
            _ => (Leg::Http, HTTP),
        };
        self.stage.store(number, Ordering::Relaxed);
        if let Some(journey) = &self.journey {
            journey.enter(leg, self.host.as_deref());
        }
    }
}

const HTTP: u8 = 0;
const DNS: u8 = 1;
const CONNECT: u8 = 2;

/// A resolver whose look-ups are noted. They are part of making a connection.
pub(crate) struct Watched(pub(crate) Arc<dyn Resolve>);

impl Resolve for Watched {
    fn resolve(&self, name: Name) -> Resolving {
        let progress = PROGRESS.try_with(Arc::clone).ok();
        let resolving = self.0.resolve(name);
        Box::pin(async move {
            let note = |stage| {
                // A connection that nobody waits for any more is finished by another task.
                if let Some(progress) = progress.as_ref().filter(|progress| progress.is_present()) {
                    progress.enter(stage);
                }
            };
            note(Stage::Dns);
            let outcome = resolving.await;
            note(Stage::Connect);
            outcome
        })
    }
}

/// Has the making of connections noted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connections;

impl<S> Layer<S> for Connections {
    type Service = Connector<S>;

    fn layer(&self, inner: S) -> Connector<S> {
        Connector(inner)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Connector<S>(S);

impl<S, R> Service<R> for Connector<S>
where
    S: Service<R>,
    S::Future: Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Connecting<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Connecting<S::Future> {
        let progress = PROGRESS.try_with(Arc::clone).ok();
        if let Some(progress) = &progress {
            progress.enter(Stage::Connect);
        }
        Connecting { connecting: self.0.call(request), progress }
    }
}

pub(crate) struct Connecting<F> {
    connecting: F,
    progress: Option<Arc<Progress>>,
}

impl<F: Future + Unpin> Future for Connecting<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let polled = Pin::new(&mut self.connecting).poll(cx);
        // It is made, or has been left to another task because a connection of the pool became free.
        if let Some(progress) = &self.progress
            && (polled.is_ready() || !progress.is_present())
        {
            progress.enter(Stage::Http);
            self.progress = None;
        }
        polled
    }
}

impl Progress {
    /// Whether the present task is still this request's.
    fn is_present(self: &Arc<Self>) -> bool {
        PROGRESS.try_with(|present| Arc::ptr_eq(present, self)).unwrap_or(false)
    }
}
