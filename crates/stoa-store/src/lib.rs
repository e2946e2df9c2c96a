//! Durable state: write-once blobs with their sidecars, and the index.
//!
//! [`Store`] owns one data directory (architecture, "Data directory"). The blobs and their sidecars are the truth; the
//! `list` and `.ziphash` files and the SQLite index follow from them and are rebuilt from them. How a commit survives a
//! kill is told in the module `commit`, what happens to the index in the module `index`.
#![forbid(unsafe_code)]

mod answers;
mod batches;
mod cached;
mod commit;
mod directory;
mod durable;
mod error;
mod files;
mod index;
mod keyed;
mod killpoint;
mod layout;
mod lists;
mod memory;
mod places;
mod quarantine;
mod record;
mod reject;
mod settle;
mod spool;
mod store;
mod stored;
mod stored_file;
mod sumdb;
mod temporary;
#[cfg(test)]
mod tests;
mod trouble;

pub use answers::{Answer, AnswerKey};
pub use error::Error;
pub use index::Counts;
pub use places::{FilePlace, Places, Rejected};
pub use quarantine::QuarantineNote;
pub use record::{ArtifactRecord, Content, Sidecar, State, Stored};
pub use spool::OpenFile;
pub use store::{Committed, Options, SpoolCounts, Stamp, Store};
pub use stored::StoredVersion;
pub use stored_file::StoredFile;
pub use temporary::Temporary;
pub use trouble::{Fault, Trouble};
