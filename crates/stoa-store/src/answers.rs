//! The last good answers of upstreams to questions whose answer changes: lists, `@latest`, what a branch stands for. They
//! are kept for offline use and for when the upstream is down, apart from the blobs: `cache/answers`.

use std::{io, path::Path, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stoa_module::{ModulePath, Query, Sha256};
use tracing::warn;

use crate::{
    durable::replace,
    error::Error,
    files::{Files, read_if_there},
    memory::SMALL,
};

/// A question whose answer changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AnswerKey {
    /// `M/@v/list`
    List(ModulePath),
    /// `M/@latest`
    Latest(ModulePath),
    /// `M/@v/REV.info` of a branch, tag or hash.
    Query(ModulePath, Query),
}

impl AnswerKey {
    pub fn path(&self) -> &ModulePath {
        match self {
            Self::List(path) | Self::Latest(path) | Self::Query(path, _) => path,
        }
    }
}

/// An upstream's answer, as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub body: Bytes,
    pub fetched_at: Timestamp,
    /// For people; never with a secret.
    pub source: String,
}

/// The first line of an answer's file; the body follows. Answers are not synced, so a power cut can tear one: size and hash
/// tell.
#[derive(Serialize, Deserialize)]
struct Header {
    stoa: u32,
    size: u64,
    sha256: Sha256,
    fetched_at: Timestamp,
    source: String,
}

const FORM: u32 = 1;

impl Files {
    pub(crate) fn answer(&self, key: &AnswerKey) -> Result<Option<Arc<Answer>>, Error> {
        let path = self.layout.answer(key)?;
        let ticket = self.memory.answers.ticket(key);
        let Some(file) = read_if_there(&path)? else { return Ok(None) };
        let Some(answer) = parse(&file).map(Arc::new) else {
            warn!(path = %path.display(), "a torn answer is ignored");
            return Ok(None);
        };
        if is_small(&answer) {
            self.memory.answers.offer(ticket, key, Arc::clone(&answer));
        }
        Ok(Some(answer))
    }

    pub(crate) fn put_answer(&self, key: &AnswerKey, answer: Answer) -> Result<(), Error> {
        let path = self.layout.answer(key)?;
        let written = self.write_answer(&path, &answer);
        self.remember_answer(key, answer);
        written
    }

    pub(crate) fn remember_answer(&self, key: &AnswerKey, mut answer: Answer) {
        if is_small(&answer) {
            // What a download leaves has more room than bytes.
            answer.body = Bytes::copy_from_slice(&answer.body);
            self.memory.answers.replaced(key, |_| Arc::new(answer));
        } else {
            self.memory.answers.forget(key);
        }
    }

    fn write_answer(&self, path: &Path, answer: &Answer) -> Result<(), Error> {
        fs_err::create_dir_all(path.parent().unwrap_or(Path::new("")))?;
        let header = Header {
            stoa: FORM,
            size: answer.body.len() as u64,
            sha256: Sha256::of(&answer.body),
            fetched_at: answer.fetched_at,
            source: answer.source.clone(),
        };
        let mut file = serde_json::to_vec(&header).map_err(io::Error::other)?;
        file.push(b'\n');
        file.extend_from_slice(&answer.body);
        Ok(replace(self.durable.write_temporary(&file, false)?, path)?)
    }
}

fn is_small(answer: &Answer) -> bool {
    answer.body.len() as u64 <= SMALL
}

fn parse(file: &[u8]) -> Option<Answer> {
    let end = file.iter().position(|&byte| byte == b'\n')?;
    let header: Header = serde_json::from_slice(&file[..end]).ok()?;
    let body = Bytes::copy_from_slice(&file[end + 1..]);
    let whole = header.stoa == FORM
        && header.size == body.len() as u64
        && header.sha256 == Sha256::of(&body);
    whole.then_some(Answer { body, fetched_at: header.fetched_at, source: header.source })
}
