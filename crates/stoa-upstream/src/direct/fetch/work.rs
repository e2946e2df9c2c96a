//! A fetch under the lock: into a repository that is made if it is not there, of some refs or of all.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use stoa_module::ErrorClass;

use super::tidy::packs;
use super::{ATTRIBUTES, Batch, HEAD, MARK, Trouble, Writer};
use crate::direct::access::RemoteEnv;
use crate::direct::command::{Ended, Growth, Run};
use crate::direct::hosts::Place;
use crate::direct::refs::Refs;
use crate::direct::repositories::{Repository, lock, lost_task};
use crate::direct::words;
use crate::failure::{Fault, Stage};

/// Says nothing to the host of what is here.
const WITHOUT_HAVES: &[&str] = &["-c", "fetch.negotiationAlgorithm=noop"];

/// A fetch under the lock.
pub(super) struct Work<'w> {
    pub(super) repository: &'w Repository,
    pub(super) env: RemoteEnv,
    /// At the host that is fetched from.
    pub(super) place: Option<Place>,
    pub(super) held: &'w File,
    pub(super) writer: &'w mut Writer,
    /// Where a redirect leads was found out.
    pub(super) is_redirected: bool,
}

impl Work<'_> {
    pub(super) async fn perform(&mut self, batch: &Batch) -> Result<(), Trouble> {
        let refs = self.repository.known_refs();
        self.make_ready(refs.as_deref()).await?;
        if batch.everything {
            return self.everything(refs).await;
        }
        let outcome = self.refs(&batch.refs).await;
        if let Ok(false) = outcome {
            // Whatever it was, such as a server that cannot fetch shallow: all of it may still come.
            return self.everything(refs).await;
        }
        let outcome = outcome.map(drop);
        self.repository.remember(false, &outcome);
        outcome
    }

    /// Answers whether they were fetched, but for those that are gone.
    async fn refs(&mut self, refs: &BTreeSet<String>) -> Result<bool, Trouble> {
        let mut wanted = refs.clone();
        // A history that is whole stays so.
        let shallow = self.repository.is_shallow() || packs(&self.repository.remote.directory) == 0;
        while !wanted.is_empty() {
            let refspecs = wanted.iter().map(|name| match name.as_str() {
                "HEAD" => format!("HEAD:{HEAD}"),
                name => format!("{name}:{name}"),
            });
            let refspecs: Vec<String> = refspecs.collect();
            let depth: &[&str] = if shallow { &["--depth=1"] } else { &[] };
            let config = if shallow && self.is_small() { WITHOUT_HAVES } else { &[] };
            let ended = self.fetch(config, depth, &refspecs).await?;
            if ended.is_success() {
                return Ok(true);
            }
            // Deleted since it was listed.
            if let Some(missing) = words::missing_ref(&ended.words) {
                if wanted.remove(missing) {
                    continue;
                }
            } else if words::is_final(&ended.words) {
                return Err(Trouble::of_fetch(words::of_remote(&ended.words, &self.env)));
            }
            return Ok(false);
        }
        Ok(true)
    }

    async fn everything(&mut self, refs: Option<Arc<Refs>>) -> Result<(), Trouble> {
        if let Some(fault) = self.repository.refusal(true) {
            return Err(fault.into());
        }
        let outcome = self.all_of(refs.as_deref()).await;
        self.repository.remember(true, &outcome);
        outcome?;
        *lock(&self.repository.remote.complete) = refs;
        Ok(())
    }

    async fn all_of(&mut self, refs: Option<&Refs>) -> Result<(), Trouble> {
        let mut refspecs =
            vec!["refs/heads/*:refs/heads/*".to_owned(), "refs/tags/*:refs/tags/*".to_owned()];
        if let Some(refs) = refs
            && let Some(head) = refs.find("HEAD")
            && !refs.at(head).any(|name| name.starts_with("refs/heads/"))
        {
            refspecs.push(format!("HEAD:{HEAD}"));
        }
        self.must(&["--prune"], &refspecs).await?;
        if self.repository.is_shallow() {
            // Apart from the first, which had to bring the refs that are not here yet: git would cut off their history
            // where that of others is cut off (golang.org/issue/34266).
            self.must(&["--unshallow"], &refspecs).await?;
        }
        Ok(())
    }

    async fn must(&mut self, options: &[&str], refspecs: &[String]) -> Result<(), Trouble> {
        let ended = self.fetch(&[], options, refspecs).await?;
        if ended.is_success() {
            return Ok(());
        }
        let fault = words::of_remote(&ended.words, &self.env);
        if words::is_broken(&ended.words) && !words::is_final(&ended.words) {
            return Err(Trouble::Broken(fault));
        }
        Err(Trouble::of_fetch(fault))
    }

    /// Whether the files of one commit are few bytes: there is a pack for each fetch, and all were shallow until now.
    fn is_small(&self) -> bool {
        let Repository { inner, remote, .. } = self.repository;
        let size = size_of(&remote.directory.join("objects/pack"));
        let one = size.checked_div(packs(&remote.directory) as u64);
        one.is_some_and(|one| one <= inner.settings.whole_bytes)
    }

    async fn fetch(
        &mut self,
        config: &[&str],
        options: &[&str],
        refspecs: &[String],
    ) -> Result<Ended, Trouble> {
        loop {
            let ended = self.try_fetch(config, options, refspecs).await?;
            if ended.is_success() || !words::is_redirect(&ended.words) {
                return Ok(ended);
            }
            let repository = self.repository;
            if self.is_redirected {
                let detail = format!("git: {} redirects on and on", repository.url());
                return Err(Fault::new(ErrorClass::Unavailable, Stage::Git, detail).into());
            }
            // It was renamed since its refs were listed, or it was forgotten where it is.
            self.is_redirected = true;
            repository.access.follow(repository.url()).await?;
            self.env = repository.prepare().await?;
            // The other is given back first.
            self.place = None;
            self.place = Some(repository.inner.hosts.place(&self.env).await?);
        }
    }

    async fn try_fetch(
        &mut self,
        config: &[&str],
        options: &[&str],
        refspecs: &[String],
    ) -> Result<Ended, Trouble> {
        let Repository { inner, remote, .. } = self.repository;
        let objects = remote.directory.join("objects/pack");
        let growth = Growth {
            size: Box::new(move || size_of(&objects)),
            most: inner.settings.max_repository_bytes,
            what: "the repository",
        };
        let run = Run::remote(Some(&remote.directory), &self.env, &inner.settings)
            .holding(self.held.try_clone()?)
            .growing(growth)
            .args(config)
            .args(["fetch", "-f", "--progress", "--no-tags", "--no-recurse-submodules"])
            .args(options)
            .args(["--end-of-options", self.env.address.as_deref().unwrap_or(&remote.url)])
            .args(refspecs);
        let ended = inner.git.output(run).await;
        if ended.as_ref().map_or(true, |(ended, _)| !ended.is_success()) {
            self.writer.is_swept = false;
        }
        ended.map(|(ended, _)| ended).map_err(Trouble::of_fetch)
    }

    /// Makes the repository if it is not there, is broken, or is another one.
    async fn make_ready(&mut self, refs: Option<&Refs>) -> Result<(), Trouble> {
        let Repository { inner, remote, .. } = self.repository;
        let first = refs.and_then(|refs| refs.iter().next());
        let sha256 = first.is_some_and(|(_, id)| id.is_sha256());
        let mark = format!("{} {}\n", if sha256 { "sha256" } else { "sha1" }, remote.url);
        let is_right = || {
            let found = fs_err::read_to_string(remote.directory.join(MARK)).ok();
            // Without a ref nobody knows the format.
            let is_same = |found: &String| *found == mark || first.is_none();
            found.as_ref().is_some_and(is_same) && remote.directory.join("HEAD").exists()
        };
        if remote.broken.swap(false, Ordering::SeqCst) || !is_right() {
            *self.writer = Writer { is_swept: true, joined: 0 };
            *lock(&remote.complete) = None;
            *lock(&remote.pins) = Some(HashMap::new());
            if remote.directory.exists() {
                let grave = inner.bury(&remote.directory)?;
                let removing = tokio::task::spawn_blocking(move || grave.close()).await;
                removing.map_err(|_| lost_task())??;
            }
            let made = tempfile::Builder::new().prefix("init-").tempdir_in(inner.temporary())?;
            let run = Run::local(made.path(), &inner.settings)
                .args(["init", "--quiet", "--bare", "--template="])
                .args(sha256.then_some("--object-format=sha256"));
            let (ended, _) = inner.git.output(run).await?;
            if !ended.is_success() {
                return Err(words::fault(&ended.words).into());
            }
            fs_err::create_dir_all(made.path().join("info"))?;
            fs_err::write(made.path().join("info/attributes"), ATTRIBUTES)?;
            fs_err::write(made.path().join(MARK), mark)?;
            fs_err::rename(made.keep(), &remote.directory)?;
        }
        Ok(self.repository.sweep(self.writer).await?)
    }
}

/// The bytes in a directory.
fn size_of(directory: &Path) -> u64 {
    let Ok(entries) = fs_err::read_dir(directory) else { return 0 };
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum()
}
