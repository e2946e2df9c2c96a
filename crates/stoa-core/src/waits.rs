//! Who waits for what: every flight, and every request that waits for one.
//!
//! A request carries its id along with it, as its task's own, and shows it where it begins to wait for a flight; what is
//! served from the store never comes here. What a flight itself does is noted in its [`Journey`].

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stoa_module::{Artifact, ModulePath, ModuleVersion, Version};
use stoa_store::AnswerKey;
use stoa_sumdb::Tile;
use stoa_upstream::journey::{Journey, Spent, Stand};
use tokio::time::sleep_until;
use tracing::info;

use crate::mirror::{Mirror, asked_answer, asked_artifact};

/// A request that waits for so long is worth a line in the log.
const LONG: Duration = Duration::from_secs(5);

tokio::task_local! {
    static REQUEST: Asking;
}

/// The present request.
struct Asking {
    id: Arc<str>,
    begun: Instant,
    /// The log has its line.
    is_told: Cell<bool>,
    /// What the flights that it waited for have spent where; none if it waited for none.
    spent: Cell<Option<Spent>>,
}

/// What a request that waited has spent where.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// By the work it waited for, which others may have begun earlier.
    pub spent: Spent,
    /// By the request itself.
    pub total: Duration,
}

/// Works on the request of this id. Tells what it has waited for, if it had to wait.
pub(crate) async fn asking<T>(id: &str, work: impl Future<Output = T>) -> (T, Option<Timing>) {
    let begun = Instant::now();
    let asking = Asking { id: id.into(), begun, is_told: Cell::new(false), spent: Cell::new(None) };
    let work = async {
        let done = work.await;
        let spent = REQUEST.try_with(|asking| asking.spent.get()).ok().flatten();
        (done, spent.map(|spent| Timing { spent, total: begun.elapsed() }))
    };
    REQUEST.scope(asking, work).await
}

/// What a flight brings, for those who ask what is in the air.
pub(crate) trait Flown {
    /// `file`, `answer`, `verification`, `record`, `tree`, `tile` or `read`.
    const KIND: &'static str;

    /// In words.
    fn asked(&self) -> String;

    /// Whose name is in that, if it is a module's.
    fn module(&self) -> Option<(&ModulePath, Option<&Version>)> {
        None
    }
}

impl Flown for ((ModuleVersion, Artifact), String) {
    const KIND: &'static str = "file";

    fn asked(&self) -> String {
        let ((module, artifact), _) = self;
        asked_artifact(module, *artifact)
    }

    fn module(&self) -> Option<(&ModulePath, Option<&Version>)> {
        Some((self.0.0.path(), Some(self.0.0.version())))
    }
}

impl Flown for (ModuleVersion, Artifact) {
    const KIND: &'static str = "verification";

    fn asked(&self) -> String {
        asked_artifact(&self.0, self.1)
    }

    fn module(&self) -> Option<(&ModulePath, Option<&Version>)> {
        Some((self.0.path(), Some(self.0.version())))
    }
}

impl Flown for (AnswerKey, String) {
    const KIND: &'static str = "answer";

    fn asked(&self) -> String {
        asked_answer(&self.0)
    }

    fn module(&self) -> Option<(&ModulePath, Option<&Version>)> {
        Some((self.0.path(), None))
    }
}

impl Flown for (ModuleVersion, String) {
    const KIND: &'static str = "record";

    fn asked(&self) -> String {
        format!("checksum database record of {}", self.0)
    }

    fn module(&self) -> Option<(&ModulePath, Option<&Version>)> {
        Some((self.0.path(), Some(self.0.version())))
    }
}

impl Flown for ((), String) {
    const KIND: &'static str = "tree";

    fn asked(&self) -> String {
        "the checksum database's newest tree".to_owned()
    }
}

impl Flown for (Tile, String) {
    const KIND: &'static str = "tile";

    fn asked(&self) -> String {
        format!("the checksum database's {}", self.0.path())
    }
}

impl Flown for ((String, Tile), String) {
    const KIND: &'static str = READ;

    fn asked(&self) -> String {
        format!("the checksum database's {}, for a proof", self.0.1.path())
    }
}

impl Flown for ((String, Duration), String) {
    const KIND: &'static str = READ;

    fn asked(&self) -> String {
        format!("whether {} passes the checksum database on", self.0.0)
    }
}

/// Whose source may be one that only private modules are asked of.
const READ: &str = "read";

/// A flight, as those see it who wait for it or ask about it.
#[derive(Debug)]
pub(crate) struct Aloft {
    kind: &'static str,
    asked: String,
    module: Option<(ModulePath, Option<Version>)>,
    pub(crate) begun: Instant,
    pub(crate) journey: Arc<Journey>,
    requests: Mutex<BTreeMap<u64, (Arc<str>, Instant)>>,
    /// The log has been told that it takes long.
    is_told: AtomicBool,
}

impl Aloft {
    pub(crate) fn begin<K: Flown>(key: &K) -> Arc<Self> {
        let module = key.module();
        Arc::new(Self {
            kind: K::KIND,
            asked: key.asked(),
            module: module.map(|(path, version)| (path.clone(), version.cloned())),
            begun: Instant::now(),
            journey: Journey::begin(),
            requests: Mutex::default(),
            is_told: AtomicBool::new(false),
        })
    }

    fn requests(&self) -> MutexGuard<'_, BTreeMap<u64, (Arc<str>, Instant)>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something of this flight, as the present request or the present work, so that all can see it.
    pub(crate) async fn waited<T>(self: &Arc<Self>, news: impl Future<Output = T>) -> T {
        let Ok((id, begun)) = REQUEST.try_with(|asking| (Arc::clone(&asking.id), asking.begun))
        else {
            let _following = self.journey.follow();
            return news.await;
        };
        let waiting = Waiting::begin(self, id, begun);
        let mut news = std::pin::pin!(news);
        tokio::select! {
            biased;
            news = &mut news => return news,
            () = sleep_until((begun + LONG).into()) => self.tell(&waiting.id),
        }
        news.await
    }

    /// Says in the log that the present request waits, once for it and once for the flight.
    fn tell(&self, id: &str) {
        let had = REQUEST.try_with(|asking| asking.is_told.get()).unwrap_or(true);
        if had || self.is_told.swap(true, Ordering::Relaxed) {
            return;
        }
        let _ = REQUEST.try_with(|asking| asking.is_told.set(true));
        let (path, version) = self.module.as_ref().map(|(path, version)| (path, version)).unzip();
        let stands = self.journey.stands();
        let first = stands.first();
        let words: Vec<_> = stands.iter().map(Stand::to_string).collect();
        info!(
            request_id = id,
            stage = first.map(|stand| stand.leg.as_str()),
            upstream.host = first.and_then(|stand| stand.source.as_deref()),
            asked = self.asked,
            module.path = path.map(ModulePath::as_str),
            module.version = version.and_then(|version| version.as_ref()).map(Version::as_str),
            waiting = self.requests().len(),
            "still waiting after {} s: {}",
            LONG.as_secs(),
            if words.is_empty() { "it is about to end".to_owned() } else { words.join("; ") }
        );
    }
}

/// A request among those that wait for a flight.
struct Waiting<'f> {
    flight: &'f Aloft,
    id: Arc<str>,
    number: u64,
}

impl<'f> Waiting<'f> {
    fn begin(flight: &'f Aloft, id: Arc<str>, begun: Instant) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        flight.requests().insert(number, (Arc::clone(&id), begun));
        Self { flight, id, number }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.flight.requests().remove(&self.number);
        let spent = self.flight.journey.spent();
        let _ = REQUEST.try_with(|asking| {
            let had = asking.spent.get().unwrap_or_default();
            asking.spent.set(Some(had.and(&spent)));
        });
    }
}

/// Somebody who waits.
#[derive(Clone, Debug)]
pub struct Wait {
    /// None of a flight.
    pub request_id: Option<Arc<str>>,
    /// Of the flight: `file`, `answer`, `verification`, `record`, `tree`, `tile` or `read` (of a tile for a proof).
    pub kind: &'static str,
    /// What is wanted, in words; the name of a private module may be in it.
    pub asked: String,
    pub is_private: bool,
    pub since: Instant,
    pub stands: Vec<Stand>,
}

/// Who waits, at most so many of them.
#[derive(Clone, Debug)]
pub struct Waits {
    /// Those who wait longest come first.
    pub rows: Vec<Wait>,
    pub flights: usize,
    pub requests: usize,
}

impl Mirror {
    /// Everybody who waits now; of those the `most` that wait longest are told.
    pub fn who_waits(&self, most: usize) -> Waits {
        let inner = &self.inner;
        let mut aloft = inner.artifacts.aloft();
        aloft.extend(inner.answers.aloft());
        aloft.extend(inner.verifications.aloft());
        aloft.extend(inner.database.iter().flat_map(crate::sumdb::Database::aloft));
        let flights = aloft.len();
        let mut rows = Vec::new();
        for flight in &aloft {
            rows.push((flight.begun, None, flight));
            let requests = flight.requests();
            rows.extend(
                requests.values().map(|(id, begun)| (*begun, Some(Arc::clone(id)), flight)),
            );
        }
        let requests = rows.len() - flights;
        rows.sort_by_key(|(since, request, _)| (*since, request.is_some()));
        rows.truncate(most);
        let rows = rows.into_iter().map(|(since, request_id, flight)| Wait {
            request_id,
            kind: flight.kind,
            asked: flight.asked.clone(),
            is_private: match &flight.module {
                Some((path, _)) => self.is_private(path),
                None => flight.kind == READ,
            },
            since,
            stands: flight.journey.stands(),
        });
        Waits { rows: rows.collect(), flights, requests }
    }
}
