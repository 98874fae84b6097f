use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant as Clock},
};

use metrics::Gauge;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    ComputeError, ModelError, ModelKey, Signature,
    bench::Measure,
    done::Done,
    entry::{Entry, pad},
    former::{Former, Item, Pushed},
    registry::Model,
};

/// Results that may wait for the aide; more, and the lane answers by itself.
const DONE: usize = 2;
/// Of shorter runs there is no time to prepare the next batch: the timer is not finer.
const SHORT: Duration = Duration::from_micros(400);

/// What an operator asks of a lane.
pub(crate) enum Order {
    Load {
        model: Arc<Model>,
        reply: oneshot::Sender<Result<Arc<Signature>, ModelError>>,
    },
    Unload {
        key: ModelKey,
        reply: oneshot::Sender<()>,
    },
    /// For when nothing else waits.
    Measure(Measure),
}

pub(crate) enum Work {
    /// Entries of one batch; never none.
    Batch(Vec<Entry>),
    Order(Order),
    Closed,
}

/// Entries and orders that wait for a device. Bounded; full means refused at once.
///
/// Two threads serve it. The lane takes batches and runs them; its aide works while the lane is inside a
/// run: it answers the callers of the last one and prepares the next batch. It does so late, when three
/// quarters of the run should be over: a batch that is fixed at the start of a run knows only those who had to
/// wait for it, and callers that come back at once would miss every second batch. Where nothing waits the
/// lane does both by itself, so that a lone call pays for no hand-over between threads.
pub(crate) struct Queue {
    state: Mutex<State>,
    lane: Condvar,
    aide: Condvar,
    capacity: usize,
    depth: Gauge,
}

struct State {
    former: Former<Entry>,
    orders: VecDeque<Order>,
    /// Taken when nobody's compute waits.
    measures: VecDeque<Measure>,
    /// The next batch, not yet begun. It is topped up when the lane takes it.
    prepared: Option<Vec<Entry>>,
    /// Entries that the aide has in its hands.
    preparing: usize,
    done: VecDeque<Done>,
    /// The lane is inside a run.
    running: Option<Run>,
    aided: bool,
    closed: bool,
    /// The lane is gone.
    retired: bool,
}

#[derive(Clone, Copy)]
struct Run {
    began: Instant,
    expected: Duration,
    /// The aide has looked for a next batch.
    looked: bool,
}

impl State {
    fn waiting(&self) -> usize {
        self.former.len() + self.elsewhere()
    }

    fn elsewhere(&self) -> usize {
        self.prepared.as_ref().map_or(0, Vec::len) + self.preparing
    }

    /// When the aide should prepare the next batch, and when that will begin.
    fn next_due(&self) -> Option<(Instant, Instant)> {
        let idle = self.prepared.is_some() || self.closed;
        let Run { began, expected, .. } =
            self.running.filter(|run| !idle && !run.looked && run.expected >= SHORT)?;
        Some((began + expected * 3 / 4, began + expected))
    }
}

/// Why something was not queued.
pub(crate) enum Full {
    Full,
    Closed,
}

impl Queue {
    pub(crate) fn new(device: &str, capacity: usize) -> Self {
        let depth = metrics::gauge!("wasmeter_device_queue_depth", "device" => device.to_owned());
        let state = State {
            former: Former::new(capacity),
            orders: VecDeque::new(),
            measures: VecDeque::new(),
            prepared: None,
            preparing: 0,
            done: VecDeque::new(),
            running: None,
            aided: false,
            closed: false,
            retired: false,
        };
        Self { state: Mutex::new(state), lane: Condvar::new(), aide: Condvar::new(), capacity, depth }
    }

    pub(crate) fn len(&self) -> usize {
        self.state.lock().waiting()
    }

    pub(crate) fn push(&self, entry: Entry) -> Result<(), Full> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Full::Closed);
        }
        let elsewhere = state.elsewhere();
        let pushed = state.former.push(entry, elsewhere);
        if matches!(pushed, Pushed::Full) {
            return Err(Full::Full);
        }
        if state.running.is_none() {
            self.lane.notify_one();
        }
        drop(state);
        if let Pushed::Displaced(entry) = pushed {
            let device = Arc::clone(&entry.model.device.name);
            entry.refuse(ComputeError::Overloaded(device));
        } else {
            self.depth.increment(1.0);
        }
        Ok(())
    }

    pub(crate) fn order(&self, order: Order) -> Result<(), Full> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Full::Closed);
        }
        if state.orders.len() + state.measures.len() >= self.capacity {
            return Err(Full::Full);
        }
        match order {
            Order::Measure(measure) => state.measures.push_back(measure),
            order => state.orders.push_back(order),
        }
        drop(state);
        self.lane.notify_one();
        Ok(())
    }

    /// Takes an entry out whose caller has left, so that the place is free at once.
    pub(crate) fn remove(&self, id: u64) {
        let mut state = self.state.lock();
        let mut entry = state.former.remove(id);
        if let (None, Some(prepared)) = (&entry, &mut state.prepared) {
            let at = prepared.iter().position(|entry| entry.id == id);
            entry = at.map(|at| prepared.remove(at));
            if prepared.is_empty() {
                state.prepared = None;
            }
        }
        drop(state);
        if entry.is_some() {
            self.depth.decrement(1.0);
        }
    }

    /// What a tenant's entry took, against what its share was debited for it.
    pub(crate) fn correct(&self, entry: &Entry, served_ns: u64) {
        self.state.lock().former.correct(&entry.tenant, entry.debited_ns, served_ns);
    }

    /// The next piece of work; blocks. Orders go first: they are rare, and computes may wait for them.
    pub(crate) fn pop(&self) -> Work {
        let mut state = self.state.lock();
        state.running = None;
        loop {
            if state.closed {
                return Work::Closed;
            }
            if let Some(order) = state.orders.pop_front() {
                return Work::Order(order);
            }
            if state.preparing > 0 {
                self.lane.wait(&mut state);
                continue;
            }
            let now = Instant::now();
            let mut expired = Vec::new();
            let prepared = state.prepared.take();
            let formed = match prepared {
                Some(mut batch) => {
                    state.former.top_up(&mut batch, now, &mut expired);
                    Ok(batch)
                }
                None => state.former.form(now, now, &mut expired),
            };
            self.leave(expired.len());
            let later = match formed {
                Ok(batch) => {
                    self.leave(batch.len());
                    state.running = Some(Run { began: now, expected: expected(&batch), looked: false });
                    drop(state);
                    refuse_expired(expired);
                    return Work::Batch(batch);
                }
                Err(later) => later,
            };
            if !expired.is_empty() {
                MutexGuard::unlocked(&mut state, || refuse_expired(expired));
                continue;
            }
            if later.is_none()
                && let Some(measure) = state.measures.pop_front()
            {
                return Work::Order(Order::Measure(measure));
            }
            match later {
                Some(later) => {
                    let until = Clock::now() + later.saturating_duration_since(now);
                    self.lane.wait_until(&mut state, until);
                }
                None => self.lane.wait(&mut state),
            }
        }
    }

    /// The lane's run has ended: gives its results to the aide, if there is one and the lane has something
    /// else to do.
    ///
    /// # Errors
    /// Gives them back where the lane should answer by itself.
    pub(crate) fn hand_over(&self, done: Done) -> Result<(), Done> {
        let mut state = self.state.lock();
        if !state.aided || state.closed || state.waiting() == 0 || state.done.len() >= DONE {
            return Err(done);
        }
        state.done.push_back(done);
        drop(state);
        self.aide.notify_one();
        Ok(())
    }

    /// The life of the lane's aide.
    pub(crate) fn assist(&self) {
        let mut state = self.state.lock();
        state.aided = true;
        loop {
            if let Some(done) = state.done.pop_front() {
                MutexGuard::unlocked(&mut state, || done.answer());
                continue;
            }
            if state.retired {
                return;
            }
            let Some((at, start)) = state.next_due() else {
                self.aide.wait(&mut state);
                continue;
            };
            let now = Instant::now();
            if at <= now {
                self.prepare(&mut state, start.max(now), now);
            } else {
                self.aide.wait_until(&mut state, Clock::now() + at.saturating_duration_since(now));
            }
        }
    }

    /// The aide is gone: what it held is dropped, and its callers are told.
    pub(crate) fn aide_gone(&self) {
        let mut state = self.state.lock();
        state.aided = false;
        state.preparing = 0;
        let done = std::mem::take(&mut state.done);
        drop(state);
        self.lane.notify_all();
        drop(done);
    }

    /// Prepares the next batch, if one is due.
    fn prepare(&self, state: &mut MutexGuard<'_, State>, start: Instant, now: Instant) {
        if let Some(run) = &mut state.running {
            run.looked = true;
        }
        let mut expired = Vec::new();
        let formed = state.former.form(now, start, &mut expired);
        self.leave(expired.len());
        state.preparing = formed.as_ref().map_or(0, Vec::len);
        let formed = MutexGuard::unlocked(state, || {
            refuse_expired(expired);
            formed.ok().map(|mut batch| {
                pad(&mut batch);
                batch
            })
        });
        state.preparing = 0;
        if let Some(batch) = formed {
            if state.closed {
                self.leave(batch.len());
                MutexGuard::unlocked(state, || refuse(batch, &ComputeError::Draining));
            } else {
                state.prepared = Some(batch);
            }
            self.lane.notify_one();
        }
    }

    /// Refuses what waits and what comes.
    pub(crate) fn close(&self) {
        let (mut entries, orders, measures) = {
            let mut state = self.state.lock();
            state.closed = true;
            let mut entries = state.former.drain();
            entries.extend(state.prepared.take().into_iter().flatten());
            (entries, std::mem::take(&mut state.orders), std::mem::take(&mut state.measures))
        };
        self.lane.notify_all();
        self.aide.notify_all();
        self.leave(entries.len());
        refuse(std::mem::take(&mut entries), &ComputeError::Draining);
        for order in orders.into_iter().chain(measures.into_iter().map(Order::Measure)) {
            match order {
                Order::Load { reply, .. } => drop(reply.send(Err(ModelError::Draining))),
                Order::Unload { reply, .. } => drop(reply.send(())),
                Order::Measure(measure) => drop(measure.reply.send(Err(ComputeError::Draining))),
            }
        }
    }

    /// The lane is gone: its aide may go too, when it has answered everybody.
    pub(crate) fn retire(&self) {
        self.close();
        self.state.lock().retired = true;
        self.aide.notify_all();
    }

    #[allow(clippy::cast_precision_loss, reason = "queues are short")]
    fn leave(&self, entries: usize) {
        if entries > 0 {
            self.depth.decrement(entries as f64);
        }
    }
}

fn expected(batch: &[Entry]) -> Duration {
    let rows = batch.iter().fold(0u32, |rows, entry| rows.saturating_add(entry.rows()));
    batch.first().map_or(Duration::ZERO, |lead| lead.expected(rows))
}

fn refuse_expired(entries: Vec<Entry>) {
    refuse(entries, &ComputeError::Deadline { charged_ns: 0 });
}

fn refuse(entries: Vec<Entry>, error: &ComputeError) {
    for entry in entries {
        entry.refuse(error.clone());
    }
}
