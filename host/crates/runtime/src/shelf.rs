use std::sync::Arc;
use std::time::{Duration, Instant};

use hashlink::LruCache;
use parking_lot::Mutex;
use wasmeter_types::Digest;

/// The components that are in memory, in the order of their last use. Each operation takes constant time.
///
/// What is let go of ends with the last call that runs it. The caller drops it: that unmaps memory, which nobody
/// should do under a lock or on the thread of a connection.
pub(crate) struct Shelf<T> {
    entries: Mutex<LruCache<Digest, Entry<T>>>,
    most: usize,
    idle: Duration,
}

struct Entry<T> {
    content: Arc<T>,
    used: Instant,
}

impl<T> Shelf<T> {
    /// A shelf for so many components, each for so long after its last use.
    pub(crate) fn new(most: usize, idle: Duration) -> Self {
        Self { entries: Mutex::new(LruCache::new_unbounded()), most: most.max(1), idle }
    }

    /// A component that is there.
    pub(crate) fn get(&self, digest: &Digest) -> Option<Arc<T>> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(digest)?;
        entry.used = Instant::now();
        Some(entry.content.clone())
    }

    /// Puts a component there; gives back what had to make room for it.
    pub(crate) fn put(&self, digest: Digest, content: Arc<T>) -> Option<Arc<T>> {
        let mut entries = self.entries.lock();
        let entry = Entry { content, used: Instant::now() };
        if let Some(before) = entries.insert(digest, entry) {
            return Some(before.content);
        }
        let gone = if entries.len() > self.most { entries.remove_lru() } else { None };
        gone.map(|(_, entry)| entry.content)
    }

    /// Takes a component out.
    pub(crate) fn remove(&self, digest: &Digest) -> Option<Arc<T>> {
        self.entries.lock().remove(digest).map(|entry| entry.content)
    }

    /// Takes out what nobody has used for the idle time.
    pub(crate) fn take_idle(&self) -> Vec<Arc<T>> {
        let mut entries = self.entries.lock();
        let now = Instant::now();
        let mut gone = Vec::new();
        while entries.iter().next().is_some_and(|(_, e)| now.duration_since(e.used) >= self.idle) {
            gone.extend(entries.remove_lru().map(|(_, entry)| entry.content));
        }
        gone
    }

    /// How many there are.
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
        assert!(shelf.put(digest(1), Arc::new(1)).is_none());
        assert!(shelf.put(digest(2), Arc::new(2)).is_none());
        assert_eq!(shelf.get(&digest(1)).as_deref(), Some(&1));
        assert_eq!(shelf.put(digest(3), Arc::new(3)).as_deref(), Some(&2));
        assert_eq!(shelf.put(digest(3), Arc::new(4)).as_deref(), Some(&3), "in the same place");
        assert!(shelf.remove(&digest(1)).is_some() && shelf.remove(&digest(2)).is_none());
        assert!(shelf.get(&digest(2)).is_none() && shelf.take_idle().is_empty());
        assert_eq!(shelf.len(), 1);
    }

    #[test]
    fn idle_ones_go() {
        let shelf = Shelf::new(10, Duration::ZERO);
        for n in 0..5 {
            shelf.put(Digest::of(&[n]), Arc::new(n));
        }
        assert_eq!(shelf.take_idle().len(), 5);
        assert_eq!(shelf.len(), 0);
    }
}
