//! What is known of the hosts that git speaks to, so that a dead one takes neither all places nor everybody's time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stoa_module::ErrorClass;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::direct::GitSettings;
use crate::direct::access::RemoteEnv;
use crate::failure::{Fault, Stage, span};

/// How long a host that could not be reached is left alone.
const PAUSE: Duration = Duration::from_secs(10);

/// Hosts by `host:port`. Those of which nothing is known any more are forgotten.
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
        let Some(name) = &env.host else { return Ok(Place { _places: Vec::new() }) };
        self.refuse(Some(name))?;
        let at_host = {
            let mut all = self.all();
            all.retain(|_, host| host.is_known(self.each));
            Arc::clone(&all.entry(name.clone()).or_insert_with(|| Host::new(self.each)).places)
        };
        let strangers = (!env.is_named).then(|| Arc::clone(&self.strangers));
        let placing = async {
            let mut places = Vec::new();
            for semaphore in [at_host].into_iter().chain(strangers) {
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
        self.refuse(Some(name))?;
        Ok(place)
    }

    /// The failure that others met at the host a moment ago.
    pub(super) fn refuse(&self, host: Option<&str>) -> Result<(), Fault> {
        let refusal = host.and_then(|name| self.all().get(name).and_then(Host::refusal));
        refusal.map_or(Ok(()), Err)
    }

    /// Nobody answered at the host.
    pub(super) fn is_silent(&self, host: Option<&str>, fault: &Fault) {
        let Some(name) = host else { return };
        let mut all = self.all();
        let host = all.entry(name.to_owned()).or_insert_with(|| Host::new(self.each));
        host.silent = Some((Instant::now(), fault.clone()));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host {
    fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), silent: None }
    }

    /// Whether forgetting it would make a difference.
    fn is_known(&self, each: usize) -> bool {
        self.refusal().is_some()
            || self.places.available_permits() < each
            || Arc::strong_count(&self.places) > 1
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
        hosts.is_silent(Some("a:443"), &fault);
        let refused = hosts.place(&at("a:443", true)).await.unwrap_err();
        assert_eq!(refused.class, ErrorClass::Timeout);
        assert!(refused.detail.starts_with("git: timeout after 60 s (asked "), "{refused:?}");
        assert!(refused.retry_after.is_some() && !refused.passing);
        assert!(hosts.refuse(Some("a:443")).is_err() && hosts.refuse(Some("b:443")).is_ok());
        let _other = hosts.place(&at("b:443", true)).await.unwrap();
    }
}
