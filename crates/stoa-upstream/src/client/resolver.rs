use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

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

/// Names looked up at once. A look-up cannot be cancelled and holds a thread until the system gives up, long after the
/// request did; without a bound a dead resolver would take every thread that files are opened on.
const LOOKUPS: usize = 16;

/// The system's resolver.
#[derive(Debug)]
pub(crate) struct SystemResolver {
    lookups: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self { lookups: Arc::new(Semaphore::new(LOOKUPS)) }
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let lookups = Arc::clone(&self.lookups);
        Box::pin(async move {
            let permit = lookups.acquire_owned().await?;
            let found = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                // The port is put in by the connector.
                (name.as_str(), 0).to_socket_addrs().map(Iterator::collect::<Vec<SocketAddr>>)
            });
            Ok(Box::new(found.await??.into_iter()) as Addrs)
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
