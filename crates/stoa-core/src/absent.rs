//! Verdicts that are remembered for a short while, so that the storm of prefix probes and the second request that an
//! https client makes after every 4xx cost nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;

use crate::error::Error;

/// Bounded by the bytes it holds, not by a number of entries: names come from strangers and may be long.
#[derive(Debug)]
pub(crate) struct Verdicts {
    cache: Cache<String, Verdict>,
}

#[derive(Clone, Debug)]
struct Verdict {
    error: Arc<Error>,
    keep: Duration,
}

struct Keep;

impl Expiry<String, Verdict> for Keep {
    fn expire_after_create(&self, _: &String, verdict: &Verdict, _: Instant) -> Option<Duration> {
        Some(verdict.keep)
    }

    fn expire_after_update(
        &self,
        _: &String,
        verdict: &Verdict,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(verdict.keep)
    }
}

/// What an entry costs besides its texts: the cache's own nodes, the `Arc`, the vectors' headers.
const OVERHEAD_BYTES: usize = 400;

impl Verdicts {
    pub(crate) fn new(max_bytes: u64) -> Self {
        let weigh = |key: &String, verdict: &Verdict| {
            let error = &verdict.error;
            let texts: usize = error
                .failures
                .iter()
                .map(|f| {
                    100 + f.source.len() + f.detail.len() + f.text.as_ref().map_or(0, String::len)
                })
                .sum();
            let hint = error.hint.as_ref().map_or(0, String::len);
            let bytes = OVERHEAD_BYTES + key.len() + error.message.len() + hint + texts;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        Self {
            cache: Cache::builder()
                .max_capacity(max_bytes)
                .weigher(weigh)
                .expire_after(Keep)
                .build(),
        }
    }

    pub(crate) fn recall(&self, asked: &str) -> Option<Arc<Error>> {
        self.cache.get(asked).map(|verdict| verdict.error)
    }

    pub(crate) fn remember(&self, asked: &str, error: &Arc<Error>, keep: Duration) {
        self.cache.insert(asked.to_owned(), Verdict { error: Arc::clone(error), keep });
    }
}

#[cfg(test)]
mod tests {
    use stoa_module::ErrorClass;

    use super::*;

    #[test]
    fn verdicts_expire_and_are_bounded() {
        let verdicts = Verdicts::new(64 * 1024);
        let error = Arc::new(Error::new(ErrorClass::NotFound, "no"));
        verdicts.remember("kept", &error, Duration::from_mins(1));
        verdicts.remember("expired", &error, Duration::ZERO);
        assert!(verdicts.recall("kept").is_some());
        assert!(verdicts.recall("expired").is_none());
        for i in 0..10_000 {
            verdicts.remember(&format!("example.com/{i}"), &error, Duration::from_mins(1));
        }
        verdicts.cache.run_pending_tasks();
        assert!(verdicts.cache.weighted_size() <= 64 * 1024);
    }
}
