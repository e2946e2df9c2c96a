//! How often one thing may be done about one name: a small burst at once, then so often.

use std::fmt;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Names come from strangers, so they are not kept: each falls on one of so many slots. Two that fall on the same share
/// its rate, and whoever finds it used up gets what is remembered.
const SLOTS: usize = 4096;

/// A rate for each name, in 32 KiB.
pub(crate) struct Rate {
    /// When the slot is whole again, in milliseconds since the start (the generic cell rate algorithm).
    whole_at: Vec<AtomicU64>,
    hasher: RandomState,
    start: Instant,
    every: Duration,
    burst: u32,
}

impl Rate {
    /// `burst` at once, and one more after `every`.
    pub(crate) fn new(burst: u32, every: Duration) -> Self {
        Self {
            whole_at: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
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
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let (now, room) = (millis(now), millis(self.every * self.burst));
        let slot = &self.whole_at[self.hasher.hash_one(name) as usize % SLOTS];
        let taken = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |whole_at| {
            let next = whole_at.max(now) + millis(self.every);
            (next <= now + room).then_some(next)
        });
        taken.is_ok()
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
        let rate = Rate::new(2, Duration::from_secs(1));
        let taken = [0, 10, 20, 900, 1000, 1100, 2000, 9000, 9001, 9002]
            .map(|millis| rate.take_at(&"a", Duration::from_millis(millis)));
        assert_eq!(taken, [true, true, false, false, true, false, true, true, true, false]);
    }

    #[test]
    fn names_have_a_rate_each() {
        let rate = Rate::new(1, Duration::from_secs(1));
        let taken = (0..100).filter(|name| rate.take_at(name, Duration::ZERO)).count();
        // Some may share a slot.
        assert!(taken > 80, "{taken}");
        assert!((0..100).all(|name| !rate.take_at(&name, Duration::ZERO)));
    }
}
