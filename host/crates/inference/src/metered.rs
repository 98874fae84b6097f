use std::{fs::File, sync::Arc};

use crate::{Backend, BackendError, Batch, BatchOutput, Loaded, ModelKey, ModelSpec, device::Device};

/// A backend whose busy time is counted where it comes in, apart from who pays for it.
pub(crate) struct Metered {
    backend: Box<dyn Backend>,
    device: Arc<Device>,
}

impl Metered {
    pub(crate) fn new(backend: Box<dyn Backend>, device: Arc<Device>) -> Self {
        Self { backend, device }
    }

    pub(crate) fn load(&mut self, spec: &ModelSpec, file: File) -> Result<Loaded, BackendError> {
        let result = self.backend.load(spec, file);
        self.count(result.as_ref().map(|loaded| loaded.busy_ns));
        result
    }

    pub(crate) fn grown(&self, key: &ModelKey) -> Option<u64> {
        self.backend.grown(key)
    }

    pub(crate) fn unload(&mut self, key: &ModelKey) {
        self.backend.unload(key);
    }

    pub(crate) fn run(&mut self, batch: Batch<'_>) -> Result<BatchOutput, BackendError> {
        let result = self.backend.run(batch);
        self.count(result.as_ref().map(|output| output.busy_ns));
        result
    }

    fn count(&self, busy_ns: Result<u64, &BackendError>) {
        self.device.ledger.measured(busy_ns.unwrap_or_else(BackendError::busy_ns));
    }
}
