//! How often one thing may be done about one name: a small burst at once, then so often.

use std::fmt;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Names come from strangers, so they are not kept: each falls on one of so many slots in each row. Two that fall on the
/// same slots share a rate, and whoever finds it used up gets what is remembered.
const SLOTS: usize = 4096;

/// A rate for each name, in 32 KiB for each row.
pub(crate) struct Rate {
    /// When the slot is whole again, in microseconds since the start (the generic cell rate algorithm).
    whole_at: Vec<AtomicU64>,
    hashers: Vec<RandomState>,
    start: Instant,
    every: Duration,
    burst: u32,
}

impl Rate {
    /// `burst` at once, and one more after `every`.
    pub(crate) fn new(burst: u32, every: Duration) -> Self {
        Self::with_rows(1, burst, every)
    }

    /// The same where names should rarely share a rate: only those do that fall on used-up slots in every row.
    pub(crate) fn with_rows(rows: usize, burst: u32, every: Duration) -> Self {
        Self {
            whole_at: (0..SLOTS * rows).map(|_| AtomicU64::new(0)).collect(),
            hashers: (0..rows).map(|_| RandomState::new()).collect(),
            start: Instant::now(),
            every,
            burst,
        }
    }

    /// Whether it may be done now; it counts as done then.
    pub(crate) fn take(&self, name: &impl Hash) -> bool {
        self.take_at(name, self.start.elapsed())
    }

    fn take_at(&self, name: &impl Hash, now: Duration) -> bool {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let (now, room) = (micros(now), micros(self.every.saturating_mul(self.burst)));
        let mut taken = false;
        for (row, hasher) in self.whole_at.chunks_exact(SLOTS).zip(&self.hashers) {
            let slot = &row[hasher.hash_one(name) as usize % SLOTS];
            let outcome = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |whole_at| {
                let next = whole_at.max(now) + micros(self.every);
                (next <= now + room).then_some(next)
            });
            // In every row, so that the others' slots say what this name has used.
            taken |= outcome.is_ok();
        }
        taken
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rate").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_at_a_time() {
        for rows in [1, 4] {
            let rate = Rate::with_rows(rows, 2, Duration::from_secs(1));
            let taken = [0, 10, 20, 900, 1000, 1100, 2000, 9000, 9001, 9002]
                .map(|millis| rate.take_at(&"a", Duration::from_millis(millis)));
            assert_eq!(taken, [true, true, false, false, true, false, true, true, true, false]);
        }
    }

    #[test]
    fn a_rate_above_a_thousand_a_second() {
        let rate = Rate::new(100_000, Duration::from_micros(100));
        let taken = (0..200_000).filter(|_| rate.take_at(&"a", Duration::ZERO)).count();
        assert_eq!(taken, 100_000);
        let later = Duration::from_secs(1);
        assert_eq!((0..200_000).filter(|_| rate.take_at(&"a", later)).count(), 10_000);
    }

    #[test]
    fn names_have_a_rate_each() {
        let rate = Rate::new(1, Duration::from_secs(1));
        let taken = (0..100).filter(|name| rate.take_at(name, Duration::ZERO)).count();
        // Some may share a slot.
        assert!(taken > 80, "{taken}");
        assert!((0..100).all(|name| !rate.take_at(&name, Duration::ZERO)));
    }

    #[test]
    fn with_rows_even_a_thousand_busy_names_leave_others_alone() {
        let rate = Rate::with_rows(4, 1, Duration::from_secs(1));
        for name in 0..1000 {
            rate.take_at(&name, Duration::ZERO);
        }
        // Each falls on four busy slots once in some five hundred times.
        let taken = (1000..1100).filter(|name| rate.take_at(name, Duration::ZERO)).count();
        assert!(taken > 80, "{taken}");
    }
}
