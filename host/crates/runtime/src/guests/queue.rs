use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

/// Work of tenants that take turns by the processor time which each has used: one virtual clock a tenant, the least
/// one first. Work whose deadline has passed goes before all of them, since all that is left to do is to end it.
///
/// It holds no more than the permits that admission gives.
pub(super) struct FairQueue<T> {
    lines: HashMap<Arc<str>, Line<T>>,
    deadlines: BTreeMap<(Instant, u64), Arc<str>>,
    /// Nanoseconds; where a tenant begins that had nothing to do.
    clock: u64,
    next: u64,
}

struct Line<T> {
    used: u64,
    /// In the order of arrival.
    ready: BTreeMap<u64, (Instant, T)>,
    running: usize,
}

impl<T> FairQueue<T> {
    pub(super) fn new() -> Self {
        Self { lines: HashMap::new(), deadlines: BTreeMap::new(), clock: 0, next: 0 }
    }

    pub(super) fn push(&mut self, tenant: Arc<str>, deadline: Instant, item: T) {
        let (clock, number) = (self.clock, self.next);
        self.next += 1;
        let line = self.lines.entry(tenant.clone()).or_insert_with(|| Line {
            used: clock,
            ready: BTreeMap::new(),
            running: 0,
        });
        line.ready.insert(number, (deadline, item));
        self.deadlines.insert((deadline, number), tenant);
    }

    /// The next one, which runs until [`FairQueue::ran`].
    pub(super) fn pop(&mut self, now: Instant) -> Option<T> {
        let (tenant, number) = match self.deadlines.first_key_value() {
            None => return None,
            Some((&(deadline, number), tenant)) if deadline <= now => (tenant.clone(), number),
            Some(_) => {
                let waiting = self.lines.iter().filter(|(_, line)| !line.ready.is_empty());
                let (tenant, line) = waiting.min_by_key(|(_, line)| line.used)?;
                self.clock = self.clock.max(line.used);
                (tenant.clone(), *line.ready.first_key_value()?.0)
            }
        };
        let line = self.lines.get_mut(&tenant)?;
        let (deadline, item) = line.ready.remove(&number)?;
        line.running += 1;
        self.deadlines.remove(&(deadline, number));
        Some(item)
    }

    /// What was popped has had its turn, of so many nanoseconds.
    pub(super) fn ran(&mut self, tenant: &str, ns: u64) {
        let Some(line) = self.lines.get_mut(tenant) else { return };
        line.used = line.used.saturating_add(ns);
        line.running = line.running.saturating_sub(1);
        // A tenant without work keeps no credit and no debt, and takes no room.
        if line.running == 0 && line.ready.is_empty() {
            self.lines.remove(tenant);
        }
    }

    /// When the first of those that wait runs out of time.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first_key_value().map(|((deadline, _), _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn tenants_share_by_time_and_not_by_calls() {
        let (now, far) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        let mut queue = FairQueue::new();
        let (flood, quiet): (Arc<str>, Arc<str>) = ("flood".into(), "quiet".into());
        (0..64).for_each(|_| queue.push(flood.clone(), far, "flood"));
        queue.push(quiet.clone(), far, "quiet");
        let mut turns = HashMap::<&str, u64>::new();
        for _ in 0..100 {
            let who = queue.pop(now).unwrap();
            // The quiet one's turns are twice as long: it gets half as many.
            let ns = if who == "quiet" { 2_000 } else { 1_000 };
            *turns.entry(who).or_default() += ns;
            queue.push(who.into(), far, who);
            queue.ran(who, ns);
        }
        let difference = turns["flood"].abs_diff(turns["quiet"]);
        assert!(difference <= 2_000, "{turns:?}");
    }

    #[test]
    fn who_comes_back_has_no_credit() {
        let (now, far) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        let mut queue = FairQueue::new();
        queue.push("a".into(), far, "a");
        for _ in 0..10 {
            assert_eq!(queue.pop(now), Some("a"));
            queue.push("a".into(), far, "a");
            queue.ran("a", 1_000);
        }
        // Ten turns later somebody else comes: one turn before the other, not ten.
        (0..20).for_each(|_| queue.push("b".into(), far, "b"));
        let first: Vec<_> = (0..4)
            .map(|_| {
                let who = queue.pop(now).unwrap();
                queue.push(who.into(), far, who);
                queue.ran(who, 1_000);
                who
            })
            .collect();
        assert!(first.contains(&"a"), "{first:?}");
    }

    #[test]
    fn what_is_late_goes_first_and_nothing_stays_behind() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut queue = FairQueue::new();
        queue.push("a".into(), at(1_000), 1);
        queue.push("b".into(), at(5), 2);
        queue.push("b".into(), at(3), 3);
        assert_eq!(queue.next_deadline(), Some(at(3)));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(at(10))).collect();
        assert_eq!(order, [3, 2, 1]);
        queue.ran("a", 1);
        queue.ran("b", 1);
        queue.ran("b", 1);
        assert!(queue.deadlines.is_empty() && queue.lines.is_empty());
    }
}
