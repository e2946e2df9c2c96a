//! Which version a commit has, and whether it may have the one that is asked for.

use std::collections::HashSet;

use stoa_module::{PseudoClaim, compact_time, is_pseudo_version, pseudo_version, semver};

use crate::direct::fetch::Want;
use crate::direct::module::commits::{Commit, History, Sought};
use crate::direct::module::{CodeModule, invalid_pseudo, not_found};
use crate::direct::refs::{ObjectId, Refs};
use crate::direct::repositories::Fresh;
use crate::direct::versions::{Bases, Found, retracted};
use crate::failure::Fault;

impl CodeModule {
    /// Where the module is in a commit.
    pub(super) fn find<'c>(&self, commit: &'c Commit, version: &str) -> Result<Found<'c>, Fault> {
        let revision = if is_pseudo_version(version) || version.is_empty() {
            commit.snapshot.id.short()
        } else {
            self.place.tag(version)
        };
        self.place.find(commit.go_mods(), &revision).map_err(not_found)
    }

    /// The version that a commit has, if `asked` was asked for; the empty text asks for any.
    pub(super) async fn convert(&self, commit: &Commit, asked: &str) -> Result<String, Fault> {
        // The tag by which it was found, if it will do.
        if let Some((version, true)) = commit.tag.as_deref().and_then(|t| self.place.version_of(t))
            && let Ok(version) = self.check_canonical(commit, &version, asked).await
        {
            return Ok(version);
        }
        let id = commit.snapshot.id;
        let refs = self.repository.refs(Fresh::Enough).await?;
        let tags: Vec<&str> = refs.tags().filter(|(_, at)| *at == id).map(|(tag, _)| tag).collect();
        let mut base = None;
        let mut candidates: Vec<String> = Vec::new();
        for (version, is_canonical) in tags.iter().filter_map(|tag| self.place.version_of(tag)) {
            if !asked.is_empty() && semver::compare(&version, asked).is_eq() {
                if is_canonical {
                    return self.check_canonical(commit, &version, asked).await;
                }
                // `v1.0.0+a` and `v1.0.0+b` may be two commits, so that only what comes after is a name for it.
                base = Some(version.clone());
            }
            if is_canonical {
                candidates.push(version);
            }
        }
        let is_retracted = self.retractions(&refs).await;
        let incompatible = self.may_be_incompatible(commit, asked, &candidates).await?;
        let fits = |version: &str| self.place.major().allows(version) || incompatible(version);
        let highest = candidates
            .into_iter()
            .filter(|version| !is_retracted(version) && fits(version))
            .max_by(|a, b| semver::compare(a, b));
        if let Some(highest) = highest {
            return self.check_canonical(commit, &highest, asked).await;
        }
        let base = match base {
            Some(base) => Some(base),
            None => self.base_before(commit, asked, &refs, &is_retracted).await?,
        };
        let version = pseudo_version(
            self.place.major().major(),
            base.as_deref(),
            commit.snapshot.time,
            &id.short(),
        );
        self.check_canonical(commit, &version, asked).await
    }

    /// The highest version that is tagged in the history of a commit.
    async fn base_before(
        &self,
        commit: &Commit,
        asked: &str,
        refs: &Refs,
        is_retracted: &(dyn Fn(&str) -> bool + Send + Sync),
    ) -> Result<Option<String>, Fault> {
        let versions: Vec<(String, ObjectId)> = refs
            .tags()
            .filter_map(|(tag, id)| Some((self.place.version_of(tag)?.0, id)))
            .filter(|(version, _)| !is_retracted(version))
            .collect();
        let names: Vec<String> = versions.iter().map(|(version, _)| version.clone()).collect();
        let incompatible = self.may_be_incompatible(commit, asked, &names).await?;
        let fits = |version: &str| self.place.major().allows(version) || incompatible(version);
        let bases = Bases::new(versions.into_iter().filter(|(version, _)| fits(version)).collect());
        if bases.is_empty() {
            return Ok(None);
        }
        let (id, ranks) = (commit.snapshot.id, bases.ranks());
        if self.repository.is_shallow() {
            self.repository.fetch(Want::Everything).await?;
        }
        let rank = self.repository.first_ancestor(id, &ranks).await?;
        Ok(rank.and_then(|rank| bases.version(rank)).map(str::to_owned))
    }

    /// Which of some versions, whose major version the path does not name, the commit may have with `+incompatible`:
    /// none if it has a go.mod file.
    async fn may_be_incompatible(
        &self,
        commit: &Commit,
        asked: &str,
        versions: &[String],
    ) -> Result<impl Fn(&str) -> bool + Send + Sync + use<>, Fault> {
        let mut majors = HashSet::new();
        if self.place.is_plain_root() && commit.go_mods().plain.is_none() {
            let others = versions.iter().filter(|version| !self.place.major().allows(version));
            majors.extend(others.filter_map(|version| semver::major(version)).map(str::to_owned));
        }
        // Asked for by that name, it is one as of old, when nobody looked there (golang.org/issue/51324).
        if !majors.is_empty() && !asked.ends_with("+incompatible") {
            let list: Vec<String> = majors.iter().cloned().collect();
            let files: Vec<String> = list.iter().map(|major| format!("{major}/go.mod")).collect();
            let id = commit.snapshot.id.to_string();
            let snapshot = self.repository.snapshot(&id, &files).await?;
            let found = snapshot.map(|snapshot| snapshot.files).unwrap_or_default();
            for (major, _) in list.iter().zip(found).filter(|(_, file)| file.is_some()) {
                majors.remove(major);
            }
        }
        Ok(move |version: &str| semver::major(version).is_some_and(|major| majors.contains(major)))
    }

    /// The versions that the author takes back, as the highest version says. What cannot be read takes nothing back.
    async fn retractions(&self, refs: &Refs) -> Box<dyn Fn(&str) -> bool + Send + Sync> {
        let tagged = self.place.tagged(refs);
        let Some(version) = tagged.retracting() else { return Box::new(|_| false) };
        let tag = self.place.tag(version.as_str());
        let commit = self.commit(Sought::Tag(&tag), History::Commit).await;
        let go_mod = commit.ok().and_then(|commit| {
            let found = self.find(&commit, version.as_str()).ok()?;
            found.go_mod.map(<[u8]>::to_vec)
        });
        match go_mod {
            Some(go_mod) => Box::new(retracted(&go_mod)),
            None => Box::new(|_| false),
        }
    }

    /// Whether the commit may have a version: the module is in it, and its go.mod, or that there is none, is in accord
    /// with the major version. Answers with `+incompatible` where that is needed.
    pub(super) async fn check_canonical(
        &self,
        commit: &Commit,
        version: &str,
        asked: &str,
    ) -> Result<String, Fault> {
        self.find(commit, version)?;
        let strip = |version: &'_ str| -> String {
            version.strip_suffix("+incompatible").unwrap_or(version).to_owned()
        };
        let version = if version == strip(asked) { asked } else { version };
        let base = strip(version);
        let mut answer = version.to_owned();
        let mut refusal = None;
        if self.place.major().allows(&base) {
            if version.ends_with("+incompatible") {
                refusal = Some(format!(
                    "{version}: +incompatible is not allowed, since major version {} is compatible",
                    semver::major(version).unwrap_or_default()
                ));
            }
        } else {
            let incompatible =
                self.may_be_incompatible(commit, asked, std::slice::from_ref(&base)).await?;
            if incompatible(&base) {
                answer = format!("{base}+incompatible");
            } else if self.place.major().is_empty() {
                refusal = Some(format!(
                    "{version}: the module has a go.mod file, so its path must end in the major \
                     version: {}/{}",
                    self.place.path,
                    semver::major(version).unwrap_or_default()
                ));
            } else {
                refusal =
                    Some(format!("{version}: the major version does not fit the module's path"));
            }
        }
        if semver::canonical_version(asked).as_deref() == Some(asked) && strip(asked) != base {
            return Err(not_found(format!(
                "{asked} resolves to version {answer} ({} is not a tag)",
                strip(asked)
            )));
        }
        match refusal {
            Some(refusal) => Err(not_found(refusal)),
            None => Ok(answer),
        }
    }

    /// Whether a pseudo-version tells the truth. Otherwise authors, or anybody, could name a commit so that it wins over
    /// every other, and could give it names without end.
    pub(super) async fn validate(
        &self,
        commit: &Commit,
        version: &str,
        claim: &PseudoClaim,
    ) -> Result<(), Fault> {
        let invalid = |reason: String| Err(invalid_pseudo(version, reason));
        let (id, short) = (commit.snapshot.id, commit.snapshot.id.short());
        if claim.revision != short {
            let how = if claim.revision.starts_with(&short) {
                "is longer than canonical"
            } else if short.starts_with(&claim.revision) {
                "is shorter than canonical"
            } else {
                "does not name the commit"
            };
            return invalid(format!("the revision {how} (expected {short})"));
        }
        if claim.time != commit.snapshot.time {
            let expected = compact_time(commit.snapshot.time);
            return invalid(format!("the time is not that of the commit (expected {expected})"));
        }
        let Some(base) = &claim.base else {
            if self.place.major().is_empty() && semver::major(version) == Some("v1") {
                return invalid(
                    "without a tag before it the major version is v0, not v1".to_owned(),
                );
            }
            return Ok(());
        };
        let refs = self.repository.refs(Fresh::Enough).await?;
        let prefix = self.place.tag_prefix();
        let tag = format!("{prefix}{base}");
        // Also a tag of the repository's root that reads like one of this directory's: the go command takes the prefix off
        // where there is one.
        let names_it = |one: &str| one.strip_prefix(&prefix).unwrap_or(one) == base;
        if let Some((one, _)) = refs.tags().find(|&(one, at)| at == id && names_it(one)) {
            return invalid(format!("the commit has the tag {one}, which names it already"));
        }
        // With the same beginning: `v1.1.0+meta` is as good as `v1.1.0`.
        let equal: Vec<(&str, ObjectId)> = refs
            .tags()
            .filter(|(one, _)| one.starts_with(&tag))
            .filter(|(one, _)| semver::compare(&one[prefix.len()..], base).is_eq())
            .collect();
        let Some((last, _)) = equal.last() else {
            return invalid(format!("the tag {tag} before it is not there"));
        };
        for (_, at) in &equal {
            if self.descends(id, *at).await? {
                return Ok(());
            }
        }
        invalid(format!("the commit is no descendant of the tag {last}"))
    }

    /// Whether a commit is, or comes after, another.
    async fn descends(&self, commit: ObjectId, from: ObjectId) -> Result<bool, Fault> {
        if let Some(true) = self.repository.is_ancestor(from, commit).await? {
            return Ok(true);
        }
        let is_here = self.repository.snapshot(&from.to_string(), &[]).await?.is_some();
        if is_here && !self.repository.is_shallow() {
            return Ok(false);
        }
        self.repository.fetch(Want::Everything).await?;
        Ok(self.repository.is_ancestor(from, commit).await? == Some(true))
    }
}
