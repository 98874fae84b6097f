//! Where guests run. A call begins on the thread of its connection, because each hand-over to another thread costs a
//! wake-up each way, more than a whole short call; a call that is not over after a first turn is moved to guest threads,
//! where tenants take turns by processor time. So a thread that accepts, refuses and answers 504 is held by a guest for
//! two short turns at most, and calls of a component that takes long for its tenant do not begin there at all ([`Pace`]).

mod fate;
mod pace;
mod queue;
mod task;
mod threads;

use std::io;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use fate::{Fate, Told};
pub(crate) use pace::{Pace, Paces};
pub(crate) use task::Life;

use task::{Left, Task};
use threads::Shared;

/// How guests share the processors.
#[derive(Clone, Copy, Debug)]
pub struct GuestOptions {
    /// Threads that run nothing but guests.
    pub threads: usize,
    /// How long a call may run on the thread of its connection; zero: not at all.
    pub first_turn: Duration,
    /// How long a turn on a guest thread is while others wait.
    pub turn: Duration,
}

impl Default for GuestOptions {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            first_turn: Duration::from_millis(1),
            turn: Duration::from_millis(2),
        }
    }
}

/// The guest threads. They end after the last work when this is dropped.
pub(crate) struct Guests {
    shared: Arc<Shared>,
}

impl Guests {
    /// Starts the threads; within the runtime that their work's timers belong to.
    pub(crate) fn start(options: GuestOptions) -> io::Result<Self> {
        Ok(Self { shared: Shared::start(options)? })
    }

    /// Takes a life on; nothing of it runs before the first [`Held::poll`], unless its component's calls are long.
    pub(crate) fn take(
        &self,
        tenant: Arc<str>,
        deadline: Instant,
        pace: Option<Arc<Pace>>,
        life: Life,
    ) -> Held {
        // What must be loaded first is no short call.
        let short = pace.as_ref().is_some_and(|pace| pace.is_short());
        let task = Task::new(self.shared.clone(), tenant, deadline, pace, life);
        if short && !self.shared.first_turn().is_zero() {
            return Held(Some(task));
        }
        task.leave();
        Held(None)
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// The caller's hold on a life. Dropping it leaves the life to the guest threads: it is never dropped halfway.
pub(crate) struct Held(Option<Arc<Task>>);

impl Held {
    /// Runs what there is to run on this thread.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) {
        if self.0.as_ref().is_some_and(|task| task.poll_by_caller(cx) == Left::Gone) {
            self.0 = None;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.leave();
        }
    }
}
