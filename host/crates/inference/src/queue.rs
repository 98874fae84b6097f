use std::{collections::VecDeque, sync::Arc};

use metrics::Gauge;
use parking_lot::{Condvar, Mutex};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    ComputeError, ModelError, ModelKey, Signature, Tensor,
    registry::Model,
    slot::{Answer, Slot},
};

/// One compute in a queue. Everything that the work needs travels with it.
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) tenant: String,
    pub(crate) model: Arc<Model>,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) deadline: Instant,
    pub(crate) submitted: Instant,
    pub(crate) slot: Arc<Slot>,
    pub(crate) reply: oneshot::Sender<Answer>,
}

impl Entry {
    /// Ends an entry that never reached the device.
    pub(crate) fn refuse(self, error: ComputeError) {
        self.slot.settle(0, |_| Err(error), self.reply);
    }
}

/// What an operator asks of a lane.
pub(crate) enum Order {
    Load { model: Arc<Model>, reply: oneshot::Sender<Result<Arc<Signature>, ModelError>> },
    Unload { key: ModelKey, reply: oneshot::Sender<()> },
}

pub(crate) enum Work {
    Entry(Entry),
    Order(Order),
    Closed,
}

/// Entries and orders that wait for a device. Bounded; full means refused at once.
pub(crate) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    capacity: usize,
    depth: Gauge,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    orders: VecDeque<Order>,
    closed: bool,
}

/// Why something was not queued.
pub(crate) enum Full {
    Full,
    Closed,
}

impl Queue {
    pub(crate) fn new(device: &str, capacity: usize) -> Self {
        let depth = metrics::gauge!("wasmeter_device_queue_depth", "device" => device.to_owned());
        Self { state: Mutex::default(), ready: Condvar::new(), capacity, depth }
    }

    pub(crate) fn len(&self) -> usize {
        self.state.lock().entries.len()
    }

    pub(crate) fn push(&self, entry: Entry) -> Result<(), Full> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Full::Closed);
        }
        if state.entries.len() >= self.capacity {
            return Err(Full::Full);
        }
        state.entries.push_back(entry);
        drop(state);
        self.depth.increment(1.0);
        self.ready.notify_one();
        Ok(())
    }

    pub(crate) fn order(&self, order: Order) -> Result<(), Full> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Full::Closed);
        }
        if state.orders.len() >= self.capacity {
            return Err(Full::Full);
        }
        state.orders.push_back(order);
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Takes an entry out whose caller has left, so that the place is free at once.
    pub(crate) fn remove(&self, id: u64) {
        let mut state = self.state.lock();
        let found = state.entries.iter().position(|entry| entry.id == id);
        let entry = found.and_then(|index| state.entries.remove(index));
        drop(state);
        if entry.is_some() {
            self.depth.decrement(1.0);
        }
    }

    /// The next piece of work; blocks. Orders go first: they are rare, and computes may wait for them.
    pub(crate) fn pop(&self) -> Work {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return Work::Closed;
            }
            if let Some(order) = state.orders.pop_front() {
                return Work::Order(order);
            }
            if let Some(entry) = state.entries.pop_front() {
                drop(state);
                self.depth.decrement(1.0);
                return Work::Entry(entry);
            }
            self.ready.wait(&mut state);
        }
    }

    /// Refuses what waits and what comes.
    pub(crate) fn close(&self) {
        let (entries, orders) = {
            let mut state = self.state.lock();
            state.closed = true;
            (std::mem::take(&mut state.entries), std::mem::take(&mut state.orders))
        };
        self.ready.notify_all();
        for entry in entries {
            self.depth.decrement(1.0);
            entry.refuse(ComputeError::Draining);
        }
        for order in orders {
            match order {
                Order::Load { reply, .. } => drop(reply.send(Err(ModelError::Draining))),
                Order::Unload { reply, .. } => drop(reply.send(())),
            }
        }
    }
}
