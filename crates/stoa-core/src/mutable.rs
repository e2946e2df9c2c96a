//! Lists, `@latest`, and branch, tag and hash queries: what an upstream says today.
//!
//! Each is kept with the time it was fetched, is the answer while it is young, and is renewed in the background before
//! it is old ([`look`]). When no source answers, the kept one is still the answer: a TTL is freshness, not retention.
//! Nobody signs these documents. They are checked for form and for the version asked, and what they name is verified
//! when it is fetched.

pub(crate) mod look;
mod probe;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stoa_module::{
    Artifact, ErrorClass, ModulePath, ModuleVersion, Query, Version, latest_of, parse_list,
    render_list,
};
use stoa_store::AnswerKey;
use tracing::debug;

use crate::answer::{Answer, Body, Freshness, Kind, Lasting, Outcome, Wish};
use crate::error::Error;
use crate::mirror::{Mirror, asked_answer, query_key, refuse_impossible};
use crate::mutable::look::Found;

/// A mutable answer of an upstream, as the store keeps it.
pub(crate) type Kept = stoa_store::Answer;

impl Mirror {
    /// The release and pre-release versions: the upstream's, and those that are stored.
    pub async fn list(&self, path: &ModulePath, wish: Wish<'_>) -> Result<Answer, Arc<Error>> {
        let key = AnswerKey::List(path.clone());
        let asked = asked_answer(&key);
        self.refuse_by_route(path, &asked)?;
        refuse_impossible(path, &asked)?;
        let (stored, upstream, found) = if self.inner.settings.offline {
            // What is listed must be there to be fetched: the upstream's list does not count.
            let stored = self.servable(path).await?;
            if stored.is_empty() && self.kept(&key).await.is_none() {
                return Err(Arc::new(Error::offline(&asked)));
            }
            (stored, Vec::new(), (Outcome::Hit, "store".to_owned(), self.inner.settings.list_ttl))
        } else {
            let stored = self.inner.store.versions(path).await;
            let stored = stored.map_err(|error| Arc::new(Error::store(&asked, &error)))?.to_vec();
            match self.mutable(&key, wish).await {
                Ok(Found { kept, outcome, keep }) => {
                    (stored, parse_list(&kept.body, path), (outcome, kept.source.clone(), keep))
                }
                Err(error) if stored.is_empty() => {
                    return Err(self.softened(path, None, error).await);
                }
                Err(error) => {
                    debug!(%error, "only what is stored is listed");
                    (stored, Vec::new(), (Outcome::Stale, "store".to_owned(), Duration::ZERO))
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
        let (outcome, source, keep) = found;
        Ok(self.short(path, Kind::List, body, outcome, source, keep))
    }

    /// The highest release, else the highest pre-release, else the newest pseudo-version.
    pub async fn latest(&self, path: &ModulePath, wish: Wish<'_>) -> Result<Answer, Arc<Error>> {
        let key = AnswerKey::Latest(path.clone());
        let asked = asked_answer(&key);
        self.refuse_by_route(path, &asked)?;
        refuse_impossible(path, &asked)?;
        if !self.inner.settings.offline {
            return match self.mutable(&key, wish).await {
                Ok(found) => Ok(self.info_answer(path, found)),
                // An upstream without @latest may list pseudo-versions, which our own list leaves out: this is where a
                // client learns of them.
                Err(error) if error.class == ErrorClass::NotFound => {
                    match self.latest_of_all(path, wish).await? {
                        Some(version) => self.info_of(path, version, wish).await,
                        None => Err(error),
                    }
                }
                Err(error) if error.is_outage() => {
                    debug!(%error, "@latest is chosen of what is stored");
                    match latest_of(&self.servable(path).await?) {
                        Some(version) => {
                            let answer = self.info_of(path, version.clone(), wish).await?;
                            let freshness = Freshness::For(Duration::ZERO);
                            Ok(Answer { outcome: Outcome::Stale, freshness, ..answer })
                        }
                        None => Err(self.softened(path, None, error).await),
                    }
                }
                Err(error) => Err(error),
            };
        }
        let stored = self.servable(path).await?;
        match latest_of(&stored) {
            Some(version) => self.info_of(path, version.clone(), wish).await,
            None => Err(Arc::new(Error::offline(&asked))),
        }
    }

    /// What a branch, a tag that is no version, or a hash stands for today.
    pub async fn query(
        &self,
        path: &ModulePath,
        query: &Query,
        wish: Wish<'_>,
    ) -> Result<Answer, Arc<Error>> {
        let key = query_key(path, query);
        let asked = asked_answer(&key);
        self.refuse_by_route(path, &asked)?;
        refuse_impossible(path, &asked)?;
        if !self.inner.settings.offline {
            return match self.mutable(&key, wish).await {
                Ok(found) => Ok(self.info_answer(path, found)),
                Err(error) => Err(self.softened(path, None, error).await),
            };
        }
        if let Some(kept) = self.kept(&key).await {
            let keep = self.inner.settings.list_ttl;
            return Ok(self.info_answer(path, Found { kept, outcome: Outcome::Hit, keep }));
        }
        match self.stored_version_for(path, query).await? {
            Some(version) => self.info_of(path, version, wish).await,
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

    async fn latest_of_all(
        &self,
        path: &ModulePath,
        wish: Wish<'_>,
    ) -> Result<Option<Version>, Arc<Error>> {
        let stored = self.inner.store.versions(path).await;
        let stored = stored.map_err(|error| Arc::new(Error::store(path.as_str(), &error)))?;
        let mut versions = stored.to_vec();
        if let Ok(list) = self.mutable(&AnswerKey::List(path.clone()), wish).await {
            let listed = parse_list(&list.kept.body, path).into_iter();
            versions.extend(listed.map(|listed| listed.version));
        }
        Ok(latest_of(&versions).cloned())
    }

    async fn info_of(
        &self,
        path: &ModulePath,
        version: Version,
        wish: Wish<'_>,
    ) -> Result<Answer, Arc<Error>> {
        let module = ModuleVersion::new(path.clone(), version).map_err(|error| {
            Arc::new(Error::new(ErrorClass::Internal, format!("{path}@latest: {error}")))
        })?;
        let answer = Box::pin(self.artifact(&module, Artifact::Info, wish)).await?;
        let freshness = Freshness::For(self.inner.settings.list_ttl);
        Ok(Answer { freshness, lasting: Lasting::Once, ..answer })
    }

    fn info_answer(&self, path: &ModulePath, found: Found) -> Answer {
        let Found { kept, outcome, keep } = found;
        self.short(path, Kind::Info, kept.body.clone(), outcome, kept.source.clone(), keep)
    }

    fn short(
        &self,
        path: &ModulePath,
        kind: Kind,
        body: Bytes,
        outcome: Outcome,
        source: String,
        keep: Duration,
    ) -> Answer {
        Answer {
            body: Body::Bytes(body),
            kind,
            outcome,
            source,
            freshness: Freshness::For(keep),
            digest: None,
            private: self.is_private(path),
            lasting: Lasting::Once,
        }
    }
}
