//! What the checksum database could not be asked about: handed out unverified where the settings say so, and verified
//! later.
//!
//! Only an outage opens this door: no record, other content, or a database that contradicts itself never do, and a
//! toolchain never goes through it. What went through has its state in its sidecar, so a restart forgets none of it. One
//! task of the server ([`Mirror::verify_later`]) compares it with its record as soon as the database answers: what fits
//! becomes verified, what does not goes to quarantine, out of the store and its memory at once.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures_util::StreamExt as _;
use stoa_module::{Artifact, ErrorClass, ModulePath, ModuleVersion};
use stoa_store::{Sidecar, State};
use stoa_sumdb::RecordHashes;
use stoa_upstream::Stage;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::error::Error;
use crate::mirror::{Landed, Mirror};
use crate::policy::is_toolchain;
use crate::sumdb::LookedUp;

/// Versions that are verified at once: behind everything that somebody waits for.
const AT_ONCE: usize = 4;
/// Versions read from the index at once.
const PAGE: u32 = 256;
/// Versions asked for lately that are remembered; the others are found through the index.
const MOST_NUDGED: usize = 1024;
/// The first and the longest pause between two passes while something is left.
const PAUSES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(15));
/// Between any two passes.
const BREATH: Duration = Duration::from_secs(1);
/// Look-ups along one chain that nobody answers, before a pass leaves the rest of this chain for the next one.
const ENOUGH: u32 = 3;
/// How long a download waits for its record when another one waited in vain a moment ago, and how long that moment is.
const SHORT_PATIENCE: Duration = Duration::from_millis(500);
const MOMENT: Duration = Duration::from_secs(30);

/// What became of comparisons with the checksum database since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verifications {
    /// Files that their record vouches for, before they were handed out.
    pub verified: u64,
    /// Files that contradict their record.
    pub mismatch: u64,
    /// Files that the database has no record of.
    pub no_record: u64,
    /// Files whose record was asked for in vain, whatever became of them.
    pub unreachable: u64,
    /// Answers given from what was unverified.
    pub served_unverified: u64,
    /// Files handed out unverified that were right.
    pub later_verified: u64,
    /// Files handed out unverified, or stored as such, that went to quarantine.
    pub later_rejected: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub verified: AtomicU64,
    pub mismatch: AtomicU64,
    pub no_record: AtomicU64,
    pub unreachable: AtomicU64,
    pub served_unverified: AtomicU64,
    pub later_verified: AtomicU64,
    pub later_rejected: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What is known of the database at the moment, and what waits for it.
#[derive(Debug, Default)]
pub(crate) struct Later {
    pub counts: Counts,
    nudged: Mutex<HashSet<ModuleVersion>>,
    nudge: Notify,
    /// When it was last asked in vain, and has not answered since.
    silent: Mutex<Option<Instant>>,
    answered: Notify,
    /// It contradicted itself when it was last heard of.
    is_forked: AtomicBool,
}

impl Later {
    /// It waits to be verified, and somebody wants it.
    pub(crate) fn nudge(&self, module: &ModuleVersion) {
        let mut nudged = self.nudged.lock().unwrap_or_else(PoisonError::into_inner);
        if nudged.len() < MOST_NUDGED && !nudged.contains(module) {
            nudged.insert(module.clone());
        }
        drop(nudged);
        self.nudge.notify_one();
    }

    fn take_nudged(&self) -> HashSet<ModuleVersion> {
        std::mem::take(&mut *self.nudged.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How a look-up ended; one from the disk says nothing about the database.
    pub(crate) fn heard(&self, outcome: &Landed<LookedUp>) {
        match outcome {
            Ok(found) if found.stored => {}
            Ok(_) => {
                self.is_forked.store(false, Ordering::Relaxed);
                let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
                if silent.take().is_some() {
                    self.answered.notify_one();
                }
            }
            Err(error) if went_unanswered(error) => self.heard_nothing(),
            Err(error) if error.class == ErrorClass::Mismatch => {
                self.is_forked.store(true, Ordering::Relaxed);
            }
            Err(_) => {}
        }
    }

    fn heard_nothing(&self) {
        *self.silent.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// What a download may wait, where `whole` is the rule.
    fn patience(&self, whole: Duration) -> Duration {
        let silent = *self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        match silent {
            Some(since) if since.elapsed() < MOMENT => whole.min(SHORT_PATIENCE),
            _ => whole,
        }
    }
}

/// Nobody answered. That we ourselves were too busy to ask says nothing, and a road that sends what proves nothing is not
/// closed: somebody may have bent it.
fn went_unanswered(error: &Error) -> bool {
    let failures = &error.failures;
    let bent = |class| matches!(class, ErrorClass::Corrupt | ErrorClass::Mismatch);
    error.is_outage()
        && failures.iter().any(|failure| failure.stage != Stage::Local)
        && !failures.iter().any(|failure| bent(failure.class))
}

/// What is known of a module's record when its file is here.
pub(crate) enum Word {
    Known(RecordHashes),
    /// Nobody could be asked, and by the settings the file goes out all the same.
    Unreachable,
}

impl Mirror {
    /// What became of comparisons with the checksum database since the start.
    pub fn verifications(&self) -> Verifications {
        let counts = &self.inner.later.counts;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Verifications {
            verified: read(&counts.verified),
            mismatch: read(&counts.mismatch),
            no_record: read(&counts.no_record),
            unreachable: read(&counts.unreachable),
            served_unverified: read(&counts.served_unverified),
            later_verified: read(&counts.later_verified),
            later_rejected: read(&counts.later_rejected),
        }
    }

    /// Whether the settings let anything go out unverified.
    pub fn may_serve_unverified(&self) -> bool {
        self.inner.settings.serve_unverified_after.is_some()
    }

    /// Whether what is stored unverified of this module is handed out: it need not be verified, or nobody can say more.
    pub(crate) fn hands_out_unverified(&self, path: &ModulePath) -> bool {
        self.exemption(path).is_some()
            || (self.inner.settings.serve_unverified_after.is_some()
                && !is_toolchain(path)
                && !self.inner.later.is_forked.load(Ordering::Relaxed))
    }

    /// Waits for the record of a module whose file is here: to the end of the look-up, or only a moment where the file may
    /// go out without it.
    pub(crate) async fn word(
        &self,
        module: &ModuleVersion,
        looking_up: impl Future<Output = Landed<LookedUp>>,
    ) -> Result<Word, Error> {
        let later = &self.inner.later;
        let after = self.inner.settings.serve_unverified_after;
        let after = after.filter(|_| !is_toolchain(module.path()));
        let patience = after.map_or(Duration::MAX, |after| later.patience(after));
        let Ok(outcome) = timeout(patience, looking_up).await else {
            // The look-up goes on by itself; what it brings is kept.
            later.heard_nothing();
            count(&later.counts.unreachable);
            debug!(module = %module, "the checksum database is not waited for any longer");
            return Ok(Word::Unreachable);
        };
        later.heard(&outcome);
        let error = match outcome {
            Ok(found) => return Ok(Word::Known(found.hashes)),
            Err(error) => error,
        };
        match error.class {
            ErrorClass::NotFound => count(&later.counts.no_record),
            ErrorClass::Unavailable | ErrorClass::Timeout => count(&later.counts.unreachable),
            _ => {}
        }
        if after.is_some() && went_unanswered(&error) {
            debug!(module = %module, %error, "the checksum database cannot be asked");
            return Ok(Word::Unreachable);
        }
        Err((*error).clone())
    }

    /// Said once for each version, when the first of its files is stored unverified.
    pub(crate) fn stored_unverified(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        sidecar: &Sidecar,
    ) {
        let other = if artifact == Artifact::Mod { Artifact::Zip } else { Artifact::Mod };
        if sidecar.of(other).is_none_or(|record| record.state != State::Unverified) {
            warn!(module.path = %module.path(), module.version = %module.version(),
                "the checksum database cannot be reached: this version is handed out unverified, and verified later");
        }
        self.inner.later.nudge(module);
    }

    /// Verifies what was stored unverified, now and whenever there is more of it; until it is dropped.
    pub async fn verify_later(&self) {
        if self.inner.settings.offline || self.inner.database.is_none() {
            return;
        }
        let later = &self.inner.later;
        let mut pauses = pauses();
        loop {
            let pass = self.verify_all().await;
            if pass.settled() > 0 || pass.left() == 0 {
                pauses = self::pauses();
            }
            if pass.settled() > 0 {
                info!(
                    compared = pass.settled(),
                    left = pass.left(),
                    "what was stored unverified was compared with the checksum database"
                );
            }
            sleep(BREATH).await;
            if pass.left() == 0 {
                tokio::select! {
                    () = later.nudge.notified() => {}
                    // Until then the index may lack some of it.
                    () = self.inner.store.index_completed(), if !pass.saw_all => {}
                }
                continue;
            }
            let pause = pauses.next().unwrap_or(PAUSES.1);
            debug!(left = pass.left(), ?pause, "the checksum database is asked again later");
            // Those who ask for it make the pause a short one, and an answer to somebody else ends it.
            tokio::select! {
                () = sleep(pause) => {}
                () = async { sleep(PAUSES.0).await; later.nudge.notified().await } => {}
                () = later.answered.notified() => {}
            }
        }
    }

    /// One pass over everything that is unverified: what was asked for lately first.
    async fn verify_all(&self) -> Pass {
        let mut pass = Pass::default();
        let nudged = self.inner.later.take_nudged();
        self.verify_each(nudged.iter().cloned(), &pass).await;
        let mut after = 0;
        loop {
            let page = match self.inner.store.unverified(after, PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    debug!(%error, "what is unverified cannot be listed");
                    *pass.left.get_mut() += 1;
                    return pass;
                }
            };
            let Some((last, _)) = page.last() else { break };
            after = *last;
            let others = page.into_iter().map(|(_, module)| module);
            self.verify_each(others.filter(|module| !nudged.contains(module)), &pass).await;
        }
        pass.saw_all = self.inner.store.counts().await.is_ok_and(|counts| counts.complete);
        pass
    }

    async fn verify_each(&self, modules: impl Iterator<Item = ModuleVersion>, pass: &Pass) {
        futures_util::stream::iter(modules)
            .for_each_concurrent(AT_ONCE, |module| async move {
                let chain = self.inner.policy.careful_chain(module.path());
                let chain: Vec<String> =
                    chain.entries.iter().map(|entry| entry.source.to_string()).collect();
                for artifact in [Artifact::Mod, Artifact::Zip] {
                    self.verify_one(&module, artifact, &chain.join(","), pass).await;
                }
            })
            .await;
    }

    async fn verify_one(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        chain: &str,
        pass: &Pass,
    ) {
        if !self.waits(module, artifact).await {
            return;
        }
        if pass.is_silent(chain) {
            pass.leave(None);
            return;
        }
        let failed = match self.verify_once(module, artifact, "").await {
            Ok(_) => None,
            // The database has no record of it, and so it is stored no more.
            Err(error) if error.class == ErrorClass::NotFound => None,
            Err(error) => Some(error),
        };
        match failed {
            Some(error) => {
                debug!(module = %module, %error, "it stays unverified");
                pass.leave(Some(chain).filter(|_| error.is_outage()));
            }
            // The disk did not take the word. To ask for it again at once would be in vain.
            None if self.waits(module, artifact).await => pass.leave(None),
            None => pass.settle(),
        }
    }

    async fn waits(&self, module: &ModuleVersion, artifact: Artifact) -> bool {
        match self.inner.store.sidecar(module).await {
            Ok(sidecar) => sidecar
                .and_then(|sidecar| sidecar.of(artifact).map(|record| record.state.clone()))
                .is_some_and(|state| state == State::Unverified),
            Err(_) => true,
        }
    }
}

/// What came of one pass.
#[derive(Debug, Default)]
struct Pass {
    settled: AtomicU64,
    left: AtomicU64,
    /// By chain: look-ups that nobody answered.
    unanswered: Mutex<HashMap<String, u32>>,
    /// The index lacked nothing.
    saw_all: bool,
}

impl Pass {
    fn settled(&self) -> u64 {
        self.settled.load(Ordering::Relaxed)
    }

    fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    fn settle(&self) {
        count(&self.settled);
    }

    /// `unanswered`: the chain along which nobody answered.
    fn leave(&self, unanswered: Option<&str>) {
        count(&self.left);
        if let Some(chain) = unanswered {
            let mut of = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
            *of.entry(chain.to_owned()).or_default() += 1;
        }
    }

    fn is_silent(&self, chain: &str) -> bool {
        let of = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        of.get(chain).is_some_and(|&times| times >= ENOUGH)
    }
}

fn pauses() -> ExponentialBackoff {
    // The jitter is up to as much again.
    ExponentialBuilder::new()
        .with_min_delay(PAUSES.0)
        .with_max_delay(PAUSES.1 / 2)
        .without_max_times()
        .with_jitter()
        .build()
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Known(_) => "Known",
            Self::Unreachable => "Unreachable",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stoa_upstream::{Failure, Source};

    use super::*;

    #[test]
    fn pauses_grow_from_seconds_to_minutes_and_no_further() {
        for _ in 0..20 {
            let pauses: Vec<Duration> = pauses().take(30).collect();
            assert!(pauses[0] >= PAUSES.0 && pauses[0] <= PAUSES.0 * 2, "{pauses:?}");
            assert!(pauses.iter().all(|pause| *pause <= PAUSES.1), "{pauses:?}");
            assert!(pauses.iter().skip(10).all(|pause| *pause >= PAUSES.1 / 2), "{pauses:?}");
        }
    }

    fn outage() -> Landed<LookedUp> {
        let source = Source::from_url(&url::Url::parse("http://sum.example.com").unwrap()).unwrap();
        let failure = Failure::new(ErrorClass::Unavailable, Stage::Connect, &source, "refused");
        Err(Arc::new(Error::new(ErrorClass::Unavailable, "no").because(vec![failure])))
    }

    fn found(stored: bool) -> LookedUp {
        let hashes = RecordHashes { zip: None, go_mod: None };
        LookedUp { body: bytes::Bytes::new(), hashes, stored }
    }

    #[test]
    fn patience_is_short_from_a_silence_to_the_next_answer() {
        let later = Later::default();
        let whole = Duration::from_secs(5);
        assert_eq!(later.patience(whole), whole);
        later.heard(&outage());
        assert_eq!(later.patience(whole), SHORT_PATIENCE);
        assert_eq!(later.patience(SHORT_PATIENCE / 2), SHORT_PATIENCE / 2);
        later.heard(&Ok(found(true)));
        assert_eq!(later.patience(whole), SHORT_PATIENCE, "the disk says nothing of the database");
        later.heard(&Ok(found(false)));
        assert_eq!(later.patience(whole), whole);
        // Nobody was asked.
        later.heard(&Err(Arc::new(Error::new(ErrorClass::Unavailable, "too many fetches"))));
        assert_eq!(later.patience(whole), whole);
    }

    #[test]
    fn only_silence_is_an_outage() {
        use ErrorClass::{Corrupt, Denied, NotFound, Timeout, Unavailable};

        let check = |classes: &[(ErrorClass, Stage)], expected| {
            let source = Source::from_url(&url::Url::parse("http://sum.example.com").unwrap());
            let source = source.unwrap();
            let failure = |&(class, stage)| Failure::new(class, stage, &source, "");
            let failures = classes.iter().map(failure).collect();
            let error = Error::new(ErrorClass::Unavailable, "no").because(failures);
            assert_eq!(went_unanswered(&error), expected, "{classes:?}");
        };
        check(&[(Unavailable, Stage::Connect)], true);
        check(&[(Denied, Stage::Http), (Timeout, Stage::Http)], true);
        check(&[(NotFound, Stage::Local), (Unavailable, Stage::Dns)], true);
        check(&[(Corrupt, Stage::Body), (Unavailable, Stage::Dns)], false);
        check(&[(Unavailable, Stage::Local)], false);
        check(&[], false);
        assert!(!went_unanswered(&Error::new(ErrorClass::NotFound, "no")));
    }

    #[test]
    fn what_is_asked_for_is_remembered_within_bounds() {
        let later = Later::default();
        for n in 0..2 * MOST_NUDGED {
            later.nudge(&ModuleVersion::parse(&format!("example.com/m@v1.0.{n}")).unwrap());
        }
        assert_eq!(later.take_nudged().len(), MOST_NUDGED);
        assert!(later.take_nudged().is_empty());
    }

    #[test]
    fn a_pass_leaves_a_silent_chain_alone_and_no_other() {
        let pass = Pass::default();
        for _ in 0..ENOUGH {
            assert!(!pass.is_silent("a"));
            pass.leave(Some("a"));
        }
        pass.leave(None);
        assert!(pass.is_silent("a") && !pass.is_silent("b"));
        assert_eq!((pass.left(), pass.settled()), (u64::from(ENOUGH) + 1, 0));
    }
}
