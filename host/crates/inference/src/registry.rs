use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;

use crate::{ModelError, ModelKey, ModelSpec, Signature, device::Device, grouping::Grouping};

/// Where a model version stands.
#[derive(Clone, Debug)]
pub enum ModelState {
    /// Waits for its device, or is being loaded.
    Loading,
    /// Can be computed.
    Ready(Arc<Signature>),
    /// Cannot; says why.
    Failed(ModelError),
    /// Was unloaded; entries that still wait for it are refused.
    Unloaded,
}

/// A registered model version.
pub(crate) struct Model {
    pub(crate) spec: ModelSpec,
    pub(crate) device: Arc<Device>,
    pub(crate) grouping: Grouping,
    state: RwLock<ModelState>,
}

impl Model {
    pub(crate) fn new(spec: ModelSpec, device: Arc<Device>) -> Self {
        let grouping = Grouping::new(spec.batching.clone());
        Self { spec, device, grouping, state: RwLock::new(ModelState::Loading) }
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

    pub(crate) fn insert(&self, model: Arc<Model>) -> Option<Arc<Model>> {
        self.models.write().insert(model.spec.key.clone(), model)
    }

    pub(crate) fn remove(&self, key: &ModelKey) -> Option<Arc<Model>> {
        self.models.write().remove(key)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Model>> {
        let mut all: Vec<_> = self.models.read().values().cloned().collect();
        all.sort_by(|a, b| a.spec.key.cmp(&b.spec.key));
        all
    }
}
