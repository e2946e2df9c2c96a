//! What is asked for besides a path, and what is answered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stoa_module::Sha256;
use stoa_store::{OpenFile, Stamp};

use crate::growing::Reader;

/// How a request came, and what it wants of the answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// The request's own `Via` header, passed on so that a loop is noticed.
    pub via: &'a str,
    /// The sources are to be asked, whatever is remembered of what they said before. What is stored for ever is not
    /// looked at anew.
    pub fresh: bool,
    /// All of it is wanted, by somebody who takes it as it comes and notices when the end is missing: a zip may be given
    /// while it is downloaded.
    pub as_it_comes: bool,
}

/// An answer with everything its headers need.
#[derive(Debug)]
pub struct Answer {
    pub body: Body,
    pub kind: Kind,
    pub outcome: Outcome,
    /// Where the bytes came from when they were fetched, without credentials.
    pub source: String,
    pub freshness: Freshness,
    /// The digest of the body, where it is known without reading it.
    pub digest: Option<Sha256>,
    /// The name is not for shared caches.
    pub private: bool,
    /// How long the next who asks is to get the same.
    pub lasting: Lasting,
}

/// How long an answer is what anybody would get who asks the same, whatever else happens in this process.
#[derive(Clone, Copy, Debug)]
pub enum Lasting {
    /// The next may get something else.
    Once,
    /// As long as nothing that is recorded of the version changes.
    WhileRecorded(Stamp),
    /// What is proven by the checksum database's tree.
    Always,
}

#[derive(Debug)]
pub enum Body {
    Bytes(Bytes),
    /// An open file of this many bytes.
    File(Arc<OpenFile>, u64),
    /// One that is still being downloaded.
    Growing(Reader),
}

/// What kind of document the body is; decides its content type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    List,
    Info,
    Mod,
    Zip,
    SumdbText,
    SumdbTile,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Hit,
    Miss,
    /// Kept from earlier, because no source answered in time.
    Stale,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Freshness {
    /// Never changes.
    Immutable,
    /// The checksum database could not be asked about it yet: nobody may keep it.
    Unverified,
    /// May be kept this long by whoever gets it.
    For(Duration),
}
