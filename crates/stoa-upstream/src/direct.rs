//! Modules from their own git repositories, as the go command gets them in direct mode: the same versions, the same
//! hashes, an error where it has one (`modfetch` and `modfetch/codehost` of cmd/go).
//!
//! `DirectModules` finds out where a module is, `Repositories` keeps one bare repository for each remote, and `CodeModule`
//! reads one module's versions from it.
//!
//! # Decisions
//!
//! - A revision that somebody asks for never becomes an argument of git. It is looked up in the list of branches and tags,
//!   or is the beginning of a hash; then git gets the ref's own name or a hash.
//! - Only what a branch, a tag or HEAD reaches is ever fetched. Hosts keep the commits of strangers' pull requests in the
//!   same place, and would hand them out by hash.
//! - What is asked first is fetched shallow, and history only when it decides something: the version before a
//!   pseudo-version. Then it is fetched whole, once, and what follows is incremental.
//! - Where the files of one commit are few bytes, a shallow fetch does not say what is here: that a host compares every
//!   changed file takes longer than the bytes, and the pack is no smaller here.
//! - Listing and fetching are tasks of their own, which one request starts and all others join. A client that leaves, or a
//!   bound on its answer, does not undo half a clone.
//! - git follows no redirect, since it would follow it past the address filter; `access.rs` finds out where one leads.
//! - A tag is remembered with the commit under which its version was answered, so that the `.zip` of a moved tag comes from
//!   the same commit as the `.mod` before it.
//! - Which tag comes before a commit is read from its history and from the remote's tags as they are now, not from the tags
//!   that were fetched some time ago.

mod access;
mod archive;
mod command;
mod configured;
mod counters;
mod fetch;
mod files;
mod hosts;
mod module;
mod modules;
mod objects;
mod refs;
mod repositories;
mod room;
mod settings;
mod trial;
mod versions;
mod words;

pub use crate::direct::counters::{GitCommands, GitStatus};
pub(crate) use crate::direct::module::CodeModule;
pub(crate) use crate::direct::modules::{DirectModules, Origin, impossible};
pub use crate::direct::settings::GitSettings;

#[cfg(test)]
mod tests;
