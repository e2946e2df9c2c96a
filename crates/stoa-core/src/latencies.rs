//! How long sources usually take to begin their answers.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Of so many answers of a source.
const REMEMBERED: usize = 64;
/// Fewer say nothing about what is usual.
const ENOUGH: usize = 8;
/// Nineteen of twenty answers do not take longer than what counts as usual.
const PERCENTILE: usize = 95;
/// What is usual where too little is known; and the least that is, since another request costs somebody else something.
const UNKNOWN: Duration = Duration::from_secs(2);
const LEAST: Duration = Duration::from_millis(500);

/// By host; there are as many as the configuration names.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Mutex<HashMap<String, VecDeque<Duration>>>);

impl Latencies {
    pub(crate) fn note(&self, host: &str, took: Duration) {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !hosts.contains_key(host) {
            hosts.insert(host.to_owned(), VecDeque::with_capacity(REMEMBERED));
        }
        let Some(answers) = hosts.get_mut(host) else { return };
        if answers.len() == REMEMBERED {
            answers.pop_front();
        }
        answers.push_back(took);
    }

    /// What nearly every answer of the host begins within.
    pub(crate) fn usual(&self, host: &str) -> Duration {
        let hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(answers) = hosts.get(host).filter(|answers| answers.len() >= ENOUGH) else {
            return UNKNOWN;
        };
        let mut sorted: Vec<Duration> = answers.iter().copied().collect();
        sorted.sort_unstable();
        let at = (sorted.len() * PERCENTILE / 100).min(sorted.len() - 1);
        sorted[at].max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usual() {
        let latencies = Latencies::default();
        let second = Duration::from_secs(1);
        for n in 0..ENOUGH {
            assert_eq!(latencies.usual("a"), UNKNOWN, "{n}");
            latencies.note("a", second * 4);
        }
        assert_eq!(latencies.usual("a"), second * 4);
        assert_eq!(latencies.usual("b"), UNKNOWN);
        // Old answers are forgotten, and one slow one is not what is usual.
        for _ in 0..REMEMBERED - 1 {
            latencies.note("a", Duration::from_millis(3));
        }
        assert_eq!(latencies.usual("a"), LEAST);
        for _ in 0..REMEMBERED / 10 {
            latencies.note("a", second);
        }
        assert_eq!(latencies.usual("a"), second);
    }
}
