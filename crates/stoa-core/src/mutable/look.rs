//! How a kept answer ages, and who looks for a newer one.
//!
//! | age of what is kept | what is answered |
//! |---|---|
//! | below three quarters of the TTL | what is kept |
//! | up to twice the TTL | what is kept; a source is asked in the background, unless one failed just now |
//! | beyond | a source is asked; what is kept, if none answers within [`PATIENCE`] |
//!
//! The wait is one look's, not each client's: who comes while it has lasted so long gets what is kept at once, and where
//! a look has failed lately it is [`HASTE`]. So whoever asks for what others ask for too never waits, and nobody is given what is older than twice its TTL while
//! a source answers. What nobody asks for is not looked after.
//!
//! The newest word of the sources counts. When a look finds that they do not have it any more, that is the answer,
//! although an older one is kept; the kept one is used again when the absence is forgotten and no source answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stoa_module::{
    Artifact, ErrorClass, Info, ModulePath, ModuleVersion, Version, latest_of, parse_list,
};
use stoa_store::AnswerKey;
use stoa_upstream::journey::{self, Journey, Leg};
use stoa_upstream::{Failure, Source, Stage};
use tokio::sync::OwnedSemaphorePermit;
use tracing::{debug, warn};

use crate::absent::{Asked, is_ageing};
use crate::answer::{Outcome, Wish};
use crate::error::Error;
use crate::flight::{Boarded, Grounded};
use crate::mirror::{Landed, Mirror, asked_answer, stoas_of};
use crate::mutable::Kept;
use crate::toll;

/// How long a client waits for a newer answer when there is a kept one and it did not ask for a fresh look.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same where the last look failed: long enough for a source that answers again, and nothing to speak of for those who
/// read on while it does not.
const HASTE: Duration = Duration::from_millis(300);
/// How long a failed look keeps the next one away when there is something to answer meanwhile.
const AFTER_FAILURE: Duration = Duration::from_secs(10);
/// Who wants a fresh look takes part in one that began so long ago at most.
const FRESH_ENOUGH: Duration = Duration::from_secs(1);

/// What a question about something that changes is answered with.
pub(super) struct Found {
    pub(super) kept: Arc<Kept>,
    pub(super) outcome: Outcome,
    /// For how long it stays fresh.
    pub(super) keep: Duration,
}

/// What somebody saw who found that the sources must be asked: no verdict, and perhaps a kept answer of that time. What is
/// found now and was not seen is newer, whenever it was learnt, and will do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    kept: Option<jiff::Timestamp>,
}

/// How old a kept answer is beside its TTL.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Age {
    Young,
    /// It will be past its TTL soon.
    Ageing,
    Past,
    /// Beyond twice its TTL.
    Old,
}

impl Age {
    /// None is the age of what was fetched in the future: a clock that went backwards makes an answer old, not young
    /// for ever.
    fn of(age: Option<Duration>, ttl: Duration) -> Self {
        match age {
            Some(age) if age < ttl && !is_ageing(age, ttl) => Self::Young,
            Some(age) if age < ttl => Self::Ageing,
            Some(age) if age < ttl.saturating_mul(2) => Self::Past,
            _ => Self::Old,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Young => "young",
            Self::Ageing => "ageing",
            Self::Past => "past",
            Self::Old => "old",
        }
    }
}

/// How old a kept answer is, and what that means: `young`, `ageing`, `past` or `old`.
pub(crate) fn age_of(kept: &Kept, ttl: Duration) -> (Duration, &'static str) {
    let age = Duration::try_from(jiff::Timestamp::now().duration_since(kept.fetched_at)).ok();
    (age.unwrap_or_default(), Age::of(age, ttl).as_str())
}

impl Mirror {
    pub(crate) async fn kept(&self, key: &AnswerKey) -> Option<Arc<Kept>> {
        match self.inner.store.answer(key).await {
            Ok(kept) => kept,
            Err(error) => {
                warn!(asked = asked_answer(key), %error, "a kept answer cannot be read");
                None
            }
        }
    }

    /// From the store while it is fresh or nearly so, else from the chain, else stale from the store.
    pub(super) async fn mutable(&self, key: &AnswerKey, wish: Wish<'_>) -> Landed<Found> {
        let about = Asked::Answer(key.clone());
        let (verdict, absence) = self.inner.verdicts.known(&about);
        // An absence that is known is newer than what is kept: an answer since then would have made it forgotten.
        let kept = if absence.is_none() { self.kept(key).await } else { None };
        let forced = wish.fresh && self.inner.forced.take(key);
        if let Some(kept) = kept.as_ref().filter(|_| !forced)
            && let Some(found) = self.at_once(key, kept, verdict.is_some(), wish)
        {
            return Ok(found);
        }
        let stale = |kept| Found { kept, outcome: Outcome::Stale, keep: Duration::ZERO };
        let landed = if let Some(verdict) = verdict.filter(|_| !forced) {
            if verdict.error.class == ErrorClass::NotFound && verdict.is_ageing() {
                self.look_behind(key, wish.via);
            }
            Err(verdict.error)
        } else {
            let meanwhile = kept.is_some() || absence.is_some();
            let seen = Seen { kept: kept.as_ref().map(|kept| kept.fetched_at) };
            let failed = self.inner.verdicts.failed_lately(&about);
            let begun = self.inner.answers.age_of(&(key.clone(), stoas_of(wish.via)));
            let patience =
                if failed { HASTE } else { PATIENCE }.saturating_sub(begun.unwrap_or_default());
            let looking = self.look(key, meanwhile, (!forced).then_some(seen), wish.via);
            match &kept {
                Some(kept) if !forced => match tokio::time::timeout(patience, looking).await {
                    Ok(landed) => landed,
                    // The flight goes on; whoever asks next finds what it brings.
                    Err(_) => return Ok(stale(Arc::clone(kept))),
                },
                _ => looking.await,
            }
        };
        match (landed, kept) {
            (Ok(kept), _) => {
                let keep = self.inner.settings.list_ttl;
                Ok(Found { kept, outcome: Outcome::Miss, keep })
            }
            // The sources were asked, and say that it is gone.
            (Err(error), _) if error.class == ErrorClass::NotFound => Err(error),
            (Err(error), Some(kept)) => {
                debug!(%error, "a stale answer is given");
                Ok(stale(kept))
            }
            (Err(error), None) => Err(self.absent_before(&about, error)),
        }
    }

    /// What is kept, if it is young enough to be answered without asking. `failed`: the last look did, a moment ago.
    fn at_once(
        &self,
        key: &AnswerKey,
        kept: &Arc<Kept>,
        failed: bool,
        wish: Wish<'_>,
    ) -> Option<Found> {
        let ttl = self.inner.settings.list_ttl;
        let age = jiff::Timestamp::now().duration_since(kept.fetched_at);
        let age = Duration::try_from(age).ok();
        // What a person had looked at anew since is not answered without asking.
        let refreshed = self.inner.refreshed.get(key.path());
        if refreshed.is_some_and(|at| kept.fetched_at < at) {
            return None;
        }
        match Age::of(age, ttl) {
            Age::Ageing | Age::Past if !failed => self.look_behind(key, wish.via),
            Age::Young | Age::Ageing => {}
            Age::Past | Age::Old => return None,
        }
        let keep = ttl.saturating_sub(age.unwrap_or(ttl));
        Some(Found { kept: Arc::clone(kept), outcome: Outcome::Hit, keep })
    }

    /// Asks the sources, or waits with those who do. `meanwhile`: there is something to answer, so a failure keeps the
    /// next look away for a while. `seen`: what they have said since then will do; none is nothing before now.
    pub(crate) async fn look(
        &self,
        key: &AnswerKey,
        meanwhile: bool,
        seen: Option<Seen>,
        via: &str,
    ) -> Landed<Arc<Kept>> {
        let anew = seen.is_none();
        let looked = async {
            if anew {
                self.inner.client.look_anew(key.path()).await;
            }
            if self.inner.answers.age_of(&(key.clone(), stoas_of(via))).is_none() {
                toll::pay()?;
            }
            let flight = self.board(key, meanwhile, via, seen, None)?;
            let too_early = anew && flight.age() >= FRESH_ENOUGH;
            let landed = flight.landed().await?;
            if too_early {
                self.board(key, meanwhile, via, None, None)?.landed().await
            } else {
                Ok(landed)
            }
        };
        let looked = looked.await;
        looked.unwrap_or_else(|grounded| Err(Error::grounded(&asked_answer(key), grounded)))
    }

    /// Has the sources asked without waiting for them, so that the next who asks finds a newer answer. With too many
    /// such looks under way there is none; whoever asks next begins it.
    pub(crate) fn look_behind(&self, key: &AnswerKey, via: &str) {
        if let Ok(place) = Arc::clone(&self.inner.behind).try_acquire_owned()
            && let Err(grounded) = self.board(key, true, via, None, Some(place))
        {
            debug!(asked = asked_answer(key), ?grounded, "no look in the background");
        }
    }

    fn board(
        &self,
        key: &AnswerKey,
        meanwhile: bool,
        via: &str,
        seen: Option<Seen>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<Boarded<Landed<Arc<Kept>>>, Grounded> {
        let (mirror, asked, way) = (self.clone(), key.clone(), via.to_owned());
        let work = move || async move {
            let _place = place;
            // Another flight may have landed since this one's first client looked.
            if let Some(seen) = seen
                && let Some(landed) = mirror.landed_since(&asked, seen).await
            {
                return landed;
            }
            mirror.ask(&asked, meanwhile, &way).await
        };
        self.inner.answers.board((key.clone(), stoas_of(via)), work)
    }

    async fn landed_since(&self, key: &AnswerKey, seen: Seen) -> Option<Landed<Arc<Kept>>> {
        let (verdict, absence) = self.inner.verdicts.known(&Asked::Answer(key.clone()));
        if let Some(verdict) = verdict {
            return Some(Err(verdict.error));
        }
        // An older absence hides what is kept, as it did before.
        let kept = if absence.is_none() { self.kept(key).await } else { None };
        kept.filter(|kept| seen.kept.is_none_or(|seen| kept.fetched_at > seen)).map(Ok)
    }

    /// The work of a flight's leader.
    async fn ask(&self, key: &AnswerKey, meanwhile: bool, via: &str) -> Landed<Arc<Kept>> {
        let about = Asked::Answer(key.clone());
        let asked = asked_answer(key);
        let answered = self.ask_chain(key, &asked, via).await;
        self.inner.heard.note(&about);
        match answered {
            Ok(answer) => {
                journey::enter(Leg::Commit);
                match self.inner.store.put_answer(key, answer.clone()).await {
                    // The log knows already what is wrong with the disk.
                    Ok(()) | Err(stoa_store::Error::NotWritten(_)) => {}
                    Err(error) => warn!(asked, %error, "an answer cannot be kept"),
                }
                self.inner.verdicts.forget(&about);
                Ok(Arc::new(answer))
            }
            Err(error) => {
                let error = Arc::new(error);
                let keep = match error.class {
                    ErrorClass::NotFound => Some(self.inner.settings.negative_ttl),
                    _ if meanwhile => Some(AFTER_FAILURE),
                    _ => None,
                };
                if let Some(keep) = keep {
                    self.inner.verdicts.remember(&about, &error, keep);
                }
                Err(error)
            }
        }
    }

    /// An artifact was stored. If it is of a version that nobody knew of when the list and `@latest` were asked for,
    /// they are asked for again.
    pub(crate) fn noticed(&self, module: &ModuleVersion, artifact: Artifact, via: &str) {
        let path = module.path();
        let keys = [AnswerKey::List(path.clone()), AnswerKey::Latest(path.clone())];
        for key in &keys {
            self.inner.verdicts.forget(&Asked::Answer(key.clone()));
        }
        // Every use of a version comes by its go.mod; once is enough.
        if artifact != Artifact::Mod {
            return;
        }
        let (mirror, version, via) = (self.clone(), module.version().clone(), via.to_owned());
        tokio::spawn(async move {
            for key in keys {
                if let Some(kept) = mirror.kept(&key).await
                    && is_overtaken(&key, &kept, &version)
                {
                    mirror.look_behind(&key, &via);
                }
            }
        });
    }

    async fn ask_chain(&self, key: &AnswerKey, asked: &str, via: &str) -> Result<Kept, Error> {
        let settings = &self.inner.settings;
        let (module, file, max_bytes) = match key {
            AnswerKey::List(path) => (path, "@v/list".to_owned(), settings.max_list_bytes),
            AnswerKey::Latest(path) => (path, "@latest".to_owned(), settings.max_info_bytes),
            AnswerKey::Query(path, query) => {
                (path, format!("@v/{}.info", query.escaped()), settings.max_info_bytes)
            }
        };
        let path = format!("{}/{file}", module.escaped());
        let chain = self.inner.policy.careful_chain(module);
        let mut walk = chain.walk();
        while let Some(step) = walk.next() {
            let source = step.source;
            let asking = async {
                let has_alternative = step.has_alternative;
                let got = self.get_small(source, &path, has_alternative, max_bytes, via).await;
                got.and_then(|body| check_form(key, module, source, body))
            };
            match Journey::visit(source.name()).during(asking).await {
                Ok(body) => {
                    return Ok(Kept {
                        body,
                        fetched_at: jiff::Timestamp::now(),
                        source: source.to_string(),
                    });
                }
                Err(failure) => walk.failed(failure),
            }
        }
        Err(Error::exhausted(asked, walk.finish()))
    }
}

/// Whether the sources have gone on since, by a version that they have.
fn is_overtaken(key: &AnswerKey, kept: &Kept, version: &Version) -> bool {
    match key {
        AnswerKey::List(path) => {
            let has =
                |body: &[u8]| parse_list(body, path).iter().any(|had| had.version == *version);
            !version.is_pseudo() && !has(&kept.body)
        }
        AnswerKey::Latest(_) => Info::parse(&kept.body)
            .is_ok_and(|had| latest_of([&had.version, version]) != Some(&had.version)),
        AnswerKey::Query(..) => false,
    }
}

/// An `.info` must name a canonical version that fits the path; a list is filtered when it is used.
fn check_form(
    key: &AnswerKey,
    path: &ModulePath,
    source: &Source,
    body: Bytes,
) -> Result<Bytes, Failure> {
    let corrupt = |detail| Failure::new(ErrorClass::Corrupt, Stage::Body, source, detail);
    if matches!(key, AnswerKey::List(_)) {
        return if is_list(&body) {
            Ok(body)
        } else {
            // A login page, say; it must not take the place of the list that is kept.
            Err(corrupt("sent something else than a list of versions".to_owned()))
        };
    }
    let info = Info::parse(&body).map_err(|error| corrupt(error.to_string()))?;
    ModuleVersion::new(path.clone(), info.version)
        .map_err(|error| corrupt(format!("names a version that cannot be: {error}")))?;
    Ok(body)
}

/// Nothing but blanks, or at least one line that begins with a version of whatever kind.
fn is_list(body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(body) else { return false };
    let mut lines = text.lines().filter_map(|line| line.split_whitespace().next()).peekable();
    lines.peek().is_none() || lines.any(stoa_module::semver::is_valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let check = |age: Option<u64>, ttl: u64, expected: Age| {
            let found = Age::of(age.map(Duration::from_secs), Duration::from_secs(ttl));
            assert_eq!(found, expected, "{age:?} of {ttl}");
        };
        check(Some(0), 60, Age::Young);
        check(Some(44), 60, Age::Young);
        check(Some(45), 60, Age::Ageing);
        check(Some(59), 60, Age::Ageing);
        check(Some(60), 60, Age::Past);
        check(Some(119), 60, Age::Past);
        check(Some(120), 60, Age::Old);
        check(None, 60, Age::Old);
        // Without a TTL every question is asked.
        check(Some(0), 0, Age::Old);
        check(Some(u64::MAX / 2), u64::MAX, Age::Young);
    }

    #[test]
    fn what_a_new_version_overtakes() {
        let path = ModulePath::parse("example.com/m").unwrap();
        let kept = |body: &str| Kept {
            body: Bytes::copy_from_slice(body.as_bytes()),
            fetched_at: jiff::Timestamp::UNIX_EPOCH,
            source: String::new(),
        };
        let (list, latest) = (AnswerKey::List(path.clone()), AnswerKey::Latest(path));
        let check = |key: &AnswerKey, body: &str, version: &str, expected: bool| {
            let version = Version::parse(version).unwrap();
            assert_eq!(is_overtaken(key, &kept(body), &version), expected, "{body} {version}");
        };
        let pseudo = "v1.0.1-0.20240102030405-0123456789ab";
        check(&list, "v1.0.0\nv1.1.0\n", "v1.1.0", false);
        check(&list, "v1.0.0\nv1.1.0\n", "v1.2.0", true);
        check(&list, "", "v1.0.0", true);
        check(&list, "", pseudo, false);
        check(&latest, r#"{"Version":"v1.1.0"}"#, "v1.1.0", false);
        check(&latest, r#"{"Version":"v1.1.0"}"#, "v1.0.0", false);
        check(&latest, r#"{"Version":"v1.1.0"}"#, "v1.2.0-rc.1", false);
        check(&latest, r#"{"Version":"v1.1.0"}"#, "v1.2.0", true);
        check(&latest, r#"{"Version":"v0.0.0-20230102030405-abcdefabcdef"}"#, pseudo, true);
    }
}
