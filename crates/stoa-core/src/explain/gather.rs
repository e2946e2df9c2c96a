//! What is known of a subject, from memory and the disk.

use std::time::Duration;

use jiff::Timestamp;
use stoa_module::{Artifact, Info, ModulePath, ModuleVersion, Separator, parse_list};
use stoa_store::{AnswerKey, ArtifactRecord, FilePlace, Sidecar};
use stoa_upstream::journey;
use stoa_upstream::{BreakerStatus, Chain, Source, Use};

use super::{
    Breaker, Checksums, Explained, File, Kept, KeptAnswer, Link, Record, Rejected, Road, Routing,
    Said, Stage, Stored, StoredVersion, Verdict, Versions,
};
use crate::absent::{self, Asked};
use crate::mirror::{Mirror, query_key};
use crate::mutable::look::age_of;
use crate::policy::Rule;
use crate::refresh::Subject;

/// Versions that are listed of a module: the newest.
const MOST_VERSIONS: usize = 200;
/// Rejected bodies that are told of a version: the newest.
const MOST_REJECTED: usize = 10;

impl Mirror {
    /// What is known of `subject` at the moment. Has no bound of its own: a disk that hangs is waited for.
    pub async fn explain(&self, subject: &Subject) -> Explained {
        let path = subject.path();
        let inner = &self.inner;
        let _place = inner.explaining.acquire().await;
        let chain = inner.policy.careful_chain(path);
        let mut explained = Explained {
            subject: subject.to_string(),
            at: Timestamp::now(),
            private: self.is_private(path),
            offline: inner.settings.offline,
            routing: self.routing(path, &chain),
            checksums: self.checksums(path, &chain),
            files: Vec::new(),
            answers: Vec::new(),
            versions: None,
            rejected: Vec::new(),
            refused: Vec::new(),
            next: Vec::new(),
        };
        match subject {
            Subject::Module(path) => {
                let keys = [AnswerKey::List(path.clone()), AnswerKey::Latest(path.clone())];
                for key in &keys {
                    explained.answers.push(self.kept_of(key).await);
                }
                explained.versions = Some(self.versions_of(path).await);
            }
            Subject::Query(path, query) => {
                explained.answers.push(self.kept_of(&query_key(path, query)).await);
            }
            Subject::Version(module) => self.explain_version(module, &mut explained).await,
        }
        explained.refused = self.refusals(path, &explained);
        explained.next = self.asked_next(path, &explained);
        explained
    }

    fn routing(&self, path: &ModulePath, chain: &Chain) -> Routing {
        let (rule, route, pattern) = match self.inner.policy.rule(path) {
            // The others of its patterns may be private.
            Rule::Route(n, route) => {
                ("route", Some(n + 1), route.pattern.find(path).map(str::to_owned))
            }
            Rule::NoProxy(pattern) => ("gonoproxy", None, Some(pattern.to_owned())),
            Rule::Private(pattern) => ("goprivate", None, Some(pattern.to_owned())),
            Rule::Default => ("default", None, None),
        };
        let last = chain.entries.len().saturating_sub(1);
        let links = chain.entries.iter().enumerate().map(|(n, entry)| Link {
            source: entry.source.to_string(),
            separator: (n < last).then(|| separator(entry.separator).to_owned()),
            breaker: self.breaker(&entry.source, Use::Modules),
        });
        Routing { rule: rule.to_owned(), route, pattern, chain: links.collect() }
    }

    fn breaker(&self, source: &Source, used_for: Use) -> Option<Breaker> {
        let BreakerStatus { state, reason, since, next_probe, .. } =
            self.inner.client.breaker(source, used_for)?;
        Some(Breaker { state: state.as_str().to_owned(), reason, since, next_probe })
    }

    fn checksums(&self, path: &ModulePath, chain: &Chain) -> Checksums {
        let exempt = self.exemption(path);
        let database = self.inner.database.as_ref();
        let asked = database.filter(|_| exempt.is_none());
        let roads = asked.map(|database| database.roads_ahead(chain)).unwrap_or_default();
        let roads = roads.into_iter().map(|road| Road {
            breaker: self.breaker(&road.source, Use::Database),
            source: road.source.to_string(),
            through_proxy: !road.is_own,
            passes_on: road.passes_on,
        });
        Checksums {
            database: database.map(|database| database.name().to_owned()),
            exempt,
            roads: roads.collect(),
            record: None,
            verdict: None,
            said: Vec::new(),
        }
    }

    async fn explain_version(&self, module: &ModuleVersion, explained: &mut Explained) {
        let store = &self.inner.store;
        let sidecar = store.sidecar(module).await.ok().flatten();
        let places = match &sidecar {
            Some(sidecar) => store.places(module, sidecar.clone()).await.unwrap_or_default(),
            None => Vec::new(),
        };
        for artifact in Artifact::ALL {
            let about = Asked::Artifact(module.clone(), artifact);
            let record = sidecar.as_deref().and_then(|sidecar: &Sidecar| sidecar.of(artifact));
            let place = places.iter().find(|place| place.artifact == artifact);
            let stored = record.zip(place);
            let stored = stored.map(|(record, place)| self.stored_as(module, record, place));
            explained.files.push(File {
                file: artifact.extension().to_owned(),
                stored,
                verdict: self.verdict(&about),
                said: said(self.inner.heard.of(&about).as_deref()),
            });
        }
        let rejected = store.rejected(module, MOST_REJECTED).await.unwrap_or_default();
        explained.rejected = rejected
            .into_iter()
            .map(|note| Rejected {
                path: format!("quarantine/{}", note.file),
                reason: note.reason,
                source: note.source,
                at: note.at,
                kept: note.kept,
            })
            .collect();
        if explained.checksums.exempt.is_none()
            && let Some(database) = &self.inner.database
        {
            let known = database.known_of(module).await;
            let checksums = &mut explained.checksums;
            checksums.record = known.stored.map(|hashes| Record {
                path: known.file,
                zip: hashes.zip.map(|h1| h1.to_string()),
                go_mod: hashes.go_mod.map(|h1| h1.to_string()),
            });
            checksums.verdict = known.verdict.map(|verdict| verdict_of(&verdict));
            checksums.said = said(known.said.as_deref());
        }
    }

    fn stored_as(
        &self,
        module: &ModuleVersion,
        record: &ArtifactRecord,
        place: &FilePlace,
    ) -> Stored {
        let may = self.may_hand_out(module, place.artifact, record);
        Stored {
            path: place.path.display().to_string(),
            there: place.is_there,
            size: record.size,
            sha256: record.sha256.to_string(),
            h1: record.h1.map(|h1| h1.to_string()),
            state: record.state.as_str().to_owned(),
            by: record.state.detail().map(str::to_owned),
            source: record.source.clone(),
            first_seen: record.first_seen,
            handed_out: may && place.is_there && !place.is_withheld,
        }
    }

    fn verdict(&self, about: &Asked) -> Option<Verdict> {
        let (verdict, absence) = self.inner.verdicts.known(about);
        verdict.as_ref().map(verdict_of).or_else(|| {
            let absence = absence?;
            Some(Verdict {
                class: absence.error.class.as_str().to_owned(),
                text: absence.error.to_string(),
                age: seconds(absence.age()),
                stands: 0.0,
            })
        })
    }

    async fn kept_of(&self, key: &AnswerKey) -> Kept {
        let about = Asked::Answer(key.clone());
        let kept = self.kept(key).await.map(|kept| {
            let ttl = self.inner.settings.list_ttl;
            let (age, state) = age_of(&kept, ttl);
            let says = match key {
                AnswerKey::List(path) => {
                    let listed = parse_list(&kept.body, path);
                    let last = listed.last().map(|last| format!(", up to {}", last.version));
                    let plural = if listed.len() == 1 { "" } else { "s" };
                    format!("{} version{plural}{}", listed.len(), last.unwrap_or_default())
                }
                AnswerKey::Latest(_) | AnswerKey::Query(..) => Info::parse(&kept.body)
                    .map_or_else(|error| error.to_string(), |info| info.version.to_string()),
            };
            KeptAnswer {
                says,
                source: kept.source.clone(),
                fetched_at: kept.fetched_at,
                age: seconds(age),
                ttl: seconds(ttl),
                state: state.to_owned(),
            }
        });
        Kept {
            asked: match key {
                AnswerKey::List(_) => "list".to_owned(),
                AnswerKey::Latest(_) => "latest".to_owned(),
                AnswerKey::Query(_, query) => query.to_string(),
            },
            kept,
            verdict: self.verdict(&about),
            said: said(self.inner.heard.of(&about).as_deref()),
        }
    }

    async fn versions_of(&self, path: &ModulePath) -> Versions {
        let stored = self.inner.store.stored_versions(path).await.unwrap_or_default();
        let names = |files: &[Artifact]| -> Vec<String> {
            files.iter().map(|file| file.extension().to_owned()).collect()
        };
        let newest = stored.iter().skip(stored.len().saturating_sub(MOST_VERSIONS));
        let newest = newest.map(|one| StoredVersion {
            version: one.version.to_string(),
            files: names(&one.artifacts),
            unverified: names(&one.unverified),
        });
        Versions { count: stored.len(), newest: newest.collect() }
    }
}

fn separator(separator: Separator) -> &'static str {
    match separator {
        Separator::Comma => ",",
        Separator::Pipe => "|",
    }
}

fn verdict_of(verdict: &absent::Verdict) -> Verdict {
    Verdict {
        class: verdict.error.class.as_str().to_owned(),
        text: verdict.error.to_string(),
        age: seconds(verdict.age()),
        stands: seconds(verdict.left()),
    }
}

fn said(said: Option<&[journey::Said]>) -> Vec<Said> {
    let one = |said: &journey::Said| Said {
        source: said.source.to_string(),
        outcome: said.outcome.as_ref().map_or_else(Clone::clone, |()| "ok".to_owned()),
        ok: said.outcome.is_ok(),
        at: said.at,
        took: seconds(said.took),
        stages: said
            .spent
            .legs()
            .map(|(leg, time)| Stage { stage: leg.to_string(), seconds: seconds(time) })
            .collect(),
    };
    said.unwrap_or_default().iter().map(one).collect()
}

/// To the tenth of a millisecond.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 1e4
}
