//! Why a module or a version of it is answered as it is: where it is stored, by which rule it is fetched from whom, what every
//! source said when it was last asked, and what would be asked next. Nobody is asked for this, and nothing is changed.
//!
//! These are the very words of `/-/explain/…?format=json`: new fields may come, these stay. Times are in seconds.

mod gather;
mod words;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Explained {
    /// `MODULE`, `MODULE@VERSION` or `MODULE@BRANCH`.
    pub subject: String,
    pub at: Timestamp,
    /// `GOPRIVATE`, `GONOPROXY` or `GONOSUMDB` names it.
    pub private: bool,
    pub offline: bool,
    pub routing: Routing,
    pub checksums: Checksums,
    /// Of a version: `.info`, `.mod` and `.zip`. Empty otherwise.
    pub files: Vec<File>,
    /// Of a module its list and `@latest`, of a branch what it stands for. Empty of a version.
    pub answers: Vec<Kept>,
    /// Of a module.
    pub versions: Option<Versions>,
    /// Bodies of this version that were rejected, the newest first; at most ten.
    pub rejected: Vec<Rejected>,
    /// Why it, or a part of it, is refused or hidden. Empty if it is not.
    pub refused: Vec<String>,
    /// Who would be asked, if it were asked for now.
    pub next: Vec<String>,
}

/// Where it is fetched from.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Routing {
    /// `route`, `gonoproxy`, `goprivate` or `default`.
    pub rule: String,
    /// Of a route its place among them, from 1.
    pub route: Option<usize>,
    /// The pattern of the rule that names it.
    pub pattern: Option<String>,
    pub chain: Vec<Link>,
}

/// A source, in the order they are asked.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Link {
    pub source: String,
    /// When the next one is asked: `,` if this one has not got it, `|` if it fails in any way. None of the last one.
    pub separator: Option<String>,
    /// None if it was not asked so far, or is no host.
    pub breaker: Option<Breaker>,
}

/// Whether a host is asked.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Breaker {
    /// `closed`, `open` or `half-open`.
    pub state: String,
    pub reason: Option<String>,
    pub since: Option<Timestamp>,
    pub next_probe: Option<Timestamp>,
}

/// Who vouches for it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Checksums {
    /// The database's name; none if none is used.
    pub database: Option<String>,
    /// Why it is not asked about this module: the pattern, or `GOSUMDB=off`.
    pub exempt: Option<String>,
    /// By which it is read, in order.
    pub roads: Vec<Road>,
    /// Of a version, if it is stored.
    pub record: Option<Record>,
    pub verdict: Option<Verdict>,
    /// When the record was last looked up.
    pub said: Vec<Said>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Road {
    pub source: String,
    /// Through a proxy, and not at the database's own address.
    pub through_proxy: bool,
    /// What a proxy has said lately about passing the database on.
    pub passes_on: Option<bool>,
    pub breaker: Option<Breaker>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Record {
    /// Relative to the data directory.
    pub path: String,
    pub zip: Option<String>,
    #[serde(rename = "mod")]
    pub go_mod: Option<String>,
}

/// A file of a version.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct File {
    /// `info`, `mod` or `zip`.
    pub file: String,
    pub stored: Option<Stored>,
    /// A verdict that is remembered.
    pub verdict: Option<Verdict>,
    /// When it was last asked for elsewhere.
    pub said: Vec<Said>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Stored {
    /// Relative to the data directory.
    pub path: String,
    /// False if only its record is left.
    pub there: bool,
    pub size: u64,
    pub sha256: String,
    pub h1: Option<String>,
    /// `verified`, `exempt`, `uncovered` or `unverified`.
    pub state: String,
    /// The database that vouches for it, or the pattern that exempts it.
    pub by: Option<String>,
    pub source: String,
    pub first_seen: Timestamp,
    /// It is given to whoever asks, under today's settings and without asking anybody.
    pub handed_out: bool,
}

/// What was concluded and is not asked about again for a while.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Verdict {
    /// `not_found`, `mismatch`, …
    pub class: String,
    pub text: String,
    pub age: f64,
    /// For how long it stands; at 0 the sources are asked again, and it is the answer only if none of them answers.
    pub stands: f64,
}

/// A source's last word.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Said {
    pub source: String,
    /// `ok`, or what went wrong.
    pub outcome: String,
    pub ok: bool,
    pub at: Timestamp,
    pub took: f64,
    /// By stage, in their order.
    pub stages: Vec<Stage>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Stage {
    pub stage: String,
    pub seconds: f64,
}

/// The last answer to a question whose answer changes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Kept {
    /// `list`, `latest`, or a branch.
    pub asked: String,
    pub kept: Option<KeptAnswer>,
    pub verdict: Option<Verdict>,
    pub said: Vec<Said>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct KeptAnswer {
    /// The version; of a list how many, and the last one.
    pub says: String,
    pub source: String,
    pub fetched_at: Timestamp,
    pub age: f64,
    pub ttl: f64,
    /// `young` and `ageing` within its time to live, `past` up to twice of it, `old` beyond.
    pub state: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Versions {
    pub count: usize,
    /// The newest 200, in order.
    pub newest: Vec<StoredVersion>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct StoredVersion {
    pub version: String,
    pub files: Vec<String>,
    pub unverified: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Rejected {
    /// Relative to the data directory.
    pub path: String,
    pub reason: String,
    pub source: String,
    pub at: Timestamp,
    pub kept: bool,
}
