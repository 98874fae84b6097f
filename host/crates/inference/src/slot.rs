use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{ChargeMeter, ComputeError, Computed};

pub(crate) type Answer = Result<Computed, ComputeError>;

/// Where caller and lane agree who pays: both look at it under its lock, so a caller that leaves and a run
/// that ends at the same moment cannot both, or neither, book the charge.
pub(crate) struct Slot {
    state: Mutex<State>,
    meter: Option<Arc<ChargeMeter>>,
}

enum State {
    Waiting,
    Running {
        run: u64,
    },
    /// The caller is gone; its charge is fixed.
    Left {
        charged_ns: u64,
    },
    Settled,
}

/// How the caller's leaving found the entry.
pub(crate) enum Leave {
    Waiting,
    Running { run: u64, charged_ns: u64 },
    Settled,
}

impl Slot {
    pub(crate) fn new(meter: Option<Arc<ChargeMeter>>) -> Self {
        Self { state: Mutex::new(State::Waiting), meter }
    }

    /// The lane takes the entry up; false where the caller has left.
    pub(crate) fn start(&self, run: u64) -> bool {
        let mut state = self.state.lock();
        let waiting = matches!(*state, State::Waiting);
        if waiting {
            *state = State::Running { run };
        }
        waiting
    }

    /// The lane puts back an entry whose run was never dispatched; false where the caller has left.
    pub(crate) fn back_to_waiting(&self) -> bool {
        let mut state = self.state.lock();
        let running = matches!(*state, State::Running { .. });
        if running {
            *state = State::Waiting;
        }
        running
    }

    /// The caller stops waiting. A running entry is charged for the busy time until now.
    pub(crate) fn leave(&self, busy_ns: impl FnOnce(u64) -> u64) -> Leave {
        let mut state = self.state.lock();
        match *state {
            State::Waiting => {
                *state = State::Left { charged_ns: 0 };
                Leave::Waiting
            }
            State::Running { run } => {
                let charged_ns = busy_ns(run);
                *state = State::Left { charged_ns };
                self.charge(charged_ns);
                Leave::Running { run, charged_ns }
            }
            State::Left { .. } | State::Settled => Leave::Settled,
        }
    }

    /// The lane ends the entry with a charge and the answer. Where the caller has left before, nothing is
    /// sent and the charge that was fixed then is given back.
    pub(crate) fn settle(
        &self,
        charged_ns: u64,
        answer: impl FnOnce(u64) -> Answer,
        reply: oneshot::Sender<Answer>,
    ) -> Option<u64> {
        let mut state = self.state.lock();
        if let State::Left { charged_ns } = *state {
            return Some(charged_ns);
        }
        *state = State::Settled;
        if charged_ns > 0 {
            self.charge(charged_ns);
        }
        // Sent under the lock: a caller that finds `Settled` finds the answer too.
        let _ = reply.send(answer(charged_ns));
        None
    }

    fn charge(&self, ns: u64) {
        if let Some(meter) = &self.meter {
            meter.add(ns);
        }
    }
}
