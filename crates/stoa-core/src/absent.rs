//! Verdicts that are remembered for a short while, so that the storm of prefix probes and the second request that an
//! https client makes after every 4xx cost nothing; and absences beyond that, for as long as nobody can be asked.
//!
//! A verdict stands for its time, and is forgotten then. The absence of a file or an answer is kept for a day: once its
//! time is over the sources are asked again, and only when none of them answers it is still the answer
//! ([`Verdicts::absence`]). It is the newest word of the sources on its question, because whatever they bring later
//! makes it forgotten ([`Verdicts::forget`]). What contradicts the checksum database is no absence, nor is a record that
//! the database does not have.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;
use stoa_module::{Artifact, ErrorClass, ModulePath, ModuleVersion};
use stoa_store::AnswerKey;

use crate::answer::Wish;
use crate::error::Error;
use crate::mirror::Mirror;

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
    fn path(&self) -> &ModulePath {
        match self {
            Self::Artifact(module, _) | Self::Record(module) => module.path(),
            Self::Answer(key) => key.path(),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
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

/// How long an absence is still the answer while no source answers.
const ABSENCE_KEPT: Duration = Duration::from_hours(24);

/// How soon after an answer the same question is no new one: https clients ask twice after every 4xx.
pub(crate) const ECHO: Duration = Duration::from_millis(500);

/// How long it is remembered, beyond its verdict, that no source answered.
const FAILURE_KEPT: Duration = Duration::from_mins(1);

/// Bounded by the bytes it holds, not by a number of entries: names come from strangers and may be long.
#[derive(Debug)]
pub(crate) struct Verdicts {
    cache: Cache<Asked, Known>,
}

#[derive(Clone, Debug)]
struct Known {
    verdict: Verdict,
    /// The verdict itself, or an earlier one that an outage followed.
    absence: Option<Absence>,
}

/// What was concluded, and stands for a while.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub error: Arc<Error>,
    learnt: Instant,
    keep: Duration,
}

/// What the sources did not have when they were last asked.
#[derive(Clone, Debug)]
pub(crate) struct Absence {
    pub error: Arc<Error>,
    learnt: Instant,
}

impl Verdict {
    pub(crate) fn age(&self) -> Duration {
        self.learnt.elapsed()
    }

    /// For how long it still stands.
    pub(crate) fn left(&self) -> Duration {
        self.keep.saturating_sub(self.age())
    }

    /// It will be forgotten soon.
    pub(crate) fn is_ageing(&self) -> bool {
        is_ageing(self.age(), self.keep)
    }
}

impl Absence {
    pub(crate) fn age(&self) -> Duration {
        self.learnt.elapsed()
    }
}

/// Whether what is asked for at this age is worth a look in the background, so that the next who asks need not wait.
pub(crate) fn is_ageing(age: Duration, ttl: Duration) -> bool {
    age >= ttl / 4 * 3
}

struct Keep;

impl Keep {
    fn of(known: &Known) -> Duration {
        let left = |absence: &Absence| ABSENCE_KEPT.saturating_sub(absence.age());
        let verdict = &known.verdict;
        let failure = if verdict.error.is_outage() { FAILURE_KEPT } else { Duration::ZERO };
        known.absence.as_ref().map_or(Duration::ZERO, left).max(verdict.keep + failure)
    }
}

impl Expiry<Asked, Known> for Keep {
    fn expire_after_create(&self, _: &Asked, known: &Known, _: Instant) -> Option<Duration> {
        Some(Self::of(known))
    }

    fn expire_after_update(
        &self,
        _: &Asked,
        known: &Known,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(Self::of(known))
    }
}

/// What an entry costs besides its texts: the cache's own nodes, the `Arc`, the vectors' headers.
const OVERHEAD_BYTES: usize = 400;

impl Verdicts {
    pub(crate) fn new(max_bytes: u64) -> Self {
        let weigh = |asked: &Asked, known: &Known| {
            let verdict = &known.verdict.error;
            let earlier = known.absence.as_ref().map(|absence| &absence.error);
            let earlier = earlier.filter(|error| !Arc::ptr_eq(error, verdict));
            let texts = bytes_of(verdict) + earlier.map_or(0, |error| bytes_of(error));
            u32::try_from(OVERHEAD_BYTES + asked.bytes() + texts).unwrap_or(u32::MAX)
        };
        Self {
            cache: Cache::builder()
                .max_capacity(max_bytes)
                .weigher(weigh)
                .expire_after(Keep)
                .build(),
        }
    }

    /// The verdict that stands.
    pub(crate) fn recall(&self, asked: &Asked) -> Option<Verdict> {
        self.known(asked).0
    }

    /// The verdict that stands, and the last word of the sources if it was that they do not have it.
    pub(crate) fn known(&self, asked: &Asked) -> (Option<Verdict>, Option<Absence>) {
        let Some(Known { verdict, absence }) = self.cache.get(asked) else { return (None, None) };
        ((verdict.age() < verdict.keep).then_some(verdict), absence)
    }

    /// The last word of the sources, if it was that they do not have it; at most a day old.
    pub(crate) fn absence(&self, asked: &Asked) -> Option<Absence> {
        self.known(asked).1
    }

    /// Whether no source answered when they were last asked, a minute ago at most.
    pub(crate) fn failed_lately(&self, asked: &Asked) -> bool {
        self.cache.get(asked).is_some_and(|known| {
            let Verdict { error, keep, .. } = &known.verdict;
            error.is_outage() && known.verdict.age() < *keep + FAILURE_KEPT
        })
    }

    /// An absence is also remembered as one, beyond `keep`.
    pub(crate) fn remember(&self, asked: &Asked, error: &Arc<Error>, keep: Duration) {
        let now = Instant::now();
        let outlasts = !matches!(asked, Asked::Record(_));
        let absence = match error.class {
            ErrorClass::NotFound if outlasts => {
                Some(Absence { error: Arc::clone(error), learnt: now })
            }
            // Nobody answered, so what was said before is still the last word.
            ErrorClass::Unavailable | ErrorClass::Timeout => self.absence(asked),
            _ => None,
        };
        let verdict = Verdict { error: Arc::clone(error), learnt: now, keep };
        self.cache.insert(asked.clone(), Known { verdict, absence });
    }

    /// No verdict about the module stands any more. What was absent is still known to have been.
    pub(crate) fn lapse(&self, path: &ModulePath) {
        let about = self.cache.iter().filter(|(asked, _)| asked.path() == path);
        let about: Vec<_> = about.map(|(asked, known)| (asked, known.absence)).collect();
        for (asked, absence) in about {
            if let Some(absence) = absence {
                let Absence { error, learnt } = absence.clone();
                let verdict = Verdict { error, learnt, keep: Duration::ZERO };
                self.cache.insert((*asked).clone(), Known { verdict, absence: Some(absence) });
            } else {
                self.cache.invalidate(&*asked);
            }
        }
    }

    pub(crate) fn forget(&self, asked: &Asked) {
        self.cache.invalidate(asked);
    }
}

impl Mirror {
    /// The verdict on an exact version that is not asked for again. It may have been tagged since, so an absence stands
    /// for the echo of the question that brought it, and beyond that only where the module's absent versions are asked
    /// for too often.
    pub(crate) fn standing(
        &self,
        about: &Asked,
        path: &ModulePath,
        wish: Wish<'_>,
    ) -> Option<Arc<Error>> {
        let verdict = self.inner.verdicts.recall(about)?;
        let may_have_come = verdict.error.class == ErrorClass::NotFound
            && (wish.fresh || verdict.age() >= ECHO)
            && self.inner.asked_again.take(path);
        (!may_have_come).then_some(verdict.error)
    }

    /// The answer where no source gave one: that it was not there is still so, if that was their last word.
    pub(crate) fn absent_before(&self, about: &Asked, error: Arc<Error>) -> Arc<Error> {
        if !error.went_unanswered() {
            return error;
        }
        match self.inner.verdicts.absence(about) {
            Some(absence) => Arc::new(absence.error.as_of_before(absence.age(), &error)),
            None => error,
        }
    }
}

fn bytes_of(error: &Error) -> usize {
    let failures = error.failures.iter();
    let texts: usize = failures
        .map(|f| 100 + f.source.len() + f.detail.len() + f.text.as_ref().map_or(0, String::len))
        .sum();
    error.message.len() + error.hint.as_ref().map_or(0, String::len) + texts
}

#[cfg(test)]
mod tests {
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
        for i in 0..20_000 {
            verdicts.remember(&list(&format!("example.com/{i}")), &error, Duration::from_mins(1));
        }
        verdicts.cache.run_pending_tasks();
        assert!(verdicts.cache.weighted_size() <= 64 * 1024);
    }

    #[test]
    fn an_absence_outlasts_its_verdict_and_an_outage_but_no_other_word() {
        let verdicts = Verdicts::new(64 * 1024);
        let of = |class| Arc::new(Error::new(class, "said"));
        let moment = Duration::from_mins(1);
        let remembered = |asked: &Asked| verdicts.absence(asked).is_some();

        let asked = list("example.com/m");
        verdicts.remember(&asked, &of(ErrorClass::NotFound), Duration::ZERO);
        assert!(verdicts.recall(&asked).is_none() && remembered(&asked));
        verdicts.remember(&asked, &of(ErrorClass::Unavailable), moment);
        assert_eq!(verdicts.recall(&asked).unwrap().error.class, ErrorClass::Unavailable);
        assert!(remembered(&asked) && verdicts.failed_lately(&asked));
        verdicts.remember(&asked, &of(ErrorClass::Timeout), Duration::ZERO);
        assert!(verdicts.recall(&asked).is_none() && remembered(&asked));
        assert!(verdicts.failed_lately(&asked));
        verdicts.forget(&asked);
        assert!(!remembered(&asked) && !verdicts.failed_lately(&asked));

        for class in [ErrorClass::Mismatch, ErrorClass::Denied, ErrorClass::Corrupt] {
            verdicts.remember(&asked, &of(ErrorClass::NotFound), moment);
            verdicts.remember(&asked, &of(class), moment);
            assert!(!remembered(&asked), "{class:?}");
        }
        let record = Asked::Record(ModuleVersion::parse("example.com/m@v1.0.0").unwrap());
        verdicts.remember(&record, &of(ErrorClass::NotFound), moment);
        assert!(verdicts.recall(&record).is_some() && !remembered(&record));
    }

    #[test]
    fn verdicts_on_a_module_lapse_and_its_absences_do_not() {
        let verdicts = Verdicts::new(64 * 1024);
        let moment = Duration::from_mins(1);
        let of = |class| Arc::new(Error::new(class, "said"));
        let (asked, other) = (list("example.com/m"), list("example.com/m/sub"));
        let module = ModuleVersion::parse("example.com/m@v1.0.0").unwrap();
        let refused = Asked::Artifact(module, Artifact::Zip);
        for asked in [&asked, &other] {
            verdicts.remember(asked, &of(ErrorClass::NotFound), moment);
        }
        verdicts.remember(&refused, &of(ErrorClass::Mismatch), moment);
        verdicts.lapse(&ModulePath::parse("example.com/m").unwrap());
        let known = |asked: &Asked| {
            let (verdict, absence) = verdicts.known(asked);
            (verdict.is_some(), absence.is_some())
        };
        assert_eq!(known(&asked), (false, true));
        assert_eq!(known(&refused), (false, false));
        assert_eq!(known(&other), (true, true));
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
