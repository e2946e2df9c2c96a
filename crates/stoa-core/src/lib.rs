//! The decisions of stoa: which source a module may come from, who fetches it, what is checked before it is kept, and
//! what is answered when something fails.
//!
//! A request for an artifact takes this road: [`Mirror::artifact`] opens the stored file, and that is all for a hit.
//! A miss joins or leads the [flight](flight) of that one artifact; its leader (a task of the server, not of the
//! request) walks the [chain](policy) of sources, [downloads](fetch), compares with the [checksum database](sumdb)
//! (or leaves that for [later](unverified)), and commits. Lists, `@latest` and branch queries are [mutable]: kept with a time to live, answered stale when no
//! source answers.
//!
//! **Architecture Invariant:** nothing here knows HTTP status codes; an [`Error`] carries a class, and the program maps
//! classes to statuses in one place.

mod absent;
mod answer;
mod error;
pub mod explain;
mod fetch;
mod flight;
mod growing;
mod heard;
mod inspectors;
mod latencies;
mod mirror;
mod mutable;
mod permits;
mod policy;
mod rate;
mod refresh;
mod settings;
mod sumdb;
mod toll;
mod unverified;
mod waits;

pub use crate::answer::{Answer, Body, Freshness, Kind, Lasting, Outcome, Wish};
pub use crate::error::Error;
pub use crate::growing::{BrokenOff, Reader};
pub use crate::mirror::Mirror;
pub use crate::policy::{Policy, Route, Rule};
pub use crate::refresh::{Look, Refreshed, Subject};
pub use crate::settings::{Hedge, Settings};
pub use crate::sumdb::{Database, DatabaseSettings};
pub use crate::toll::Asker;
pub use crate::unverified::Verifications;
pub use crate::waits::{Timing, Wait, Waits};
