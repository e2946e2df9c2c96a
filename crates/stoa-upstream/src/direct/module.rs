//! One module in a repository: its list, its latest version, and the files of each.

use std::collections::HashSet;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use fs_err::tokio::File;
use stoa_module::{
    CreateZipError, ErrorClass, ModulePath, ModuleVersion, Origin, PseudoClaim, RevisionInfo,
    Version, ZipLimits, compact_time, create_zip, is_pseudo_version, latest_of, pseudo_version,
    render_list, semver,
};

use crate::direct::fetch::Want;
use crate::direct::objects::Snapshot;
use crate::direct::refs::{ObjectId, Refs, Resolved, is_hash_prefix};
use crate::direct::repositories::{Fresh, Repository, at_direct, lost_task};
use crate::direct::versions::{Bases, Found, GoMods, Place, retracted};
use crate::discovery::CodeRoot;
use crate::failure::{Failure, Fault, Stage};

/// No name of a branch or tag is longer, and no hash.
const MAX_REVISION: usize = 255;

/// A module in a repository.
#[derive(Debug, Clone)]
pub struct CodeModule {
    place: Arc<Place>,
    repository: Repository,
}

/// A commit, and how it was found.
#[derive(Debug)]
struct Commit {
    snapshot: Snapshot,
    /// The tag by which it was found, without `refs/tags/`.
    tag: Option<String>,
    /// The branch, tag or HEAD by which it was found.
    reference: String,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sought<'s> {
    /// The tag of an exact version. What was answered for it before stays.
    Tag(&'s str),
    /// The beginning of a hash, from a pseudo-version.
    Hash(&'s str),
    /// Whatever it is: a branch, a tag, the beginning of a hash, `HEAD`.
    Revision(&'s str),
}

/// How much of the history will be needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum History {
    Commit,
    Whole,
}

impl CodeModule {
    /// The module of this path in the repository, whose root is at `code`.
    pub fn new(
        path: &ModulePath,
        code: &CodeRoot,
        repository: Repository,
    ) -> Result<Self, Failure> {
        let place = Place::new(path, &code.root, &code.subdir)
            .map_err(|reason| at_direct(not_found(reason)))?;
        Ok(Self { place: Arc::new(place), repository })
    }

    /// The body of `@v/list`. Empty for a module that is there and has no versions; `NotFound` if it is not there.
    pub async fn list(&self) -> Result<String, Failure> {
        let versions = self.versions().await.map_err(at_direct)?;
        if versions.is_empty() {
            // The go command takes a list, however empty, for the word that there is a module.
            self.head().await.map_err(at_direct)?;
        }
        Ok(render_list(&versions))
    }

    /// The body of `@latest`: the highest release, else the highest pre-release, else the commit at HEAD.
    pub async fn latest(&self) -> Result<String, Failure> {
        self.try_latest().await.map_err(at_direct)
    }

    /// The `.info` of the version that a revision stands for: a branch, a tag, the beginning of a hash of at least 7
    /// digits, `HEAD`, or a version that is not canonical. Unlike a [`Query`](stoa_module::Query) it may have slashes.
    pub async fn query(&self, revision: &str) -> Result<String, Failure> {
        self.try_query(revision).await.map_err(at_direct)
    }

    /// The `.info` of a version.
    pub async fn info(&self, version: &Version) -> Result<String, Failure> {
        self.try_info(version).await.map_err(at_direct)
    }

    /// The go.mod of a version; one of a single line is made where there is none.
    pub async fn go_mod(&self, version: &Version) -> Result<Vec<u8>, Failure> {
        let commit = self.version(version).await.map_err(at_direct)?;
        let found = self.find(&commit, version.as_str()).map_err(at_direct)?;
        Ok(match found.go_mod {
            Some(text) => text.to_vec(),
            None => format!("module {}\n", self.place.path).into_bytes(),
        })
    }

    /// Writes the module zip of a version, of at most `max_bytes`, to a file from its start. What was in the file is cut
    /// off. A tree that cannot be a module zip is `NotFound`, as `.info` and `.mod` of the same version are not.
    pub async fn zip(&self, version: &Version, into: &File, max_bytes: u64) -> Result<(), Failure> {
        self.try_zip(version, into, max_bytes).await.map_err(at_direct)
    }

    async fn try_latest(&self) -> Result<String, Fault> {
        let versions = self.versions().await?;
        let Some(version) = latest_of(&versions) else { return self.head_info().await };
        let mut info = self.tagged_info(version).await?;
        // That it is the latest depends on the tags.
        let prefix = self.place.tag_prefix();
        info.origin.tag_sum = self.repository.refs(Fresh::Enough).await?.tag_sum(&prefix);
        info.origin.tag_prefix = prefix;
        Ok(info.to_json())
    }

    async fn head_info(&self) -> Result<String, Fault> {
        let commit = self.head().await?;
        let version = self.convert(&commit, "").await?;
        Ok(self.full_info(&commit, version, "").await?.to_json())
    }

    /// The commit at HEAD, if the module is in it.
    async fn head(&self) -> Result<Commit, Fault> {
        let refs = self.repository.refs(Fresh::Enough).await?;
        if refs.find("HEAD").is_none() {
            return Err(not_found("the repository has no commits"));
        }
        let commit = self.commit(Sought::Revision("HEAD"), self.history_of_head(&refs)).await?;
        self.find(&commit, "")?;
        Ok(commit)
    }

    /// A pseudo-version for HEAD needs the history as soon as there is a tag that may be before it.
    fn history_of_head(&self, refs: &Refs) -> History {
        match refs.find("HEAD") {
            Some(head) => self.history_for(refs, head),
            None => History::Commit,
        }
    }

    fn history_for(&self, refs: &Refs, id: ObjectId) -> History {
        let is_version = |tag: &str| self.place.version_of(tag).is_some();
        let mut tags = refs.tags().filter(|(tag, _)| is_version(tag)).peekable();
        let is_plain = tags.peek().is_none()
            || tags.any(|(tag, at)| {
                at == id
                    && self.place.version_of(tag).is_some_and(|(version, canonical)| {
                        canonical && self.place.major().allows(&version)
                    })
            });
        if is_plain { History::Commit } else { History::Whole }
    }

    async fn try_query(&self, revision: &str) -> Result<String, Fault> {
        if revision.is_empty()
            || revision.len() > MAX_REVISION
            || revision.starts_with('-')
            || revision.contains(char::is_control)
        {
            let shown: String = revision.chars().take(MAX_REVISION).collect();
            return Err(not_found(format!("malformed revision {shown:?}")));
        }
        let is_short = semver::canonical(revision)
            .is_some_and(|canonical| canonical != revision && !revision.contains(['-', '+']));
        if is_short {
            // The go command finds the highest such version itself, from the list.
            let detail = format!("{revision} is the beginning of versions, and no revision");
            return Err(not_found(detail));
        }
        if let Ok(version) = Version::parse(revision)
            && self.place.major().allows(revision)
        {
            return self.try_info(&version).await;
        }
        if is_pseudo_version(revision) {
            // One that lacks its `+incompatible`.
            let (commit, version) = self.resolve(revision).await?;
            return Ok(self.full_info(&commit, version, revision).await?.to_json());
        }
        let (sought, history) = if semver::is_valid(revision) {
            (self.place.tag(revision), History::Commit)
        } else {
            let refs = self.repository.refs(Fresh::Enough).await?;
            let history = match refs.resolve(revision) {
                Resolved::Ref { id, .. } | Resolved::Commit { id, .. } => {
                    self.history_for(&refs, id)
                }
                _ => History::Whole,
            };
            (revision.to_owned(), history)
        };
        let commit = self.commit(Sought::Revision(&sought), history).await?;
        let version = self.convert(&commit, revision).await?;
        Ok(self.full_info(&commit, version, revision).await?.to_json())
    }

    async fn try_info(&self, version: &Version) -> Result<String, Fault> {
        Ok(self.tagged_info(version).await?.to_json())
    }

    /// As the go command writes it into its cache. Of a pseudo-version it keeps only what cannot change.
    async fn tagged_info(&self, version: &Version) -> Result<RevisionInfo, Fault> {
        let commit = self.version(version).await?;
        let mut info = self.plain_info(&commit, version.to_string());
        if version.is_pseudo() {
            info.origin.reference.clear();
        }
        Ok(info)
    }

    fn plain_info(&self, commit: &Commit, version: String) -> RevisionInfo {
        let origin = Origin {
            vcs: "git",
            url: self.repository.url().to_owned(),
            subdir: self.place.directory.clone(),
            hash: commit.snapshot.id.to_string(),
            reference: commit.reference.clone(),
            ..Origin::default()
        };
        RevisionInfo { version, time: commit.snapshot.time, origin }
    }

    /// With what a client needs to see whether the answer to a query still holds.
    async fn full_info(
        &self,
        commit: &Commit,
        version: String,
        asked: &str,
    ) -> Result<RevisionInfo, Fault> {
        let depends_on_tags =
            is_pseudo_version(&version) && (version != asked || !version.starts_with("v0.0.0-"));
        let mut info = self.plain_info(commit, version);
        if depends_on_tags {
            let prefix = self.place.pseudo_tag_prefix();
            info.origin.tag_sum = self.repository.refs(Fresh::Enough).await?.tag_sum(&prefix);
            info.origin.tag_prefix = prefix;
        }
        Ok(info)
    }

    /// The commit of an exact version, which is answered by that very name.
    async fn version(&self, version: &Version) -> Result<Commit, Fault> {
        let (commit, answered) = self.resolve(version.as_str()).await?;
        if answered != version.as_str() {
            return Err(not_found(format!("{version} resolves to version {answered}")));
        }
        if let Some(tag) = &commit.tag {
            self.repository.pin(tag, commit.snapshot.id);
        }
        Ok(commit)
    }

    /// The commit of a version that is tagged, or of a pseudo-version, and the version as it is answered: with
    /// `+incompatible` where that is missing.
    async fn resolve(&self, asked: &str) -> Result<(Commit, String), Fault> {
        if !is_pseudo_version(asked) {
            let tag = self.place.tag(asked);
            let commit = self.commit(Sought::Tag(&tag), History::Commit).await?;
            let answered = self.convert(&commit, asked).await?;
            return Ok((commit, answered));
        }
        let claim = PseudoClaim::of(asked).map_err(|error| invalid_pseudo(asked, error))?;
        let history = if claim.base.is_some() { History::Whole } else { History::Commit };
        let commit = self.commit(Sought::Hash(&claim.revision), history).await?;
        // Cheaper than its history, so looked at first.
        let answered = self.check_canonical(&commit, asked, asked).await?;
        self.validate(&commit, asked, &claim).await?;
        Ok((commit, answered))
    }

    /// All versions that tags give.
    async fn versions(&self) -> Result<Vec<Version>, Fault> {
        let refs = self.repository.refs(Fresh::Enough).await?;
        let tagged = self.place.tagged(&refs);
        if tagged.higher.is_empty() {
            return Ok(tagged.fitting);
        }
        if let Some(highest) = tagged.fitting.last() {
            let files = self.go_mods_of(&[highest]).await?;
            // An author who uses modules means what the paths say.
            if files.contains(&true) {
                return Ok(tagged.fitting);
            }
        }
        let majors: Vec<Version> = tagged.highest_of_majors().into_iter().cloned().collect();
        let majors: Vec<&Version> = majors.iter().collect();
        let have = self.go_mods_of(&majors).await?;
        let without: Vec<&Version> =
            majors.into_iter().zip(have).filter(|(_, has)| !has).map(|(major, _)| major).collect();
        Ok(tagged.with_incompatible(&without))
    }

    /// Whether each of these versions, whose tags are plain, has a go.mod file at the root.
    async fn go_mods_of(&self, versions: &[&Version]) -> Result<Vec<bool>, Fault> {
        let tags: Vec<String> =
            versions.iter().map(|version| format!("refs/tags/{version}")).collect();
        let mut have = Vec::new();
        let mut is_fetched = false;
        for (version, tag) in versions.iter().zip(&tags) {
            let refs = self.repository.refs(Fresh::Enough).await?;
            let id = refs.find(tag).ok_or_else(|| unknown(version.as_str()))?;
            let files = ["go.mod".to_owned()];
            let mut snapshot = self.repository.snapshot(&id.to_string(), &files).await?;
            if snapshot.is_none() && !is_fetched {
                // All of them together.
                self.repository.fetch(Want::Refs(tags.clone())).await?;
                is_fetched = true;
                snapshot = self.repository.snapshot(&id.to_string(), &files).await?;
            }
            let snapshot = match snapshot {
                Some(snapshot) => snapshot,
                None => {
                    self.commit(Sought::Revision(version.as_str()), History::Commit).await?.snapshot
                }
            };
            have.push(matches!(snapshot.files.first(), Some(Some(_))));
        }
        Ok(have)
    }

    /// Finds a commit, and fetches it if it is not here.
    async fn commit(&self, sought: Sought<'_>, history: History) -> Result<Commit, Fault> {
        let repository = &self.repository;
        let files = self.place.go_mod_files();
        let name = match sought {
            Sought::Tag(name) | Sought::Hash(name) | Sought::Revision(name) => name,
        };
        // What is known to be here asks nobody.
        match sought {
            Sought::Tag(tag) => {
                if let Some(id) = repository.pinned(tag).await?
                    && let Some(snapshot) = repository.snapshot(&id.to_string(), &files).await?
                {
                    return Ok(Commit::at(snapshot, &format!("refs/tags/{tag}")));
                }
            }
            Sought::Hash(hash) if is_hash_prefix(hash) => {
                if let Some(snapshot) = repository.snapshot(hash, &files).await? {
                    return Ok(Commit { snapshot, tag: None, reference: String::new() });
                }
            }
            Sought::Hash(_) | Sought::Revision(_) => {}
        }

        let mut fresh = Fresh::Enough;
        loop {
            let refs = repository.refs(fresh).await?;
            let (id, through) = match refs.resolve(name) {
                Resolved::Ref { name, id } => (id, name),
                Resolved::Commit { id, through } => (id, through),
                Resolved::Hash => return self.commit_behind_the_refs(name, &files, &refs).await,
                Resolved::Ambiguous => {
                    return Err(not_found(format!("ambiguous revision {name}")));
                }
                Resolved::Unknown if fresh == Fresh::Enough => {
                    fresh = Fresh::Now;
                    continue;
                }
                Resolved::Unknown => return Err(self.unknown_revision(sought, &refs)),
            };
            let is_ref = matches!(refs.resolve(name), Resolved::Ref { .. });
            let at = |snapshot| {
                if is_ref {
                    return Commit::at(snapshot, through);
                }
                Commit { snapshot, tag: None, reference: String::new() }
            };
            if let Some(snapshot) = repository.snapshot(&id.to_string(), &files).await? {
                return Ok(at(snapshot));
            }
            let want = match history {
                History::Commit => Want::Refs(vec![through_branch(&refs, through, id)]),
                History::Whole => Want::Everything,
            };
            repository.fetch(want).await?;
            if let Some(snapshot) = repository.snapshot(&id.to_string(), &files).await? {
                return Ok(at(snapshot));
            }
            if fresh == Fresh::Enough {
                // It has moved since it was listed.
                fresh = Fresh::Now;
                continue;
            }
            repository.fetch(Want::Everything).await?;
            return match repository.snapshot(&id.to_string(), &files).await? {
                Some(snapshot) => Ok(at(snapshot)),
                None => Err(not_found(format!("{name} is no commit, or is not there any more"))),
            };
        }
    }

    /// A commit that no branch or tag is at.
    async fn commit_behind_the_refs(
        &self,
        hash: &str,
        files: &[String],
        refs: &Arc<Refs>,
    ) -> Result<Commit, Fault> {
        let commit = |snapshot| Commit { snapshot, tag: None, reference: String::new() };
        if let Some(snapshot) = self.repository.snapshot(hash, files).await? {
            return Ok(commit(snapshot));
        }
        let mut refs = refs.clone();
        if self.repository.has_everything(&refs).await {
            refs = self.repository.refs(Fresh::Now).await?;
        }
        if !self.repository.has_everything(&refs).await {
            self.repository.fetch(Want::Everything).await?;
            if let Some(snapshot) = self.repository.snapshot(hash, files).await? {
                return Ok(commit(snapshot));
            }
        }
        Err(unknown(hash))
    }

    fn unknown_revision(&self, sought: Sought<'_>, refs: &Refs) -> Fault {
        let Sought::Tag(tag) = sought else {
            let (Sought::Tag(name) | Sought::Hash(name) | Sought::Revision(name)) = sought;
            return unknown(name);
        };
        let directory = &self.place.directory;
        let version = tag.strip_prefix(&self.place.tag_prefix()).unwrap_or(tag);
        if directory.is_empty() {
            return unknown(tag);
        }
        let other = if refs.find(&format!("refs/tags/{version}")).is_some() {
            format!("; the tag {version} is one of the repository's root")
        } else {
            String::new()
        };
        not_found(format!(
            "unknown revision {tag}: versions of a module in the directory {directory} are tagged \
             {directory}/v1.2.3{other}"
        ))
    }

    /// Where the module is in a commit.
    fn find<'c>(&self, commit: &'c Commit, version: &str) -> Result<Found<'c>, Fault> {
        let revision = if is_pseudo_version(version) || version.is_empty() {
            commit.snapshot.id.short()
        } else {
            self.place.tag(version)
        };
        self.place.find(commit.go_mods(), &revision).map_err(not_found)
    }

    /// The version that a commit has, if `asked` was asked for; the empty text asks for any.
    async fn convert(&self, commit: &Commit, asked: &str) -> Result<String, Fault> {
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
    async fn check_canonical(
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
    async fn validate(
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
        if refs.tags().any(|(one, at)| at == id && one == tag) {
            return invalid(format!("the commit has the tag {tag}, which names it already"));
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

    async fn try_zip(&self, version: &Version, into: &File, max_bytes: u64) -> Result<(), Fault> {
        let module = ModuleVersion::new(self.place.path.clone(), version.clone())
            .map_err(|error| not_found(error.to_string()))?;
        let commit = self.version(version).await?;
        let found = self.find(&commit, version.as_str())?;
        let directory = found.directory;
        let id = commit.snapshot.id;
        let archive = if let Some(archive) = self.repository.archive(id, &directory).await? {
            archive
        } else {
            // What was broken is fetched anew once.
            let commit = self.version(version).await?;
            let again = self.repository.archive(commit.snapshot.id, &directory).await?;
            again.ok_or_else(|| {
                let detail = "git: the repository is broken, even after it was fetched anew";
                Fault::new(ErrorClass::Internal, Stage::Git, detail)
            })?
        };
        let license = if directory.is_empty() {
            None
        } else {
            let files = ["LICENSE".to_owned()];
            let snapshot = self.repository.snapshot(&id.to_string(), &files).await?;
            snapshot.and_then(|mut snapshot| snapshot.files.pop().flatten())
        };
        let out = into.file().as_fd().try_clone_to_owned().map_err(|error| local(&error))?;
        let limits = ZipLimits { max_zip_bytes: max_bytes, ..ZipLimits::default() };
        let making = tokio::task::spawn_blocking(move || {
            use std::io::Seek as _;
            let mut out = std::fs::File::from(out);
            out.set_len(0).and_then(|()| out.rewind()).map_err(CreateZipError::Write)?;
            let out = std::io::BufWriter::with_capacity(256 << 10, out);
            create_zip(archive, &directory, license.as_deref(), &module, out, &limits)
        });
        making.await.map_err(|_| lost_task())?.map_err(|error| match error {
            CreateZipError::File { .. } | CreateZipError::Limit { .. } => {
                not_found(format!("there can be no module zip: {error}"))
            }
            CreateZipError::Write(error) => local(&error),
            CreateZipError::Archive(error) => {
                let detail = format!("git: its archive cannot be read: {error}");
                Fault::new(ErrorClass::Internal, Stage::Git, detail)
            }
        })
    }
}

impl Commit {
    fn at(snapshot: Snapshot, reference: &str) -> Self {
        let tag = reference.strip_prefix("refs/tags/").map(str::to_owned);
        Self { snapshot, tag, reference: reference.to_owned() }
    }

    fn go_mods(&self) -> GoMods<'_> {
        let file = |at: usize| self.snapshot.files.get(at).and_then(|file| file.as_deref());
        GoMods { plain: file(0), major: file(1) }
    }
}

/// A branch is better to ask for than HEAD, which some servers keep for themselves.
fn through_branch(refs: &Refs, through: &str, id: ObjectId) -> String {
    if through == "HEAD"
        && let Some((name, _)) =
            refs.iter().find(|(name, at)| *at == id && name.starts_with("refs/heads/"))
    {
        return name.to_owned();
    }
    through.to_owned()
}

fn not_found(reason: impl std::fmt::Display) -> Fault {
    Fault::new(ErrorClass::NotFound, Stage::Git, format!("git: {reason}"))
}

fn unknown(revision: &str) -> Fault {
    not_found(format!("unknown revision {revision}"))
}

fn invalid_pseudo(version: &str, reason: impl std::fmt::Display) -> Fault {
    not_found(format!("invalid pseudo-version {version}: {reason}"))
}

fn local(error: &std::io::Error) -> Fault {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let class = match error.kind() {
        StorageFull | QuotaExceeded => ErrorClass::Full,
        _ => ErrorClass::Internal,
    };
    Fault::new(class, Stage::Local, format!("cannot write the module zip: {error}"))
}
