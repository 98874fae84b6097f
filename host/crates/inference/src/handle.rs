use std::sync::Arc;

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use wasmeter_usage::DeviceClass;

use crate::{
    Account, ComputeError, ComputeRequest, Computed, ModelError, ModelKey, ModelSpec, ModelState, Signature,
    device::Device,
    entry::Entry,
    queue::{Full, Order},
    registry::{Model, Registry},
    slot::{Leave, Slot},
    validate,
};

/// The way in: cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) devices: Vec<Arc<Device>>,
    pub(crate) registry: Registry,
}

/// One device.
#[derive(Clone, Debug)]
pub struct DeviceStatus {
    /// Name, such as `cpu:0`.
    pub name: Arc<str>,
    /// Which meter its time belongs to.
    pub class: DeviceClass,
    /// Computes that wait.
    pub queued: usize,
    /// Who paid for its time.
    pub account: Account,
}

/// One model version.
#[derive(Clone, Debug)]
pub struct ModelStatus {
    /// Which.
    pub key: ModelKey,
    /// Its device.
    pub device: Arc<str>,
    /// Where it stands.
    pub state: ModelState,
}

/// All devices and models.
#[derive(Clone, Debug)]
pub struct Status {
    /// Devices in the configured order.
    pub devices: Vec<DeviceStatus>,
    /// Models by key.
    pub models: Vec<ModelStatus>,
}

impl Handle {
    /// Registers a model version and loads it. A model that fails stays registered as failed, so that
    /// computes can say why; loading again tries again.
    ///
    /// # Errors
    /// [`ModelError`].
    pub async fn load(&self, spec: ModelSpec) -> Result<Arc<Signature>, ModelError> {
        let found = self.inner.devices.iter().find(|device| *device.name == *spec.device);
        let Some(device) = found else {
            return Err(ModelError::UnknownDevice { key: spec.key, device: spec.device });
        };
        let model = match self.inner.registry.get(&spec.key) {
            Some(known) if known.spec == spec => match known.state() {
                ModelState::Ready(signature) => return Ok(signature),
                ModelState::Loading => known,
                ModelState::Failed(_) | ModelState::Unloaded => self.register(spec, device),
            },
            _ => self.register(spec, device),
        };
        let (reply, answer) = oneshot::channel();
        let failed = match device.queue.order(Order::Load { model: Arc::clone(&model), reply }) {
            Ok(()) => match answer.await {
                Ok(answer) => return answer,
                Err(_) => ModelError::Draining,
            },
            Err(Full::Full) => ModelError::Overloaded { device: device.name.to_string() },
            Err(Full::Closed) => ModelError::Draining,
        };
        model.set(ModelState::Failed(failed.clone()));
        Err(failed)
    }

    fn register(&self, spec: ModelSpec, device: &Arc<Device>) -> Arc<Model> {
        let model = Arc::new(Model::new(spec, Arc::clone(device)));
        if let Some(old) = self.inner.registry.insert(Arc::clone(&model)) {
            old.set(ModelState::Unloaded);
        }
        model
    }

    /// Forgets a model version: computes that wait for it are refused, its memory is given back. Unknown
    /// versions are ignored.
    pub async fn unload(&self, key: &ModelKey) {
        let Some(model) = self.inner.registry.remove(key) else { return };
        model.set(ModelState::Unloaded);
        let (reply, done) = oneshot::channel();
        // A full or closed queue leaves the model to the next restart of the worker.
        if model.device.queue.order(Order::Unload { key: key.clone(), reply }).is_ok() {
            let _ = done.await;
        }
    }

    /// The signature of a model that is ready.
    #[must_use]
    pub fn signature(&self, key: &ModelKey) -> Option<Arc<Signature>> {
        match self.inner.registry.get(key)?.state() {
            ModelState::Ready(signature) => Some(signature),
            _ => None,
        }
    }

    /// The device of a registered model and the meter of its time.
    #[must_use]
    pub fn placement(&self, key: &ModelKey) -> Option<(Arc<str>, DeviceClass)> {
        let model = self.inner.registry.get(key)?;
        Some((Arc::clone(&model.device.name), model.device.class))
    }

    /// Why the entries of a model are not batched; `None` where they are, or where it is not known yet.
    #[must_use]
    pub fn batching_off(&self, key: &ModelKey) -> Option<String> {
        self.inner.registry.get(key)?.grouping.off()
    }

    /// All devices and models.
    #[must_use]
    pub fn status(&self) -> Status {
        let device = |device: &Arc<Device>| DeviceStatus {
            name: Arc::clone(&device.name),
            class: device.class,
            queued: device.queue.len(),
            account: device.ledger.snapshot(),
        };
        let model = |model: Arc<Model>| ModelStatus {
            key: model.spec.key.clone(),
            device: Arc::clone(&model.device.name),
            state: model.state(),
        };
        Status {
            devices: self.inner.devices.iter().map(device).collect(),
            models: self.inner.registry.all().into_iter().map(model).collect(),
        }
    }

    /// Runs a model once. Dropping the future takes a waiting entry out of the queue; a running one goes on
    /// until its end or its deadline, and its charge is fixed at the moment of the drop.
    ///
    /// # Errors
    /// [`ComputeError`].
    pub async fn compute(&self, request: ComputeRequest) -> Result<Computed, ComputeError> {
        let ComputeRequest { tenant, model: key, inputs, deadline, meter } = request;
        let Some(model) = self.inner.registry.get(&key) else { return Err(ComputeError::NotFound(key)) };
        let signature = match model.state() {
            ModelState::Ready(signature) => signature,
            ModelState::Failed(error) => return Err(error.into()),
            ModelState::Loading | ModelState::Unloaded => return Err(ComputeError::NotFound(key)),
        };
        let inputs = validate::arrange(&signature, inputs)?;
        let device = Arc::clone(&model.device);
        let slot = Arc::new(Slot::new(meter));
        let (reply, mut answer) = oneshot::channel();
        let id = device.number();
        let submitted = Instant::now();
        let plan = model.grouping.plan(&inputs);
        let (padded, debited_ns) = (None, 0);
        let entry = Entry {
            id,
            tenant,
            model,
            inputs,
            padded,
            plan,
            deadline,
            submitted,
            debited_ns,
            slot: Arc::clone(&slot),
            reply,
        };
        match device.queue.push(entry) {
            Ok(()) => {}
            Err(Full::Full) => return Err(ComputeError::Overloaded(Arc::clone(&device.name))),
            Err(Full::Closed) => return Err(ComputeError::Draining),
        }
        let waiter = Waiter { device, slot, id };
        match timeout_at(deadline, &mut answer).await {
            Ok(Ok(answer)) => answer,
            // The lane is gone: only a panic or a shutdown ends it with entries unanswered.
            Ok(Err(_)) => Err(ComputeError::Draining),
            Err(_) => match waiter.leave() {
                Leave::Waiting => Err(ComputeError::Deadline { charged_ns: 0 }),
                Leave::Running { charged_ns, .. } => Err(ComputeError::Deadline { charged_ns }),
                // It is being answered this moment.
                Leave::Settled => answer.await.unwrap_or(Err(ComputeError::Draining)),
            },
        }
    }
}

/// The caller's end of an entry; dropping it means that nobody waits any more.
struct Waiter {
    device: Arc<Device>,
    slot: Arc<Slot>,
    id: u64,
}

impl Waiter {
    fn leave(&self) -> Leave {
        let leave = self.slot.leave(|run| self.device.control.busy_ns(run));
        match leave {
            Leave::Waiting => self.device.queue.remove(self.id),
            Leave::Running { run, hopeless, .. } => self.device.watch_run(run, hopeless),
            Leave::Settled => {}
        }
        leave
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.leave();
    }
}
