//! How many fetches may be under way at one source: a source that hangs takes its own places and nobody else's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stoa_module::ErrorClass;
use stoa_upstream::journey::{self, Leg};
use stoa_upstream::{Client, Failure, Source, Stage, Use};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One semaphore for each host of the configuration; there are few.
#[derive(Debug)]
pub(crate) struct Permits {
    each: usize,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// When to come back to a source whose places are all taken.
const COME_BACK: Duration = Duration::from_secs(5);

impl Permits {
    pub(crate) fn new(each: usize) -> Self {
        Self { each, hosts: Mutex::new(HashMap::new()) }
    }

    /// Waits for a place at the source, at most as long as its answer might take, and no longer than the source is worth
    /// asking for that path. Repositories are not one host, and have places of their own: none is needed for them here.
    pub(crate) async fn place(
        &self,
        client: &Client,
        source: &Source,
        path: &str,
        patience: Duration,
    ) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        if matches!(source, Source::Direct) {
            return Ok(None);
        }
        let places = {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            let of = hosts.entry(source.host().to_owned());
            Arc::clone(of.or_insert_with(|| Arc::new(Semaphore::new(self.each))))
        };
        journey::enter(Leg::Place);
        let placed = tokio::time::timeout(patience, places.acquire_owned());
        let placed = tokio::select! {
            biased;
            failure = client.refusing(source, Use::Modules, path) => return Err(failure),
            placed = placed => placed,
        };
        match placed {
            Ok(Ok(place)) => Ok(Some(place)),
            Ok(Err(_)) | Err(_) => Err(Failure {
                retry_after: Some(COME_BACK),
                tries: 0,
                ..Failure::new(
                    ErrorClass::Unavailable,
                    Stage::Local,
                    source,
                    format!("place: {} fetches from it are under way already", self.each),
                )
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_source_leaves_the_others_alone() {
        let source = |url: &str| Source::from_url(&url::Url::parse(url).unwrap()).unwrap();
        let client = Client::new(stoa_upstream::Settings::default()).unwrap();
        let permits = Permits::new(1);
        let (slow, fast) = (source("http://slow.example.com"), source("http://fast.example.com"));
        let held = permits.place(&client, &slow, "m/@v/list", Duration::ZERO).await.unwrap();
        let refused = permits.place(&client, &slow, "m/@v/list", Duration::ZERO).await.unwrap_err();
        assert_eq!(refused.class, ErrorClass::Unavailable);
        assert!(refused.retry_after.is_some());
        let _other = permits.place(&client, &fast, "m/@v/list", Duration::ZERO).await.unwrap();
        drop(held);
        let _again = permits.place(&client, &slow, "m/@v/list", Duration::ZERO).await.unwrap();
    }
}
