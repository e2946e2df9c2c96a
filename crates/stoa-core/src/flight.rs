//! Flights: N who want the same cold thing cause one piece of work.
//!
//! The leader is a task of the server, so a client that leaves cancels nothing that another waits for, and a fetch
//! that is nearly done is finished. A leader that panics leaves its followers an error, not a wait without end.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tracing::Instrument as _;

use crate::toll;
use crate::waits::{Aloft, Flown};

/// The work in the air, by key. `T` is what every follower gets a clone of; `E`, what they may have of it before.
pub(crate) struct Flights<K, T, E = ()> {
    flying: Mutex<HashMap<K, Boarded<T, E>>>,
    most: usize,
}

/// A place on a flight.
#[derive(Clone)]
pub(crate) struct Boarded<T, E = ()> {
    aloft: Arc<Aloft>,
    news: watch::Receiver<News<T, E>>,
}

/// What is known of a flight.
#[derive(Clone)]
pub(crate) enum News<T, E> {
    Nothing,
    /// It brings this, and has not landed.
    OnTheWay(E),
    Landed(T),
}

/// The leader's voice, for as long as the flight is in the air.
pub(crate) struct Announcer<T, E>(Weak<watch::Sender<News<T, E>>>);

/// Flights of one kind in the air at once. Each costs some KiB, and one that waits for a dead source stays for a
/// minute, whether or not the client that began it is still there.
pub(crate) const MOST_FLIGHTS: usize = 2048;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Grounded {
    /// The leader ended without one.
    Lost,
    /// Too many are in the air to begin another.
    Full,
    /// The client has begun too many.
    Limited,
}

impl<K, T, E> Flights<K, T, E>
where
    K: Clone + Eq + Flown + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { flying: Mutex::new(HashMap::new()), most })
    }

    /// How many are in the air.
    pub(crate) fn len(&self) -> usize {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// All of them.
    pub(crate) fn aloft(&self) -> Vec<Arc<Aloft>> {
        let flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
        flying.values().map(|boarded| Arc::clone(&boarded.aloft)).collect()
    }

    /// How long the flight of `key` is in the air, if it is.
    pub(crate) fn age_of(&self, key: &K) -> Option<Duration> {
        let flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
        flying.get(key).map(Boarded::age)
    }

    /// Waits for the flight of `key`, and starts it with `work` when it is not in the air, at the client's cost.
    pub(crate) async fn join<W, F>(self: &Arc<Self>, key: K, work: W) -> Result<T, Grounded>
    where
        W: FnOnce() -> F,
        F: Future<Output = T> + Send + 'static,
    {
        self.pay(&key)?;
        self.board(key, work)?.landed().await
    }

    /// Who is about to start a flight pays for it, if it is a client; those who join one do not.
    pub(crate) fn pay(&self, key: &K) -> Result<(), Grounded> {
        if self.age_of(key).is_some() { Ok(()) } else { toll::pay() }
    }

    /// Starts the flight of `key` with `work` when it is not in the air. It flies whether or not anybody waits.
    pub(crate) fn board<W, F>(self: &Arc<Self>, key: K, work: W) -> Result<Boarded<T, E>, Grounded>
    where
        W: FnOnce() -> F,
        F: Future<Output = T> + Send + 'static,
    {
        self.board_announced(key, |_| work())
    }

    /// The same with work that has something to say before its end.
    pub(crate) fn board_announced<W, F>(
        self: &Arc<Self>,
        key: K,
        work: W,
    ) -> Result<Boarded<T, E>, Grounded>
    where
        W: FnOnce(Announcer<T, E>) -> F,
        F: Future<Output = T> + Send + 'static,
    {
        let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(boarded) = flying.get(&key) {
            return Ok(boarded.clone());
        }
        if flying.len() >= self.most {
            return Err(Grounded::Full);
        }
        let (tell, news) = watch::channel(News::Nothing);
        let aloft = Aloft::begin(&key);
        let journey = Arc::clone(&aloft.journey);
        let boarded = Boarded { aloft, news };
        flying.insert(key.clone(), boarded.clone());
        // The one that keeps the channel open: it ends with the work, also by a panic.
        let tell = Arc::new(tell);
        let work = work(Announcer(Arc::downgrade(&tell)));
        let slot = Slot { flights: Arc::clone(self), key };
        tokio::spawn(
            journey
                .scope(async move {
                    // Also dropped by a panic. Before anybody has the answer: who asks again then means a new flight.
                    let slot = slot;
                    let landed = work.await;
                    drop(slot);
                    tell.send_replace(News::Landed(landed));
                })
                .in_current_span(),
        );
        Ok(boarded)
    }
}

impl<T, E> Announcer<T, E> {
    /// Tells those who wait, and those who come, that this is on the way; or that what was is not any more.
    pub(crate) fn announce(&self, on_the_way: Option<E>) {
        if let Some(tell) = self.0.upgrade() {
            tell.send_replace(on_the_way.map_or(News::Nothing, News::OnTheWay));
        }
    }
}

impl<T: Clone, E: Clone> Boarded<T, E> {
    /// How long it is in the air.
    pub(crate) fn age(&self) -> Duration {
        self.aloft.begun.elapsed()
    }

    pub(crate) async fn landed(mut self) -> Result<T, Grounded> {
        let is_landed = |news: &News<T, E>| matches!(news, News::Landed(_));
        let news = async {
            match self.news.wait_for(is_landed).await.map_err(|_| Grounded::Lost)?.clone() {
                News::Landed(landed) => Ok(landed),
                News::Nothing | News::OnTheWay(_) => Err(Grounded::Lost),
            }
        };
        self.aloft.waited(news).await
    }

    /// Waits until `take` has something of what is on the way, or for the landing.
    pub(crate) async fn first<R>(
        mut self,
        take: impl Fn(E) -> Option<R>,
    ) -> Result<Result<R, T>, Grounded> {
        let news = async {
            loop {
                match self.news.borrow_and_update().clone() {
                    News::Landed(landed) => return Ok(Err(landed)),
                    News::OnTheWay(on_the_way) => {
                        if let Some(taken) = take(on_the_way) {
                            return Ok(Ok(taken));
                        }
                    }
                    News::Nothing => {}
                }
                self.news.changed().await.map_err(|_| Grounded::Lost)?;
            }
        };
        self.aloft.waited(news).await
    }
}

impl<T, E> fmt::Debug for Announcer<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announcer").finish_non_exhaustive()
    }
}

impl<K, T, E> fmt::Debug for Flights<K, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}

struct Slot<K: Eq + Hash, T, E> {
    flights: Arc<Flights<K, T, E>>,
    key: K,
}

impl<K: Eq + Hash, T, E> Drop for Slot<K, T, E> {
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

    impl Flown for i32 {
        const KIND: &'static str = "number";

        fn asked(&self) -> String {
            self.to_string()
        }
    }

    impl Flown for &'static str {
        const KIND: &'static str = "text";

        fn asked(&self) -> String {
            (*self).to_owned()
        }
    }

    #[tokio::test]
    async fn many_who_ask_cause_one_piece_of_work() {
        let flights: Arc<Flights<_, _>> = Flights::new(MOST_FLIGHTS);
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
        let flights: Arc<Flights<_, _>> = Flights::new(MOST_FLIGHTS);
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
    async fn a_flight_flies_without_anybody_waiting() {
        let flights: Arc<Flights<_, _>> = Flights::new(MOST_FLIGHTS);
        let gate = Arc::new(Notify::new());
        let work = {
            let gate = Arc::clone(&gate);
            move || async move {
                gate.notified().await;
                "done"
            }
        };
        drop(flights.board(1, work).unwrap());
        let follower = flights.board(1, || async { "begun again" }).unwrap();
        gate.notify_one();
        assert_eq!(follower.landed().await, Ok("done"));
    }

    #[tokio::test]
    async fn a_leader_that_panics_frees_its_followers_and_its_key() {
        let flights: Arc<Flights<i32, u8>> = Flights::new(MOST_FLIGHTS);
        let outcome = flights.join(1, || async { panic!("on purpose") }).await;
        assert!(outcome.is_err());
        assert_eq!(flights.join(1, || async { 2 }).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn what_is_on_the_way_is_had_before_the_landing() {
        let flights: Arc<Flights<&str, _, u8>> = Flights::new(MOST_FLIGHTS);
        let gate = Arc::new(Notify::new());
        let work = {
            let gate = Arc::clone(&gate);
            |announcer: Announcer<&'static str, u8>| async move {
                announcer.announce(Some(1));
                gate.notified().await;
                announcer.announce(None);
                gate.notified().await;
                announcer.announce(Some(2));
                gate.notified().await;
                "landed"
            }
        };
        let board = || flights.board("key", || async { "begun again" }).unwrap();
        let first = flights.board_announced("key", work).unwrap();
        assert_eq!(first.first(Some).await, Ok(Ok(1)));
        // One who comes later has it as well, and one who does not want it waits on.
        assert_eq!(board().first(Some).await, Ok(Ok(1)));
        let picky = board();
        let picky = tokio::spawn(picky.first(|n| (n > 1).then_some(n)));
        let (whole, none) = (tokio::spawn(board().landed()), board());
        let none = tokio::spawn(none.first(|_| None::<u8>));
        gate.notify_one();
        while matches!(*board().news.borrow(), News::OnTheWay(1)) {
            tokio::task::yield_now().await;
        }
        gate.notify_one();
        assert_eq!(picky.await.unwrap(), Ok(Ok(2)));
        gate.notify_one();
        assert_eq!(whole.await.unwrap(), Ok("landed"));
        assert_eq!(none.await.unwrap(), Ok(Err("landed")));
    }

    #[tokio::test]
    async fn an_announcer_that_outlives_its_flight_keeps_nobody_waiting() {
        let flights: Arc<Flights<i32, u8, u8>> = Flights::new(MOST_FLIGHTS);
        let kept = Arc::new(Mutex::new(None));
        let work = {
            let kept = Arc::clone(&kept);
            |announcer: Announcer<u8, u8>| async move {
                announcer.announce(Some(1));
                *kept.lock().unwrap() = Some(announcer);
                panic!("on purpose")
            }
        };
        let boarded = flights.board_announced(1, work).unwrap();
        assert_eq!(boarded.landed().await, Err(Grounded::Lost));
        kept.lock().unwrap().take().unwrap().announce(Some(2));
    }

    #[tokio::test]
    async fn a_full_sky_takes_followers_but_no_new_flight() {
        let flights: Arc<Flights<_, _>> = Flights::new(1);
        let gate = Arc::new(Notify::new());
        let first = {
            let (flights, gate) = (Arc::clone(&flights), Arc::clone(&gate));
            tokio::spawn(
                async move { flights.join(1, || async move { gate.notified().await }).await },
            )
        };
        tokio::task::yield_now().await;
        assert_eq!(flights.join(2, || async {}).await, Err(Grounded::Full));
        let follower = flights.join(1, || async {});
        gate.notify_one();
        assert_eq!(follower.await, Ok(()));
        assert_eq!(first.await.unwrap(), Ok(()));
        assert_eq!(flights.join(2, || async {}).await, Ok(()));
    }
}
