//! Lists, `@latest`, and branch, tag and hash queries: what an upstream says today.
//!
//! Each is kept with the time it was fetched. Within its TTL it is the answer; after that a source is asked again, and
//! when none answers (or not within three seconds) the kept one is still the answer: a TTL is freshness, not retention.
//! Nobody signs these documents. They are checked for form and for the version asked, and what they name is verified
//! when it is fetched.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stoa_module::{
    Artifact, ErrorClass, Info, ModulePath, ModuleVersion, Query, Version, latest_of, parse_list,
    render_list,
};
use stoa_store::AnswerKey;
use stoa_upstream::{Failure, Source, Stage};
use tracing::{debug, warn};

use crate::absent::Asked;
use crate::error::Error;
use crate::mirror::{
    Answer, Body, Freshness, Kind, Mirror, Outcome, asked_answer, query_key, refuse_impossible,
    stoas_of,
};

/// A mutable answer of an upstream, as the store keeps it.
pub(crate) type Kept = stoa_store::Answer;

/// How long a client waits for a fresh answer when there is a kept one.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a failed refresh keeps the next one away when there is a kept answer.
const REFRESH_AFTER_FAILURE: Duration = Duration::from_secs(10);

impl Mirror {
    /// The release and pre-release versions: the upstream's, and those that are stored.
    pub async fn list(&self, path: &ModulePath, via: &str) -> Result<Answer, Arc<Error>> {
        let key = AnswerKey::List(path.clone());
        let asked = asked_answer(&key);
        self.refuse_by_route(path, &asked)?;
        refuse_impossible(path, &asked)?;
        let (stored, upstream, outcome, source) = if self.inner.settings.offline {
            // What is listed must be there to be fetched: the upstream's list does not count.
            let stored = self.servable(path).await?;
            if stored.is_empty() && self.kept(&key).await.is_none() {
                return Err(Arc::new(Error::offline(&asked)));
            }
            (stored, Vec::new(), Outcome::Hit, "store".to_owned())
        } else {
            let stored = self.inner.store.versions(path).await;
            let stored = stored.map_err(|error| Arc::new(Error::store(&asked, &error)))?.to_vec();
            match self.mutable(&key, via).await {
                Ok((kept, outcome)) => {
                    (stored, parse_list(&kept.body, path), outcome, kept.source.clone())
                }
                Err(error) if stored.is_empty() => return Err(self.softened(path, error).await),
                Err(error) => {
                    debug!(%error, "only what is stored is listed");
                    (stored, Vec::new(), Outcome::Stale, "store".to_owned())
                }
            }
        };
        let versions: BTreeSet<Version> = upstream
            .into_iter()
            .map(|listed| listed.version)
            .chain(stored)
            .filter(|version| !version.is_pseudo())
            .collect();
        let body = Bytes::from(render_list(&versions));
        Ok(self.short(path, Kind::List, body, outcome, source))
    }

    /// The highest release, else the highest pre-release, else the newest pseudo-version.
    pub async fn latest(&self, path: &ModulePath, via: &str) -> Result<Answer, Arc<Error>> {
        let key = AnswerKey::Latest(path.clone());
        let asked = asked_answer(&key);
        self.refuse_by_route(path, &asked)?;
        refuse_impossible(path, &asked)?;
        if !self.inner.settings.offline {
            return match self.mutable(&key, via).await {
                Ok((kept, outcome)) => Ok(self.info_answer(path, &kept, outcome)),
                // An upstream without @latest may list pseudo-versions, which our own list leaves out: this is where a
                // client learns of them.
                Err(error) if error.class == ErrorClass::NotFound => {
                    match self.latest_of_all(path, via).await? {
                        Some(version) => self.info_of(path, version, via).await,
                        None => Err(error),
                    }
                }
                Err(error) if error.is_outage() => {
                    debug!(%error, "@latest is chosen of what is stored");
                    match latest_of(&self.servable(path).await?) {
                        Some(version) => {
                            let answer = self.info_of(path, version.clone(), via).await?;
                            let freshness = Freshness::For(Duration::ZERO);
                            Ok(Answer { outcome: Outcome::Stale, freshness, ..answer })
                        }
                        None => Err(self.softened(path, error).await),
                    }
                }
                Err(error) => Err(error),
            };
        }
        let stored = self.servable(path).await?;
        match latest_of(&stored) {
            Some(version) => self.info_of(path, version.clone(), via).await,
            None => Err(Arc::new(Error::offline(&asked))),
        }
    }

    /// What a branch, a tag that is no version, or a hash stands for today.
    pub async fn query(
        &self,
        path: &ModulePath,
        query: &Query,
        via: &str,
    ) -> Result<Answer, Arc<Error>> {
        let key = query_key(path, query);
        let asked = asked_answer(&key);
        self.refuse_by_route(path, &asked)?;
        refuse_impossible(path, &asked)?;
        if !self.inner.settings.offline {
            return match self.mutable(&key, via).await {
                Ok((kept, outcome)) => Ok(self.info_answer(path, &kept, outcome)),
                Err(error) => Err(self.softened(path, error).await),
            };
        }
        if let Some(kept) = self.kept(&key).await {
            return Ok(self.info_answer(path, &kept, Outcome::Hit));
        }
        match self.stored_version_for(path, query).await? {
            Some(version) => self.info_of(path, version, via).await,
            None => Err(Arc::new(Error::offline(&asked))),
        }
    }

    /// The stored version that a query can only mean: `v2.0.0` for `v2.0.0+incompatible`, a hash for the
    /// pseudo-version of its commit.
    async fn stored_version_for(
        &self,
        path: &ModulePath,
        query: &Query,
    ) -> Result<Option<Version>, Arc<Error>> {
        const SHORTEST_HASH: usize = 7;
        let text = query.as_str();
        let is_hash = text.len() >= SHORTEST_HASH
            && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let means = |version: &Version| {
            if version.as_str().strip_suffix("+incompatible") == Some(text) {
                return true;
            }
            let revision = version.pseudo().map(|pseudo| pseudo.revision);
            is_hash
                && revision.is_some_and(|revision| {
                    revision.starts_with(text) || text.starts_with(&revision)
                })
        };
        let stored = self.servable(path).await?;
        let mut found = stored.into_iter().filter(means);
        Ok(match (found.next(), found.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        })
    }

    /// The go command asks for a package under every prefix of its path, and one that fails otherwise than by 404 fails
    /// the build. So when no source answers, and a shorter path is a module that is stored, a longer one is taken to be
    /// a directory of it.
    async fn softened(&self, path: &ModulePath, error: Arc<Error>) -> Arc<Error> {
        // That we ourselves were too busy to ask anybody says nothing.
        let was_asked = error.failures.iter().any(|failure| failure.stage != Stage::Local);
        if !error.is_outage() || !was_asked {
            return error;
        }
        let mut shorter = path.as_str();
        while let Some((parent, _)) = shorter.rsplit_once('/') {
            shorter = parent;
            let Ok(module) = ModulePath::parse(parent) else { continue };
            if self.inner.store.versions(&module).await.is_ok_and(|versions| !versions.is_empty()) {
                let softened = Error::new(
                    ErrorClass::NotFound,
                    format!(
                        "{path}: not found in the store, which has {module}; no source answered"
                    ),
                );
                return Arc::new(
                    softened
                        .because(error.failures.clone())
                        .hint("if it is a module of its own, ask again when a source answers"),
                );
            }
        }
        error
    }

    async fn latest_of_all(
        &self,
        path: &ModulePath,
        via: &str,
    ) -> Result<Option<Version>, Arc<Error>> {
        let stored = self.inner.store.versions(path).await;
        let stored = stored.map_err(|error| Arc::new(Error::store(path.as_str(), &error)))?;
        let mut versions = stored.to_vec();
        if let Ok((list, _)) = self.mutable(&AnswerKey::List(path.clone()), via).await {
            versions.extend(parse_list(&list.body, path).into_iter().map(|listed| listed.version));
        }
        Ok(latest_of(&versions).cloned())
    }

    async fn info_of(
        &self,
        path: &ModulePath,
        version: Version,
        via: &str,
    ) -> Result<Answer, Arc<Error>> {
        let module = ModuleVersion::new(path.clone(), version).map_err(|error| {
            Arc::new(Error::new(ErrorClass::Internal, format!("{path}@latest: {error}")))
        })?;
        let answer = Box::pin(self.artifact(&module, Artifact::Info, via)).await?;
        Ok(Answer { freshness: Freshness::For(self.inner.settings.list_ttl), ..answer })
    }

    fn info_answer(&self, path: &ModulePath, kept: &Kept, outcome: Outcome) -> Answer {
        self.short(path, Kind::Info, kept.body.clone(), outcome, kept.source.clone())
    }

    fn short(
        &self,
        path: &ModulePath,
        kind: Kind,
        body: Bytes,
        outcome: Outcome,
        source: String,
    ) -> Answer {
        let ttl = self.inner.settings.list_ttl;
        let keep = if outcome == Outcome::Stale { Duration::ZERO } else { ttl };
        Answer {
            body: Body::Bytes(body),
            kind,
            outcome,
            source,
            freshness: Freshness::For(keep),
            digest: None,
            private: self.is_private(path),
        }
    }

    async fn kept(&self, key: &AnswerKey) -> Option<Arc<Kept>> {
        match self.inner.store.answer(key).await {
            Ok(kept) => kept,
            Err(error) => {
                warn!(asked = asked_answer(key), %error, "a kept answer cannot be read");
                None
            }
        }
    }

    /// Fresh from the store, else from the chain, else stale from the store.
    async fn mutable(
        &self,
        key: &AnswerKey,
        via: &str,
    ) -> Result<(Arc<Kept>, Outcome), Arc<Error>> {
        let asked = asked_answer(key);
        let kept = self.kept(key).await;
        if let Some(kept) = &kept
            && self.is_fresh(kept)
        {
            return Ok((Arc::clone(kept), Outcome::Hit));
        }
        let landed = if let Some(error) = self.inner.verdicts.recall(&Asked::Answer(key.clone())) {
            Err(error)
        } else {
            let work = {
                let (mirror, key, via) = (self.clone(), key.clone(), via.to_owned());
                let has_kept = kept.is_some();
                move || async move { mirror.refresh(&key, has_kept, &via).await }
            };
            let landing = self.inner.answers.join((key.clone(), stoas_of(via)), work);
            let landed = if let Some(kept) = &kept {
                match tokio::time::timeout(PATIENCE, landing).await {
                    Ok(landed) => landed,
                    // The flight goes on; whoever asks next finds what it brings.
                    Err(_) => return Ok((Arc::clone(kept), Outcome::Stale)),
                }
            } else {
                landing.await
            };
            landed.unwrap_or_else(|grounded| Err(Error::grounded(&asked, grounded)))
        };
        match (landed, kept) {
            (Ok(fresh), _) => Ok((fresh, Outcome::Miss)),
            // The sources were asked, and say that it is gone.
            (Err(error), _) if error.class == ErrorClass::NotFound => Err(error),
            (Err(error), Some(kept)) => {
                debug!(%error, "a stale answer is given");
                Ok((kept, Outcome::Stale))
            }
            (Err(error), None) => Err(error),
        }
    }

    /// A clock that went backwards makes an answer old, not young for ever.
    fn is_fresh(&self, kept: &Kept) -> bool {
        let age = jiff::Timestamp::now().duration_since(kept.fetched_at);
        Duration::try_from(age).is_ok_and(|age| age < self.inner.settings.list_ttl)
    }

    /// The work of a flight's leader.
    async fn refresh(
        &self,
        key: &AnswerKey,
        has_kept: bool,
        via: &str,
    ) -> Result<Arc<Kept>, Arc<Error>> {
        let asked = asked_answer(key);
        match self.ask_chain(key, &asked, via).await {
            Ok(answer) => {
                if let Err(error) = self.inner.store.put_answer(key, answer.clone()).await {
                    warn!(asked, %error, "an answer cannot be kept");
                }
                Ok(Arc::new(answer))
            }
            Err(error) => {
                let error = Arc::new(error);
                let keep = match error.class {
                    ErrorClass::NotFound => Some(self.inner.settings.negative_ttl),
                    _ if has_kept => Some(REFRESH_AFTER_FAILURE),
                    _ => None,
                };
                if let Some(keep) = keep {
                    self.inner.verdicts.remember(&Asked::Answer(key.clone()), &error, keep);
                }
                Err(error)
            }
        }
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
            let got = self.get_small(source, &path, step.has_alternative, max_bytes, via).await;
            match got.and_then(|body| check_form(key, module, source, body)) {
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
