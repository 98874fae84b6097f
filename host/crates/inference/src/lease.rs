use std::sync::Arc;

use crate::{Handle, ModelKey, handle::Inner, registry::Model};

/// Holds a model version: until the lease is dropped, the version can be computed, removed or not. Take one with the
/// first use of a name, so that work that began with a version ends with it.
pub struct Lease {
    handle: Handle,
    model: Arc<Model>,
}

impl Lease {
    /// The version.
    #[must_use]
    pub fn key(&self) -> &ModelKey {
        &self.model.spec.key
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.model.unlease();
        self.handle.end_if_over(&self.model);
    }
}

/// A compute under way.
pub(crate) struct Entered {
    pub(crate) handle: Handle,
    pub(crate) model: Arc<Model>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.model.exit();
        self.handle.end_if_over(&self.model);
    }
}

impl Handle {
    /// Holds a version that is there; none for one that was removed.
    #[must_use]
    pub fn lease(&self, key: &ModelKey) -> Option<Lease> {
        let Inner { registry, .. } = &*self.inner;
        registry.lease(key).map(|model| Lease { handle: self.clone(), model })
    }

    /// Forgets a removed version when its last user is gone.
    pub(crate) fn end_if_over(&self, model: &Arc<Model>) {
        if model.is_retired() && self.inner.registry.end(model) {
            self.give_back(model);
            model.device.room.freed();
        }
    }
}
