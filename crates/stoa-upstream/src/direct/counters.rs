//! What git was run for, in numbers.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Since the start. No repository is named: there may be any number, and names of private ones stay here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GitStatus {
    /// Commands that spoke to a remote.
    pub remote: GitCommands,
    /// Commands that only read or wrote what is here.
    pub local: GitCommands,
    /// Tags that were seen to have moved.
    pub moved_tags: u64,
}

/// Commands of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GitCommands {
    pub succeeded: u64,
    /// That said no, reached a bound, or could not be started.
    pub failed: u64,
    /// Under way now.
    pub running: usize,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) remote: Kind,
    pub(super) local: Kind,
}

#[derive(Debug, Default)]
pub(super) struct Kind {
    succeeded: AtomicU64,
    failed: AtomicU64,
    running: AtomicUsize,
}

/// A command under way; one that is given up counts as failed.
pub(super) struct Started<'k> {
    kind: &'k Kind,
    succeeded: bool,
}

impl Kind {
    pub(super) fn start(&self) -> Started<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        Started { kind: self, succeeded: false }
    }

    pub(super) fn now(&self) -> GitCommands {
        GitCommands {
            succeeded: self.succeeded.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            running: self.running.load(Ordering::Relaxed),
        }
    }
}

impl Started<'_> {
    pub(super) fn ended(mut self, succeeded: bool) {
        self.succeeded = succeeded;
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        let counter = if self.succeeded { &self.kind.succeeded } else { &self.kind.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        self.kind.running.fetch_sub(1, Ordering::Relaxed);
    }
}
