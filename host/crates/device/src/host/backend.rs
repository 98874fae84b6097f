use std::{
    collections::HashMap,
    fs::File,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use wasmeter_inference::{
    Backend, BackendError, Batch, BatchOutput, DeviceControl, Engine, Loaded, ModelKey, ModelSpec, Owner,
    Precision,
};
use wasmeter_usage::DeviceClass;

use super::{
    WorkerOptions,
    control::Control,
    idle::{Idle, InUse, Lease},
    model::sealed_copy,
    worker::{StartError, Worker},
};
use crate::{
    Probe, SandboxReport, UnknownDevice, find,
    target::{Library, Target},
};

/// A device whose models run in worker processes: one for the operator's models, and one for each tenant
/// with models of its own. The lane lets only one of them work at a time.
pub struct WorkerBackend {
    name: String,
    target: Result<Target, UnknownDevice>,
    options: WorkerOptions,
    workers: HashMap<Owner, Worker>,
    restarts: HashMap<Owner, Restart>,
    control: Arc<Control>,
    idle: Idle,
}

/// The longest that a lane waits for a worker to be allowed to start.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// When a worker may be started again after deaths.
struct Restart {
    delay: Duration,
    not_before: Instant,
}

impl WorkerBackend {
    /// A device of this name, such as `cpu:0`; see [`check_device_name`](crate::check_device_name). Nothing is
    /// started before the first model is loaded; that fails where the machine has no such device.
    #[must_use]
    pub fn new(name: impl Into<String>, options: WorkerOptions) -> Self {
        let name = name.into();
        Self {
            target: Target::parse(&name),
            name,
            options,
            workers: HashMap::new(),
            restarts: HashMap::new(),
            control: Arc::default(),
            idle: Idle::default(),
        }
    }

    /// Process number of an owner's worker, if it runs.
    #[must_use]
    pub fn worker_pid(&self, owner: &Owner) -> Option<u32> {
        self.workers.get(owner).filter(|worker| !worker.is_dead()).map(Worker::pid)
    }

    /// Starts the operator's worker, if it does not run, and lets it try what its sandbox must refuse.
    ///
    /// # Errors
    /// Where there is no worker to ask.
    pub fn probe_sandbox(&mut self) -> Result<(SandboxReport, Vec<Probe>), BackendError> {
        let worker = self.worker(&Owner::Operator)?;
        let report = worker.sandbox.clone();
        match worker.probe() {
            Ok(probes) => Ok((report, probes)),
            Err(message) => {
                self.buried(&Owner::Operator);
                Err(BackendError::Lost { message, busy_ns: 0 })
            }
        }
    }

    /// The owner's worker, started if need be.
    fn worker(&mut self, owner: &Owner) -> Result<&mut Worker, BackendError> {
        if self.workers.get(owner).is_some_and(ended_idle) {
            self.workers.remove(owner);
        }
        if self.workers.get(owner).is_some_and(Worker::is_dead) {
            self.buried(owner);
        }
        if !self.workers.contains_key(owner) {
            let target =
                self.target.clone().map_err(|error| BackendError::EngineMissing(error.to_string()))?;
            let configured = match target.library() {
                Library::OnnxRuntime => self.options.onnxruntime.as_deref(),
                Library::OpenVino => self.options.openvino.as_deref(),
            };
            let library = find::find(target.library(), configured)
                .map_err(|error| BackendError::EngineMissing(error.to_string()))?;
            self.wait_for_restart(owner)?;
            let mut worker = self.start(owner, &target, &library)?;
            if let Owner::Tenant(_) = owner {
                match self.idle.watch(worker.kill(), self.options.idle_after) {
                    Ok(lease) => worker.lease = Some(lease),
                    Err(error) => tracing::warn!(%error, "no thread to end idle device workers"),
                }
            }
            self.workers.insert(owner.clone(), worker);
        }
        self.workers.get_mut(owner).ok_or(BackendError::NotLoaded)
    }

    fn start(&mut self, owner: &Owner, target: &Target, library: &Path) -> Result<Worker, BackendError> {
        let began = Instant::now();
        let name = format!("{} {owner}", self.name);
        match Worker::start(&self.options, target, library, &name, &self.control) {
            Ok(worker) => {
                let SandboxReport { landlock, seccomp } = &worker.sandbox;
                if landlock != "full" {
                    if self.options.require_sandbox {
                        return Err(BackendError::EngineMissing(format!(
                            "device {} is not used: its worker would run with Landlock {landlock}, and [engines] \
                             require-sandbox insists on all of it; `wasmeter doctor` says what this machine lacks",
                            self.name
                        )));
                    }
                    tracing::warn!(
                        worker = name,
                        landlock,
                        "the kernel lacks Landlock or parts of it: the system call filter alone confines this device worker"
                    );
                }
                let (pid, took) = (worker.pid(), began.elapsed());
                tracing::info!(worker = name, pid, ?took, landlock, seccomp, "device worker started");
                Ok(worker)
            }
            Err(StartError::Unusable(message)) => Err(BackendError::EngineMissing(message)),
            Err(StartError::Failed(why)) => {
                self.buried(owner);
                let busy_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                Err(BackendError::Away { message: format!("device worker did not start: {why}"), busy_ns })
            }
        }
    }

    /// A worker has died: the next one has to wait, twice as long as the last.
    fn buried(&mut self, owner: &Owner) {
        self.workers.remove(owner);
        let WorkerOptions { restart_min, restart_max, .. } = self.options;
        let last = self.restarts.get(owner).map(|restart| restart.delay);
        let delay = last.map_or(restart_min, |last| (last * 2).min(restart_max));
        let not_before = Instant::now() + delay;
        self.restarts.insert(owner.clone(), Restart { delay, not_before });
    }

    /// Waits until the owner's worker may start, or says that it may not yet: other owners' calls wait behind this
    /// one on the lane.
    fn wait_for_restart(&self, owner: &Owner) -> Result<(), BackendError> {
        let not_before = self.restarts.get(owner).map(|restart| restart.not_before);
        let left = not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        if left > LONGEST_WAIT {
            let message = format!("its worker died, and starts again in {} ms", left.as_millis());
            return Err(BackendError::Away { message, busy_ns: 0 });
        }
        thread::sleep(left);
        if self.control.is_stopped() {
            return Err(BackendError::Away { message: "the device was shut down".to_owned(), busy_ns: 0 });
        }
        Ok(())
    }
}

impl Backend for WorkerBackend {
    fn class(&self) -> DeviceClass {
        self.target.as_ref().map_or(DeviceClass::Cpu, Target::class)
    }

    fn control(&self) -> Arc<dyn DeviceControl> {
        Arc::clone(&self.control) as Arc<dyn DeviceControl>
    }

    fn load(&mut self, spec: &ModelSpec, file: File) -> Result<Loaded, BackendError> {
        let precision = match (spec.engine, self.target.as_ref().map(Target::library)) {
            (Engine::Onnx, Ok(Library::OnnxRuntime)) => Precision::F32,
            (Engine::OpenVino(precision), Ok(Library::OpenVino)) => precision,
            (_, Err(error)) => return Err(BackendError::EngineMissing(error.to_string())),
            (engine, Ok(_)) => {
                let message = format!("device {} does not run models with backend {engine}", self.name);
                return Err(BackendError::InvalidModel { message, busy_ns: 0 });
            }
        };
        let (limit, max) = (self.options.load_timeout, self.options.memory_limit);
        let (file, size) =
            sealed_copy(file, &spec.sha256, max).map_err(|error| BackendError::Source(error.to_string()))?;
        let owner = &spec.key.owner;
        let result = loop {
            let worker = self.worker(owner)?;
            let lease = worker.lease.clone();
            // Just now it may have been ended for being idle; then another one is started.
            if let Ok(_in_use) = in_use(lease.as_deref()) {
                break worker.load(&spec.key, file, size, precision, limit);
            }
        };
        if matches!(result, Err(BackendError::Lost { .. } | BackendError::Away { .. })) {
            self.buried(owner);
        }
        result
    }

    fn grown(&self, key: &ModelKey) -> Option<u64> {
        // What lies on an accelerator is not in the memory of the process.
        if self.class() == DeviceClass::Gpu {
            return None;
        }
        let (grown, file) = self.workers.get(&key.owner)?.grown(key)?;
        // OpenVINO keeps the file mapped, which is shared memory and not in the growth.
        let mapped = matches!(self.target.as_ref().map(Target::library), Ok(Library::OpenVino));
        Some(if mapped { grown.saturating_add(file) } else { grown })
    }

    fn unload(&mut self, key: &ModelKey) {
        if let Some(worker) = self.workers.get_mut(&key.owner) {
            worker.unload(key);
        }
    }

    fn run(&mut self, batch: Batch<'_>) -> Result<BatchOutput, BackendError> {
        let owner = &batch.model.owner;
        let Some(worker) = self.workers.get_mut(owner) else { return Err(BackendError::NotLoaded) };
        let lease = worker.lease.clone();
        let in_use = in_use(lease.as_deref());
        if in_use.is_err() || ended_idle(worker) {
            self.workers.remove(owner);
            return Err(BackendError::NotLoaded);
        }
        if worker.is_dead() {
            // It died while it was idle: no run is lost.
            self.buried(owner);
            return Err(BackendError::NotLoaded);
        }
        let result = worker.run(&batch, &self.control);
        match &result {
            Ok(_) => {
                worker.tidy();
                if !self.restarts.is_empty() {
                    self.restarts.remove(owner);
                }
            }
            Err(BackendError::Lost { .. } | BackendError::Away { .. }) => self.buried(owner),
            Err(_) => {}
        }
        result
    }
}

/// Whether a worker was ended because it had nothing to do, which is no death to learn from.
fn ended_idle(worker: &Worker) -> bool {
    worker.lease.as_ref().is_some_and(|lease| lease.is_ended())
}

fn in_use(lease: Option<&Lease>) -> Result<Option<InUse<'_>>, BackendError> {
    match lease {
        None => Ok(None),
        Some(lease) => lease.take().map(Some).ok_or(BackendError::NotLoaded),
    }
}
