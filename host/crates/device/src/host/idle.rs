//! The end of workers that nobody uses. Each tenant with models of its own has a worker, which keeps the engine and
//! the models in memory; when its models are called again, the lane finds them gone and loads them anew.

use std::{
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::process::Kill;

/// Ends idle workers by a thread of its own, which it starts with the first of them.
#[derive(Default)]
pub(super) struct Idle {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    watched: Vec<Weak<Lease>>,
    running: bool,
    over: bool,
}

/// A worker's right to live on.
pub(super) struct Lease {
    kill: Arc<Kill>,
    after: Duration,
    state: Mutex<Life>,
}

enum Life {
    Used,
    Idle(Instant),
    Ended,
}

/// While it lives, the worker is in use.
pub(super) struct InUse<'a>(&'a Lease);

impl Lease {
    /// `None` where the worker was ended, and its models with it.
    pub(super) fn take(&self) -> Option<InUse<'_>> {
        let mut life = self.state.lock();
        if matches!(*life, Life::Ended) {
            return None;
        }
        *life = Life::Used;
        Some(InUse(self))
    }

    /// Whether it was ended for being idle, which is no failure.
    pub(super) fn is_ended(&self) -> bool {
        matches!(*self.state.lock(), Life::Ended)
    }

    /// Ends the worker if it is time; otherwise says how long that may take.
    fn check(&self) -> Option<Duration> {
        let mut life = self.state.lock();
        match *life {
            Life::Ended => None,
            Life::Used => Some(self.after),
            Life::Idle(since) => {
                let left = self.after.saturating_sub(since.elapsed());
                if left.is_zero() {
                    *life = Life::Ended;
                    self.kill.kill();
                    return None;
                }
                Some(left)
            }
        }
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        *self.0.state.lock() = Life::Idle(Instant::now());
    }
}

impl Idle {
    /// Watches a worker that may be idle for this long.
    pub(super) fn watch(&self, kill: &Arc<Kill>, after: Duration) -> std::io::Result<Arc<Lease>> {
        let state = Mutex::new(Life::Idle(Instant::now()));
        let lease = Arc::new(Lease { kill: Arc::clone(kill), after, state });
        let mut state = self.shared.state.lock();
        state.watched.push(Arc::downgrade(&lease));
        if !state.running {
            let shared = Arc::clone(&self.shared);
            thread::Builder::new().name("worker-idle".to_owned()).spawn(move || shared.run())?;
            state.running = true;
        }
        self.shared.changed.notify_one();
        Ok(lease)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.shared.state.lock().over = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.state.lock();
        while !state.over {
            let mut wait = Duration::from_secs(3600);
            state.watched.retain(|lease| match lease.upgrade().and_then(|lease| lease.check()) {
                Some(left) => {
                    wait = wait.min(left);
                    true
                }
                None => false,
            });
            let _ = self.changed.wait_for(&mut state, wait);
        }
    }
}
