//! Small files remembered in bounded memory, right even when one is read and replaced at the same time.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::error::Error;

/// What one entry costs beyond the bytes of its key and value: the map's, the policy's and the counters' nodes, measured
/// for moka 0.12 at some 200 bytes.
const OVERHEAD: usize = 256;
const STRIPES: usize = 64;

/// A weighed cache over files that only this process writes.
///
/// Readers take no lock of a writer. A reader that read the old file while a writer replaced it must not leave the old
/// content behind: the writer renames, counts its stripe up, and puts the new value; the reader notes the count, reads,
/// puts, and looks again. If the count is unchanged then, its put came before the writer's; if not, it takes its own out.
pub(crate) struct Cached<K, V> {
    entries: moka::sync::Cache<K, Arc<V>>,
    replacements: [AtomicU64; STRIPES],
}

impl<K, V> Cached<K, V>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// At most `bytes` of memory, as `weigh` counts the bytes behind a key and value.
    pub(crate) fn new(bytes: u64, weigh: fn(&K, &V) -> usize) -> Self {
        let entries = moka::sync::Cache::builder()
            .max_capacity(bytes)
            .weigher(move |key: &K, value: &Arc<V>| {
                let weight = OVERHEAD + size_of::<K>() + size_of::<V>() + weigh(key, value);
                u32::try_from(weight).unwrap_or(u32::MAX)
            })
            .build();
        Self { entries, replacements: [const { AtomicU64::new(0) }; STRIPES] }
    }

    pub(crate) fn peek(&self, key: &K) -> Option<Arc<V>> {
        self.entries.get(key)
    }

    /// Reads the file through `read` and remembers what it gave, unless that is `None`.
    pub(crate) fn load(
        &self,
        key: &K,
        read: impl FnOnce() -> Result<Option<V>, Error>,
    ) -> Result<Option<Arc<V>>, Error> {
        let before = self.stripe(key).load(Ordering::SeqCst);
        let Some(value) = read()?.map(Arc::new) else { return Ok(None) };
        self.entries.insert(key.clone(), Arc::clone(&value));
        if self.stripe(key).load(Ordering::SeqCst) != before {
            self.entries.invalidate(key);
        }
        Ok(Some(value))
    }

    /// Call after the file was replaced.
    pub(crate) fn replaced(&self, key: &K, value: Arc<V>) {
        self.stripe(key).fetch_add(1, Ordering::SeqCst);
        self.entries.insert(key.clone(), value);
    }

    /// Call after the file was removed.
    pub(crate) fn forget(&self, key: &K) {
        self.stripe(key).fetch_add(1, Ordering::SeqCst);
        self.entries.invalidate(key);
    }

    fn stripe(&self, key: &K) -> &AtomicU64 {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        &self.replacements[hasher.finish() as usize % STRIPES]
    }
}

impl<K, V> fmt::Debug for Cached<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_overtaken_by_a_replacement_leaves_nothing_old() {
        let cached: Cached<u8, &str> = Cached::new(1 << 20, |_, _| 0);
        let got = cached
            .load(&1, || {
                cached.replaced(&1, Arc::new("new"));
                Ok(Some("old"))
            })
            .unwrap();
        assert_eq!(got.as_deref(), Some(&"old"), "the reader began before the replacement");
        assert_ne!(cached.peek(&1).as_deref(), Some(&"old"));
    }

    #[test]
    fn a_read_overtaken_by_a_removal_leaves_nothing() {
        let cached: Cached<u8, &str> = Cached::new(1 << 20, |_, _| 0);
        cached.replaced(&1, Arc::new("older"));
        cached
            .load(&1, || {
                cached.forget(&1);
                assert_eq!(cached.peek(&1), None);
                Ok(Some("old"))
            })
            .unwrap();
        assert_eq!(cached.peek(&1), None);
    }

    #[test]
    fn absence_is_not_remembered() {
        let cached: Cached<u8, &str> = Cached::new(1 << 20, |_, _| 0);
        assert_eq!(cached.load(&1, || Ok(None)).unwrap(), None);
        assert_eq!(cached.load(&1, || Ok(Some("now"))).unwrap().as_deref(), Some(&"now"));
        assert_eq!(cached.peek(&1).as_deref(), Some(&"now"));
    }

    #[test]
    fn memory_is_bounded() {
        let cached: Cached<u32, Vec<u8>> = Cached::new(100_000, |_, value| value.len());
        for key in 0..1000 {
            cached.load(&key, || Ok(Some(vec![0; 1000]))).unwrap();
        }
        cached.entries.run_pending_tasks();
        assert!(cached.entries.weighted_size() <= 100_000);
        assert!(cached.entries.entry_count() > 10);
    }
}
