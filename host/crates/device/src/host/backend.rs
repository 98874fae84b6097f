use std::{
    collections::HashMap,
    fs::File,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use wasmeter_inference::{
    Backend, BackendError, Batch, BatchOutput, DeviceControl, Engine, Loaded, ModelKey, ModelSpec, Owner,
};
use wasmeter_usage::DeviceClass;

use super::{
    WorkerOptions,
    control::Control,
    model::sealed_copy,
    worker::{StartError, Worker},
};
use crate::{EngineMissing, Probe, SandboxReport, find_onnxruntime};

/// A CPU device whose models run in worker processes: one for the operator's models, and one for each tenant
/// with models of its own. The lane lets only one of them work at a time.
pub struct WorkerBackend {
    name: String,
    options: WorkerOptions,
    workers: HashMap<Owner, Worker>,
    restarts: HashMap<Owner, Restart>,
    control: Arc<Control>,
}

/// When a worker may be started again after deaths.
struct Restart {
    delay: Duration,
    not_before: Instant,
}

impl WorkerBackend {
    /// A device of this name, such as `cpu:0`. Nothing is started before the first model is loaded.
    #[must_use]
    pub fn new(name: impl Into<String>, options: WorkerOptions) -> Self {
        Self {
            name: name.into(),
            options,
            workers: HashMap::new(),
            restarts: HashMap::new(),
            control: Arc::default(),
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
        if self.workers.get(owner).is_some_and(Worker::is_dead) {
            self.buried(owner);
        }
        if !self.workers.contains_key(owner) {
            let library = find_onnxruntime(self.options.onnxruntime.as_deref())
                .map_err(|error| BackendError::EngineMissing(error.to_string()))?;
            self.wait_for_restart(owner)?;
            let worker = self.start(owner, library)?;
            self.workers.insert(owner.clone(), worker);
        }
        self.workers.get_mut(owner).ok_or(BackendError::NotLoaded)
    }

    fn start(&mut self, owner: &Owner, library: PathBuf) -> Result<Worker, BackendError> {
        let began = Instant::now();
        let name = format!("{} {owner}", self.name);
        match Worker::start(&self.options, &library, &name, &self.control) {
            Ok(worker) => {
                let SandboxReport { landlock, seccomp } = &worker.sandbox;
                let (pid, took) = (worker.pid(), began.elapsed());
                tracing::info!(worker = name, pid, ?took, landlock, seccomp, "device worker started");
                Ok(worker)
            }
            Err(StartError::Engine(reason)) => {
                Err(BackendError::EngineMissing(EngineMissing { reason }.to_string()))
            }
            Err(StartError::Failed(why)) => {
                self.buried(owner);
                let busy_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                Err(BackendError::Lost { message: format!("device worker did not start: {why}"), busy_ns })
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

    /// The lane has nothing else to do meanwhile: only one worker may use the device at a time.
    fn wait_for_restart(&self, owner: &Owner) -> Result<(), BackendError> {
        loop {
            if self.control.is_stopped() {
                return Err(BackendError::Lost {
                    message: "the device was shut down".to_owned(),
                    busy_ns: 0,
                });
            }
            let not_before = self.restarts.get(owner).map(|restart| restart.not_before);
            let left = not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

impl Backend for WorkerBackend {
    fn class(&self) -> DeviceClass {
        DeviceClass::Cpu
    }

    fn control(&self) -> Arc<dyn DeviceControl> {
        Arc::clone(&self.control) as Arc<dyn DeviceControl>
    }

    fn load(&mut self, spec: &ModelSpec, file: File) -> Result<Loaded, BackendError> {
        if spec.engine != Engine::Onnx {
            let message =
                format!("device {} does not run models with backend {:?}", self.name, spec.engine.as_str());
            return Err(BackendError::InvalidModel { message, busy_ns: 0 });
        }
        let (limit, max) = (self.options.load_timeout, self.options.memory_limit);
        let (file, size) =
            sealed_copy(file, &spec.sha256, max).map_err(|error| BackendError::Source(error.to_string()))?;
        let owner = &spec.key.owner;
        let result = self.worker(owner)?.load(&spec.key, file, size, limit);
        if matches!(result, Err(BackendError::Lost { .. })) {
            self.buried(owner);
        }
        result
    }

    fn unload(&mut self, key: &ModelKey) {
        if let Some(worker) = self.workers.get_mut(&key.owner) {
            worker.unload(key);
        }
    }

    fn run(&mut self, batch: Batch<'_>) -> Result<BatchOutput, BackendError> {
        let owner = &batch.model.owner;
        let Some(worker) = self.workers.get_mut(owner) else { return Err(BackendError::NotLoaded) };
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
            Err(BackendError::Lost { .. }) => self.buried(owner),
            Err(_) => {}
        }
        result
    }
}
