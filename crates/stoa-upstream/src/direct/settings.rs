//! Bounds on what git may do.

use std::time::Duration;

/// How long, how much, and how many at once. Times are at most; sizes are in bytes.
#[derive(Debug, Clone)]
pub struct GitSettings {
    /// Commands at once that speak to remotes.
    pub max_remote_commands: usize,
    /// Commands at once that only read what is here.
    pub max_local_commands: usize,
    /// How long a command waits for its place among those.
    pub queue_timeout: Duration,
    /// How long a fetch may make no progress.
    pub stall_timeout: Duration,
    /// A whole fetch, however well it goes on.
    pub fetch_timeout: Duration,
    /// Listing the branches and tags of a remote.
    pub list_timeout: Duration,
    /// A command that only reads what is here.
    pub local_timeout: Duration,
    /// How long a list of branches and tags is used.
    pub refs_ttl: Duration,
    /// How long it is used even for something that is not in it, and how long a failure to get it is.
    pub refs_min_interval: Duration,
    /// Branches and tags of a repository.
    pub max_refs: usize,
    /// The size of a bare repository.
    pub max_repository_bytes: u64,
    /// The size of all of them together. Those that nobody uses go first, the longest unused before others.
    pub max_total_bytes: u64,
    /// The size of the archive of a module's directory, before what does not belong into its zip is left out: 500 MiB, as
    /// for the go command.
    pub max_archive_bytes: u64,
    /// Up to this the files of one commit are fetched whole, even if most of them are here: finding out what differs takes
    /// the host, and then us, longer than the bytes take.
    pub whole_bytes: u64,
    /// Packs in a repository before they are joined.
    pub max_packs: usize,
    /// Repositories whose state is kept in memory while nobody uses them.
    pub max_idle: usize,
}

impl Default for GitSettings {
    fn default() -> Self {
        Self {
            max_remote_commands: 8,
            max_local_commands: 16,
            queue_timeout: Duration::from_mins(1),
            stall_timeout: Duration::from_mins(1),
            fetch_timeout: Duration::from_hours(1),
            list_timeout: Duration::from_secs(30),
            local_timeout: Duration::from_mins(5),
            refs_ttl: Duration::from_mins(1),
            refs_min_interval: Duration::from_secs(2),
            max_refs: 500_000,
            max_repository_bytes: 16 << 30,
            max_total_bytes: 100 << 30,
            max_archive_bytes: 500 << 20,
            whole_bytes: 4 << 20,
            max_packs: 20,
            max_idle: 64,
        }
    }
}
