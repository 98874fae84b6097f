use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;

/// Calls that begin on a guest thread after one that took longer than its first turn, and that are watched
/// after one that seemed to.
const PENALTY: u32 = 1024;
/// Of the watched ones, one in so many is timed by the processor from its start.
const TIMED: u32 = 16;
/// Calls one after another that took longer without a yield of theirs, such as those that touch much memory for little
/// fuel.
const STRIKES: u32 = 4;

/// Of one component, a [`Pace`] for each tenant that calls it: the same bytes are loaded once, and what one tenant asks of
/// them says nothing about what another does.
#[derive(Default)]
pub(crate) struct Paces(RwLock<HashMap<Arc<str>, Arc<Pace>>>);

impl Paces {
    /// A tenant's.
    pub(crate) fn of(&self, tenant: &Arc<str>) -> Arc<Pace> {
        if let Some(pace) = self.0.read().get(tenant) {
            return pace.clone();
        }
        self.0.write().entry(tenant.clone()).or_default().clone()
    }
}

/// Whether a tenant's calls of a component may begin on the thread of their connection.
///
/// Only those may that end in their first turn, nearly always: a component that alternates holds such a thread for more
/// than a turn at most once in [`PENALTY`] calls.
///
/// The time of a call is the passing time as long as that is short, since to ask for the processor's is a system call. A
/// call that took long may as well have waited for the processor: it only has some of those that come after it timed
/// by the processor, the next one first, and these are what the component is judged by.
#[derive(Default)]
pub(crate) struct Pace {
    penalty: AtomicU32,
    /// Calls that are still to be watched.
    watch: AtomicU32,
    strikes: AtomicU32,
}

impl Pace {
    /// Whether the next call is expected to end in its first turn.
    pub(crate) fn is_short(&self) -> bool {
        self.penalty.load(Ordering::Relaxed) == 0
    }

    /// Whether the next call is to be timed by the processor.
    pub(super) fn times_next(&self) -> bool {
        // Nearly always nobody is watched: that is a read.
        self.watch.load(Ordering::Relaxed) > 0 && count_down(&self.watch).is_multiple_of(TIMED)
    }

    /// A call seemed to take long by the clock on the wall. The next one is timed.
    pub(super) fn seemed_long(&self) {
        self.watch.store(PENALTY, Ordering::Relaxed);
    }

    /// A call that began on a guest thread ended, and would have done so within a first turn or not.
    pub(super) fn ended_there(&self, soon: bool) {
        if soon {
            count_down(&self.penalty);
        }
        self.ended(soon);
    }

    /// A call that was timed by the processor ended where it began, within its first turn or without a yield after it.
    ///
    /// One long call alone may have been interrupted, which the processor's clock does not tell; so many had not.
    pub(super) fn ended(&self, soon: bool) {
        // Nearly every call is one that changes nothing: that is a read.
        if soon {
            if self.strikes.load(Ordering::Relaxed) != 0 {
                self.strikes.store(0, Ordering::Relaxed);
            }
        } else if self.strikes.fetch_add(1, Ordering::Relaxed) + 1 >= STRIKES {
            self.strikes.store(0, Ordering::Relaxed);
            self.was_long();
        }
    }

    /// A call took longer than its first turn.
    pub(super) fn was_long(&self) {
        self.penalty.store(PENALTY, Ordering::Relaxed);
    }
}

/// What it was before.
fn count_down(count: &AtomicU32) -> u32 {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).unwrap_or(0)
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
            pace.ended_there(true);
        }
        pace.ended_there(true);
        assert!(pace.is_short());
    }

    #[test]
    fn long_calls_of_one_tenant_are_not_anothers() {
        let paces = Paces::default();
        let (loud, quiet): (Arc<str>, Arc<str>) = ("loud".into(), "quiet".into());
        paces.of(&loud).was_long();
        assert!(!paces.of(&loud).is_short());
        assert!(paces.of(&quiet).is_short());
    }

    #[test]
    fn long_calls_without_a_yield_count_in_a_row() {
        let pace = Pace::default();
        for _ in 0..3 * STRIKES {
            (1..STRIKES).for_each(|_| pace.ended(false));
            pace.ended(true);
            assert!(pace.is_short());
        }
        (0..STRIKES).for_each(|_| pace.ended(false));
        assert!(!pace.is_short());
    }

    #[test]
    fn a_long_call_now_and_then_keeps_nobody_on_guest_threads() {
        let pace = Pace::default();
        pace.was_long();
        for _ in 0..PENALTY / 2 {
            (1..STRIKES).for_each(|_| pace.ended_there(false));
            pace.ended_there(true);
        }
        (0..STRIKES).for_each(|_| pace.ended_there(false));
        for _ in 0..PENALTY {
            assert!(!pace.is_short());
            pace.ended_there(true);
        }
        assert!(pace.is_short());
    }

    #[test]
    fn what_seems_long_is_watched_and_not_judged() {
        let pace = Pace::default();
        assert!(!pace.times_next());
        pace.seemed_long();
        assert!(pace.is_short() && pace.times_next());
        let timed = (1..PENALTY).filter(|_| pace.is_short() && pace.times_next()).count();
        assert_eq!(timed + 1, (PENALTY / TIMED) as usize);
        assert!(!pace.times_next());
    }

    #[test]
    fn calls_that_are_all_long_are_found_out_soon() {
        let pace = Pace::default();
        let calls = (0..).take_while(|_| {
            if pace.times_next() {
                pace.ended(false)
            } else {
                pace.seemed_long()
            }
            pace.is_short()
        });
        assert!(calls.count() < 2 * STRIKES as usize + 1);
    }
}
