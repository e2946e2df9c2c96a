//! The front door: what a parsed request is answered with.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use moka::sync::Cache;
use stoa_module::{
    Artifact, ErrorClass, Info, ModulePath, ModuleVersion, Query, Request, Sha256, Version,
};
use stoa_store::{AnswerKey, ArtifactRecord, Content, OpenFile, State, Store, StoredVersion};
use stoa_upstream::Client;
use tokio::sync::Semaphore;

use crate::absent::{Asked, Verdicts};
use crate::answer::{Answer, Body, Freshness, Kind, Lasting, Outcome, Wish};
use crate::error::Error;
use crate::flight::{Flights, MOST_FLIGHTS};
use crate::growing::{Growing, Reader};
use crate::heard::Heard;
use crate::inspectors::Inspectors;
use crate::latencies::Latencies;
use crate::mutable::Kept;
use crate::permits::Permits;
use crate::policy::{Policy, is_toolchain};
use crate::rate::Rate;
use crate::settings::Settings;
use crate::sumdb::Database;
use crate::toll::{Asker, Toll};
use crate::unverified::{Later, count};
use crate::waits::{Timing, asking};

/// How soon the small files of a stored zip are asked for again, and of how many zips that is remembered.
const COMPANIONS_AGAIN: Duration = Duration::from_secs(10);
const COMPANIONS_REMEMBERED: u64 = 4096;

/// How long a zip is held back as a whole, so that a person is told what is wrong with it, after it was broken off while it
/// was being sent, and for how many that is remembered.
const HELD_BACK: Duration = Duration::from_mins(1);
const BROKEN_OFF_REMEMBERED: u64 = 4096;

/// Of how many modules it is remembered that a person had them looked at anew, and for how long at most. By itself it
/// is for twice the TTL; what is kept is not answered without asking beyond that.
const REFRESHED_REMEMBERED: u64 = 4096;
const LONGEST_REMEMBERED: Duration = Duration::from_hours(24);

/// What is remembered of what the sources said last.
const HEARD_BYTES: u64 = 512 << 10;

/// Explanations at once: each reads files that nobody else wants, and anybody may ask for one.
const MOST_EXPLAINED: usize = 4;

/// Looks in the background at once, at all sources together: they must leave the sources' places to those who wait.
const MOST_BEHIND: usize = 16;
/// How often a client may have one answer looked at anew, and how often the absent files of one module are asked for
/// again: so many at once, then one after each span. A version has three files.
const FORCED_BURST: u32 = 3;
const ASKED_AGAIN_BURST: u32 = 9;
const AFTER_BURST: Duration = Duration::from_secs(1);

/// What is fetched, and the stoas that the request came through. Two servers that name each other in their chains would
/// wait for each other's flights for ever; a request that came through another stoa flies apart, and is noticed when it
/// comes back to where it began.
pub(crate) type Routed<K> = (K, String);

/// What a flight brings to everyone who waited for it.
pub(crate) type Landed<T> = Result<T, Arc<Error>>;

type ArtifactFlights = Flights<Routed<(ModuleVersion, Artifact)>, Landed<Arrived>, Arc<Growing>>;

/// The digest of what may be handed out.
type VerificationFlights = Flights<(ModuleVersion, Artifact), Landed<Option<Sha256>>>;

/// What became of an artifact that was fetched.
#[derive(Clone, Debug)]
pub(crate) enum Arrived {
    /// It is in the store.
    Stored,
    /// It is verified like any other, but the disk did not take it: it is for those who wait for it now.
    Passed(Arc<OpenFile>, ArtifactRecord),
}

/// The caching mirror: cheap to clone, one per process.
#[derive(Clone)]
pub struct Mirror {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub settings: Settings,
    pub policy: Policy,
    pub store: Store,
    pub client: Client,
    /// None where `GOSUMDB=off`.
    pub database: Option<Database>,
    pub artifacts: Arc<ArtifactFlights>,
    /// Of what is stored and not yet vouched for under today's settings. One at a time for each, since one may throw out
    /// what it finds.
    pub verifications: Arc<VerificationFlights>,
    pub answers: Arc<Flights<Routed<AnswerKey>, Landed<Arc<Kept>>>>,
    /// Places of those who ask [why something is so](Mirror::explain).
    pub explaining: Semaphore,
    /// Places of [looks in the background](Mirror::look_behind).
    pub behind: Arc<Semaphore>,
    /// Modules that a person had looked at anew, and when.
    pub refreshed: Cache<ModulePath, jiff::Timestamp>,
    pub forced: Rate,
    pub asked_again: Rate,
    pub verdicts: Verdicts,
    /// What the sources said of files and answers.
    pub heard: Heard,
    /// Zips whose missing small files were asked for a moment ago.
    pub companions_tried: Cache<ModuleVersion, ()>,
    /// Zips that were broken off a moment ago while they were being sent.
    pub broken_off: Cache<ModuleVersion, ()>,
    pub permits: Permits,
    /// Of files, by the sources' hosts.
    pub latencies: Latencies,
    pub inspectors: Inspectors,
    /// Versions whose content was other than what was first seen of them.
    pub conflicts: AtomicU64,
    pub later: Later,
    /// None where clients may ask for as much as they like.
    pub toll: Option<Arc<Toll>>,
}

impl Mirror {
    /// # Errors
    /// The threads that inspect zips cannot be started.
    pub fn new(
        settings: Settings,
        policy: Policy,
        store: Store,
        client: Client,
        database: Option<Database>,
    ) -> std::io::Result<Self> {
        let inner = Inner {
            verdicts: Verdicts::new(settings.negative_bytes),
            heard: Heard::new(HEARD_BYTES),
            companions_tried: Cache::builder()
                .max_capacity(COMPANIONS_REMEMBERED)
                .time_to_live(COMPANIONS_AGAIN)
                .build(),
            broken_off: Cache::builder()
                .max_capacity(BROKEN_OFF_REMEMBERED)
                .time_to_live(HELD_BACK)
                .build(),
            permits: Permits::new(settings.max_concurrent),
            latencies: Latencies::default(),
            later: Later::default(),
            toll: (settings.misses_per_client > 0).then(|| Toll::new(settings.misses_per_client)),
            inspectors: Inspectors::new(settings.verify_concurrency)?,
            conflicts: AtomicU64::new(0),
            artifacts: Flights::new(MOST_FLIGHTS),
            verifications: Flights::new(MOST_FLIGHTS),
            answers: Flights::new(MOST_FLIGHTS),
            explaining: Semaphore::new(MOST_EXPLAINED),
            behind: Arc::new(Semaphore::new(MOST_BEHIND)),
            refreshed: Cache::builder()
                .max_capacity(REFRESHED_REMEMBERED)
                .time_to_live(settings.list_ttl.saturating_mul(2).min(LONGEST_REMEMBERED))
                .build(),
            forced: Rate::new(FORCED_BURST, AFTER_BURST),
            asked_again: Rate::new(ASKED_AGAIN_BURST, AFTER_BURST),
            settings,
            policy,
            store,
            client,
            database,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    pub fn database(&self) -> Option<&Database> {
        self.inner.database.as_ref()
    }

    /// Flights in the air, by kind: files, answers that can change, verifications of what is stored.
    pub fn flights(&self) -> [(&'static str, usize); 3] {
        let inner = &self.inner;
        [
            ("file", inner.artifacts.len()),
            ("answer", inner.answers.len()),
            ("verification", inner.verifications.len()),
        ]
    }

    /// How often a source sent other content of a version than was first seen of it, since the start.
    pub fn conflicts(&self) -> u64 {
        self.inner.conflicts.load(Ordering::Relaxed)
    }

    /// For what it has counted, and for its breakers.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    pub fn is_private(&self, path: &ModulePath) -> bool {
        self.inner.policy.is_private(path)
    }

    /// Whether clients have a rate at which they may ask for what is not here.
    pub fn has_toll(&self) -> bool {
        self.inner.toll.is_some()
    }

    /// [`Mirror::answer`] at the cost of a client, if any is named, and what it had to wait for, if it had to. `id` is
    /// that of the request, by which [`Mirror::who_waits`] knows it.
    pub async fn answer_to(
        &self,
        id: &str,
        asker: Option<Asker>,
        request: &Request,
        wish: Wish<'_>,
    ) -> (Result<Answer, Arc<Error>>, Option<Timing>) {
        match (&self.inner.toll, asker) {
            (Some(toll), Some(asker)) => {
                asking(id, toll.of(asker, self.answer(request, wish))).await
            }
            _ => asking(id, self.answer(request, wish)).await,
        }
    }

    /// Answers a request for whatever the protocol knows.
    pub async fn answer(&self, request: &Request, wish: Wish<'_>) -> Result<Answer, Arc<Error>> {
        match request {
            Request::Artifact { module, artifact } => self.artifact(module, *artifact, wish).await,
            Request::List(path) => self.list(path, wish).await,
            Request::Latest(path) => self.latest(path, wish).await,
            Request::Query { path, query } => self.query(path, query, wish).await,
            Request::Sumdb { rest } => self.sumdb(rest, wish.via).await,
        }
    }

    /// One file of one version.
    pub async fn artifact(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        wish: Wish<'_>,
    ) -> Result<Answer, Arc<Error>> {
        let asked = asked_artifact(module, artifact);
        self.refuse_by_route(module.path(), &asked)?;
        if let Some(mut answer) = self.stored(module, artifact, Outcome::Hit, wish.via).await? {
            if artifact == Artifact::Zip && self.fetch_missing_companions(module).await {
                answer.lasting = Lasting::Once;
            }
            return Ok(answer);
        }
        refuse_impossible(module.path(), &asked)?;
        if self.inner.settings.offline {
            let made = self.made_info(module, artifact).await;
            return made.ok_or_else(|| Arc::new(Error::offline(&asked)));
        }
        let about = Asked::Artifact(module.clone(), artifact);
        let fetched = match self.standing(&about, module.path(), wish) {
            Some(verdict) => Err(verdict),
            None => self.fetch_once(module, artifact, &asked, wish).await,
        };
        let error = match fetched {
            Err(error) if error.is_outage() => error,
            fetched => return fetched,
        };
        // The upstream is down, and what the client needs of it may follow from what is here, or be known from before.
        if let Some(made) = self.made_info(module, artifact).await {
            return Ok(Answer { outcome: Outcome::Stale, ..made });
        }
        let error = self.absent_before(&about, error);
        if artifact != Artifact::Info {
            return Err(error);
        }
        Err(self.softened(module.path(), Some(module.version()), error).await)
    }

    async fn fetch_once(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        asked: &str,
        wish: Wish<'_>,
    ) -> Result<Answer, Arc<Error>> {
        let via = wish.via;
        let work = {
            let (mirror, module, via) = (self.clone(), module.clone(), via.to_owned());
            move |announcer| async move { mirror.fetch(&module, artifact, &via, announcer).await }
        };
        let key = ((module.clone(), artifact), stoas_of(via));
        let grounded = |grounded| Error::grounded(asked, grounded);
        self.inner.artifacts.pay(&key).map_err(grounded)?;
        let boarded = self.inner.artifacts.board_announced(key, work).map_err(grounded)?;
        let landed = if wish.as_it_comes {
            let take = |growing: Arc<Growing>| Some((growing.reader()?, growing.source.clone()));
            match boarded.first(take).await.map_err(grounded)? {
                Ok((reader, source)) => return Ok(self.growing_answer(module, reader, source)),
                Err(landed) => landed,
            }
        } else {
            boarded.landed().await.map_err(grounded)?
        };
        let arrived = landed?;
        if let Arrived::Passed(file, record) = arrived {
            // What nobody vouches for is final only once it is on record as the first that was seen.
            let verified = record.state.is_verified();
            let body = Body::File(file, record.size);
            let answer = self.artifact_answer(module, artifact, Outcome::Miss, record, body);
            let passing = Freshness::For(Duration::ZERO);
            let freshness = if verified { answer.freshness } else { passing };
            return Ok(Answer { freshness, ..answer });
        }
        let stored = self.stored(module, artifact, Outcome::Miss, via).await?;
        // The next who asks for a zip sees to it that its small files are here too.
        let lasting = |answer: &Answer| match artifact {
            Artifact::Zip => Lasting::Once,
            Artifact::Info | Artifact::Mod => answer.lasting,
        };
        stored.map(|answer| Answer { lasting: lasting(&answer), ..answer }).ok_or_else(|| {
            Arc::new(Error::new(
                ErrorClass::Internal,
                format!("{asked}: it was stored and is gone again"),
            ))
        })
    }

    /// From the store alone: no database, no network, no lock that a miss holds.
    async fn stored(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        outcome: Outcome,
        via: &str,
    ) -> Result<Option<Answer>, Arc<Error>> {
        let asked = || asked_artifact(module, artifact);
        let mut lasting = Lasting::WhileRecorded(self.inner.store.stamp(module));
        let found = self.inner.store.open_artifact(module, artifact).await;
        let found = found.map_err(|error| Arc::new(Error::store(&asked(), &error)))?;
        let Some(mut stored) = found else { return Ok(None) };
        if stored.record.state == State::Unverified {
            lasting = Lasting::Once;
        }
        if !self.may_hand_out(module, artifact, &stored.record) {
            lasting = Lasting::Once;
            let Some(vouched_for) = self.verify_once(module, artifact, via).await? else {
                return Ok(None);
            };
            // What was verified is what is in the store now, which need not be what was opened before.
            let found = self.inner.store.open_artifact(module, artifact).await;
            let found = found.map_err(|error| Arc::new(Error::store(&asked(), &error)))?;
            match found {
                Some(found) if self.may_hand_out(module, artifact, &found.record) => stored = found,
                // The disk did not take the word.
                Some(found) if found.record.sha256 == vouched_for => stored = found,
                _ => return Ok(None),
            }
        }
        let body = match stored.content {
            Content::Memory(bytes) => Body::Bytes(bytes),
            Content::File(file) => Body::File(file, stored.record.size),
        };
        let answer = self.artifact_answer(module, artifact, outcome, stored.record, body);
        Ok(Some(Answer { lasting, ..answer }))
    }

    /// Whether an answer may be given again as it is. Takes no lock.
    pub fn lasts(&self, lasting: Lasting) -> bool {
        match lasting {
            Lasting::Once => false,
            Lasting::WhileRecorded(stamp) => self.inner.store.is_current(stamp),
            Lasting::Always => true,
        }
    }

    fn artifact_answer(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        outcome: Outcome,
        record: ArtifactRecord,
        body: Body,
    ) -> Answer {
        Answer {
            body,
            kind: match artifact {
                Artifact::Info => Kind::Info,
                Artifact::Mod => Kind::Mod,
                Artifact::Zip => Kind::Zip,
            },
            outcome,
            freshness: self.freshness_of(module, &record),
            source: record.source,
            digest: Some(record.sha256),
            private: self.is_private(module.path()),
            lasting: Lasting::Once,
        }
    }

    /// A zip that is being downloaded, has its record, and is whole only if that vouches for it.
    fn growing_answer(&self, module: &ModuleVersion, reader: Reader, source: String) -> Answer {
        Answer {
            body: Body::Growing(reader),
            kind: Kind::Zip,
            outcome: Outcome::Miss,
            source,
            freshness: Freshness::Immutable,
            digest: None,
            private: self.is_private(module.path()),
            lasting: Lasting::Once,
        }
    }

    fn freshness_of(&self, module: &ModuleVersion, record: &ArtifactRecord) -> Freshness {
        if record.state != State::Unverified {
            return Freshness::Immutable;
        }
        if !self.inner.settings.offline {
            self.inner.later.nudge(module);
        }
        if self.exemption(module.path()).is_some() {
            return Freshness::Immutable;
        }
        count(&self.inner.later.counts.served_unverified);
        Freshness::Unverified
    }

    /// Whether the state in the sidecar is enough under today's settings: what was exempt when it was fetched may be
    /// covered by the checksum database now.
    pub(crate) fn may_hand_out(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        record: &ArtifactRecord,
    ) -> bool {
        match &record.state {
            State::Verified { database } => {
                self.inner.database.as_ref().is_none_or(|ours| ours.name() == database)
                    || self.exemption(module.path()).is_some()
            }
            State::Uncovered => artifact == Artifact::Info,
            State::Exempt { .. } => self.exemption(module.path()).is_some(),
            State::Unverified => self.hands_out_unverified(module.path()),
        }
    }

    /// Why the checksum database is not asked about this module; none if it must be.
    pub(crate) fn exemption(&self, path: &ModulePath) -> Option<String> {
        if let Some(pattern) = self.inner.policy.exempting_pattern(path) {
            return Some(pattern.to_owned());
        }
        (self.inner.database.is_none() && !is_toolchain(path)).then(|| "GOSUMDB=off".to_owned())
    }

    /// The `.info` of a version of which only the `.mod` is stored. A build with a full go.sum asks for no `.info`, so a
    /// store that such builds filled has none; the version itself says what a client needs of it.
    async fn made_info(&self, module: &ModuleVersion, artifact: Artifact) -> Option<Answer> {
        if artifact != Artifact::Info {
            return None;
        }
        let stored = self.inner.store.sidecar(module).await;
        let stored = stored.ok().flatten()?;
        stored.of(Artifact::Mod)?;
        Some(Answer {
            body: Body::Bytes(Bytes::from(Info::made_from(module.version()))),
            kind: Kind::Info,
            outcome: Outcome::Hit,
            source: "made from the version".to_owned(),
            freshness: Freshness::For(Duration::ZERO),
            digest: None,
            private: self.is_private(module.path()),
            lasting: Lasting::Once,
        })
    }

    /// A route to `off` refuses, whether or not it is stored; 403, so that a client does not go around it.
    pub(crate) fn refuse_by_route(&self, path: &ModulePath, asked: &str) -> Result<(), Arc<Error>> {
        let Some(route) = self.inner.policy.refusing_route(path) else { return Ok(()) };
        Err(Arc::new(Error::new(
            ErrorClass::Denied,
            // The others of its patterns may be private.
            format!(
                "{asked}: refused by this server's route for {}",
                route.pattern.find(path).unwrap_or_default()
            ),
        )))
    }

    /// The versions of a module that this store can serve on its own: those with a `.zip` if there are any (a client
    /// that picks the newest of a list needs its source), else those with a `.mod`.
    pub(crate) async fn servable(&self, path: &ModulePath) -> Result<Vec<Version>, Arc<Error>> {
        let stored = self.inner.store.stored_versions(path).await;
        let stored = stored.map_err(|error| Arc::new(Error::store(path.as_str(), &error)))?;
        let all = self.hands_out_unverified(path);
        let has = |artifacts: &'static [Artifact]| -> Vec<Version> {
            let has = |one: &StoredVersion, a| one.has(a) && (all || !one.unverified.contains(&a));
            let with = stored.iter().filter(|one| artifacts.iter().all(|&a| has(one, a)));
            with.map(|one| one.version.clone()).collect()
        };
        let complete = has(&[Artifact::Mod, Artifact::Zip]);
        Ok(if complete.is_empty() { has(&[Artifact::Mod]) } else { complete })
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror").finish_non_exhaustive()
    }
}

/// Names that can be no module are answered without asking anybody.
pub(crate) fn refuse_impossible(path: &ModulePath, asked: &str) -> Result<(), Arc<Error>> {
    path.impossible().map_or(Ok(()), |reason| {
        Err(Arc::new(Error::new(ErrorClass::NotFound, format!("{asked}: not found: {reason}"))))
    })
}

/// How an artifact is named in texts for people.
pub(crate) fn asked_artifact(module: &ModuleVersion, artifact: Artifact) -> String {
    format!("{module} .{}", artifact.extension())
}

/// How a list, `@latest` or query is named in texts for people.
pub(crate) fn asked_answer(key: &AnswerKey) -> String {
    match key {
        AnswerKey::List(path) => format!("{path} (list of versions)"),
        AnswerKey::Latest(path) => format!("{path}@latest"),
        AnswerKey::Query(path, query) => format!("{path}@{query}"),
    }
}

/// The stoas among those that a request came through, by its `Via`.
pub(crate) fn stoas_of(via: &str) -> String {
    let stoas: Vec<&str> =
        via.split(',').map(str::trim).filter(|entry| entry.contains("stoa-")).collect();
    stoas.join(", ")
}

pub(crate) fn query_key(path: &ModulePath, query: &Query) -> AnswerKey {
    AnswerKey::Query(path.clone(), query.clone())
}
