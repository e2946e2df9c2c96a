//! What is known of the hosts that git speaks to, so that a dead one takes neither all places nor everybody's time.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stoa_module::ErrorClass;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::direct::GitSettings;
use crate::direct::access::RemoteEnv;
use crate::failure::{Fault, Stage, span};

/// How long a host that could not be reached is left alone.
const PAUSE: Duration = Duration::from_secs(10);

/// So many repositories in a row that got no answer make a silent host; one may be slow by itself.
const SILENT: usize = 3;

/// How long it is remembered that there was no answer.
const MEMORY: Duration = Duration::from_mins(10);

/// Hosts by `host:port`, those of modules that nobody here has named apart: no stranger's repository shall take our places
/// at a host or make it pass for a dead one. Those of which nothing is known any more are forgotten.
#[derive(Debug)]
pub(super) struct Hosts {
    all: Mutex<HashMap<String, Host>>,
    /// For all hosts of modules that nobody here has named, together.
    strangers: Arc<Semaphore>,
    /// Commands at one host at once.
    each: usize,
    queue_timeout: Duration,
}

#[derive(Debug)]
struct Host {
    places: Arc<Semaphore>,
    /// Repositories that got no answer, since the last answer to any.
    unanswered: BTreeSet<String>,
    /// When the last of them was asked.
    asked: Instant,
    silent: Option<(Instant, Fault)>,
}

/// A place at a host, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _places: Vec<OwnedSemaphorePermit>,
}

impl Hosts {
    pub(super) fn new(settings: &GitSettings) -> Self {
        // Never all of them: others must come through beside a host that hangs, and ours beside strangers'.
        let each = (settings.max_remote_commands / 2).max(1);
        Self {
            all: Mutex::default(),
            strangers: Arc::new(Semaphore::new(each)),
            each,
            queue_timeout: settings.queue_timeout,
        }
    }

    /// Waits for a place at the host; refuses at once while it is known that nobody answers there.
    pub(super) async fn place(&self, env: &RemoteEnv) -> Result<Place, Fault> {
        let Some(name) = name(env) else { return Ok(Place { _places: Vec::new() }) };
        self.refuse(env)?;
        let at_host = {
            let mut all = self.all();
            all.retain(|_, host| host.is_known(self.each));
            Arc::clone(&all.entry(name.clone()).or_insert_with(|| Host::new(self.each)).places)
        };
        let strangers = (!env.is_named).then(|| Arc::clone(&self.strangers));
        let placing = async {
            let mut places = Vec::new();
            for semaphore in strangers.into_iter().chain([at_host]) {
                places.push(semaphore.acquire_owned().await.ok()?);
            }
            Some(Place { _places: places })
        };
        let Ok(Some(place)) = tokio::time::timeout(self.queue_timeout, placing).await else {
            let detail = format!(
                "git: no place for {} among the {} commands at once, here and at {name}",
                span(self.queue_timeout),
                self.each,
            );
            return Err(Fault::new(ErrorClass::Unavailable, Stage::Git, detail)
                .hint("ask again later; git.max-concurrent can be higher"));
        };
        // What others met meanwhile counts for those who waited, too.
        self.refuse(env)?;
        Ok(place)
    }

    /// The failure that others met at the host a moment ago.
    pub(super) fn refuse(&self, env: &RemoteEnv) -> Result<(), Fault> {
        let refusal = name(env).and_then(|name| self.all().get(&name).and_then(Host::refusal));
        refusal.map_or(Ok(()), Err)
    }

    /// Nobody answered about the repository at this address.
    pub(super) fn said_nothing(&self, env: &RemoteEnv, url: &str, fault: &Fault) {
        let Some(name) = name(env) else { return };
        let mut all = self.all();
        let host = all.entry(name).or_insert_with(|| Host::new(self.each));
        host.unanswered.insert(url.to_owned());
        host.asked = Instant::now();
        if host.unanswered.len() >= SILENT {
            host.unanswered.clear();
            host.silent = Some((Instant::now(), fault.clone()));
        }
    }

    /// The host has answered, whatever.
    pub(super) fn answered(&self, env: &RemoteEnv) {
        let Some(name) = name(env) else { return };
        if let Some(host) = self.all().get_mut(&name) {
            host.unanswered.clear();
        }
    }

    /// Nobody can be reached at the host.
    pub(super) fn is_silent(&self, env: &RemoteEnv, fault: &Fault) {
        let Some(name) = name(env) else { return };
        let mut all = self.all();
        let host = all.entry(name).or_insert_with(|| Host::new(self.each));
        host.silent = Some((Instant::now(), fault.clone()));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(env: &RemoteEnv) -> Option<String> {
    let host = env.host.as_deref()?;
    Some(if env.is_named { host.to_owned() } else { format!("{host} for strangers") })
}

impl Host {
    fn new(places: usize) -> Self {
        let unanswered = BTreeSet::new();
        Self {
            places: Arc::new(Semaphore::new(places)),
            unanswered,
            asked: Instant::now(),
            silent: None,
        }
    }

    /// Whether forgetting it would make a difference.
    fn is_known(&self, each: usize) -> bool {
        self.refusal().is_some()
            || self.places.available_permits() < each
            || Arc::strong_count(&self.places) > 1
            || (!self.unanswered.is_empty() && self.asked.elapsed() < MEMORY)
    }

    fn refusal(&self) -> Option<Fault> {
        let (when, fault) = self.silent.as_ref()?;
        let left = PAUSE.checked_sub(when.elapsed())?;
        let detail = format!("{} (asked {} ago)", fault.detail, span(when.elapsed()));
        Some(Fault { detail, retry_after: Some(left), passing: false, ..fault.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(max_remote_commands: usize) -> Hosts {
        let queue_timeout = Duration::from_millis(20);
        Hosts::new(&GitSettings { max_remote_commands, queue_timeout, ..GitSettings::default() })
    }

    fn at(host: &str, is_named: bool) -> RemoteEnv {
        RemoteEnv { host: Some(host.to_owned()), is_named, ..RemoteEnv::default() }
    }

    #[tokio::test]
    async fn one_host_never_takes_all_places() {
        let hosts = hosts(4);
        let one = hosts.place(&at("a:443", true)).await.unwrap();
        let _two = hosts.place(&at("a:443", true)).await.unwrap();
        let refused = hosts.place(&at("a:443", true)).await.unwrap_err();
        assert_eq!(refused.class, ErrorClass::Unavailable);
        let _other = hosts.place(&at("b:443", true)).await.unwrap();
        let _directory = hosts.place(&RemoteEnv::default()).await.unwrap();
        drop(one);
        let _again = hosts.place(&at("a:443", true)).await.unwrap();
    }

    #[tokio::test]
    async fn strangers_leave_places_to_those_who_were_named() {
        let hosts = hosts(4);
        let _one = hosts.place(&at("a:443", false)).await.unwrap();
        let _two = hosts.place(&at("b:443", false)).await.unwrap();
        let refused = hosts.place(&at("c:443", false)).await.unwrap_err();
        assert_eq!(refused.class, ErrorClass::Unavailable);
        let _ours = hosts.place(&at("c:443", true)).await.unwrap();
    }

    #[tokio::test]
    async fn a_silent_host_is_left_alone() {
        let hosts = hosts(2);
        let fault =
            Fault::new(ErrorClass::Timeout, Stage::Git, "git: timeout after 60 s").passing();
        let (a, b) = (at("a:443", true), at("b:443", true));
        hosts.is_silent(&a, &fault);
        let refused = hosts.place(&a).await.unwrap_err();
        assert_eq!(refused.class, ErrorClass::Timeout);
        assert!(refused.detail.starts_with("git: timeout after 60 s (asked "), "{refused:?}");
        assert!(refused.retry_after.is_some() && !refused.passing);
        assert!(hosts.refuse(&a).is_err() && hosts.refuse(&b).is_ok());
        let _other = hosts.place(&b).await.unwrap();
        // What strangers' repositories meet there is not what ours do.
        let _stranger = hosts.place(&at("a:443", false)).await.unwrap();
    }

    #[test]
    fn a_slow_repository_is_not_its_host() {
        let hosts = hosts(2);
        let fault = Fault::new(ErrorClass::Timeout, Stage::Git, "git: timeout after 30 s");
        let a = at("a:443", true);
        for url in ["1", "1", "1", "2", "2"] {
            hosts.said_nothing(&a, url, &fault);
            assert!(hosts.refuse(&a).is_ok(), "{url}");
        }
        hosts.answered(&a);
        for (url, is_silent) in [("1", false), ("2", false), ("3", true)] {
            hosts.said_nothing(&a, url, &fault);
            assert_eq!(hosts.refuse(&a).is_err(), is_silent, "{url}");
        }
    }
}
