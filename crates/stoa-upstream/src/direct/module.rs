//! One module in a repository: its list, its latest version, and the files of each.

mod commits;
mod convert;

use std::os::fd::AsFd as _;
use std::sync::Arc;

use fs_err::tokio::File;
use stoa_module::{
    CreateZipError, ErrorClass, ModulePath, ModuleVersion, Origin, PseudoClaim, RevisionInfo,
    Version, ZipLimits, create_zip, is_pseudo_version, latest_of, render_list, semver,
};

use crate::direct::fetch::Want;
use crate::direct::files;
use crate::direct::module::commits::{Commit, History, Sought};
use crate::direct::refs::{ObjectId, Refs, Resolved};
use crate::direct::repositories::{Fresh, Repository, lost_task};
use crate::direct::versions::Place;
use crate::discovery::CodeRoot;
use crate::failure::{Fault, Stage};

/// No name of a branch or tag is longer, and no hash.
const MAX_REVISION: usize = 255;

/// A module in a repository.
#[derive(Debug, Clone)]
pub(crate) struct CodeModule {
    place: Arc<Place>,
    repository: Repository,
}
impl CodeModule {
    /// The module of this path in the repository, whose root is at `code`.
    pub(crate) fn new(
        path: &ModulePath,
        code: &CodeRoot,
        repository: Repository,
    ) -> Result<Self, Fault> {
        let place = Place::new(path, &code.root, &code.subdir).map_err(not_found)?;
        Ok(Self { place: Arc::new(place), repository })
    }

    pub(super) fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The body of `@v/list`. Empty for a module that is there and has no versions; `NotFound` if it is not there.
    pub(crate) async fn list(&self) -> Result<String, Fault> {
        let versions = self.versions().await?;
        if versions.is_empty() {
            // The go command takes a list, however empty, for the word that there is a module.
            self.head().await?;
        }
        Ok(render_list(&versions))
    }

    /// The body of `@latest`: the highest release, else the highest pre-release, else the commit at HEAD.
    pub(crate) async fn latest(&self) -> Result<String, Fault> {
        self.try_latest().await
    }

    /// The `.info` of the version that a revision stands for: a branch, a tag, the beginning of a hash of at least 7
    /// digits, `HEAD`, or a version that is not canonical. Unlike a [`Query`](stoa_module::Query) it may have slashes.
    pub(crate) async fn query(&self, revision: &str) -> Result<String, Fault> {
        self.try_query(revision).await
    }

    /// The `.info` of a version.
    pub(crate) async fn info(&self, version: &Version) -> Result<String, Fault> {
        self.try_info(version).await
    }

    /// The go.mod of a version; one of a single line is made where there is none.
    pub(crate) async fn go_mod(&self, version: &Version) -> Result<Vec<u8>, Fault> {
        let commit = self.version(version).await?;
        let found = self.find(&commit, version.as_str())?;
        Ok(match found.go_mod {
            Some(text) => text.to_vec(),
            None => format!("module {}\n", self.place.path).into_bytes(),
        })
    }

    /// Writes the module zip of a version, of at most `max_bytes`, to a file from its start. What was in the file is cut
    /// off. A tree that cannot be a module zip is `NotFound`, as `.info` and `.mod` of the same version are not.
    pub(crate) async fn zip(
        &self,
        version: &Version,
        into: &File,
        max_bytes: u64,
    ) -> Result<(), Fault> {
        self.try_zip(version, into, max_bytes).await
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

const PUSHED: &str = "look whether the tag or branch was pushed to the repository";

fn not_found(reason: impl std::fmt::Display) -> Fault {
    Fault::new(ErrorClass::NotFound, Stage::Git, format!("git: {reason}"))
}

fn unknown(revision: &str) -> Fault {
    not_found(format!("unknown revision {revision}")).hint(PUSHED)
}

fn invalid_pseudo(version: &str, reason: impl std::fmt::Display) -> Fault {
    not_found(format!("invalid pseudo-version {version}: {reason}"))
}

fn local(error: &std::io::Error) -> Fault {
    files::of_io("cannot write the module zip", error)
}
