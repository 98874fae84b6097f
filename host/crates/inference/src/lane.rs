use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{runtime, time::Instant};

use crate::{
    Backend, BackendError, ComputeError, ModelError, ModelKey, ModelSource, ModelState, Signature,
    device::Device,
    metered::Metered,
    queue::{Order, Work},
    registry::Model,
};

/// How often work goes to a device that dies before it takes the work up.
pub(crate) const ATTEMPTS: u32 = 3;

/// When deaths of a device mean that a model version is at fault.
#[derive(Clone, Copy)]
pub(crate) struct Quarantine {
    pub(crate) deaths: u32,
    pub(crate) window: Duration,
}

/// The one thread that drives a device.
pub(crate) struct Lane {
    pub(crate) device: Arc<Device>,
    pub(crate) backend: Metered,
    source: Arc<dyn ModelSource>,
    pub(crate) quarantine: Quarantine,
    warm_up: bool,
    /// What the backend holds, as far as the lane knows.
    pub(crate) loaded: HashSet<ModelKey>,
    /// What it held when it died: loading these again counts as a reload.
    dropped: HashSet<ModelKey>,
    /// Deaths under batches of several entries.
    pub(crate) batch_deaths: HashMap<ModelKey, Vec<Instant>>,
}

impl Lane {
    pub(crate) fn new(
        device: Arc<Device>,
        backend: Box<dyn Backend>,
        source: Arc<dyn ModelSource>,
        quarantine: Quarantine,
        warm_up: bool,
    ) -> Self {
        let backend = Metered::new(backend, Arc::clone(&device));
        Self {
            device,
            backend,
            source,
            quarantine,
            warm_up,
            loaded: HashSet::new(),
            dropped: HashSet::new(),
            batch_deaths: HashMap::new(),
        }
    }

    pub(crate) fn device_name(&self) -> &str {
        &self.device.name
    }

    pub(crate) fn run(mut self) {
        // A panic in a backend must not leave callers waiting for a queue that nobody serves.
        let _close = CloseOnDrop(Arc::clone(&self.device));
        let aide = self.start_aide();
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
                Work::Order(Order::Measure(measure)) => self.measure(measure),
                Work::Batch(batch) => self.serve(batch),
            }
        }
        self.device.queue.retire();
        if aide.is_some_and(|aide| aide.join().is_err()) {
            tracing::error!(device = &*self.device.name, "the aide of a device lane panicked");
        }
        let account = self.device.ledger.snapshot();
        if account.busy_ns() != account.measured_ns {
            tracing::error!(
                device = &*self.device.name,
                charged_ns = account.charged_ns,
                platform_ns = account.platform_ns,
                measured_ns = account.measured_ns,
                "charged and platform time do not add up to the device's busy time"
            );
        }
    }

    /// The thread that works while the lane is inside a run. Without one the lane does all by itself.
    fn start_aide(&self) -> Option<JoinHandle<()>> {
        let device = Arc::clone(&self.device);
        let runtime = runtime::Handle::try_current();
        let aide = move || {
            let _clock = runtime.as_ref().map(runtime::Handle::enter);
            let _gone = GoneOnDrop(&device);
            device.queue.assist();
        };
        match thread::Builder::new().name(format!("aide-{}", self.device.name)).spawn(aide) {
            Ok(aide) => Some(aide),
            Err(error) => {
                tracing::warn!(device = &*self.device.name, %error, "no thread for the aide of a device lane");
                None
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
            ModelState::Loading | ModelState::Evicted | ModelState::Failed(_) => {}
        }
        let key = &model.spec.key;
        let loaded = self.load(model).map_err(|error| self.model_error(key, error));
        match loaded {
            Ok(signature) => {
                let signature = Arc::new(signature);
                if self.warm_up {
                    self.warm_up(model, &signature);
                }
                model.measured(self.backend.grown(key));
                model.set(ModelState::Ready(Arc::clone(&signature)));
                Ok(signature)
            }
            Err(error) => {
                model.set_failed(&error);
                Err(error)
            }
        }
    }

    fn unload(&mut self, key: &ModelKey) {
        self.backend.unload(key);
        self.loaded.remove(key);
        self.dropped.remove(key);
    }

    /// Puts the model onto the device, if need be with another worker where one died before it read the order. All of
    /// the time is the platform's.
    fn load(&mut self, model: &Model) -> Result<Signature, BackendError> {
        for _ in 1..ATTEMPTS {
            match self.load_once(model) {
                Err(BackendError::Away { .. }) => {}
                result => return result,
            }
        }
        self.load_once(model)
    }

    fn load_once(&mut self, model: &Model) -> Result<Signature, BackendError> {
        let key = &model.spec.key;
        self.loaded.remove(key);
        let file = self.source.open(key).map_err(|error| BackendError::Source(error.to_string()))?;
        if self.dropped.remove(key) {
            self.device.ledger.reloaded();
        }
        match self.backend.load(&model.spec, file) {
            Ok(loaded) => {
                self.device.ledger.settle(loaded.busy_ns, 0);
                model.grouping.loaded(&loaded.signature, &loaded.batching);
                self.loaded.insert(key.clone());
                Ok(loaded.signature)
            }
            Err(error) => {
                self.device.ledger.settle(error.busy_ns(), 0);
                match &error {
                    BackendError::Lost { message, .. } => self.lost(model, message, true),
                    BackendError::Away { .. } => self.drop_models(key),
                    _ => {}
                }
                Err(error)
            }
        }
    }

    /// Loads a model that is registered as ready but not on the device (any more). If it kills the device, that counts
    /// against the model, and is tried once more for those who wait: they have done nothing yet.
    pub(crate) fn reload(&mut self, model: &Model, signature: &Signature) -> Result<(), ComputeError> {
        let key = &model.spec.key;
        let mut loaded = self.load(model);
        if matches!(loaded, Err(BackendError::Lost { .. })) && !model.is_quarantined() {
            loaded = self.load(model);
        }
        match loaded {
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
    pub(crate) fn drop_models(&mut self, key: &ModelKey) {
        let (gone, kept) = self.loaded.drain().partition(|other| other.owner == key.owner);
        self.loaded = kept;
        let gone: HashSet<ModelKey> = gone;
        self.dropped.extend(gone);
    }

    pub(crate) fn lost(&mut self, model: &Model, message: &str, model_at_fault: bool) {
        let key = &model.spec.key;
        self.device.ledger.lost();
        self.drop_models(key);
        let device = &*self.device.name;
        if !model_at_fault {
            tracing::info!(device, model = %key, message, "device ended: a run outlived its deadline or the shutdown, or one entry of a batch is at fault");
            return;
        }
        tracing::warn!(device, model = %key, message, "device lost");
        let count = model.died(self.quarantine.window);
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
            BackendError::Away { message, .. } => {
                ModelError::DeviceAway { device: self.device.name.to_string(), message }
            }
            BackendError::Lost { message, .. } => {
                ModelError::DeviceLost { device: self.device.name.to_string(), message }
            }
            error => ModelError::Invalid { key, message: error.to_string() },
        }
    }
}

struct CloseOnDrop(Arc<Device>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.queue.retire();
    }
}

/// A panic in the aide must not leave callers waiting for answers that nobody gives.
struct GoneOnDrop<'a>(&'a Device);

impl Drop for GoneOnDrop<'_> {
    fn drop(&mut self) {
        self.0.queue.aide_gone();
    }
}
