//! What is known of the hosts that git speaks to, so that a dead one takes neither all places nor everybody's time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use stoa_module::ErrorClass;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::direct::GitSettings;
use crate::failure::{Fault, Stage, span};

/// How long a host that could not be reached is left alone.
const PAUSE: Duration = Duration::from_secs(10);

/// Hosts by `host:port`. Those of which nothing is known any more are forgotten.
#[derive(Debug)]
pub(super) struct Hosts {
    all: Mutex<HashMap<String, Host>>,
    /// Commands at one host at once.
    each: usize,
    queue_timeout: Duration,
}

#[derive(Debug)]
struct Host {
    places: Arc<Semaphore>,
    silent: Option<(Instant, Fault)>,
}

impl Hosts {
    pub(super) fn new(settings: &GitSettings) -> Self {
        // Never all of them: others must come through beside a host that hangs.
        let each = (settings.max_remote_commands / 2).max(1);
        Self { all: Mutex::default(), each, queue_timeout: settings.queue_timeout }
    }

    /// Waits for a place at the host; refuses at once while it is known that nobody answers there.
    pub(super) async fn place(
        &self,
        host: Option<&str>,
    ) -> Result<Option<OwnedSemaphorePermit>, Fault> {
        let Some(name) = host else { return Ok(None) };
        let places = {
            let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, host| host.is_known(self.each));
            let host = all.entry(name.to_owned()).or_insert_with(|| Host {
                places: Arc::new(Semaphore::new(self.each)),
                silent: None,
            });
            if let Some(fault) = host.refusal() {
                return Err(fault);
            }
            Arc::clone(&host.places)
        };
        let Ok(Ok(place)) = tokio::time::timeout(self.queue_timeout, places.acquire_owned()).await
        else {
            let detail = format!(
                "git: {} commands at {name} at once, and none has ended for {}",
                self.each,
                span(self.queue_timeout)
            );
            return Err(Fault::new(ErrorClass::Unavailable, Stage::Git, detail));
        };
        // What others met meanwhile counts for those who waited, too.
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get(name).and_then(Host::refusal) {
            Some(fault) => Err(fault),
            None => Ok(Some(place)),
        }
    }

    /// Nobody answered at the host.
    pub(super) fn is_silent(&self, host: Option<&str>, fault: &Fault) {
        let Some(name) = host else { return };
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = all.get_mut(name) {
            host.silent = Some((Instant::now(), fault.clone()));
        }
    }
}

impl Host {
    fn is_known(&self, each: usize) -> bool {
        self.refusal().is_some() || self.places.available_permits() < each
    }

    fn refusal(&self) -> Option<Fault> {
        let (when, fault) = self.silent.as_ref()?;
        let left = PAUSE.checked_sub(when.elapsed())?;
        let detail = format!("{} (asked {} ago)", fault.detail, span(when.elapsed()));
        Some(Fault { detail, retry_after: Some(left), ..fault.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(max_remote_commands: usize) -> Hosts {
        let queue_timeout = Duration::from_millis(20);
        Hosts::new(&GitSettings { max_remote_commands, queue_timeout, ..GitSettings::default() })
    }

    #[tokio::test]
    async fn one_host_never_takes_all_places() {
        let hosts = hosts(4);
        let one = hosts.place(Some("a:443")).await.unwrap();
        let _two = hosts.place(Some("a:443")).await.unwrap();
        let refused = hosts.place(Some("a:443")).await.unwrap_err();
        assert_eq!(refused.class, ErrorClass::Unavailable);
        let _other = hosts.place(Some("b:443")).await.unwrap();
        assert!(hosts.place(None).await.unwrap().is_none());
        drop(one);
        let _again = hosts.place(Some("a:443")).await.unwrap();
    }

    #[tokio::test]
    async fn a_silent_host_is_left_alone() {
        let hosts = hosts(2);
        let fault = Fault::new(ErrorClass::Timeout, Stage::Git, "git: timeout after 60 s");
        let place = hosts.place(Some("a:443")).await.unwrap();
        hosts.is_silent(Some("a:443"), &fault);
        drop(place);
        let refused = hosts.place(Some("a:443")).await.unwrap_err();
        assert_eq!(refused.class, ErrorClass::Timeout);
        assert!(refused.detail.starts_with("git: timeout after 60 s (asked "), "{refused:?}");
        assert!(refused.retry_after.is_some());
        let _other = hosts.place(Some("b:443")).await.unwrap();
    }
}
