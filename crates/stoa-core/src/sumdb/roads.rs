//! The roads to a database: which sources it can be read from, in which order, and how long each may take.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use stoa_module::{ErrorClass, Separator};
use stoa_upstream::journey::{Journey, Visit};
use stoa_upstream::{Bounds, Chain, Entry, Failure, Source, Stage, Use};

use crate::mirror::stoas_of;
use crate::sumdb::{Database, MAX_BYTES, SUPPORTED_TTL, UNSUPPORTED_TTL};

/// One way to read the database.
#[derive(Clone)]
pub(super) struct Road {
    pub(super) source: Source,
    /// What comes before the path: `sumdb/NAME/` through a proxy, nothing directly.
    pub(super) prefix: String,
}

impl Road {
    /// A directory is somebody's cache and never asks the database.
    pub(super) fn speaks_for_the_database(&self) -> bool {
        matches!(self.source, Source::Http(_))
    }

    /// To the database of this name.
    pub(super) fn visit(&self, database: &str) -> Visit {
        let own = self.prefix.is_empty();
        Journey::visit(if own {
            self.source.name()
        } else {
            format!("{database} through {}", self.source.name())
        })
    }

    pub(super) fn failure(&self, class: ErrorClass, detail: String) -> Failure {
        Failure::new(class, Stage::Body, &self.source, detail)
    }
}

/// Where a road may begin.
enum Gate {
    Proxy(Entry),
    /// The database's own address.
    Itself,
}

/// The roads to a database, best first, found as they are needed.
pub(super) struct Roads<'a> {
    database: &'a Database,
    gates: VecDeque<Gate>,
    /// The present road is the database's own address, and others are behind it.
    itself_first: bool,
    /// When the present road must have answered.
    deadline: Instant,
    pub(super) via: &'a str,
}

/// A road that may be taken, for people.
pub(crate) struct RoadAhead {
    pub source: Source,
    /// A proxy's word on whether it passes the database on, while it is believed. The database's own address has none.
    pub passes_on: Option<bool>,
    pub is_own: bool,
}

fn gates(database: &Database, chain: &Chain) -> VecDeque<Gate> {
    let is_proxy = |entry: &&Entry| matches!(entry.source, Source::Http(_) | Source::File(_));
    let proxies = chain.entries.iter().filter(is_proxy).cloned();
    let mut gates: VecDeque<Gate> = proxies.map(Gate::Proxy).collect();
    if database.inner.settings.direct_first {
        gates.push_front(Gate::Itself);
    } else {
        gates.push_back(Gate::Itself);
    }
    gates
}

impl<'a> Roads<'a> {
    pub(super) fn new(database: &'a Database, chain: &Chain, via: &'a str) -> Self {
        let gates = gates(database, chain);
        Self { database, gates, itself_first: false, deadline: Instant::now(), via }
    }

    pub(super) async fn next(&mut self, failures: &mut Vec<Failure>) -> Option<Road> {
        let settings = &self.database.inner.settings;
        if self.itself_first && failures.last().is_some_and(|it| it.class == ErrorClass::NotFound) {
            // The database has spoken; what a cache of it says adds nothing.
            return None;
        }
        self.itself_first = false;
        while let Some(gate) = self.gates.pop_front() {
            let Gate::Proxy(Entry { source, separator }) = gate else {
                self.itself_first = settings.direct_first;
                // After others have failed a client has waited long enough to be told so; not if
                // they were not even asked.
                let patience = if failures.iter().all(|failure| failure.tries == 0) {
                    settings.timeout
                } else {
                    settings.timeout.min(settings.alternative_timeout)
                };
                self.deadline = Instant::now() + patience;
                let source = self.database.inner.direct.clone();
                return Some(Road { source, prefix: String::new() });
            };
            // A database fetches a module it does not know yet, which takes its time. The whole of it is granted where
            // the chain says `,`; over `|` there is something better to do than wait.
            let patience = match separator {
                Separator::Comma => settings.timeout,
                Separator::Pipe => settings.timeout.min(settings.alternative_timeout),
            };
            self.deadline = Instant::now() + patience;
            let road = Road { source, prefix: format!("sumdb/{}/", self.database.name()) };
            match self.database.is_supported(&road, patience, self.via).await {
                Ok(true) => return Some(road),
                Ok(false) => {}
                Err(failure) => failures.push(failure),
            }
        }
        None
    }

    /// What the present road may still take.
    pub(super) fn bound(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

impl Database {
    /// The roads for modules of this chain, in order.
    pub(crate) fn roads_ahead(&self, chain: &Chain) -> Vec<RoadAhead> {
        let ahead = |gate| match gate {
            Gate::Proxy(Entry { source, .. }) => {
                RoadAhead { passes_on: self.said_supported(&source), source, is_own: false }
            }
            Gate::Itself => {
                RoadAhead { source: self.inner.direct.clone(), passes_on: None, is_own: true }
            }
        };
        gates(self, chain).into_iter().map(ahead).collect()
    }

    /// What the proxy has said a while ago, if that is still believed.
    fn said_supported(&self, source: &Source) -> Option<bool> {
        let supported = self.inner.supported.lock().unwrap_or_else(PoisonError::into_inner);
        let (is, until) = *supported.get(&source.to_string())?;
        (until > Instant::now()).then_some(is)
    }

    /// Whether the proxy says that it passes this database on. All who have as much patience ask together.
    async fn is_supported(
        &self,
        road: &Road,
        patience: Duration,
        via: &str,
    ) -> Result<bool, Failure> {
        if let Some(is) = self.said_supported(&road.source) {
            return Ok(is);
        }
        let key = ((road.source.to_string(), patience), stoas_of(via));
        let work = {
            let (database, road, via) = (self.clone(), road.clone(), via.to_owned());
            move || async move { database.ask_support(&road, patience, &via).await }
        };
        let landed = self.inner.asks.join(key, work).await;
        let landed = landed.unwrap_or_else(|_| {
            let detail = format!("sumdb/{}/supported could not be read", self.name());
            Err(road.failure(ErrorClass::Unavailable, detail))
        });
        // Each look-up tells what kept it from this road.
        if landed.is_err() {
            road.visit(self.name()).ended(&landed);
        }
        landed
    }

    async fn ask_support(
        &self,
        road: &Road,
        patience: Duration,
        via: &str,
    ) -> Result<bool, Failure> {
        let source = &road.source;
        // The flight before this one may have ended since.
        if let Some(is) = self.said_supported(source) {
            return Ok(is);
        }
        let path = format!("{}supported", road.prefix);
        let bounds = Bounds { header: patience, max_bytes: MAX_BYTES };
        let asking = self.inner.client.get(source, Use::Database, &path, &bounds, via);
        let asked = road.visit(self.name()).during(asking).await;
        let is = match asked {
            Ok(_) => true,
            Err(failure) if failure.class == ErrorClass::NotFound => false,
            Err(failure) => return Err(failure),
        };
        let until = Instant::now() + if is { SUPPORTED_TTL } else { UNSUPPORTED_TTL };
        let mut supported = self.inner.supported.lock().unwrap_or_else(PoisonError::into_inner);
        supported.insert(source.to_string(), (is, until));
        Ok(is)
    }
}
