use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

tokio::task_local! {
    /// Set around each request, so that a bound that is reached can tell whether a name was still being looked up.
    pub(crate) static PROGRESS: Arc<Progress>;
}

#[derive(Debug, Default)]
pub(crate) struct Progress {
    resolving: AtomicBool,
}

impl Progress {
    pub(crate) fn is_resolving(&self) -> bool {
        self.resolving.load(Ordering::Relaxed)
    }
}

/// The system's resolver.
#[derive(Debug)]
pub(crate) struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is put in by the connector.
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Notes in [`PROGRESS`] when a name is being looked up.
pub(crate) struct Watched(pub(crate) Arc<dyn Resolve>);

impl Resolve for Watched {
    fn resolve(&self, name: Name) -> Resolving {
        let progress = PROGRESS.try_with(Arc::clone).ok();
        let resolving = self.0.resolve(name);
        Box::pin(async move {
            let note = |resolving| {
                if let Some(progress) = &progress {
                    progress.resolving.store(resolving, Ordering::Relaxed);
                }
            };
            note(true);
            let outcome = resolving.await;
            note(false);
            outcome
        })
    }
}
