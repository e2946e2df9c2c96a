//! How far a piece of work has come: on which stage of which source it waits, since when, and what it has spent where.
//!
//! Whoever begins something that others wait for makes a [`Journey`] its task's own; what is done within it notes its stages
//! there, and whoever is asked why it takes so long reads them. Without one nothing is noted, so what is served from the
//! store pays nothing.
//!
//! A journey has visits to sources, each a journey of its own, because two sources may be asked at once; and it may follow
//! another journey, that of work which it waits for and has not begun alone.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::examine::line;

tokio::task_local! {
    static JOURNEY: Arc<Journey>;
}

/// Visits that are remembered of one journey, and places where it may wait at once that are told.
const MOST_VISITS: usize = 16;
const MOST_STANDS: usize = 4;
/// Work that waits for work that waits: a file for its record, and that for its tiles.
const DEEPEST: usize = 4;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leg {
    /// This machine's disk, or room in memory in its place.
    Disk,
    /// A place among those who ask the source at once.
    Place,
    /// Another request that finds out whether the source is alive.
    Breaker,
    Dns,
    /// The connection, with its TLS handshake.
    Connect,
    /// The header of the answer.
    Http,
    Body,
    /// The time before the next try.
    Pause,
    Git,
    /// The record of the checksum database.
    Lookup,
    /// The inspection of what came.
    Verify,
    Commit,
}

impl Leg {
    pub const ALL: [Self; 12] = [
        Self::Disk,
        Self::Place,
        Self::Breaker,
        Self::Dns,
        Self::Connect,
        Self::Http,
        Self::Body,
        Self::Pause,
        Self::Git,
        Self::Lookup,
        Self::Verify,
        Self::Commit,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Place => "place",
            Self::Breaker => "breaker",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Http => "http",
            Self::Body => "body",
            Self::Pause => "pause",
            Self::Git => "git",
            Self::Lookup => "lookup",
            Self::Verify => "verify",
            Self::Commit => "commit",
        }
    }
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Time by leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent([Duration; Leg::ALL.len()]);

impl Spent {
    fn add(&mut self, leg: Leg, time: Duration) {
        self.0[leg as usize] += time;
    }

    /// What both have spent.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(had, more)| *had += more);
        self
    }

    /// Where any was spent, in the order of [`Leg::ALL`].
    pub fn legs(&self) -> impl Iterator<Item = (Leg, Duration)> {
        Leg::ALL.into_iter().zip(self.0).filter(|(_, time)| !time.is_zero())
    }
}

/// Where somebody waits.
#[derive(Clone, Debug)]
pub struct Stand {
    pub leg: Leg,
    /// [`crate::Source::name`], or the name of a checksum database with its road; none for what concerns this machine alone.
    pub source: Option<Arc<str>>,
    pub since: Instant,
    /// The command of git, the host that a page is read from, or how far a look-up has come.
    pub detail: Option<String>,
    /// Of a body: bytes so far, and of how many if that is known.
    pub received: u64,
    pub length: Option<u64>,
}

impl fmt::Display for Stand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source.as_deref().unwrap_or("a source");
        let leg = self.leg;
        match leg {
            Leg::Disk => f.write_str("waits for the disk (disk)"),
            Leg::Place => write!(f, "waits for a place at {source} (place)"),
            Leg::Breaker => write!(f, "waits while {source} is being tried (breaker)"),
            Leg::Dns | Leg::Connect | Leg::Http => {
                write!(f, "asks {source} ({leg}")?;
                self.detail.as_ref().map_or(Ok(()), |host| write!(f, ", {host}"))?;
                f.write_str(")")
            }
            Leg::Body => {
                write!(f, "receives from {source} (body, {}", self.received)?;
                self.length.map_or(Ok(()), |length| write!(f, " of {length}"))?;
                f.write_str(" bytes)")
            }
            Leg::Pause => write!(f, "waits before it asks {source} again (pause)"),
            Leg::Git => write!(f, "runs git {} (git)", self.detail.as_deref().unwrap_or_default()),
            Leg::Lookup => {
                let source = self.source.as_deref().unwrap_or("the checksum database");
                write!(f, "looks the checksum up at {source} (lookup")?;
                self.detail.as_ref().map_or(Ok(()), |leg| write!(f, ", {leg}"))?;
                f.write_str(")")
            }
            Leg::Verify => write!(f, "verifies what came from {source} (verify)"),
            Leg::Commit => f.write_str("writes it to the disk (commit)"),
        }
    }
}

/// What a source said when it was asked.
#[derive(Clone, Debug)]
pub struct Said {
    pub source: Arc<str>,
    /// `ok`, or one line of what went wrong.
    pub outcome: Result<(), String>,
    pub at: Timestamp,
    pub took: Duration,
    pub spent: Spent,
}

/// One piece of work.
#[derive(Debug)]
pub struct Journey {
    source: Option<Arc<str>>,
    begun: Instant,
    /// Of the body that is being received; a length of `u64::MAX` is not known.
    received: AtomicU64,
    length: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// None while only others are waited for.
    here: Option<Here>,
    spent: Spent,
    /// Whom it waits for now.
    follows: Vec<Arc<Journey>>,
    visits: Vec<Arc<Journey>>,
    end: Option<End>,
}

#[derive(Debug)]
struct Here {
    leg: Leg,
    since: Instant,
    detail: Option<String>,
}

#[derive(Clone, Debug)]
struct End {
    outcome: Result<(), String>,
    at: Timestamp,
    took: Duration,
}

/// The journey that the present task is on.
pub fn current() -> Option<Arc<Journey>> {
    JOURNEY.try_with(Arc::clone).ok()
}

/// The present journey has come to this leg.
pub fn enter(leg: Leg) {
    let _ = JOURNEY.try_with(|journey| journey.enter(leg, None));
}

/// The same with a word on what is done there.
pub fn enter_for(leg: Leg, detail: &str) {
    let _ = JOURNEY.try_with(|journey| journey.enter(leg, Some(detail)));
}

impl Journey {
    /// Of work that others wait for.
    pub fn begin() -> Arc<Self> {
        Self::at(None)
    }

    fn at(source: Option<Arc<str>>) -> Arc<Self> {
        let begun = Instant::now();
        let state = Mutex::default();
        let (received, length) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        Arc::new(Self { source, begun, received, length, state })
    }

    /// Makes it that of a task, or of a part of it.
    pub fn scope<F: Future>(self: &Arc<Self>, work: F) -> impl Future<Output = F::Output> + use<F> {
        JOURNEY.scope(Arc::clone(self), work)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn enter(&self, leg: Leg, detail: Option<&str>) {
        let mut state = self.state();
        let now = Instant::now();
        state.leave(now);
        state.here = Some(Here { leg, since: now, detail: detail.map(str::to_owned) });
    }

    /// So much of a body is here.
    pub(crate) fn receive(&self, received: u64, length: Option<u64>) {
        self.received.store(received, Ordering::Relaxed);
        self.length.store(length.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A failure without the name of the source, which is known here. A road ends with it.
    fn without_source<'t>(&self, text: &'t str) -> &'t str {
        let source = self.source.as_deref().and_then(|source| source.rsplit(' ').next());
        let rest = source.and_then(|source| text.strip_prefix(source)?.strip_prefix(": "));
        rest.unwrap_or(text)
    }

    /// Where it waits now: at several places if it asks several at once. At most four.
    pub fn stands(&self) -> Vec<Stand> {
        let mut stands = Vec::new();
        self.stand(&mut stands, DEEPEST);
        stands
    }

    fn stand(&self, stands: &mut Vec<Stand>, depth: usize) {
        let (here, follows) = {
            let state = self.state();
            (state.here.as_ref().map(|here| self.stand_at(here)), state.follows.clone())
        };
        let from = stands.len();
        if depth > 0 {
            for other in &follows {
                other.stand(stands, depth - 1);
            }
        }
        stands.truncate(MOST_STANDS);
        let Some(here) = here else { return };
        if stands.len() == from {
            stands.extend((from < MOST_STANDS).then_some(here));
        } else if here.leg == Leg::Lookup {
            // What the others do is done for this.
            for stand in &mut stands[from..] {
                if stand.leg != Leg::Lookup {
                    stand.detail = Some(stand.leg.to_string());
                }
                stand.leg = Leg::Lookup;
            }
        }
    }

    fn stand_at(&self, here: &Here) -> Stand {
        let is_body = here.leg == Leg::Body;
        let length = Some(self.length.load(Ordering::Relaxed)).filter(|&it| it != u64::MAX);
        Stand {
            leg: here.leg,
            source: self.source.clone(),
            since: here.since,
            detail: here.detail.clone(),
            received: if is_body { self.received.load(Ordering::Relaxed) } else { 0 },
            length: length.filter(|_| is_body),
        }
    }

    /// What it has spent where, with what its visits have.
    pub fn spent(&self) -> Spent {
        let (mut spent, visits) = {
            let state = self.state();
            let mut spent = state.spent;
            if let Some(here) = &state.here {
                spent.add(here.leg, here.since.elapsed());
            }
            (spent, state.visits.clone())
        };
        for visit in &visits {
            spent = spent.and(&visit.spent());
        }
        spent
    }

    /// Goes to a source, which is what the present journey then waits for.
    pub fn visit(source: impl Into<Arc<str>>) -> Visit {
        let journey = Self::at(Some(source.into()));
        let parent = current();
        if let Some(parent) = &parent {
            let mut state = parent.state();
            state.leave(Instant::now());
            if state.visits.len() < MOST_VISITS {
                state.visits.push(Arc::clone(&journey));
            }
            state.follows.push(Arc::clone(&journey));
        }
        Visit(Following { parent, journey })
    }

    /// The present journey waits for this one, for as long as what is returned lives.
    #[must_use]
    pub fn follow(self: &Arc<Self>) -> Following {
        let parent = current();
        if let Some(parent) = &parent {
            parent.state().follows.push(Arc::clone(self));
        }
        Following { parent, journey: Arc::clone(self) }
    }

    /// What each source said that was visited, in the order they were asked.
    pub fn said(&self) -> Vec<Said> {
        let visits = self.state().visits.clone();
        let said = visits.iter().filter_map(|visit| {
            let End { outcome, at, took } = visit.state().end.clone()?;
            Some(Said { source: visit.source.clone()?, outcome, at, took, spent: visit.spent() })
        });
        said.collect()
    }
}

impl State {
    fn leave(&mut self, now: Instant) {
        if let Some(Here { leg, since, .. }) = self.here.take() {
            self.spent.add(leg, now.saturating_duration_since(since));
        }
    }
}

/// Somebody's wait for a journey.
#[derive(Debug)]
pub struct Following {
    parent: Option<Arc<Journey>>,
    journey: Arc<Journey>,
}

impl Drop for Following {
    fn drop(&mut self) {
        if let Some(parent) = &self.parent {
            let mut state = parent.state();
            if let Some(at) = state.follows.iter().position(|it| Arc::ptr_eq(it, &self.journey)) {
                state.follows.remove(at);
            }
        }
    }
}

/// A source that is being asked. Dropped without a word about its end, it was not waited for.
#[derive(Debug)]
pub struct Visit(Following);

impl Visit {
    pub fn journey(&self) -> &Arc<Journey> {
        &self.0.journey
    }

    /// Does what is asked of the source as a part of this visit, which ends with it.
    pub fn during<T, E: fmt::Display>(
        self,
        asking: impl Future<Output = Result<T, E>>,
    ) -> impl Future<Output = Result<T, E>> {
        // What asks a source is large, and would be in this future twice.
        let asking = Box::pin(self.journey().scope(asking));
        async move {
            let outcome = asking.await;
            self.ended(&outcome);
            outcome
        }
    }

    /// What came of it. The first word counts.
    pub fn ended<T, E: fmt::Display>(&self, outcome: &Result<T, E>) {
        let journey = self.journey();
        let mut state = journey.state();
        state.leave(Instant::now());
        if state.end.is_none() {
            let outcome = match outcome {
                Ok(_) => Ok(()),
                Err(error) => Err(line(journey.without_source(&error.to_string()))),
            };
            let took = journey.begun.elapsed();
            state.end = Some(End { outcome, at: Timestamp::now(), took });
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.ended(&Err::<(), _>("not waited for to the end"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(journey: &Journey) -> Vec<String> {
        journey.stands().iter().map(Stand::to_string).collect()
    }

    #[tokio::test]
    async fn what_is_waited_for_is_told_and_what_was_is_counted() {
        enter(Leg::Http);
        let journey = Journey::begin();
        let work = async {
            enter(Leg::Disk);
            assert_eq!(at(&journey), ["waits for the disk (disk)"]);
            let visit = Journey::visit("proxy.example.com");
            visit.journey().scope(async { enter(Leg::Connect) }).await;
            assert_eq!(at(&journey), ["asks proxy.example.com (connect)"]);
            let other = Journey::visit("other.example.com");
            other.journey().enter(Leg::Body, None);
            other.journey().receive(7, Some(9));
            let both = [
                "asks proxy.example.com (connect)",
                "receives from other.example.com (body, 7 of 9 bytes)",
            ];
            assert_eq!(at(&journey), both);
            tokio::time::sleep(Duration::from_millis(2)).await;
            visit.ended(&Err::<(), _>("proxy.example.com: connect:\nrefused"));
            other.ended(&Ok::<_, String>(()));
        };
        journey.scope(work).await;
        assert!(at(&journey).is_empty());
        let said = journey.said();
        assert_eq!(said[0].outcome, Err("connect: refused".to_owned()));
        assert_eq!((&*said[1].source, &said[1].outcome), ("other.example.com", &Ok(())));
        let legs: Vec<_> = journey.spent().legs().map(|(leg, _)| leg).collect();
        assert_eq!(legs, [Leg::Disk, Leg::Connect, Leg::Body]);
        assert!(
            journey.spent().legs().all(|(leg, time)| leg == Leg::Disk || time.as_millis() >= 2)
        );
    }

    #[tokio::test]
    async fn who_looks_up_is_told_how_far_that_has_come() {
        let (file, record) = (Journey::begin(), Journey::begin());
        let visit = record.scope(async { Journey::visit("sum.example.com") }).await;
        visit.journey().enter(Leg::Dns, None);
        file.enter(Leg::Lookup, None);
        let following = file.scope(async { record.follow() }).await;
        assert_eq!(at(&file), ["looks the checksum up at sum.example.com (lookup, dns)"]);
        // Its time is counted there.
        assert!(file.spent().legs().all(|(leg, _)| leg == Leg::Lookup));
        drop((following, visit));
        assert_eq!(at(&file), ["looks the checksum up at the checksum database (lookup)"]);
        assert_eq!(record.said()[0].outcome, Err("not waited for to the end".to_owned()));
    }

    #[tokio::test]
    async fn journeys_that_follow_each_other_and_many_visits_have_an_end() {
        let (one, other) = (Journey::begin(), Journey::begin());
        let _one = one.scope(async { other.follow() }).await;
        let _other = other.scope(async { one.follow() }).await;
        assert!(at(&one).is_empty());
        let many = Journey::begin();
        let visits: Vec<_> =
            many.scope(async { (0..50).map(|n| Journey::visit(format!("{n}"))).collect() }).await;
        for visit in &visits {
            visit.journey().enter(Leg::Http, None);
        }
        assert_eq!(many.stands().len(), MOST_STANDS);
        drop(visits);
        assert_eq!(many.said().len(), MOST_VISITS);
        assert!(line(&"é".repeat(1000)).chars().count() <= 300 + 1);
    }
}
