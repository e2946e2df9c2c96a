//! Reading commits and files from a bare repository.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use stoa_module::ErrorClass;

use crate::direct::command::{Ended, Run, Wanted};
use crate::direct::refs::ObjectId;
use crate::direct::repositories::Repository;
use crate::direct::words;
use crate::failure::{Fault, Stage};

/// The most that a go.mod, a LICENSE or a commit may have, in bytes, as in a module zip.
const MAX_FILE: u64 = 16 << 20;

/// A commit with some files of its tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) id: ObjectId,
    /// The committer's, to the second.
    pub(super) time: Timestamp,
    /// In the order in which they were asked for; `None` for what is not there or no file.
    pub(super) files: Vec<Option<Vec<u8>>>,
}

/// One object in the output of `git cat-file --batch`.
#[derive(Debug, PartialEq, Eq)]
struct Object {
    id: ObjectId,
    kind: String,
    content: Vec<u8>,
}

impl Repository {
    /// Reads a commit, named by its hash or the beginning of it. `None` if it is not here.
    pub(super) async fn snapshot(
        &self,
        revision: &str,
        files: &[String],
    ) -> Result<Option<Snapshot>, Fault> {
        if !self.is_there() {
            return Ok(None);
        }
        let mut input = format!("{revision}^{{commit}}\n");
        for file in files {
            if file.contains('\n') {
                return Err(malformed("a name of a file holds a newline"));
            }
            for piece in [revision, ":", file, "\n"] {
                input.push_str(piece);
            }
        }
        let run = Run::local(&self.remote.directory, &self.inner.settings)
            .args(["cat-file", "--batch"])
            .input(input.into_bytes());
        let mut batch = Batch::default();
        let mut take = |bytes: &[u8]| match batch.take(bytes) {
            Ok(()) => Wanted::More,
            Err(fault) => Wanted::Refused(fault),
        };
        let ended = self.inner.git.run(run, &mut take).await?;
        if self.finds_itself_broken(&ended) {
            return Ok(None);
        }
        let mut objects = batch.objects.into_iter();
        let Some(Some(commit)) = objects.next() else { return Ok(None) };
        let time = committed(&commit.content)
            .ok_or_else(|| malformed("the commit has no time that a version could have"))?;
        let files = objects
            .map(|object| object.filter(|object| object.kind == "blob"))
            .map(|object| object.map(|object| object.content))
            .collect();
        Ok(Some(Snapshot { id: commit.id, time, files }))
    }

    /// Of the commits that are given with a rank each, the lowest rank among the ancestors of a commit and itself. All of
    /// its history must be here.
    pub(super) async fn first_ancestor(
        &self,
        commit: ObjectId,
        ranks: &HashMap<ObjectId, usize>,
    ) -> Result<Option<usize>, Fault> {
        let run = Run::local(&self.remote.directory, &self.inner.settings)
            .args(["rev-list", "--end-of-options"])
            .args([commit.to_string()]);
        let mut best: Option<usize> = None;
        let mut line = Vec::new();
        let lowest = ranks.values().min().copied();
        let mut take = |bytes: &[u8]| {
            for &byte in bytes {
                if byte != b'\n' {
                    if line.len() < 64 {
                        line.push(byte);
                    }
                    continue;
                }
                let id = std::str::from_utf8(&line).ok().and_then(ObjectId::parse);
                line.clear();
                if let Some(&rank) = id.and_then(|id| ranks.get(&id)) {
                    best = Some(best.map_or(rank, |best| best.min(rank)));
                }
                if best.is_some() && best == lowest {
                    return Wanted::Enough;
                }
            }
            Wanted::More
        };
        let ended = self.inner.git.run(run, &mut take).await?;
        if !ended.is_success() {
            self.finds_itself_broken(&ended);
            return Err(words::fault(&ended.words));
        }
        Ok(best)
    }

    /// Whether the first is an ancestor of the second, or is the same. `None` if one of them is not here.
    pub(super) async fn is_ancestor(
        &self,
        first: ObjectId,
        second: ObjectId,
    ) -> Result<Option<bool>, Fault> {
        let run = Run::local(&self.remote.directory, &self.inner.settings)
            .args(["merge-base", "--is-ancestor", "--"])
            .args([first.to_string(), second.to_string()]);
        let (ended, _) = self.inner.git.output(run).await?;
        Ok(match ended.code {
            Some(0) => Some(true),
            Some(1) => Some(false),
            _ => None,
        })
    }

    /// Whether there is a repository yet.
    pub(super) fn is_there(&self) -> bool {
        self.remote.directory.join("HEAD").exists()
    }

    /// Whether a command that reads has met something broken. The next fetch then begins anew.
    pub(super) fn finds_itself_broken(&self, ended: &Ended) -> bool {
        let is_broken = words::is_broken(&ended.words) && !words::is_final(&ended.words);
        if is_broken {
            tracing::warn!(
                git.directory = %self.remote.directory.display(),
                git.words = ended.words.trim_end(),
                "a repository is broken and will be fetched anew"
            );
            self.remote.broken.store(true, Ordering::SeqCst);
        }
        is_broken
    }
}

fn malformed(what: &str) -> Fault {
    Fault::new(ErrorClass::NotFound, Stage::Git, format!("git: {what}"))
}

/// The committer's time in the text of a commit.
fn committed(commit: &[u8]) -> Option<Timestamp> {
    let mut lines = commit.split(|&b| b == b'\n').take_while(|line| !line.is_empty());
    let line = lines.find_map(|line| line.strip_prefix(b"committer "))?;
    // Behind the last bracket, since a name may hold anything else.
    let after = line.iter().rposition(|&b| b == b'>')? + 1;
    let rest = line.get(after..)?.trim_ascii_start();
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let seconds = std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()?;
    Timestamp::from_second(seconds).ok()
}

/// Reads the output of `git cat-file --batch` as it comes: a line for each object, and its content.
#[derive(Debug, Default)]
struct Batch {
    /// `None` for what is missing.
    objects: Vec<Option<Object>>,
    line: Vec<u8>,
    /// The object that is being read, and how many bytes of it are missing, with the newline behind it.
    open: Option<(Object, u64)>,
}

impl Batch {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while let Some((&first, rest)) = bytes.split_first() {
            if let Some((object, missing)) = &mut self.open {
                let length = usize::try_from(*missing).unwrap_or(usize::MAX).min(bytes.len());
                let (content, after) = bytes.split_at(length);
                object.content.extend_from_slice(content);
                *missing -= length as u64;
                bytes = after;
                if *missing == 0 {
                    object.content.pop();
                    self.objects.extend(self.open.take().map(|(object, _)| Some(object)));
                }
            } else {
                bytes = rest;
                if first == b'\n' {
                    self.end_line()?;
                } else {
                    self.line.push(first);
                }
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), Fault> {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        let fields: Vec<&str> = line.split(' ').collect();
        let [id, kind, size] = fields[..] else {
            self.objects.push(None);
            return Ok(());
        };
        let (Some(id), Ok(size)) = (ObjectId::parse(id), size.parse::<u64>()) else {
            // `x:a file missing`
            self.objects.push(None);
            return Ok(());
        };
        if size > MAX_FILE {
            return Err(malformed(&format!("a {kind} has {size} bytes, more than {MAX_FILE}")));
        }
        let object = Object { id, kind: kind.to_owned(), content: Vec::new() };
        self.open = Some((object, size + 1));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "a3ab0831a0ed9ce3aa2155c5c30627b07f94166a";

    #[test]
    fn batches() {
        let text = format!(
            "{A} commit 3\nx\ny\nabc missing\n{A}:sub dir/go.mod missing\n{A} blob 0\n\n\
             abcdef0 ambiguous\n{A} tree 4\n\0\n\n\n\n"
        );
        let a = ObjectId::parse(A).unwrap();
        let object = |kind: &str, content: &[u8]| {
            Some(Object { id: a, kind: kind.to_owned(), content: content.to_vec() })
        };
        for pieces in [1, 5, 4096] {
            let mut batch = Batch::default();
            for piece in text.as_bytes().chunks(pieces) {
                batch.take(piece).unwrap();
            }
            assert_eq!(
                batch.objects,
                [
                    object("commit", b"x\ny"),
                    None,
                    None,
                    object("blob", b""),
                    None,
                    object("tree", b"\0\n\n\n"),
                ]
            );
        }
        let huge = format!("{A} blob {}\n", MAX_FILE + 1);
        assert!(Batch::default().take(huge.as_bytes()).is_err());
    }

    #[test]
    fn times() {
        let check = |committer: &str, expected: Option<&str>| {
            let commit =
                format!("tree {A}\nauthor x <y> 1 +0000\n{committer}\n\ncommitter a <b> 5\n");
            let time = committed(commit.as_bytes()).map(|time| time.to_string());
            assert_eq!(time.as_deref(), expected, "{committer}");
        };
        check("committer n <a@b.c> 1704164645 +0000", Some("2024-01-02T03:04:05Z"));
        check("committer n <a@b.c> 1704164645 -0730", Some("2024-01-02T03:04:05Z"));
        check("committer <x> <y>> 1704164645", Some("2024-01-02T03:04:05Z"));
        check("committer n <a@b.c>", None);
        check("committer n <a@b.c> 99999999999999999999 +0000", None);
        check("committer n <a@b.c> 9999999999999 +0000", None);
        check("parent x", None);
    }
}
