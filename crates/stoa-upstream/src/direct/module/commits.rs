//! Finding the commit that is asked for, and fetching it if it is not here.

use std::sync::Arc;

use crate::direct::fetch::Want;
use crate::direct::module::{CodeModule, not_found, unknown};
use crate::direct::objects::Snapshot;
use crate::direct::refs::{ObjectId, Refs, Resolved, is_hash_prefix};
use crate::direct::repositories::Fresh;
use crate::direct::versions::GoMods;
use crate::failure::Fault;

/// A commit, and how it was found.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) snapshot: Snapshot,
    /// The tag by which it was found, without `refs/tags/`.
    pub(super) tag: Option<String>,
    /// The branch, tag or HEAD by which it was found.
    pub(super) reference: String,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sought<'s> {
    /// The tag of an exact version. What was answered for it before stays.
    Tag(&'s str),
    /// The beginning of a hash, from a pseudo-version.
    Hash(&'s str),
    /// Whatever it is: a branch, a tag, the beginning of a hash, `HEAD`.
    Revision(&'s str),
}

/// How much of the history will be needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum History {
    Commit,
    Whole,
}
impl CodeModule {
    /// Finds a commit, and fetches it if it is not here.
    pub(super) async fn commit(
        &self,
        sought: Sought<'_>,
        history: History,
    ) -> Result<Commit, Fault> {
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
        if self.repository.has_everything(&refs) {
            refs = self.repository.refs(Fresh::Now).await?;
        }
        if !self.repository.has_everything(&refs) {
            self.repository.fetch(Want::Everything).await?;
        }
        // Others may have had all of it fetched since it was looked for.
        match self.repository.snapshot(hash, files).await? {
            Some(snapshot) => Ok(commit(snapshot)),
            None => Err(unknown(hash)),
        }
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
        .hint("tag the version with the directory before it")
    }
}

impl Commit {
    fn at(snapshot: Snapshot, reference: &str) -> Self {
        let tag = reference.strip_prefix("refs/tags/").map(str::to_owned);
        Self { snapshot, tag, reference: reference.to_owned() }
    }

    pub(super) fn go_mods(&self) -> GoMods<'_> {
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
