//! The addresses of hosts, kept for a while: a request waits for the resolver only where nothing is known of the name.
//!
//! | age of what is known | what is used |
//! |---|---|
//! | below three quarters of the time to live | what is known |
//! | up to the whole of it | what is known; the name is looked up behind it |
//! | beyond, for a day | what the resolver says within [`PATIENCE`], else what is known (stale) |
//!
//! The resolver is asked once for all who want a name at the same time. When it says that there is no such name, that is
//! the newest word and nothing is kept; any other failure says nothing about the name. What was kept is asked about anew
//! when a connection fails ([`Names::doubt`]), and the address that answered last is tried first ([`Names::answered`]).
//!
//! **Architecture Invariant:** the address filter ([`crate::discovery::Guard`]) stands before this and looks at each use:
//! what is kept has passed no filter.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

/// How long a request waits for the resolver when there is something else to use.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long what is known is used after the resolver has failed, until it is asked again.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How long what is known is used while the resolver fails.
const STALE: Duration = Duration::from_hours(24);
/// How long one look-up may take. Those who want the name have bounds of their own.
const LONGEST: Duration = Duration::from_mins(1);
/// Names that are kept, and looked up at once: strangers choose some of them.
const MOST_NAMES: usize = 1024;
/// Addresses of a name that are kept.
const MOST_ADDRESSES: usize = 32;

type Found = Result<Vec<SocketAddr>, Failed>;

/// How often names were wanted and looked up, since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct NameCounts {
    /// Kept now.
    pub kept: u64,
    pub looked_up: u64,
    /// Look-ups that brought nothing.
    pub failed: u64,
    /// Times that an old address was used because the resolver brought none in time.
    pub stale: u64,
}

/// A resolver that keeps what another one finds.
pub(crate) struct Names(Arc<Inner>);

struct Inner {
    resolver: Arc<dyn Resolve>,
    time_to_live: Duration,
    state: Mutex<State>,
    looked_up: AtomicU64,
    failed: AtomicU64,
    stale: AtomicU64,
}

#[derive(Default)]
struct State {
    known: HashMap<String, Known>,
    looking: HashMap<String, watch::Receiver<Option<Found>>>,
}

struct Known {
    addresses: Vec<SocketAddr>,
    learnt: Instant,
    /// Until when the resolver is not asked.
    until: Instant,
    /// When it was wanted last.
    wanted: Instant,
    /// The resolver has not brought a newer answer when it should have.
    is_stale: bool,
    answered: Option<IpAddr>,
}

impl Known {
    /// The one that answered last comes first, and its family with it.
    fn addresses(&mut self, now: Instant) -> Vec<SocketAddr> {
        self.wanted = now;
        let mut addresses = self.addresses.clone();
        let first = addresses.iter().position(|address| Some(address.ip()) == self.answered);
        if let Some(first) = first {
            addresses[..=first].rotate_right(1);
        }
        addresses
    }
}

/// Why a name has no address, for all who wanted it.
#[derive(Clone)]
struct Failed(Arc<dyn std::error::Error + Send + Sync>);

impl Failed {
    fn is_absence(&self) -> bool {
        is_absence(&self.0.to_string())
    }
}

/// Whether the resolver says that it has asked, and that there is no such name. It is known by its words alone: glibc's and
/// musl's.
pub(crate) fn is_absence(words: &str) -> bool {
    ["Name or service not known", "No address associated with hostname", "Name does not resolve"]
        .iter()
        .any(|absence| words.contains(absence))
}

impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Failed {}

impl Names {
    /// Keeps what `resolver` finds for `time_to_live`; nothing is "ask it whenever a connection is made".
    pub(crate) fn new(resolver: Arc<dyn Resolve>, time_to_live: Duration) -> Self {
        Self(Arc::new(Inner {
            resolver,
            time_to_live,
            state: Mutex::default(),
            looked_up: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            stale: AtomicU64::new(0),
        }))
    }

    /// No connection came about: the name may have moved, so it is looked up before it is used again.
    pub(crate) fn doubt(&self, host: &str) {
        if let Some(known) = self.0.state().known.get_mut(host) {
            let now = Instant::now();
            // Not more often than a resolver that fails may be asked.
            known.until = if known.is_stale { known.until } else { now };
            known.answered = None;
        }
    }

    /// The address of the host that has answered.
    pub(crate) fn answered(&self, host: &str, address: IpAddr) {
        if let Some(known) = self.0.state().known.get_mut(host) {
            known.answered = Some(address);
        }
    }

    pub(crate) fn counts(&self) -> NameCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NameCounts {
            kept: self.0.state().known.len() as u64,
            looked_up: count(&self.0.looked_up),
            failed: count(&self.0.failed),
            stale: count(&self.0.stale),
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let found = inner.addresses(name.as_str()).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn addresses(self: &Arc<Self>, name: &str) -> Found {
        let now = Instant::now();
        let (known, looking) = {
            let mut state = self.state();
            let known = state.known.get_mut(name).filter(|known| now - known.learnt < STALE);
            match known.map(|known| (known.addresses(now), known.until - now, known.is_stale)) {
                Some((addresses, left, is_stale)) if !left.is_zero() => {
                    if is_stale {
                        self.stale.fetch_add(1, Ordering::Relaxed);
                    } else if left < self.time_to_live / 4
                        && let Err(error) = self.look_up(&mut state, name)
                    {
                        debug!(host = name, %error, "no look-up in the background");
                    }
                    return Ok(addresses);
                }
                due => (due.map(|(addresses, ..)| addresses), self.look_up(&mut state, name)),
            }
        };
        let (known, looking) = match (known, looking) {
            (None, looking) => return landed(looking?).await,
            (Some(known), Err(_)) => return Ok(known),
            (Some(known), Ok(looking)) => (known, looking),
        };
        match timeout(PATIENCE, landed(looking)).await {
            Ok(Err(failed)) if failed.is_absence() => Err(failed),
            Ok(Ok(found)) => Ok(found),
            Ok(Err(_)) | Err(_) => {
                self.put_off(name, &"the resolver is slow");
                self.stale.fetch_add(1, Ordering::Relaxed);
                Ok(known)
            }
        }
    }

    /// Begins to look the name up, if nobody does. It goes on when nobody waits for it.
    fn look_up(
        self: &Arc<Self>,
        state: &mut State,
        name: &str,
    ) -> Result<watch::Receiver<Option<Found>>, Failed> {
        if let Some(looking) = state.looking.get(name) {
            return Ok(looking.clone());
        }
        if state.looking.len() >= MOST_NAMES {
            return Err(failed("too many names are being looked up"));
        }
        let wanted: Name = name.parse().map_err(|_| failed("it is no name of a host"))?;
        let (land, landing) = watch::channel(None);
        state.looking.insert(name.to_owned(), landing.clone());
        self.looked_up.fetch_add(1, Ordering::Relaxed);
        // Also dropped by a panic.
        let place = Place { inner: Arc::clone(self), name: name.to_owned() };
        let resolving = self.resolver.resolve(wanted);
        tokio::spawn(async move {
            let found = match timeout(LONGEST, resolving).await {
                Ok(Ok(found)) => Ok(found.take(MOST_ADDRESSES).collect()),
                Ok(Err(error)) => Err(Failed(error.into())),
                Err(_) => Err(failed("the resolver does not answer")),
            };
            place.inner.learn(&place.name, &found);
            drop(place);
            land.send_replace(Some(found));
        });
        Ok(landing)
    }

    fn learn(&self, name: &str, found: &Found) {
        match found {
            Ok(addresses) if !addresses.is_empty() => self.keep(name, addresses.clone()),
            Ok(_) => {
                self.state().known.remove(name);
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                if error.is_absence() {
                    self.state().known.remove(name);
                } else {
                    self.put_off(name, error);
                }
            }
        }
    }

    fn keep(&self, name: &str, addresses: Vec<SocketAddr>) {
        let now = Instant::now();
        let mut state = self.state();
        let before = state.known.remove(name);
        if state.known.len() >= MOST_NAMES {
            let longest = state.known.iter().min_by_key(|(_, known)| known.wanted);
            if let Some(longest) = longest.map(|(name, _)| name.clone()) {
                state.known.remove(&longest);
            }
        }
        if before.as_ref().is_some_and(|before| before.is_stale) {
            info!(host = name, "the name can be looked up again");
        }
        let answered = before.and_then(|before| before.answered);
        let until = now + self.time_to_live;
        let known = Known { addresses, learnt: now, until, wanted: now, is_stale: false, answered };
        state.known.insert(name.to_owned(), known);
    }

    /// The resolver has failed, or is slow: what is known of the name is used for a while before it is asked again.
    fn put_off(&self, name: &str, why: &dyn fmt::Display) {
        let mut state = self.state();
        let Some(known) = state.known.get_mut(name) else { return };
        let age_seconds = known.learnt.elapsed().as_secs();
        if known.is_stale {
            debug!(host = name, %why, age_seconds, "a name still cannot be looked up");
        } else {
            warn!(host = name, %why, age_seconds, "a name cannot be looked up; its last addresses are used");
        }
        known.is_stale = true;
        known.until = Instant::now() + AFTER_FAILURE;
    }
}

fn failed(why: &'static str) -> Failed {
    Failed(Arc::new(io::Error::other(why)))
}

async fn landed(mut looking: watch::Receiver<Option<Found>>) -> Found {
    let lost = || failed("the look-up ended without an answer");
    let landed = looking.wait_for(Option::is_some).await.map_err(|_| lost())?;
    landed.clone().unwrap_or_else(|| Err(lost()))
}

/// A look-up under way.
struct Place {
    inner: Arc<Inner>,
    name: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inner.state().looking.remove(&self.name);
    }
}

#[cfg(test)]
mod tests;
