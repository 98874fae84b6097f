use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tokio::{sync::watch, time::Instant};

use crate::{ModelError, ModelKey, ModelSpec, Signature, device::Device, grouping::Grouping};

/// Where a model version stands.
#[derive(Clone, Debug)]
pub enum ModelState {
    /// Waits for its device, or is being loaded.
    Loading,
    /// Can be computed.
    Ready(Arc<Signature>),
    /// Is not on its device: it made room for another, or nobody has asked for it yet. The next compute loads it.
    Evicted,
    /// Cannot; says why.
    Failed(ModelError),
    /// Was unloaded; entries that still wait for it are refused.
    Unloaded,
}

/// How a load ended; `None` until then.
pub(crate) type Loading = watch::Receiver<Option<Result<Arc<Signature>, ModelError>>>;

/// A registered model version.
pub(crate) struct Model {
    pub(crate) spec: ModelSpec,
    pub(crate) device: Arc<Device>,
    pub(crate) grouping: Grouping,
    /// Bytes of its file.
    file: u64,
    /// What it takes of its device's memory: a forecast until it has been loaded.
    bytes: AtomicU64,
    /// Its device keeps this much memory free for the load under way.
    booked: AtomicBool,
    state: RwLock<ModelState>,
    /// The load under way: all who need the model wait for the same one.
    pub(crate) loading: Mutex<Option<Loading>>,
    /// Computes under way.
    running: AtomicUsize,
    /// Who may compute it even after it was removed.
    leases: AtomicUsize,
    retired: AtomicBool,
    /// When the device died under it. Here and not on the lane, so that the count stays while the model is evicted, and
    /// goes with it when it is pushed again.
    deaths: Mutex<Vec<Instant>>,
    history: Mutex<History>,
}

/// What eviction judges by.
#[derive(Clone, Copy)]
struct History {
    last_use: Instant,
    load_time: Duration,
}

impl Model {
    /// A model whose file has so many bytes.
    pub(crate) fn new(spec: ModelSpec, device: Arc<Device>, file: u64) -> Self {
        let grouping = Grouping::new(spec.batching.clone());
        let bytes = AtomicU64::new(device.room.forecast(file));
        Self {
            spec,
            device,
            grouping,
            file,
            bytes,
            booked: AtomicBool::new(false),
            state: RwLock::new(ModelState::Loading),
            loading: Mutex::default(),
            running: AtomicUsize::new(0),
            leases: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            deaths: Mutex::default(),
            history: Mutex::new(History { last_use: Instant::now(), load_time: Duration::ZERO }),
        }
    }

    pub(crate) fn state(&self) -> ModelState {
        self.state.read().clone()
    }

    pub(crate) fn set(&self, state: ModelState) {
        let mut now = self.state.write();
        // Unloaded is final: a load that ends late must not bring the model back.
        if !matches!(*now, ModelState::Unloaded) {
            *now = state;
        }
    }

    /// A load failed. What may pass is no failure of the model, and the next compute tries again; and nothing hides a
    /// quarantine.
    pub(crate) fn set_failed(&self, error: &ModelError) {
        if self.is_quarantined() {
            return;
        }
        self.set(match error {
            ModelError::NoRoom { .. }
            | ModelError::Overloaded { .. }
            | ModelError::DeviceLost { .. }
            | ModelError::DeviceAway { .. } => ModelState::Evicted,
            error => ModelState::Failed(error.clone()),
        });
    }

    /// The device died under the model: how often it did within the window until now.
    pub(crate) fn died(&self, window: Duration) -> u32 {
        let now = Instant::now();
        let mut deaths = self.deaths.lock();
        deaths.retain(|death| now.saturating_duration_since(*death) < window);
        deaths.push(now);
        u32::try_from(deaths.len()).unwrap_or(u32::MAX)
    }

    /// Somebody means it when a version that failed is loaded again: its deaths count no more.
    pub(crate) fn forgive(&self) {
        self.deaths.lock().clear();
        self.grouping.forgive();
    }

    pub(crate) fn is_quarantined(&self) -> bool {
        matches!(&*self.state.read(), ModelState::Failed(ModelError::Quarantined { .. }))
    }

    /// What it takes of its device's memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What its load was seen to take, as far as that can be seen. Never less than its file: memory that the engine got
    /// from another model's end is not seen.
    pub(crate) fn measured(&self, bytes: Option<u64>) {
        if let Some(bytes) = bytes {
            self.bytes.store(bytes.max(self.file), Ordering::Relaxed);
        }
    }

    pub(crate) fn book(&self, booked: bool) {
        self.booked.store(booked, Ordering::Release);
    }

    /// Whether its bytes are in the books of its device.
    pub(crate) fn counts(&self) -> bool {
        matches!(*self.state.read(), ModelState::Ready(_)) || self.booked.load(Ordering::Acquire)
    }

    /// Counts a compute in, so that the model stays where it is; only a model that is on its device takes one.
    pub(crate) fn enter(&self) -> Result<Arc<Signature>, ModelState> {
        let state = self.state.read();
        match &*state {
            ModelState::Ready(signature) => {
                self.running.fetch_add(1, Ordering::AcqRel);
                Ok(Arc::clone(signature))
            }
            other => Err(other.clone()),
        }
    }

    /// Counts a compute out.
    pub(crate) fn exit(&self) {
        self.history.lock().last_use = Instant::now();
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.device.room.freed();
        }
    }

    /// Takes the model off the books of its device, unless it is in use.
    pub(crate) fn evict(&self) -> bool {
        let mut state = self.state.write();
        let idle = matches!(*state, ModelState::Ready(_)) && !self.is_busy();
        if idle {
            *state = ModelState::Evicted;
        }
        idle
    }

    pub(crate) fn is_busy(&self) -> bool {
        // The file of a removed model may be gone: whoever still holds it could not have it loaded again.
        self.running.load(Ordering::Acquire) > 0 || self.is_retired()
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Marks the model as removed, or as there again.
    pub(crate) fn retire(&self, retired: bool) {
        self.retired.store(retired, Ordering::Release);
    }

    pub(crate) fn lease(&self) {
        self.leases.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn unlease(&self) {
        self.leases.fetch_sub(1, Ordering::AcqRel);
    }

    /// Ends a removed model, if nobody holds it any more.
    fn end(&self) -> bool {
        let mut state = self.state.write();
        let over = self.is_retired()
            && self.leases.load(Ordering::Acquire) == 0
            && self.running.load(Ordering::Acquire) == 0;
        if over {
            *state = ModelState::Unloaded;
        }
        over
    }

    pub(crate) fn took(&self, load_time: Duration) {
        *self.history.lock() = History { last_use: Instant::now(), load_time };
    }

    /// How well the model can be spared: its idle time in units of the time that a load takes.
    pub(crate) fn spare(&self, now: Instant) -> f64 {
        let History { last_use, load_time } = *self.history.lock();
        // Below a millisecond, loads differ by chance only.
        let reload = load_time.max(Duration::from_millis(1));
        now.saturating_duration_since(last_use).as_secs_f64() / reload.as_secs_f64()
    }
}

/// The models that this host knows.
#[derive(Default)]
pub(crate) struct Registry {
    models: RwLock<HashMap<ModelKey, Arc<Model>>>,
}

impl Registry {
    pub(crate) fn get(&self, key: &ModelKey) -> Option<Arc<Model>> {
        self.models.read().get(key).cloned()
    }

    /// The model with a lease on it; none on a model that was removed.
    pub(crate) fn lease(&self, key: &ModelKey) -> Option<Arc<Model>> {
        let models = self.models.read();
        let model = models.get(key).filter(|model| !model.is_retired())?;
        model.lease();
        Some(Arc::clone(model))
    }

    pub(crate) fn insert(&self, model: Arc<Model>) -> Option<Arc<Model>> {
        self.models.write().insert(model.spec.key.clone(), model)
    }

    /// Takes out a removed model that nobody holds any more; true for the one who did it.
    pub(crate) fn end(&self, model: &Arc<Model>) -> bool {
        // Leases are given under this lock, so that none comes in between.
        let mut models = self.models.write();
        let known = models.get(&model.spec.key).is_some_and(|known| Arc::ptr_eq(known, model));
        let over = known && model.end();
        if over {
            models.remove(&model.spec.key);
        }
        over
    }

    pub(crate) fn all(&self) -> Vec<Arc<Model>> {
        let mut all: Vec<_> = self.models.read().values().cloned().collect();
        all.sort_by(|a, b| a.spec.key.cmp(&b.spec.key));
        all
    }
}
