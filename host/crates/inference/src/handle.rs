use std::sync::Arc;

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use wasmeter_usage::DeviceClass;

use crate::{
    Account, ComputeError, ComputeRequest, Computed, ModelError, ModelKey, ModelSource, ModelSpec,
    ModelState, Signature,
    device::Device,
    entry::Entry,
    lease::Entered,
    queue::Full,
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
    pub(crate) source: Arc<dyn ModelSource>,
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
    /// What it takes of its device's memory while it is on it: a forecast until it has been loaded.
    pub bytes: u64,
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
        let model = self.known_or_new(spec)?;
        if let ModelState::Ready(signature) = model.state() {
            return Ok(signature);
        }
        self.brought(&model).await
    }

    async fn brought(&self, model: &Arc<Model>) -> Result<Arc<Signature>, ModelError> {
        let mut loading = self.bring(model);
        let outcome = loading.wait_for(Option::is_some).await;
        outcome.ok().and_then(|outcome| outcome.clone()).unwrap_or(Err(ModelError::Draining))
    }

    /// Registers a model version, and loads it if no other has to leave for it; else it is loaded when it is first
    /// computed. For one start of the host: all that fit are there before the first call.
    ///
    /// # Errors
    /// [`ModelError`].
    pub async fn load_if_room(&self, spec: ModelSpec) -> Result<(), ModelError> {
        let model = self.known_or_new(spec)?;
        if !matches!(model.state(), ModelState::Ready(_)) {
            if self.has_room(&model) {
                self.brought(&model).await?;
            } else {
                model.set(ModelState::Evicted);
            }
        }
        Ok(())
    }

    /// Registers a model version that is loaded when it is first computed. One that is known already stays as it is.
    ///
    /// # Errors
    /// [`ModelError::UnknownDevice`], [`ModelError::InUse`].
    pub fn register(&self, spec: ModelSpec) -> Result<(), ModelError> {
        let known = self.inner.registry.get(&spec.key).is_some_and(|known| known.spec == spec);
        let model = self.known_or_new(spec)?;
        if !known {
            model.set(ModelState::Evicted);
        }
        Ok(())
    }

    /// The model of this very form; else a new one in its place.
    fn known_or_new(&self, spec: ModelSpec) -> Result<Arc<Model>, ModelError> {
        let found = self.inner.devices.iter().find(|device| *device.name == *spec.device);
        let Some(device) = found else {
            return Err(ModelError::UnknownDevice { key: spec.key, device: spec.device });
        };
        if let Some(known) = self.inner.registry.get(&spec.key) {
            let state = known.state();
            // One that failed stays the same: who holds it holds what a new attempt makes of it.
            if known.spec == spec && !matches!(state, ModelState::Unloaded) {
                known.retire(false);
                if matches!(state, ModelState::Failed(_)) {
                    known.forgive();
                }
                return Ok(known);
            }
            if known.is_retired() && known.spec != spec {
                return Err(ModelError::InUse(spec.key));
            }
        }
        let file = self.inner.source.size(&spec.key).unwrap_or(0);
        let model = Arc::new(Model::new(spec, Arc::clone(device), file));
        if let Some(old) = self.inner.registry.insert(Arc::clone(&model)) {
            old.set(ModelState::Unloaded);
        }
        Ok(model)
    }

    /// Forgets a model version: nobody gets it any more, and when the last who has it is done, its memory is given
    /// back. Ends after that if nobody has it, else at once. Unknown versions are ignored.
    pub async fn unload(&self, key: &ModelKey) {
        let Some(model) = self.inner.registry.get(key) else { return };
        model.retire(true);
        if self.inner.registry.end(&model)
            && let Some(done) = self.give_back(&model)
        {
            let _ = done.await;
            model.device.room.freed();
        }
    }

    /// Where a version stands; `None` if it is not registered.
    #[must_use]
    pub fn state(&self, key: &ModelKey) -> Option<ModelState> {
        self.inner.registry.get(key).map(|model| model.state())
    }

    /// The signature of a model that is ready.
    #[must_use]
    pub fn signature(&self, key: &ModelKey) -> Option<Arc<Signature>> {
        match self.inner.registry.get(key)?.state() {
            ModelState::Ready(signature) => Some(signature),
            _ => None,
        }
    }

    /// Bytes that a model takes of its device's memory, while it is on it.
    #[must_use]
    pub fn memory(&self, key: &ModelKey) -> Option<u64> {
        let model = self.inner.registry.get(key)?;
        model.counts().then(|| model.bytes())
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
            bytes: model.bytes(),
        };
        Status {
            devices: self.inner.devices.iter().map(device).collect(),
            models: self.inner.registry.all().into_iter().map(model).collect(),
        }
    }

    /// Waits until the model is on its device, and keeps it there.
    pub(crate) async fn enter(
        &self,
        model: &Arc<Model>,
        deadline: Instant,
    ) -> Result<(Arc<Signature>, Entered), ComputeError> {
        let mut lost = false;
        loop {
            match model.enter() {
                Ok(signature) => {
                    return Ok((signature, Entered { handle: self.clone(), model: Arc::clone(model) }));
                }
                Err(ModelState::Failed(error)) => return Err(error.into()),
                Err(ModelState::Unloaded) => return Err(ComputeError::NotFound(model.spec.key.clone())),
                Err(_) => {}
            }
            let mut loading = self.bring(model);
            match timeout_at(deadline, loading.wait_for(Option::is_some)).await {
                Err(_) => return Err(ComputeError::Deadline { charged_ns: 0 }),
                Ok(Err(_)) => return Err(ComputeError::Draining),
                Ok(Ok(outcome)) => match &*outcome {
                    // A device that died over the load counts against the model; who waits for it gets another try.
                    Some(Err(ModelError::DeviceLost { .. })) if !lost && !model.is_quarantined() => {
                        lost = true;
                    }
                    Some(Err(error)) => return Err(error.clone().into()),
                    Some(Ok(_)) | None => {}
                },
            }
        }
    }

    /// Runs a model once; one that is not on its device is loaded first, which is queueing. Dropping the future takes a waiting entry out of the queue; a running one goes on
    /// until its end or its deadline, and its charge is fixed at the moment of the drop.
    ///
    /// # Errors
    /// [`ComputeError`].
    pub async fn compute(&self, request: ComputeRequest) -> Result<Computed, ComputeError> {
        let ComputeRequest { tenant, model: key, inputs, deadline, meter } = request;
        let submitted = Instant::now();
        let Some(model) = self.inner.registry.get(&key) else { return Err(ComputeError::NotFound(key)) };
        let (signature, _entered) = self.enter(&model, deadline).await?;
        let inputs = validate::arrange(&signature, inputs)?;
        let device = Arc::clone(&model.device);
        let slot = Arc::new(Slot::new(meter));
        let (reply, mut answer) = oneshot::channel();
        let id = device.number();
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
