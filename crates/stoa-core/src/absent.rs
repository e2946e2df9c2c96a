//! Verdicts that are remembered for a short while, so that the storm of prefix probes and the second request that an
//! https client makes after every 4xx cost nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;
use stoa_module::{Artifact, ModulePath, ModuleVersion};
use stoa_store::AnswerKey;

use crate::error::Error;

/// What a verdict is about. A type and never a text: two questions must not share an answer because they look alike
/// when they are written out.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Asked {
    Artifact(ModuleVersion, Artifact),
    Answer(AnswerKey),
    /// A record of the checksum database.
    Record(ModuleVersion),
}

impl Asked {
    fn bytes(&self) -> usize {
        let of = |path: &ModulePath, rest: &str| path.as_str().len() + rest.len();
        match self {
            Self::Artifact(module, _) | Self::Record(module) => {
                of(module.path(), module.version().as_str())
            }
            Self::Answer(AnswerKey::List(path) | AnswerKey::Latest(path)) => of(path, ""),
            Self::Answer(AnswerKey::Query(path, query)) => of(path, query.as_str()),
        }
    }
}

/// Bounded by the bytes it holds, not by a number of entries: names come from strangers and may be long.
#[derive(Debug)]
pub(crate) struct Verdicts {
    cache: Cache<Asked, Verdict>,
}

#[derive(Clone, Debug)]
struct Verdict {
    error: Arc<Error>,
    keep: Duration,
}

struct Keep;

impl Expiry<Asked, Verdict> for Keep {
    fn expire_after_create(&self, _: &Asked, verdict: &Verdict, _: Instant) -> Option<Duration> {
        Some(verdict.keep)
    }

    fn expire_after_update(
        &self,
        _: &Asked,
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
        let weigh = |asked: &Asked, verdict: &Verdict| {
            let error = &verdict.error;
            let texts: usize = error
                .failures
                .iter()
                .map(|f| {
                    100 + f.source.len() + f.detail.len() + f.text.as_ref().map_or(0, String::len)
                })
                .sum();
            let hint = error.hint.as_ref().map_or(0, String::len);
            let bytes = OVERHEAD_BYTES + asked.bytes() + error.message.len() + hint + texts;
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

    pub(crate) fn recall(&self, asked: &Asked) -> Option<Arc<Error>> {
        self.cache.get(asked).map(|verdict| verdict.error)
    }

    pub(crate) fn remember(&self, asked: &Asked, error: &Arc<Error>, keep: Duration) {
        self.cache.insert(asked.clone(), Verdict { error: Arc::clone(error), keep });
    }
}

#[cfg(test)]
mod tests {
    use stoa_module::ErrorClass;

    use super::*;

    fn list(path: &str) -> Asked {
        Asked::Answer(AnswerKey::List(ModulePath::parse(path).unwrap()))
    }

    #[test]
    fn verdicts_expire_and_are_bounded() {
        let verdicts = Verdicts::new(64 * 1024);
        let error = Arc::new(Error::new(ErrorClass::NotFound, "no"));
        let (kept, expired) = (list("example.com/kept"), list("example.com/expired"));
        verdicts.remember(&kept, &error, Duration::from_mins(1));
        verdicts.remember(&expired, &error, Duration::ZERO);
        assert!(verdicts.recall(&kept).is_some());
        assert!(verdicts.recall(&expired).is_none());
        for i in 0..10_000 {
            verdicts.remember(&list(&format!("example.com/{i}")), &error, Duration::from_mins(1));
        }
        verdicts.cache.run_pending_tasks();
        assert!(verdicts.cache.weighted_size() <= 64 * 1024);
    }

    #[test]
    fn questions_that_read_alike_are_not_the_same() {
        let module = ModuleVersion::parse("example.com/m@v1.0.0").unwrap();
        let query = stoa_module::Query::parse("v1.0.0 .zip").unwrap();
        let artifact = Asked::Artifact(module.clone(), Artifact::Zip);
        let odd = Asked::Answer(AnswerKey::Query(module.path().clone(), query));
        let verdicts = Verdicts::new(64 * 1024);
        let error = Arc::new(Error::new(ErrorClass::NotFound, "no"));
        verdicts.remember(&odd, &error, Duration::from_mins(1));
        assert!(verdicts.recall(&odd).is_some());
        assert!(verdicts.recall(&artifact).is_none());
    }
}
