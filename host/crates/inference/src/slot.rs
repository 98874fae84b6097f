use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{ChargeMeter, ComputeError, Computed, attribution};

pub(crate) type Answer = Result<Computed, ComputeError>;

/// Where caller and lane agree who pays: both look at it under its lock, so a caller that leaves and a run
/// that ends at the same moment cannot both, or neither, book the charge.
pub(crate) struct Slot {
    state: Mutex<State>,
    meter: Option<Arc<ChargeMeter>>,
}

enum State {
    Waiting,
    Running(Running),
    /// The caller is gone; its charge is fixed.
    Left {
        charged_ns: u64,
    },
    Settled,
}

/// The run that an entry is in.
#[derive(Clone, Copy)]
pub(crate) struct Running {
    pub(crate) run: u64,
    pub(crate) part: Part,
    /// When the run is beyond help: nobody waits for it any more, or it takes far longer than expected.
    pub(crate) hopeless: Instant,
}

/// An entry's part of a run.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    /// Runs alone and pays what is measured.
    Alone,
    /// Runs with others: its cost alone, and that of all together.
    Shared { cost: u64, total: u128 },
}

impl Part {
    fn of(self, busy_ns: u64) -> u64 {
        match self {
            Part::Alone => busy_ns,
            Part::Shared { cost, total } => attribution::part(busy_ns, cost, total),
        }
    }
}

/// How the caller's leaving found the entry.
pub(crate) enum Leave {
    Waiting,
    Running { run: u64, charged_ns: u64, hopeless: Instant },
    Settled,
}

impl Slot {
    pub(crate) fn new(meter: Option<Arc<ChargeMeter>>) -> Self {
        Self { state: Mutex::new(State::Waiting), meter }
    }

    /// The lane takes the entry up; false where the caller has left.
    pub(crate) fn start(&self, running: Running) -> bool {
        let mut state = self.state.lock();
        let waiting = matches!(*state, State::Waiting);
        if waiting {
            *state = State::Running(running);
        }
        waiting
    }

    /// The lane puts back an entry whose run gave nothing, to run it again.
    ///
    /// # Errors
    /// The charge that was fixed where the caller has left.
    pub(crate) fn back_to_waiting(&self) -> Result<(), u64> {
        let mut state = self.state.lock();
        match *state {
            State::Running { .. } | State::Waiting => {
                *state = State::Waiting;
                Ok(())
            }
            State::Left { charged_ns } => Err(charged_ns),
            State::Settled => Err(0),
        }
    }

    /// The caller stops waiting. A running entry is charged for its part of the busy time until now.
    pub(crate) fn leave(&self, busy_ns: impl FnOnce(u64) -> u64) -> Leave {
        let mut state = self.state.lock();
        match *state {
            State::Waiting => {
                *state = State::Left { charged_ns: 0 };
                Leave::Waiting
            }
            State::Running(Running { run, part, hopeless }) => {
                let charged_ns = self.charge(part.of(busy_ns(run)));
                *state = State::Left { charged_ns };
                Leave::Running { run, charged_ns, hopeless }
            }
            State::Left { .. } | State::Settled => Leave::Settled,
        }
    }

    /// The lane ends the entry with a charge; whoever settles answers the caller soon. Returns what is charged: less
    /// than asked for where a budget bounds it.
    ///
    /// # Errors
    /// The charge that was fixed where the caller has left before: it stands, and nobody waits for an answer.
    pub(crate) fn settle(&self, charged_ns: u64) -> Result<u64, u64> {
        let mut state = self.state.lock();
        if let State::Left { charged_ns } = *state {
            return Err(charged_ns);
        }
        *state = State::Settled;
        Ok(if charged_ns > 0 { self.charge(charged_ns) } else { 0 })
    }

    fn charge(&self, ns: u64) -> u64 {
        self.meter.as_ref().map_or(ns, |meter| meter.add(ns))
    }
}
