use std::sync::Arc;
use std::time::{Duration, Instant};

use hashlink::LruCache;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use wasmeter_types::Digest;

use crate::loader::Loaded;

/// The place of a component: empty until somebody has loaded it; who asks meanwhile waits for that one.
pub(crate) type Slot = Arc<OnceCell<Arc<Loaded>>>;

/// The components that are in memory, in the order of their last use. Each operation takes constant time.
///
/// What is let go of ends with the last call that runs it. The caller drops it: that unmaps memory, which nobody
/// should do under a lock or on the thread of a connection.
pub(crate) struct Shelf {
    entries: Mutex<LruCache<Digest, Entry>>,
    most: usize,
    idle: Duration,
}

struct Entry {
    slot: Slot,
    used: Instant,
}

impl Shelf {
    /// A shelf for so many components, each for so long after its last use.
    pub(crate) fn new(most: usize, idle: Duration) -> Self {
        Self { entries: Mutex::new(LruCache::new_unbounded()), most: most.max(1), idle }
    }

    /// A component that is there.
    pub(crate) fn get(&self, digest: &Digest) -> Option<Arc<Loaded>> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(digest)?;
        let loaded = entry.slot.get()?.clone();
        entry.used = Instant::now();
        Some(loaded)
    }

    /// The place of a component, and what had to make room for it.
    pub(crate) fn place(&self, digest: Digest) -> (Slot, Option<Slot>) {
        let mut entries = self.entries.lock();
        let now = Instant::now();
        if let Some(entry) = entries.get_mut(&digest) {
            entry.used = now;
            return (entry.slot.clone(), None);
        }
        let gone = if entries.len() < self.most { None } else { entries.remove_lru() };
        let slot = Slot::default();
        entries.insert(digest, Entry { slot: slot.clone(), used: now });
        (slot, gone.map(|(_, entry)| entry.slot))
    }

    /// Takes a component out.
    pub(crate) fn remove(&self, digest: &Digest) -> Option<Slot> {
        self.entries.lock().remove(digest).map(|entry| entry.slot)
    }

    /// Takes out what nobody has used for the idle time.
    pub(crate) fn take_idle(&self) -> Vec<Slot> {
        let mut entries = self.entries.lock();
        let now = Instant::now();
        let mut gone = Vec::new();
        while entries.iter().next().is_some_and(|(_, e)| now.duration_since(e.used) >= self.idle) {
            gone.extend(entries.remove_lru().map(|(_, entry)| entry.slot));
        }
        gone
    }

    /// How many places there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_used_longest_ago_makes_room() {
        let shelf = Shelf::new(2, Duration::from_secs(3600));
        let digest = |n: u8| Digest::of(&[n]);
        let (first, gone) = shelf.place(digest(1));
        assert!(gone.is_none());
        let (second, _) = shelf.place(digest(2));
        assert!(Arc::ptr_eq(&shelf.place(digest(1)).0, &first), "the same place for the same component");
        let (_, gone) = shelf.place(digest(3));
        assert!(Arc::ptr_eq(&gone.unwrap(), &second));
        assert!(shelf.remove(&digest(1)).is_some() && shelf.remove(&digest(2)).is_none());
        assert!(shelf.get(&digest(3)).is_none(), "nobody has loaded it");
        assert!(shelf.take_idle().is_empty());
        assert_eq!(shelf.len(), 1);
    }

    #[test]
    fn idle_ones_go() {
        let shelf = Shelf::new(10, Duration::ZERO);
        for n in 0..5 {
            shelf.place(Digest::of(&[n]));
        }
        assert_eq!(shelf.take_idle().len(), 5);
        assert_eq!(shelf.len(), 0);
    }
}
