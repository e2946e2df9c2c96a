//! One shared thing per key, for as long as somebody holds it.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// A map of locks that forgets the ones nobody holds, so that its size follows the work under way and not the number of
/// keys ever seen.
#[derive(Debug)]
pub(crate) struct Keyed<K, T> {
    held: Mutex<Held<K, T>>,
}

#[derive(Debug)]
struct Held<K, T> {
    map: HashMap<K, Weak<T>>,
    sweep_at: usize,
}

/// The map is swept of dead entries when it has grown to this, and then at each doubling.
const FIRST_SWEEP: usize = 64;

impl<K: Eq + Hash + Clone, T: Default> Keyed<K, T> {
    pub(crate) fn new() -> Self {
        Self { held: Mutex::new(Held { map: HashMap::new(), sweep_at: FIRST_SWEEP }) }
    }

    /// The thing of this key: the one another caller holds, or a fresh one.
    pub(crate) fn of(&self, key: &K) -> Arc<T> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = held.map.get(key).and_then(Weak::upgrade) {
            return shared;
        }
        if held.map.len() >= held.sweep_at {
            held.map.retain(|_, weak| weak.strong_count() > 0);
            held.sweep_at = FIRST_SWEEP.max(held.map.len() * 2);
        }
        let shared = Arc::new(T::default());
        held.map.insert(key.clone(), Arc::downgrade(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_share_and_the_map_forgets() {
        let keyed: Keyed<usize, Mutex<()>> = Keyed::new();
        let one = keyed.of(&1);
        assert!(Arc::ptr_eq(&one, &keyed.of(&1)));
        assert!(!Arc::ptr_eq(&one, &keyed.of(&2)));
        for key in 0..10_000 {
            keyed.of(&key);
        }
        assert!(Arc::ptr_eq(&one, &keyed.of(&1)), "a held entry survives the sweeps");
        assert!(keyed.held.lock().unwrap().map.len() <= FIRST_SWEEP + 1);
    }
}
