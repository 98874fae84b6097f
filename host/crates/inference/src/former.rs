use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::calibration::Cost;

/// What the former must know of an entry.
pub(crate) trait Item {
    fn id(&self) -> u64;
    fn tenant(&self) -> &str;
    /// Whether both may be in one batch.
    fn alike(&self, other: &Self) -> bool;
    fn rows(&self) -> u32;
    /// The most entries and rows of a batch with it.
    fn max_batch(&self) -> u32;
    fn deadline(&self) -> Instant;
    /// From when on it need not wait for company.
    fn due(&self) -> Instant;
    fn cost(&self) -> Cost;
    /// How long a batch of so many rows of its kind takes; zero where that is unknown.
    fn expected(&self, rows: u32) -> Duration;
    /// Tells it what its tenant's share was debited.
    fn debited(&mut self, ns: u64);
}

/// The entries that wait for a device, and who is next.
///
/// This is deficit round robin by cost in the limit of a quantum of zero (start-time fair queueing: Goyal,
/// Vin, Cheng 1996): each tenant has a clock that moves on by the cost of what it is served, and the tenant
/// whose clock is furthest behind is served first. Who was away starts at the device's own clock, so nobody
/// saves up idle time; a clock that ran ahead is a debt, limited to two full batches, so nobody waits long for
/// having filled up the batches of others.
pub(crate) struct Former<T> {
    flows: Vec<Flow<T>>,
    index: HashMap<String, usize>,
    len: usize,
    capacity: usize,
    /// The device's own clock: that of the tenant served last, never falling.
    clock: u64,
    served: u64,
}

struct Flow<T> {
    entries: VecDeque<T>,
    clock: u64,
    /// When it was served last, among equals.
    served: u64,
}

/// A flow's place in the order of service.
type Turn = Reverse<(u64, u64, usize)>;

/// What became of an entry that came.
#[derive(Debug)]
pub(crate) enum Pushed<T> {
    Queued,
    /// Queued, and another entry had to leave: the last one of the tenant with the most.
    Displaced(T),
    Full,
}

impl<T: Item> Former<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { flows: Vec::new(), index: HashMap::new(), len: 0, capacity, clock: 0, served: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes an entry in, if there is room. A tenant may hold half of the queue while others wait too;
    /// `elsewhere` entries count but are not here.
    pub(crate) fn push(&mut self, entry: T, elsewhere: usize) -> Pushed<T> {
        let own = self.index.get(entry.tenant()).map_or(0, |index| self.flows[*index].entries.len());
        if own >= (self.capacity / 2).max(1) && self.len > own {
            return Pushed::Full;
        }
        let mut displaced = None;
        if self.len + elsewhere >= self.capacity {
            let longest = self.flows.iter_mut().max_by_key(|flow| flow.entries.len());
            displaced =
                longest.filter(|flow| flow.entries.len() > own + 1).and_then(|flow| flow.entries.pop_back());
            if displaced.is_none() {
                return Pushed::Full;
            }
            self.len -= 1;
        }
        let flow = self.flow(entry.tenant());
        flow.entries.push_back(entry);
        self.len += 1;
        displaced.map_or(Pushed::Queued, Pushed::Displaced)
    }

    fn flow(&mut self, tenant: &str) -> &mut Flow<T> {
        let clock = self.clock;
        let index = match self.index.get(tenant) {
            Some(index) => *index,
            None => {
                self.forget();
                self.index.insert(tenant.to_owned(), self.flows.len());
                self.flows.push(Flow { entries: VecDeque::new(), clock, served: 0 });
                self.flows.len() - 1
            }
        };
        let flow = &mut self.flows[index];
        if flow.entries.is_empty() {
            flow.clock = flow.clock.max(clock);
        }
        flow
    }

    /// Drops tenants that have nothing here and owe nothing, when there are many.
    fn forget(&mut self) {
        if self.flows.len() < (2 * self.capacity).max(64) {
            return;
        }
        let names: HashMap<usize, String> = self.index.drain().map(|(name, index)| (index, name)).collect();
        let flows = std::mem::take(&mut self.flows);
        for (index, flow) in flows.into_iter().enumerate() {
            let idle = flow.entries.is_empty() && flow.clock <= self.clock;
            if let (false, Some(name)) = (idle, names.get(&index)) {
                self.index.insert(name.clone(), self.flows.len());
                self.flows.push(flow);
            }
        }
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, id: u64) -> Option<T> {
        let found = |flow: &mut Flow<T>| {
            let at = flow.entries.iter().position(|entry| entry.id() == id)?;
            flow.entries.remove(at)
        };
        let entry = self.flows.iter_mut().find_map(found);
        self.len -= usize::from(entry.is_some());
        entry
    }

    /// Takes all out.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        self.len = 0;
        self.flows.iter_mut().flat_map(|flow| flow.entries.drain(..)).collect()
    }

    /// A tenant was served more or less than it was debited.
    pub(crate) fn correct(&mut self, tenant: &str, debited_ns: u64, served_ns: u64) {
        if let Some(index) = self.index.get(tenant) {
            let clock = &mut self.flows[*index].clock;
            *clock = clock.saturating_sub(debited_ns).saturating_add(served_ns);
        }
    }

    /// The next batch for a device that will be free at `start`, or when to ask again. Entries past their
    /// deadline go to `expired`.
    pub(crate) fn form(
        &mut self,
        now: Instant,
        start: Instant,
        expired: &mut Vec<T>,
    ) -> Result<Vec<T>, Option<Instant>> {
        self.expire(now, expired);
        let mut later: Option<Instant> = None;
        for Reverse((_, _, index)) in self.turns().into_sorted_vec().into_iter().rev() {
            let flow = &self.flows[index];
            let ready = |entry: &T| {
                let due = entry.due();
                if due <= now || self.full(entry) {
                    return true;
                }
                later = Some(later.map_or(due, |later| later.min(due)));
                false
            };
            let Some(at) = flow.entries.iter().position(ready) else { continue };
            self.clock = self.clock.max(flow.clock);
            let Some(lead) = self.take(index, at) else { continue };
            let mut batch = vec![lead];
            self.fill(&mut batch, start);
            return Ok(batch);
        }
        Err(later)
    }

    /// Adds waiting entries to a batch while there is room and its nearest deadline allows.
    pub(crate) fn top_up(&mut self, batch: &mut Vec<T>, now: Instant, expired: &mut Vec<T>) {
        self.expire(now, expired);
        self.fill(batch, now);
    }

    fn fill(&mut self, batch: &mut Vec<T>, start: Instant) {
        let Some(lead) = batch.first() else { return };
        let max = lead.max_batch();
        let mut rows = batch.iter().fold(0u32, |rows, entry| rows.saturating_add(entry.rows()));
        if max < 2 || rows >= max || !batch.iter().all(|entry| entry.cost().calibrated) {
            return;
        }
        let mut nearest = batch.iter().map(Item::deadline).fold(lead.deadline(), Instant::min);
        // Where to go on in each flow: what was passed by does not fit a larger batch either.
        let mut from = vec![0; self.flows.len()];
        let mut turns = self.turns();
        while let Some(Reverse((_, _, index))) = turns.pop() {
            let flow = &self.flows[index];
            let fits = |entry: &&T| {
                let sum = rows.saturating_add(entry.rows());
                let lead = &batch[0];
                sum <= max
                    && lead.alike(entry)
                    && start + lead.expected(sum) <= nearest.min(entry.deadline())
                    && entry.cost().calibrated
            };
            let skipped = from[index].min(flow.entries.len());
            let Some(at) = flow.entries.range(skipped..).position(|entry| fits(&entry)) else { continue };
            from[index] = skipped + at;
            let Some(entry) = self.take(index, skipped + at) else { continue };
            rows = rows.saturating_add(entry.rows());
            nearest = nearest.min(entry.deadline());
            batch.push(entry);
            if rows >= max {
                return;
            }
            let flow = &self.flows[index];
            if flow.entries.len() > from[index] {
                turns.push(Reverse((flow.clock, flow.served, index)));
            }
        }
    }

    fn turns(&self) -> BinaryHeap<Turn> {
        let flows = self.flows.iter().enumerate().filter(|(_, flow)| !flow.entries.is_empty());
        flows.map(|(index, flow)| Reverse((flow.clock, flow.served, index))).collect()
    }

    /// Whether a full batch with this entry waits.
    fn full(&self, entry: &T) -> bool {
        let max = entry.max_batch();
        let mut rows = 0u32;
        let mut all = self.flows.iter().flat_map(|flow| &flow.entries);
        !entry.cost().calibrated
            || all.any(|other| {
                if entry.alike(other) {
                    rows = rows.saturating_add(other.rows());
                }
                rows >= max
            })
    }

    fn expire(&mut self, now: Instant, expired: &mut Vec<T>) {
        for Flow { entries, .. } in &mut self.flows {
            while let Some(at) = entries.iter().position(|entry| entry.deadline() <= now) {
                expired.extend(entries.remove(at));
                self.len -= 1;
            }
        }
    }

    /// Takes an entry out for service and debits its tenant.
    fn take(&mut self, index: usize, at: usize) -> Option<T> {
        let flow = &mut self.flows[index];
        let mut entry = flow.entries.remove(at)?;
        self.len -= 1;
        self.served += 1;
        let cost = entry.cost().ns.max(1);
        let most = cost.saturating_mul(u64::from(entry.max_batch()) * 2).saturating_add(self.clock);
        let clock = flow.clock.saturating_add(cost).min(most).max(flow.clock);
        entry.debited(clock - flow.clock);
        flow.clock = clock;
        flow.served = self.served;
        Some(entry)
    }
}

#[cfg(test)]
mod tests;
