//! What the mirror is told once, at its start.

use std::time::Duration;

/// Limits and lifetimes. All sizes in bytes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Nothing leaves the machine.
    pub offline: bool,
    /// How long a list, `@latest` or branch answer counts as fresh.
    pub list_ttl: Duration,
    /// How long "not found" is remembered for names and queries.
    pub negative_ttl: Duration,
    /// The same for an exact version, which may just have been tagged.
    pub negative_version_ttl: Duration,
    pub negative_bytes: u64,
    /// To the first byte of a list or `@latest`.
    pub list_timeout: Duration,
    /// To the first byte of `.info`, `.mod`, `.zip`.
    pub file_timeout: Duration,
    /// Either of these for a source that has another behind it over `|`.
    pub alternative_timeout: Duration,
    pub max_zip_bytes: u64,
    /// A zip of at most this many bytes is given away only when it is whole and verified.
    pub hold_bytes: u64,
    pub max_mod_bytes: u64,
    pub max_info_bytes: u64,
    pub max_list_bytes: u64,
    /// Fetches under way at once from one source; hits never count.
    pub max_concurrent: usize,
    /// What one client may have looked for elsewhere in a second; 0 is no bound.
    pub misses_per_client: u32,
    /// When a file is asked of the next source too.
    pub hedge: Hedge,
    /// Zips inspected and hashed at once.
    pub verify_concurrency: usize,
    /// How long a download waits for its checksum record before it is handed out unverified, where nobody can be asked;
    /// none if that never happens.
    pub serve_unverified_after: Option<Duration>,
}

/// When the source behind one over `|` is asked beside it, because it has not answered yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hedge {
    Never,
    /// After longer than that source nearly always takes.
    Usual,
    After(Duration),
}

impl Settings {
    /// What a source may take to answer where `timeout` is the rule.
    pub(crate) fn bound(&self, timeout: Duration, has_alternative: bool) -> Duration {
        if has_alternative { timeout.min(self.alternative_timeout) } else { timeout }
    }
}
