use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::Histogram;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use wasmeter_usage::DeviceClass;

use crate::{DeviceControl, account::Ledger, queue::Queue, room::Room};

/// What callers, the lane and the watchdog of one device share.
pub(crate) struct Device {
    pub(crate) name: Arc<str>,
    pub(crate) class: DeviceClass,
    pub(crate) queue: Queue,
    pub(crate) ledger: Ledger,
    pub(crate) room: Room,
    pub(crate) control: Arc<dyn DeviceControl>,
    pub(crate) compute_seconds: Histogram,
    pub(crate) queue_seconds: Histogram,
    next_id: AtomicU64,
    interrupted: AtomicU64,
    stopping: AtomicBool,
    grace: Duration,
    alarm: Mutex<Option<Alarm>>,
    alarm_set: Notify,
}

#[derive(Clone, Copy)]
struct Alarm {
    run: u64,
    at: Instant,
}

impl Device {
    pub(crate) fn new(
        name: Arc<str>,
        class: DeviceClass,
        control: Arc<dyn DeviceControl>,
        capacity: usize,
        grace: Duration,
        room: Room,
    ) -> Self {
        let histogram = |metric: &'static str| metrics::histogram!(metric, "device" => name.to_string());
        Self {
            queue: Queue::new(&name, capacity),
            ledger: Ledger::new(&name),
            room,
            compute_seconds: histogram("wasmeter_device_compute_seconds"),
            queue_seconds: histogram("wasmeter_device_queue_seconds"),
            name,
            class,
            control,
            next_id: AtomicU64::new(1),
            interrupted: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            grace,
            alarm: Mutex::new(None),
            alarm_set: Notify::new(),
        }
    }

    /// A fresh number for an entry or a run; never 0.
    pub(crate) fn number(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The caller of this run is gone: end the run if it outlives
    /// all help. Only callers who leave set
    /// the alarm, so a run that ends in time costs the watchdog nothing.
    pub(crate) fn watch_run(&self, run: u64, hopeless: Instant) {
        let at = hopeless + self.grace;
        let mut alarm = self.alarm.lock();
        // Of a batch, the first alarm counts.
        let at = alarm.filter(|alarm| alarm.run == run).map_or(at, |alarm| alarm.at.min(at));
        *alarm = Some(Alarm { run, at });
        drop(alarm);
        self.alarm_set.notify_one();
    }

    /// Whether this run was ended by us: by the watchdog, or by a shutdown that could not wait.
    pub(crate) fn was_interrupted(&self, run: u64) -> bool {
        self.interrupted.load(Ordering::Acquire) == run || self.stopping.load(Ordering::Acquire)
    }

    /// Ends the device for good.
    pub(crate) fn shut_down(&self) {
        self.stopping.store(true, Ordering::Release);
        self.control.shut_down();
    }

    /// The watchdog.
    pub(crate) async fn watch(&self) {
        loop {
            let alarm = *self.alarm.lock();
            let Some(Alarm { run, at }) = alarm else {
                self.alarm_set.notified().await;
                continue;
            };
            tokio::select! {
                () = self.alarm_set.notified() => {}
                () = sleep_until(at) => {
                    let mut alarm = self.alarm.lock();
                    if alarm.is_some_and(|now| now.run == run) {
                        *alarm = None;
                    }
                    drop(alarm);
                    self.interrupted.store(run, Ordering::Release);
                    self.control.interrupt(run);
                }
            }
        }
    }
}
