use std::{future::Future, io, sync::Arc, thread, time::Duration};

use tokio::{runtime, task::JoinSet, time::timeout};

use crate::{
    Backend, Handle, ModelSource,
    device::Device,
    handle::Inner,
    lane::{Lane, Quarantine},
    registry::Registry,
    room::Room,
};

/// One device and its backend.
pub struct DeviceOptions {
    /// Name, such as `cpu:0`.
    pub name: String,
    /// What runs the models.
    pub backend: Box<dyn Backend>,
}

/// What the service needs.
pub struct Options {
    /// The devices, each with a lane of its own.
    pub devices: Vec<DeviceOptions>,
    /// Where model files are.
    pub source: Arc<dyn ModelSource>,
    /// Computes that may wait for one device.
    pub queue_capacity: usize,
    /// How long a run may outlive its deadline before the device is ended.
    pub kill_grace: Duration,
    /// Deaths of the device within `quarantine_window` that quarantine the model version they happened under.
    pub quarantine_deaths: u32,
    /// See `quarantine_deaths`.
    pub quarantine_window: Duration,
    /// How long a shutdown waits for runs before it ends the devices.
    pub drain_timeout: Duration,
    /// Memory that the models on a device may take, in bytes: what their loads were seen to take, where the backend can
    /// tell, else a forecast from the size of their files. A model that does not fit beside the others makes idle ones
    /// leave.
    pub model_memory: u64,
    /// How long a load waits for models in use to become idle, where there is no other room for it.
    pub load_wait: Duration,
    /// Whether a model is run a few times after each load, on zeros and on the platform's account: the first run of an
    /// engine is slow, and no caller shall have it; the others tell what its shapes cost.
    pub warm_up: bool,
}

impl Options {
    /// The defaults: 1024 waiting computes a device, 10 ms of grace, quarantine at the second death within
    /// ten minutes, 30 s to drain, 8 GiB of models a device, 10 s of waiting for room, no warm-up.
    #[must_use]
    pub fn new(devices: Vec<DeviceOptions>, source: Arc<dyn ModelSource>) -> Self {
        Self {
            devices,
            source,
            queue_capacity: 1024,
            kill_grace: Duration::from_millis(10),
            quarantine_deaths: 2,
            quarantine_window: Duration::from_secs(600),
            drain_timeout: Duration::from_secs(30),
            model_memory: 8 << 30,
            load_wait: Duration::from_secs(10),
            warm_up: false,
        }
    }
}

/// Lanes and watchdogs.
pub struct Service {
    handle: Handle,
    lanes: Vec<Lane>,
    drain_timeout: Duration,
}

impl Service {
    /// Prepares the service. Install the metrics recorder first: the handles to it are made here.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let quarantine =
            Quarantine { deaths: options.quarantine_deaths.max(1), window: options.quarantine_window };
        let mut devices = Vec::new();
        let mut lanes = Vec::new();
        for DeviceOptions { name, backend } in options.devices {
            let device = Arc::new(Device::new(
                name.into(),
                backend.class(),
                backend.control(),
                options.queue_capacity,
                options.kill_grace,
                Room::new(options.model_memory, options.load_wait),
            ));
            devices.push(Arc::clone(&device));
            let source = Arc::clone(&options.source);
            lanes.push(Lane::new(device, backend, source, quarantine, options.warm_up));
        }
        let inner = Inner { devices, registry: Registry::default(), source: options.source };
        let handle = Handle { inner: Arc::new(inner) };
        Self { handle, lanes, drain_timeout: options.drain_timeout }
    }

    /// The way in. Computes and loads wait until the service runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until `shutdown` ends, then refuses what waits, lets runs finish within the drain time-out, ends
    /// the devices and joins their threads.
    ///
    /// # Errors
    /// Where a lane's thread cannot be started.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
        let devices = self.handle.inner.devices.clone();
        let mut watchdogs = JoinSet::new();
        for device in &devices {
            let device = Arc::clone(device);
            watchdogs.spawn(async move { device.watch().await });
        }
        // Whatever way this future ends, no entry stays unanswered and no lane waits for ever.
        let _close = CloseOnDrop(&devices);
        let mut threads = Vec::new();
        for lane in self.lanes {
            let runtime = runtime::Handle::current();
            let name = format!("lane-{}", lane.device_name());
            // A thread that lives as long as the device: backends tie the life of their child processes to it.
            let thread = thread::Builder::new().name(name).spawn(move || {
                let _clock = runtime.enter();
                lane.run();
            })?;
            threads.push(thread);
        }
        shutdown.await;
        for device in &devices {
            device.queue.close();
        }
        let mut join = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a device lane panicked");
                }
            }
        });
        if timeout(self.drain_timeout, &mut join).await.is_err() {
            for device in &devices {
                device.shut_down();
            }
            let _ = join.await;
        }
        Ok(())
    }
}

struct CloseOnDrop<'a>(&'a [Arc<Device>]);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        for device in self.0 {
            device.queue.close();
        }
    }
}
