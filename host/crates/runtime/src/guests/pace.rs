use std::sync::atomic::{AtomicU32, Ordering};

/// Calls of a component that begin on a guest thread after one that took longer than its first turn.
const PENALTY: u32 = 1024;

/// Whether the calls of a component may begin on the thread of their connection.
///
/// Only those may that end in their first turn, nearly always: a component that alternates holds such a thread for more
/// than a turn at most once in [`PENALTY`] calls.
#[derive(Default)]
pub(crate) struct Pace(AtomicU32);

impl Pace {
    /// Whether the next call is expected to end in its first turn.
    pub(crate) fn is_short(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// A call took longer than its first turn.
    pub(super) fn was_long(&self) {
        self.0.store(PENALTY, Ordering::Relaxed);
    }

    /// A call that began on a guest thread would have ended in its first turn.
    pub(super) fn was_short(&self) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_long_call_costs_many_short_ones() {
        let pace = Pace::default();
        assert!(pace.is_short());
        pace.was_long();
        for _ in 0..PENALTY {
            assert!(!pace.is_short());
            pace.was_short();
        }
        pace.was_short();
        assert!(pace.is_short());
    }
}
