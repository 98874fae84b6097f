use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use crate::{
    Backend, BackendError, Batch, BatchEntry, BatchOutput, ComputeError, Computed, ModelError, ModelKey,
    ModelSource, ModelState, NamedTensor, Signature,
    account::share,
    device::Device,
    queue::{Entry, Order, Work},
    registry::Model,
    slot::{Answer, Slot},
};

/// When deaths of a device mean that a model version is at fault.
#[derive(Clone, Copy)]
pub(crate) struct Quarantine {
    pub(crate) deaths: u32,
    pub(crate) window: Duration,
}

/// The one thread that drives a device.
pub(crate) struct Lane {
    device: Arc<Device>,
    backend: Box<dyn Backend>,
    source: Arc<dyn ModelSource>,
    quarantine: Quarantine,
    /// What the backend holds, as far as the lane knows.
    loaded: HashSet<ModelKey>,
    /// What it held when it died: loading these again counts as a reload.
    dropped: HashSet<ModelKey>,
    deaths: HashMap<ModelKey, Vec<Instant>>,
}

impl Lane {
    pub(crate) fn new(
        device: Arc<Device>,
        backend: Box<dyn Backend>,
        source: Arc<dyn ModelSource>,
        quarantine: Quarantine,
    ) -> Self {
        Self {
            device,
            backend,
            source,
            quarantine,
            loaded: HashSet::new(),
            dropped: HashSet::new(),
            deaths: HashMap::new(),
        }
    }

    pub(crate) fn device_name(&self) -> &str {
        &self.device.name
    }

    pub(crate) fn run(mut self) {
        // A panic in a backend must not leave callers waiting for a queue that nobody serves.
        let _close = CloseOnDrop(Arc::clone(&self.device));
        loop {
            match self.device.queue.pop() {
                Work::Closed => break,
                Work::Order(Order::Load { model, reply }) => {
                    let _ = reply.send(self.register(&model));
                }
                Work::Order(Order::Unload { key, reply }) => {
                    self.unload(&key);
                    let _ = reply.send(());
                }
                Work::Entry(entry) => self.serve(entry),
            }
        }
    }

    /// Loads a model on an operator's order.
    fn register(&mut self, model: &Model) -> Result<Arc<Signature>, ModelError> {
        match model.state() {
            ModelState::Ready(signature) => return Ok(signature),
            ModelState::Unloaded => {
                let message = "it was unloaded or replaced while it waited".to_owned();
                return Err(ModelError::Invalid { key: model.spec.key.clone(), message });
            }
            ModelState::Loading | ModelState::Failed(_) => {}
        }
        let key = &model.spec.key;
        // An operator who loads a quarantined version again means it: count anew.
        self.deaths.remove(key);
        let loaded = self.load(model).map_err(|error| self.model_error(key, error));
        match loaded {
            Ok(signature) => {
                let signature = Arc::new(signature);
                model.set(ModelState::Ready(Arc::clone(&signature)));
                Ok(signature)
            }
            Err(error) => {
                model.set(ModelState::Failed(error.clone()));
                Err(error)
            }
        }
    }

    fn unload(&mut self, key: &ModelKey) {
        self.backend.unload(key);
        self.loaded.remove(key);
        self.dropped.remove(key);
    }

    /// Puts the model onto the device. All of the time is the platform's.
    fn load(&mut self, model: &Model) -> Result<Signature, BackendError> {
        let key = &model.spec.key;
        self.loaded.remove(key);
        let file = self.source.open(key).map_err(|error| BackendError::Source(error.to_string()))?;
        if self.dropped.remove(key) {
            self.device.ledger.reloaded();
        }
        match self.backend.load(&model.spec, file) {
            Ok(loaded) => {
                self.device.ledger.settle(loaded.busy_ns, 0);
                self.loaded.insert(key.clone());
                Ok(loaded.signature)
            }
            Err(error) => {
                self.device.ledger.settle(error.busy_ns(), 0);
                if let BackendError::Lost { message, .. } = &error {
                    self.lost(model, message, true);
                }
                Err(error)
            }
        }
    }

    /// One entry, from the queue to its answer.
    fn serve(&mut self, entry: Entry) {
        let now = Instant::now();
        if entry.deadline <= now {
            return entry.refuse(ComputeError::Deadline { charged_ns: 0 });
        }
        let model = Arc::clone(&entry.model);
        let signature = match model.state() {
            ModelState::Ready(signature) => signature,
            ModelState::Failed(error) => return entry.refuse(error.into()),
            ModelState::Loading | ModelState::Unloaded => {
                return entry.refuse(ComputeError::NotFound(model.spec.key.clone()));
            }
        };
        if !self.loaded.contains(&model.spec.key)
            && let Err(error) = self.reload(&model, &signature)
        {
            return entry.refuse(error);
        }
        let Entry { tenant, inputs, deadline, submitted, slot, reply, .. } = entry;
        let batch = [BatchEntry { tenant, inputs }];
        let mut reloaded = false;
        let (run, queue_ns, result) = loop {
            let started = Instant::now();
            // A load may have taken longer than the caller wanted to wait.
            if deadline <= started {
                slot.settle(0, |_| Err(ComputeError::Deadline { charged_ns: 0 }), reply);
                return;
            }
            let run = self.device.number();
            if !slot.start(run) {
                return;
            }
            let result = self.backend.run(Batch { run, model: &model.spec.key, entries: &batch });
            if !matches!(result, Err(BackendError::NotLoaded)) || reloaded {
                break (run, nanos(started.saturating_duration_since(submitted)), result);
            }
            // The device died while it was idle: no run was lost, so the caller need not notice.
            reloaded = true;
            if !slot.back_to_waiting() {
                return;
            }
            self.drop_models(&model.spec.key);
            if let Err(error) = self.reload(&model, &signature) {
                slot.settle(0, |_| Err(error), reply);
                return;
            }
        };
        self.device.queue_seconds.record(seconds(queue_ns));
        self.finish(&model, &signature, run, queue_ns, result, &slot, reply);
    }

    /// Books the run and answers the caller.
    #[allow(clippy::too_many_arguments, reason = "the parts of one entry, taken apart a few lines above")]
    fn finish(
        &mut self,
        model: &Model,
        signature: &Signature,
        run: u64,
        queue_ns: u64,
        result: Result<BatchOutput, BackendError>,
        slot: &Slot,
        reply: oneshot::Sender<Answer>,
    ) {
        let busy_ns = match &result {
            Ok(output) => output.busy_ns,
            Err(error) => error.busy_ns(),
        };
        if let Err(BackendError::Lost { message, .. }) = &result {
            self.lost(model, message, !self.device.was_interrupted(run));
        }
        let device = Arc::clone(&self.device);
        let outcome = result
            .map_err(|error| ComputeError::from_backend(&device.name, &model.spec.key, error))
            .and_then(|output| name_outputs(signature, output));
        // Only work that gave outputs is charged; a caller who left in time has fixed its own charge.
        let charged_ns = if outcome.is_ok() { share(busy_ns, 1) } else { 0 };
        if outcome.is_ok() {
            device.ledger.computed(1);
            device.compute_seconds.record(seconds(busy_ns));
        }
        let answer = |charged_ns| {
            device.ledger.settle(busy_ns, charged_ns);
            let outputs = outcome?;
            Ok(Computed {
                outputs,
                device: Arc::clone(&device.name),
                class: device.class,
                charged_ns,
                queue_ns,
            })
        };
        if let Some(charged_ns) = slot.settle(charged_ns, answer, reply) {
            // The caller's figure came from the same clock, read earlier; should it be ahead all the same,
            // the measured time is at least what was charged.
            device.ledger.settle(busy_ns.max(charged_ns), charged_ns);
        }
    }

    /// Loads a model that is registered as ready but not on the device (any more).
    fn reload(&mut self, model: &Model, signature: &Signature) -> Result<(), ComputeError> {
        let key = &model.spec.key;
        match self.load(model) {
            Ok(now) if now == *signature => Ok(()),
            Ok(_) => {
                self.unload(key);
                Err(ComputeError::Engine(format!(
                    "model {key} has other inputs or outputs than when it was loaded"
                )))
            }
            Err(error) => {
                if matches!(error, BackendError::InvalidModel { .. }) {
                    model.set(ModelState::Failed(self.model_error(key, error.clone())));
                }
                Err(ComputeError::from_backend(&self.device.name, key, error))
            }
        }
    }

    /// The worker that held this model is gone, and with it all models of the same owner.
    fn drop_models(&mut self, key: &ModelKey) {
        let (gone, kept) = self.loaded.drain().partition(|other| other.owner == key.owner);
        self.loaded = kept;
        let gone: HashSet<ModelKey> = gone;
        self.dropped.extend(gone);
    }

    fn lost(&mut self, model: &Model, message: &str, model_at_fault: bool) {
        let key = &model.spec.key;
        self.device.ledger.lost();
        self.drop_models(key);
        let device = &*self.device.name;
        if !model_at_fault {
            tracing::info!(device, model = %key, message, "device ended: a run outlived its deadline or the shutdown");
            return;
        }
        tracing::warn!(device, model = %key, message, "device lost");
        let now = Instant::now();
        let deaths = self.deaths.entry(key.clone()).or_default();
        deaths.retain(|death| now.saturating_duration_since(*death) < self.quarantine.window);
        deaths.push(now);
        let count = u32::try_from(deaths.len()).unwrap_or(u32::MAX);
        if count >= self.quarantine.deaths {
            tracing::warn!(device, model = %key, deaths = count, "model quarantined");
            model.set(ModelState::Failed(ModelError::Quarantined { key: key.clone(), deaths: count }));
        }
    }

    fn model_error(&self, key: &ModelKey, error: BackendError) -> ModelError {
        let key = key.clone();
        match error {
            BackendError::Source(message) => ModelError::Source { key, message },
            BackendError::EngineMissing(message) => ModelError::EngineMissing(message),
            BackendError::Lost { message, .. } => {
                ModelError::DeviceLost { device: self.device.name.to_string(), message }
            }
            error => ModelError::Invalid { key, message: error.to_string() },
        }
    }
}

fn name_outputs(signature: &Signature, output: BatchOutput) -> Result<Vec<NamedTensor>, ComputeError> {
    let mut entries = output.entries;
    match (entries.pop(), entries.is_empty()) {
        (Some(tensors), true) if tensors.len() == signature.outputs.len() => {
            let named = signature.outputs.iter().zip(tensors);
            Ok(named.map(|(port, tensor)| NamedTensor { name: port.name.clone(), tensor }).collect())
        }
        _ => Err(ComputeError::Engine("the device gave another number of outputs than the model has".into())),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[allow(clippy::cast_precision_loss, reason = "a histogram needs no exact nanoseconds")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

struct CloseOnDrop(Arc<Device>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}
