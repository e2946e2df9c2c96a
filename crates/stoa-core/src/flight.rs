//! Flights: N who want the same cold thing cause one piece of work.
//!
//! The leader is a task of the server, so a client that leaves cancels nothing that another waits for, and a fetch
//! that is nearly done is finished. A leader that panics leaves its followers an error, not a wait without end.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tracing::Instrument as _;

/// The work in the air, by key. `T` is what every follower gets a clone of.
pub(crate) struct Flights<K, T> {
    flying: Mutex<HashMap<K, watch::Receiver<Option<T>>>>,
}

/// The leader ended without an answer.
#[derive(Debug)]
pub(crate) struct Lost;

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { flying: Mutex::new(HashMap::new()) })
    }

    /// Waits for the flight of `key`, and starts it with `work` when it is not in the air.
    pub(crate) async fn join<W, F>(self: &Arc<Self>, key: K, work: W) -> Result<T, Lost>
    where
        W: FnOnce() -> F,
        F: Future<Output = T> + Send + 'static,
    {
        let mut landing = {
            let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(landing) = flying.get(&key) {
                landing.clone()
            } else {
                let (land, landing) = watch::channel(None);
                flying.insert(key.clone(), landing.clone());
                let work = work();
                let slot = Slot { flights: Arc::clone(self), key };
                tokio::spawn(
                    async move {
                        // Dropped last, also by a panic: the key is free again only when there is an answer or none
                        // will come.
                        let _slot = slot;
                        land.send_replace(Some(work.await));
                    }
                    .in_current_span(),
                );
                landing
            }
        };
        let landed = landing.wait_for(Option::is_some).await.map_err(|_| Lost)?;
        landed.clone().ok_or(Lost)
    }
}

impl<K, T> fmt::Debug for Flights<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}

struct Slot<K: Eq + Hash, T> {
    flights: Arc<Flights<K, T>>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Slot<K, T> {
    fn drop(&mut self) {
        let mut flying = self.flights.flying.lock().unwrap_or_else(PoisonError::into_inner);
        flying.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn many_who_ask_cause_one_piece_of_work() {
        let flights = Flights::new();
        let (count, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let mut waiting = Vec::new();
        for _ in 0..64 {
            let (flights, count, gate) =
                (Arc::clone(&flights), Arc::clone(&count), Arc::clone(&gate));
            waiting.push(tokio::spawn(async move {
                flights
                    .join("key", || async move {
                        gate.notified().await;
                        count.fetch_add(1, Ordering::SeqCst)
                    })
                    .await
                    .unwrap()
            }));
        }
        tokio::task::yield_now().await;
        gate.notify_one();
        for one in waiting {
            assert_eq!(one.await.unwrap(), 0);
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
        // The key is free again afterwards.
        assert_eq!(flights.join("key", || async { 7 }).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_flight_survives_the_one_who_began_it() {
        let flights = Flights::new();
        let gate = Arc::new(Notify::new());
        let first = {
            let (flights, gate) = (Arc::clone(&flights), Arc::clone(&gate));
            tokio::spawn(async move {
                flights
                    .join(1, || async move {
                        gate.notified().await;
                        "done"
                    })
                    .await
            })
        };
        tokio::task::yield_now().await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        gate.notify_one();
        let second = flights.join(1, || async { "begun again" }).await.unwrap();
        assert_eq!(second, "done");
    }

    #[tokio::test]
    async fn a_leader_that_panics_frees_its_followers_and_its_key() {
        let flights: Arc<Flights<u8, u8>> = Flights::new();
        let outcome = flights.join(1, || async { panic!("on purpose") }).await;
        assert!(outcome.is_err());
        assert_eq!(flights.join(1, || async { 2 }).await.unwrap(), 2);
    }
}
