//! Small files remembered in bounded memory, right even when one is read and replaced at the same time.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::error::Error;

/// What one entry costs beyond the bytes of its key and value: the map's, the policy's and the counters' nodes, measured
/// for moka 0.12 at 250 to 290 bytes.
const OVERHEAD: usize = 320;
/// Many, so that what is replaced voids few tickets of others.
const STRIPES: usize = 1024;

/// A weighed cache over files that only this process writes.
///
/// A hit takes no lock of ours. A reader that read the old file while a writer replaced it must leave nothing old behind,
/// not for a moment: it takes a [`Ticket`] before it reads, and what it then offers is put only if nothing was replaced
/// since. A writer renames first and calls [`Cached::replaced`] or [`Cached::forget`] then. These void tickets last, so whoever
/// gets one after that sees the new file on disk and the new entry here.
pub(crate) struct Cached<K, V> {
    entries: moka::sync::Cache<K, Arc<V>>,
    /// By stripes of keys.
    stripes: Box<[Stripe]>,
}

#[derive(Default)]
struct Stripe {
    /// Held only while an entry is put or taken out.
    lock: Mutex<()>,
    /// How often something was replaced; written with the lock held.
    replacements: AtomicU64,
}

/// What lay on disk when it was taken may be offered to the cache with it, and is current for as long as the ticket is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    stripe: u16,
    replacements: u64,
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
        Self { entries, stripes: (0..STRIPES).map(|_| Stripe::default()).collect() }
    }

    pub(crate) fn peek(&self, key: &K) -> Option<Arc<V>> {
        self.entries.get(key)
    }

    /// To be taken before anything is read from disk that may be offered.
    pub(crate) fn ticket(&self, key: &K) -> Ticket {
        let stripe = Self::stripe_of(key);
        let replacements = self.stripes[usize::from(stripe)].replacements.load(Ordering::Acquire);
        Ticket { stripe, replacements }
    }

    /// Whether nothing of the ticket's key was replaced or removed since it was taken. Takes no lock.
    pub(crate) fn is_current(&self, ticket: Ticket) -> bool {
        let stripe = &self.stripes[usize::from(ticket.stripe)];
        stripe.replacements.load(Ordering::Acquire) == ticket.replacements
    }

    /// Remembers what was read, unless something was replaced since the ticket was taken.
    pub(crate) fn offer(&self, ticket: Ticket, key: &K, value: Arc<V>) {
        let _held = self.held(ticket.stripe);
        if self.is_current(ticket) {
            self.entries.insert(key.clone(), value);
        }
    }

    /// Reads the file through `read` and remembers what it gave, unless that is `None`.
    pub(crate) fn load(
        &self,
        key: &K,
        read: impl FnOnce() -> Result<Option<V>, Error>,
    ) -> Result<Option<Arc<V>>, Error> {
        let ticket = self.ticket(key);
        let Some(value) = read()?.map(Arc::new) else { return Ok(None) };
        self.offer(ticket, key, Arc::clone(&value));
        Ok(Some(value))
    }

    /// Call after the file was replaced. `value` is made of what was remembered until now.
    pub(crate) fn replaced(&self, key: &K, value: impl FnOnce(Option<Arc<V>>) -> Arc<V>) {
        self.change(key, || self.entries.insert(key.clone(), value(self.entries.get(key))));
    }

    /// Call after the file was removed.
    pub(crate) fn forget(&self, key: &K) {
        self.change(key, || self.entries.invalidate(key));
    }

    /// Changes the entry of a key and makes its tickets worthless, also one that was taken amid the change: its holder may
    /// have seen the old entry.
    fn change(&self, key: &K, change: impl FnOnce()) {
        let stripe = Self::stripe_of(key);
        let _held = self.held(stripe);
        change();
        self.stripes[usize::from(stripe)].replacements.fetch_add(1, Ordering::AcqRel);
    }

    /// Bytes in memory, as they are weighed.
    pub(crate) fn bytes(&self) -> u64 {
        // What was put or thrown out a moment ago is counted behind the scenes.
        self.entries.run_pending_tasks();
        self.entries.weighted_size()
    }

    fn held(&self, stripe: u16) -> MutexGuard<'_, ()> {
        self.stripes[usize::from(stripe)].lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stripe_of(key: &K) -> u16 {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        (hasher.finish() % STRIPES as u64) as u16
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
                cached.replaced(&1, |_| Arc::new("new"));
                Ok(Some("old"))
            })
            .unwrap();
        assert_eq!(got.as_deref(), Some(&"old"), "the reader began before the replacement");
        assert_eq!(cached.peek(&1).as_deref(), Some(&"new"));
    }

    #[test]
    fn who_saw_what_was_being_replaced_leaves_nothing_old() {
        let cached: Cached<u8, &str> = Cached::new(1 << 20, |_, _| 0);
        cached.load(&1, || Ok(Some("old"))).unwrap();
        let mut seen = None;
        cached.replaced(&1, |old| {
            seen = Some((cached.ticket(&1), old.unwrap()));
            Arc::new("new")
        });
        let (ticket, old) = seen.unwrap();
        cached.offer(ticket, &1, old);
        assert_eq!(cached.peek(&1).as_deref(), Some(&"new"));
    }

    #[test]
    fn a_ticket_is_current_until_its_key_is_replaced_or_removed() {
        let cached: Cached<u8, &str> = Cached::new(1 << 20, |_, _| 0);
        let ticket = cached.ticket(&1);
        cached.load(&1, || Ok(Some("read"))).unwrap();
        assert!(cached.is_current(ticket), "what was read is what the ticket stands for");
        cached.replaced(&1, |_| Arc::new("new"));
        assert!(!cached.is_current(ticket));
        let ticket = cached.ticket(&1);
        cached.forget(&1);
        assert!(!cached.is_current(ticket));
    }

    #[test]
    fn a_read_overtaken_by_a_removal_leaves_nothing() {
        let cached: Cached<u8, &str> = Cached::new(1 << 20, |_, _| 0);
        cached.replaced(&1, |_| Arc::new("older"));
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
        assert!((10_000..=100_000).contains(&cached.bytes()), "{}", cached.bytes());
        assert!(cached.entries.entry_count() > 10);
    }
}
