//! One cold artifact: walk the chain, check what arrives, compare it with the checksum database, commit.

mod course;
mod download;
mod hedge;
mod record;
mod stored;

use std::fmt;
use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use stoa_module::{
    Artifact, ErrorClass, H1, Info, ModuleVersion, ZipLimits, check_zip, module_line,
};
use stoa_store::{ArtifactRecord, Committed, QuarantineNote, State, Temporary};
use stoa_sumdb::RecordHashes;
use stoa_upstream::journey::{self, Leg};
use stoa_upstream::{Bounds, Chain, Failure, Source, Stage, Use};
use tracing::{error, info, warn};

use crate::absent::Asked;
use crate::answer::Wish;
use crate::error::Error;
use crate::fetch::course::{Course, Streaming};
use crate::fetch::download::Wanted;
use crate::fetch::hedge::{Obtained, Obtaining, Raced};
use crate::fetch::record::Record;
use crate::inspectors::Unfinished;
use crate::mirror::{Arrived, Mirror, asked_artifact};
use crate::policy::is_toolchain;
use crate::unverified::{Word, count};

pub(crate) use crate::fetch::course::ArtifactAnnouncer;

/// How long a contradiction is remembered: an https client asks twice after every 4xx.
const MISMATCH_TTL: Duration = Duration::from_mins(1);

/// Why an attempt at one source ended.
enum Stop {
    /// The chain decides whether another source is asked.
    Source(Failure),
    /// No other source would change it.
    All(Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Source(failure)
    }
}

impl Stop {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Source(failure) => failure.class,
            Self::All(error) => error.class,
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(failure) => failure.fmt(f),
            Self::All(error) => error.fmt(f),
        }
    }
}

/// What is asked of a chain.
#[derive(Clone, Copy)]
struct Asking<'a> {
    module: &'a ModuleVersion,
    artifact: Artifact,
    chain: &'a Chain,
    via: &'a str,
    announcer: &'a Arc<ArtifactAnnouncer>,
}

impl Mirror {
    /// The work of a flight's leader.
    pub(crate) async fn fetch(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        via: &str,
        announcer: ArtifactAnnouncer,
    ) -> Result<Arrived, Arc<Error>> {
        let asked = asked_artifact(module, artifact);
        journey::enter(Leg::Disk);
        // Between this flight's first request and its beginning another flight may have landed.
        if let Ok(Some(_)) = self.inner.store.open_artifact(module, artifact).await {
            return Ok(Arrived::Stored);
        }
        let announcer = Arc::new(announcer);
        let outcome = self.fetch_from_chain(module, artifact, &asked, via, &announcer).await;
        let settings = &self.inner.settings;
        let about = Asked::Artifact(module.clone(), artifact);
        self.inner.heard.note(&about);
        match outcome {
            Ok(arrived) => {
                self.noticed(module, artifact, via);
                if artifact == Artifact::Zip && matches!(arrived, Arrived::Stored) {
                    self.fetch_companions(module);
                }
                Ok(arrived)
            }
            Err(error) => {
                let error = Arc::new(error);
                match error.class {
                    ErrorClass::NotFound => {
                        let keep = settings.negative_version_ttl;
                        self.inner.verdicts.remember(&about, &error, keep);
                    }
                    ErrorClass::Mismatch => {
                        self.inner.verdicts.remember(&about, &error, MISMATCH_TTL);
                    }
                    _ => {}
                }
                Err(error)
            }
        }
    }

    async fn fetch_from_chain(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        asked: &str,
        via: &str,
        announcer: &Arc<ArtifactAnnouncer>,
    ) -> Result<Arrived, Error> {
        let chain = self.inner.policy.careful_chain(module.path());
        let mut record = self.wanted_record(module, artifact)?;
        let asking = Asking { module, artifact, chain: &chain, via, announcer };
        let mut walk = chain.walk();
        // Of the next step, where it was asked beside the present one.
        let (mut begun, mut failed) = (None, None);
        while let Some(step) = walk.next() {
            if let Some(failure) = failed.take() {
                walk.failed(failure);
                continue;
            }
            // Whoever is behind an address has been told the name already. A repository is looked for first: what is
            // nowhere is not told to the database, as by the go command.
            if matches!(step.source, Source::Http(_) | Source::File(_)) {
                record.look_up(module, &chain, via);
            }
            let was_begun = begun.is_some();
            let mut obtaining = begun.take().unwrap_or_else(|| self.obtaining(step, asking));
            if let Some(beside) = self.beside(&walk, step).filter(|_| !was_begun) {
                match self.race(obtaining, (step.source, beside), asking).await {
                    Raced::Present(present, failure) => (obtaining, failed) = (present, failure),
                    Raced::Behind(behind, Some(failure)) => {
                        walk.failed(failure);
                        begun = Some(behind);
                        continue;
                    }
                    Raced::Behind(behind, None) => {
                        match self.fetch_from(beside.0.source, behind, asking, &mut record).await {
                            Ok(arrived) => return Ok(arrived),
                            Err(Stop::All(error)) => return Err(error),
                            Err(Stop::Source(failure)) => failed = Some(failure),
                        }
                        // Then it has to be this one, and there is nothing better to do than wait.
                        obtaining = self.obtaining(step, asking);
                    }
                }
            }
            match self.fetch_from(step.source, obtaining, asking, &mut record).await {
                Ok(arrived) => return Ok(arrived),
                Err(Stop::All(error)) => return Err(error),
                Err(Stop::Source(failure)) => walk.failed(failure),
            }
        }
        Err(Error::exhausted(asked, walk.finish()))
    }

    fn wanted_record(&self, module: &ModuleVersion, artifact: Artifact) -> Result<Record, Error> {
        if artifact == Artifact::Info {
            return Ok(Record::Uncovered);
        }
        if let Some(pattern) = self.exemption(module.path()) {
            return Ok(Record::Exempt(pattern));
        }
        let database = self.inner.database.clone();
        database.map(Record::Wanted).ok_or_else(|| without_database(module))
    }

    /// Whether, and how, those who wait are given what arrives before it is whole. Not when that was broken off a moment
    /// ago: who asks again is told why.
    fn streaming<'a>(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        announcer: &'a Arc<ArtifactAnnouncer>,
    ) -> Option<Streaming<'a>> {
        let may = artifact == Artifact::Zip && !self.inner.broken_off.contains_key(module);
        may.then_some(Streaming { announcer, hold: self.inner.settings.hold_bytes })
    }

    async fn fetch_from(
        &self,
        source: &Source,
        obtaining: Obtaining<'_>,
        asking: Asking<'_>,
        record: &mut Record,
    ) -> Result<Arrived, Stop> {
        let Asking { module, artifact, .. } = asking;
        let Obtaining { course, visit, work } = obtaining;
        let attempt = self.attempt(source, &course, work, asking, record);
        let attempt = visit.journey().scope(attempt).await;
        visit.ended(&attempt);
        match &attempt {
            Ok(arrived) => course.release(arrived),
            Err(stop) if course.break_off(stop.class()) => {
                self.inner.broken_off.insert(module.clone(), ());
                warn!(module.path = %module.path(), module.version = %module.version(),
                    upstream.host = %source, reason = %stop,
                    "the {artifact} was broken off while it was being sent");
            }
            Err(_) => {}
        }
        attempt
    }

    /// The file, whatever is in it.
    async fn obtain(
        &self,
        source: &Source,
        header: Duration,
        asking: Asking<'_>,
        course: Arc<Course>,
    ) -> Obtained {
        let Asking { module, artifact, via, .. } = asking;
        let settings = &self.inner.settings;
        let max_bytes = match artifact {
            Artifact::Info => settings.max_info_bytes,
            Artifact::Mod => settings.max_mod_bytes,
            Artifact::Zip => settings.max_zip_bytes,
        };
        let bounds = Bounds { header, max_bytes };
        let asked = asked_artifact(module, artifact);
        let path = module.escaped_file(artifact);
        let client = &self.inner.client;
        let _place = self.inner.permits.place(client, source, &path, header).await?;
        let wanted = Wanted { path: &path, artifact, bounds, via, asked: &asked };
        course.asks();
        let done = self.download(source, &wanted, &course).await;
        if let Some(took) = course.took() {
            self.inner.latencies.note(source.host(), took);
        }
        done
    }

    async fn attempt(
        &self,
        source: &Source,
        course: &Course,
        mut downloading: Pin<Box<dyn Future<Output = Obtained> + Send + '_>>,
        asking: Asking<'_>,
        record: &mut Record,
    ) -> Result<Arrived, Stop> {
        let Asking { module, artifact, chain, via, .. } = asking;
        let (downloaded, mut temporary) = loop {
            if record.can_judge(artifact) {
                course.may_be_judged();
                break downloading.await;
            }
            tokio::select! {
                biased;
                done = &mut downloading => break done,
                () = record.lands() => {}
            }
        }?;
        journey::enter(Leg::Verify);
        let h1 = match self.inspect(source, module, artifact, &mut temporary).await {
            Ok(h1) => h1,
            Err(Stop::Source(failure)) => {
                self.quarantine(temporary, module, artifact, &failure).await;
                return Err(failure.into());
            }
            Err(stop) => return Err(stop),
        };
        // A source has it, whatever becomes of it here.
        self.inner.verdicts.forget(&Asked::Artifact(module.clone(), artifact));
        record.look_up(module, chain, via);
        let state = match self.compare(source, module, artifact, h1, record).await {
            Ok(state) => state,
            Err(Stop::Source(failure)) => {
                error!(module.path = %module.path(), module.version = %module.version(),
                    upstream.host = %source, %failure, "SECURITY: checksum mismatch");
                self.quarantine(temporary, module, artifact, &failure).await;
                return Err(failure.into());
            }
            Err(stop) => return Err(stop),
        };
        journey::enter(Leg::Commit);
        let kept = ArtifactRecord {
            size: downloaded.bytes,
            sha256: downloaded.sha256,
            h1,
            state,
            source: source.to_string(),
            first_seen: jiff::Timestamp::now(),
        };
        self.keep(source, module, artifact, temporary, kept).await
    }

    /// Commits what was checked.
    async fn keep(
        &self,
        source: &Source,
        module: &ModuleVersion,
        artifact: Artifact,
        temporary: Temporary,
        kept: ArtifactRecord,
    ) -> Result<Arrived, Stop> {
        let asked = asked_artifact(module, artifact);
        let is_unverified = kept.state == State::Unverified;
        match self.inner.store.commit(module, artifact, temporary, kept.clone()).await {
            Ok(Committed::Stored(sidecar)) => {
                if is_unverified {
                    self.stored_unverified(module, artifact, &sidecar);
                }
                Ok(Arrived::Stored)
            }
            // What is not stored cannot be verified later.
            Ok(Committed::Passed(_)) if is_unverified => {
                Err(Stop::All(Error::unverified_unstored(&asked)))
            }
            Ok(Committed::Passed(file)) => Ok(Arrived::Passed(file, kept)),
            Err(stoa_store::Error::Conflict { had }) => {
                self.inner.conflicts.fetch_add(1, Ordering::Relaxed);
                if had.state == State::Unverified {
                    // One of the two is wrong, and nobody has said yet which.
                    self.inner.later.nudge(module);
                }
                let failure = Failure::new(
                    ErrorClass::Mismatch,
                    Stage::Local,
                    source,
                    format!(
                        "sent {}, but what was first seen of it is {}",
                        hash_text(kept.h1, &kept.sha256),
                        hash_text(had.h1, &had.sha256)
                    ),
                );
                error!(module.path = %module.path(), module.version = %module.version(), %failure,
                    "SECURITY: the content of a version has changed");
                Err(failure.into())
            }
            Err(error) => Err(Stop::All(Error::store(&asked, &error))),
        }
    }

    /// The form of what arrived, and its `h1:` where it has one.
    async fn inspect(
        &self,
        source: &Source,
        module: &ModuleVersion,
        artifact: Artifact,
        temporary: &mut Temporary,
    ) -> Result<Option<H1>, Stop> {
        let corrupt = |detail: String| {
            Stop::Source(Failure::new(ErrorClass::Corrupt, Stage::Body, source, detail))
        };
        let internal = |detail: String| {
            Stop::All(Error::new(
                ErrorClass::Internal,
                format!("{}: {detail}", asked_artifact(module, artifact)),
            ))
        };
        let reader = temporary.reader().await;
        let mut reader = reader.map_err(|error| internal(error.to_string()))?;
        if artifact == Artifact::Zip {
            let limits = ZipLimits::default();
            let wanted = module.clone();
            let reader = self.inner.inspectors.watched(reader);
            let inspected = self.inner.inspectors.run(move || check_zip(reader, &wanted, &limits));
            return match inspected.await {
                Ok(Ok(checked)) => Ok(Some(checked.h1)),
                Ok(Err(error)) => Err(corrupt(format!("not a module zip: {error}"))),
                Err(Unfinished::Panicked) => {
                    Err(internal("the inspection of the zip failed".to_owned()))
                }
                Err(Unfinished::StandsStill) => {
                    let asked = asked_artifact(module, artifact);
                    let text = format!("{asked}: what arrived could not be read within a minute");
                    Err(Stop::All(Error::new(ErrorClass::Timeout, text)))
                }
            };
        }
        let mut text = Vec::new();
        reader.read_to_end(&mut text).map_err(|error| internal(error.to_string()))?;
        if artifact == Artifact::Mod {
            if module_line(&text).is_none() {
                return Err(corrupt("not a go.mod file: it has no module line".to_owned()));
            }
            return Ok(Some(H1::of_go_mod(&text)));
        }
        let info = Info::parse(&text).map_err(|error| corrupt(error.to_string()))?;
        if info.version != *module.version() {
            return Err(corrupt(format!(
                "sent the information of {} instead of {}",
                info.version,
                module.version()
            )));
        }
        Ok(None)
    }

    /// What the checksum database says of it. [`Stop::Source`] is a contradiction.
    async fn compare(
        &self,
        source: &Source,
        module: &ModuleVersion,
        artifact: Artifact,
        h1: Option<H1>,
        record: &mut Record,
    ) -> Result<State, Stop> {
        if let Some(word) = record.word(self, module).await {
            *record = match word.map_err(Stop::All)? {
                Word::Known(hashes) => Record::Known(hashes),
                Word::Unreachable => Record::Unreachable,
            };
        }
        match record {
            Record::Exempt(pattern) => Ok(State::Exempt { pattern: pattern.clone() }),
            Record::Uncovered => Ok(State::Uncovered),
            Record::Unreachable => Ok(State::Unverified),
            // What came before its record was looked up is not handed out: a mistake of ours.
            Record::Pending(_) | Record::Landed(_) | Record::Wanted(_) => {
                Err(Stop::All(Error::lost(&asked_artifact(module, artifact))))
            }
            Record::Known(hashes) => {
                let name = self.inner.database.as_ref().map_or("", |database| database.name());
                let counts = &self.inner.later.counts;
                let Some(detail) = contradiction(name, artifact, h1, hashes) else {
                    count(&counts.verified);
                    return Ok(State::Verified { database: name.to_owned() });
                };
                count(&counts.mismatch);
                Err(Stop::Source(Failure::new(ErrorClass::Mismatch, Stage::Body, source, detail)))
            }
        }
    }

    /// A later offline client needs the small files too.
    fn fetch_companions(&self, module: &ModuleVersion) {
        for artifact in [Artifact::Info, Artifact::Mod] {
            let (mirror, module) = (self.clone(), module.clone());
            tokio::spawn(async move {
                if let Err(error) = mirror.artifact(&module, artifact, Wish::default()).await {
                    info!(module.path = %module.path(), module.version = %module.version(), %error,
                        "a companion of a stored zip could not be fetched");
                }
            });
        }
    }

    /// The server may have been stopped, or its upstream gone, just after the zip came. Answers whether any is missing.
    pub(crate) async fn fetch_missing_companions(&self, module: &ModuleVersion) -> bool {
        if self.inner.settings.offline {
            return false;
        }
        let Ok(Some(sidecar)) = self.inner.store.sidecar(module).await else { return true };
        if [Artifact::Info, Artifact::Mod].iter().all(|&one| sidecar.of(one).is_some()) {
            return false;
        }
        if !self.inner.companions_tried.contains_key(module) {
            // A hot zip whose upstream is down must not become a stream of requests to it.
            self.inner.companions_tried.insert(module.clone(), ());
            self.fetch_companions(module);
        }
        true
    }

    async fn quarantine(
        &self,
        temporary: Temporary,
        module: &ModuleVersion,
        artifact: Artifact,
        failure: &Failure,
    ) {
        let note = QuarantineNote {
            module: module.to_string(),
            artifact,
            reason: failure.detail.clone(),
            source: failure.source.clone(),
        };
        if let Err(error) = self.inner.store.quarantine(temporary, note).await {
            warn!(%error, "a rejected body cannot be kept in quarantine");
        }
    }

    /// A list, `@latest` or `.info` of a query, from one source.
    pub(crate) async fn get_small(
        &self,
        source: &Source,
        path: &str,
        has_alternative: bool,
        max_bytes: u64,
        via: &str,
    ) -> Result<Bytes, Failure> {
        let settings = &self.inner.settings;
        let header = settings.bound(settings.list_timeout, has_alternative);
        let client = &self.inner.client;
        let _place = self.inner.permits.place(client, source, path, header).await?;
        client.get(source, Use::Modules, path, &Bounds { header, max_bytes }, via).await
    }
}

/// None if the record vouches for `h1`.
fn contradiction(
    database: &str,
    artifact: Artifact,
    h1: Option<H1>,
    hashes: &RecordHashes,
) -> Option<String> {
    let recorded = match artifact {
        Artifact::Info => return None,
        Artifact::Mod => hashes.go_mod,
        Artifact::Zip => hashes.zip,
    };
    if h1.is_some() && h1 == recorded {
        return None;
    }
    let text = |h1: Option<H1>| h1.map_or_else(|| "nothing".to_owned(), |h1| h1.to_string());
    Some(format!("checksum mismatch: sent {}, {database} has {}", text(h1), text(recorded)))
}

fn hash_text(h1: Option<H1>, sha256: &stoa_module::Sha256) -> String {
    h1.map_or_else(|| format!("sha256:{sha256}"), |h1| h1.to_string())
}

fn without_database(module: &ModuleVersion) -> Error {
    let error = Error::new(
        ErrorClass::Denied,
        format!("{module}: it is handed out only when a checksum database vouches for it"),
    );
    if is_toolchain(module.path()) {
        error.hint("GOSUMDB is off on this server; set it to sum.golang.org to serve toolchains")
    } else {
        error.hint("GOSUMDB is off on this server, and this was stored to be verified later")
    }
}
