use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::process::setpriority_process;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::GuestOptions;
use super::queue::FairQueue;
use super::task::Task;

/// Below the threads that accept and answer, whatever a guest does: they get the processor as they wake.
const NICE: i32 = 5;

/// What the guest threads share with those who give them work.
pub(super) struct Shared {
    options: GuestOptions,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Of those that wait, in nanoseconds after `base`; `u64::MAX` if none does.
    next_deadline: AtomicU64,
    base: Instant,
    /// Timers and blocking work of what runs here belong to the runtime of those who give it.
    runtime: Handle,
}

struct Queue {
    tasks: FairQueue<Arc<Task>>,
    idle: usize,
    stop: bool,
}

impl Shared {
    pub(super) fn start(options: GuestOptions) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Self {
            options,
            queue: Mutex::new(Queue { tasks: FairQueue::new(), idle: 0, stop: false }),
            wake: Condvar::new(),
            next_deadline: AtomicU64::new(u64::MAX),
            base: Instant::now(),
            runtime: Handle::current(),
        });
        for number in 0..options.threads.max(1) {
            let shared = shared.clone();
            thread::Builder::new().name(format!("guest-{number}")).spawn(move || shared.work())?;
        }
        Ok(shared)
    }

    pub(super) fn stop(&self) {
        self.queue.lock().stop = true;
        self.wake.notify_all();
    }

    pub(super) fn first_turn(&self) -> Duration {
        self.options.first_turn
    }

    pub(super) fn push(&self, task: Arc<Task>) {
        let mut queue = self.queue.lock();
        queue.tasks.push(task.tenant.clone(), task.deadline, task);
        self.note_deadline(&queue);
        if queue.idle > 0 {
            self.wake.notify_one();
        }
    }

    /// Whether who has run this long gives way: its turn is over, or somebody's deadline has passed who waits.
    pub(super) fn must_yield(&self, ran: Duration) -> bool {
        ran >= self.options.turn || self.next_deadline.load(Ordering::Relaxed) <= nanos(self.base.elapsed())
    }

    fn note_deadline(&self, queue: &Queue) {
        let next = queue.tasks.next_deadline().map_or(u64::MAX, |at| nanos(at - self.base));
        self.next_deadline.store(next, Ordering::Relaxed);
    }

    fn work(&self) {
        // Without the right to, guests are merely not nicer than the rest.
        let _ = setpriority_process(None, NICE);
        let _runtime = self.runtime.enter();
        let mut ran: Option<(Arc<str>, u64)> = None;
        loop {
            let task = {
                let mut queue = self.queue.lock();
                if let Some((tenant, ns)) = ran.take() {
                    queue.tasks.ran(&tenant, ns);
                }
                loop {
                    if let Some(task) = queue.tasks.pop(Instant::now()) {
                        self.note_deadline(&queue);
                        break task;
                    }
                    if queue.stop {
                        return;
                    }
                    queue.idle += 1;
                    self.wake.wait(&mut queue);
                    queue.idle -= 1;
                }
            };
            let used = task.turn();
            ran = Some((task.tenant.clone(), nanos(used)));
        }
    }
}

/// Of this thread.
pub(super) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
