use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Turns at compiling: so many at one time, tenants in a round, one tenant's in their order. Cheap to clone.
///
/// One tenant gets all slots but one, so that another's upload never waits for the end of a long compilation of somebody
/// else's.
#[derive(Clone)]
pub(super) struct Turns {
    state: Arc<Mutex<State>>,
}

/// No room in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// So many wait, of all tenants.
    Host(usize),
    /// So many of this tenant wait, its half of the line.
    Tenant(usize),
}

/// A place in the line, and later a slot; ends both.
pub(super) struct Turn {
    state: Arc<Mutex<State>>,
    tenant: Arc<str>,
    id: u64,
}

struct State {
    slots: usize,
    most_waiting: usize,
    next_id: u64,
    running: HashMap<Arc<str>, usize>,
    lines: HashMap<Arc<str>, VecDeque<Waiter>>,
    /// Tenants with a line, the next one first.
    round: VecDeque<Arc<str>>,
}

struct Waiter {
    id: u64,
    /// How many turns until this one's; 0 once it runs.
    place: watch::Sender<usize>,
}

impl Turns {
    /// So many slots, and so many who wait for one.
    pub(super) fn new(slots: usize, most_waiting: usize) -> Self {
        let state = State {
            slots: slots.max(1),
            most_waiting,
            next_id: 0,
            running: HashMap::new(),
            lines: HashMap::new(),
            round: VecDeque::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Waits for a slot and tells each change of the place in the line, which begins with 1.
    pub(super) async fn take(&self, tenant: &str, told: impl Fn(usize)) -> Result<Turn, Full> {
        let (turn, mut place) = self.enter(tenant)?;
        loop {
            match *place.borrow_and_update() {
                0 => return Ok(turn),
                n => told(n),
            }
            // The sender goes after it said 0.
            let _ = place.changed().await;
        }
    }

    fn enter(&self, tenant: &str) -> Result<(Turn, watch::Receiver<usize>), Full> {
        let tenant: Arc<str> = tenant.into();
        let mut state = self.state.lock();
        let id = state.next_id;
        state.next_id += 1;
        let (place, told) = watch::channel(usize::MAX);
        let line = state.lines.entry(tenant.clone()).or_default();
        line.push_back(Waiter { id, place });
        if line.len() == 1 {
            state.round.push_back(tenant.clone());
        }
        state.dispatch();
        if *told.borrow() != 0
            && let Some(full) = state.full(&tenant)
        {
            state.leave(&tenant, id);
            return Err(full);
        }
        Ok((Turn { state: self.state.clone(), tenant, id }, told))
    }
}

impl State {
    /// Whether the line is too long by one.
    fn full(&self, tenant: &Arc<str>) -> Option<Full> {
        let waiting: usize = self.lines.values().map(VecDeque::len).sum();
        let share = self.most_waiting.div_ceil(2);
        if self.lines.get(tenant).map_or(0, VecDeque::len) > share {
            return Some(Full::Tenant(share));
        }
        (waiting > self.most_waiting).then_some(Full::Host(self.most_waiting))
    }

    /// Gives free slots to those whose turn it is, and tells the others their places.
    fn dispatch(&mut self) {
        let share = (self.slots - 1).max(1);
        while self.running.values().sum::<usize>() < self.slots {
            let may = |tenant: &Arc<str>| self.running.get(tenant).is_none_or(|n| *n < share);
            let Some(index) = self.round.iter().position(may) else { break };
            let Some(tenant) = self.round.remove(index) else { break };
            let Some(line) = self.lines.get_mut(&tenant) else { break };
            let waiter = line.pop_front();
            if line.is_empty() {
                self.lines.remove(&tenant);
            } else {
                self.round.push_back(tenant.clone());
            }
            if let Some(waiter) = waiter {
                *self.running.entry(tenant).or_default() += 1;
                waiter.place.send_replace(0);
            }
        }
        self.tell();
    }

    /// As if each turn ended at once, and no tenant had all slots it may have.
    fn tell(&self) {
        let mut place = 0;
        let longest = self.lines.values().map(VecDeque::len).max().unwrap_or(0);
        for depth in 0..longest {
            for waiter in self.round.iter().filter_map(|tenant| self.lines.get(tenant)?.get(depth)) {
                place += 1;
                waiter.place.send_if_modified(|told| std::mem::replace(told, place) != place);
            }
        }
    }

    /// The end of a wait or of a run.
    fn leave(&mut self, tenant: &Arc<str>, id: u64) {
        let at = self.lines.get(tenant).and_then(|line| line.iter().position(|w| w.id == id));
        match (at, self.lines.get_mut(tenant)) {
            (Some(at), Some(line)) => {
                line.remove(at);
                if line.is_empty() {
                    self.lines.remove(tenant);
                    self.round.retain(|t| t != tenant);
                }
            }
            _ => {
                if let Some(n) = self.running.get_mut(tenant) {
                    *n -= 1;
                    if *n == 0 {
                        self.running.remove(tenant);
                    }
                }
            }
        }
        self.dispatch();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.state.lock().leave(&self.tenant, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those in the line and those who run; the one that runs longest ends first.
    struct Run {
        turns: Turns,
        all: Vec<(String, Turn, watch::Receiver<usize>)>,
        begun: VecDeque<u64>,
    }

    impl Run {
        fn new(slots: usize, waiting: usize) -> Self {
            Self { turns: Turns::new(slots, waiting), all: Vec::new(), begun: VecDeque::new() }
        }

        fn enter(&mut self, tenant: &str) -> Result<(), Full> {
            let (turn, place) = self.turns.enter(tenant)?;
            self.all.push((tenant.to_owned(), turn, place));
            self.look();
            Ok(())
        }

        fn places(&self) -> Vec<usize> {
            self.all.iter().map(|(_, _, place)| *place.borrow()).collect()
        }

        fn look(&mut self) {
            for (_, turn, place) in &self.all {
                if *place.borrow() == 0 && !self.begun.contains(&turn.id) {
                    self.begun.push_back(turn.id);
                }
            }
        }

        /// All of them, in the order of their ends.
        fn end_all(mut self) -> Vec<String> {
            let mut order = Vec::new();
            while let Some(id) = self.begun.pop_front() {
                let at = self.all.iter().position(|(_, turn, _)| turn.id == id).unwrap();
                order.push(self.all.remove(at).0);
                self.look();
            }
            assert!(self.all.is_empty());
            let state = self.turns.state.lock();
            assert!(state.running.is_empty() && state.round.is_empty() && state.lines.is_empty());
            order
        }
    }

    #[test]
    fn one_tenants_twenty_do_not_hold_up_anothers_one() {
        let mut run = Run::new(2, 64);
        for _ in 0..20 {
            run.enter("many").unwrap();
        }
        assert_eq!(run.places()[..3], [0, 1, 2], "one slot stays for others");
        run.enter("one").unwrap();
        assert_eq!(run.places()[20], 0, "it runs at once");
        run.enter("two").unwrap();
        run.enter("two").unwrap();
        assert_eq!(run.places()[21..], [2, 4], "in turn with the many");
        let order = run.end_all();
        assert_eq!(order[..6], ["many", "one", "many", "two", "many", "two"]);
        assert_eq!(order.len(), 23);
    }

    #[test]
    fn the_line_is_bounded_for_all_and_for_each() {
        let mut run = Run::new(1, 4);
        for _ in 0..3 {
            run.enter("a").unwrap();
        }
        assert_eq!(run.enter("a"), Err(Full::Tenant(2)));
        run.enter("b").unwrap();
        run.enter("c").unwrap();
        assert_eq!(run.enter("d"), Err(Full::Host(4)));
        assert_eq!(run.places(), [0, 1, 4, 2, 3]);
        // One who leaves the line makes room in it, and takes no slot with it.
        run.all.remove(3);
        assert_eq!(run.places(), [0, 1, 3, 2]);
        run.enter("d").unwrap();
        assert_eq!(run.end_all(), ["a", "a", "c", "d", "a"]);
    }

    #[tokio::test]
    async fn a_wait_tells_its_place_and_ends_with_a_slot() {
        let turns = Turns::new(1, 4);
        let first = turns.take("a", |_| panic!("it need not wait")).await.unwrap();
        let told = Mutex::new(Vec::new());
        let wait = turns.take("b", |n| told.lock().push(n));
        let end = async { drop(first) };
        let (second, ()) = tokio::join!(wait, end);
        assert!(second.is_ok());
        assert_eq!(*told.lock(), [1]);
    }
}
