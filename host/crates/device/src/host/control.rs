//! What other threads see of a device: the current run, its clock and its end.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use wasmeter_inference::DeviceControl;

use super::process::{Kill, Process};
use crate::clock::ProcessClock;

#[derive(Default)]
pub(super) struct Control {
    current: Mutex<Current>,
    workers: Mutex<Vec<Weak<Kill>>>,
    stopped: AtomicBool,
}

#[derive(Default)]
struct Current {
    run: u64,
    measure: Measure,
    /// Busy time of the run's entries that are done.
    before_ns: u64,
}

#[derive(Default)]
enum Measure {
    #[default]
    Idle,
    Running {
        kill: Arc<Kill>,
        stopwatch: Stopwatch,
        killed: bool,
    },
}

/// The host's own reading of how busy a worker is: its processor time, and never more than its threads could
/// use in the time that passed.
#[derive(Clone, Copy)]
pub(super) struct Stopwatch {
    clock: Option<ProcessClock>,
    cpu: Duration,
    wall: Instant,
    cores: u32,
}

impl Stopwatch {
    pub(super) fn start(process: &Process, cores: u16) -> Self {
        let cpu = process.clock.and_then(ProcessClock::now).unwrap_or_default();
        Self { clock: process.clock, cpu, wall: Instant::now(), cores: u32::from(cores) }
    }

    pub(super) fn busy_ns(&self) -> u64 {
        let most = self.wall.elapsed().saturating_mul(self.cores);
        let cpu = self.clock.and_then(ProcessClock::now).map_or(most, |now| now.saturating_sub(self.cpu));
        nanos(cpu.min(most))
    }

    /// Time since the start; what a death costs.
    pub(super) fn wall_ns(&self) -> u64 {
        nanos(self.wall.elapsed())
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Control {
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Remembers a started worker, so that a shutdown ends it; ends it at once where that came first.
    pub(super) fn started(&self, kill: &Arc<Kill>) {
        let mut workers = self.workers.lock();
        workers.retain(|worker| worker.strong_count() > 0);
        workers.push(Arc::downgrade(kill));
        if self.is_stopped() {
            kill.kill();
        }
    }

    /// An entry of a run goes to the worker.
    pub(super) fn dispatched(&self, run: u64, kill: &Arc<Kill>, stopwatch: Stopwatch) {
        let mut current = self.current.lock();
        if current.run != run {
            *current = Current { run, ..Current::default() };
        }
        current.measure = Measure::Running { kill: Arc::clone(kill), stopwatch, killed: false };
    }

    /// It came back after this busy time. True where the worker was killed meanwhile: its answer came first, but
    /// it must not get another entry.
    pub(super) fn returned(&self, busy_ns: u64) -> bool {
        let mut current = self.current.lock();
        current.before_ns = current.before_ns.saturating_add(busy_ns);
        let measure = std::mem::take(&mut current.measure);
        matches!(measure, Measure::Running { killed: true, .. })
    }
}

impl DeviceControl for Control {
    fn interrupt(&self, run: u64) {
        let mut current = self.current.lock();
        let same = current.run == run;
        if let (true, Measure::Running { kill, killed, .. }) = (same, &mut current.measure) {
            kill.kill();
            *killed = true;
        }
    }

    fn busy_ns(&self, run: u64) -> u64 {
        let current = self.current.lock();
        if current.run != run {
            return 0;
        }
        match &current.measure {
            Measure::Idle => current.before_ns,
            Measure::Running { stopwatch, .. } => current.before_ns.saturating_add(stopwatch.busy_ns()),
        }
    }

    fn shut_down(&self) {
        self.stopped.store(true, Ordering::Release);
        for worker in self.workers.lock().iter().filter_map(Weak::upgrade) {
            worker.kill();
        }
    }
}
