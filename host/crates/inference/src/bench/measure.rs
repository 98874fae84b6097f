use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use crate::{
    BackendError, Batch, BatchEntry, ComputeError, ModelState, bench::refusal, done::nanos, lane::Lane,
    registry::Model,
};

/// One run to be measured.
pub(crate) struct Measure {
    pub(crate) model: Arc<Model>,
    pub(crate) entries: Arc<[BatchEntry]>,
    /// When the device is ended.
    pub(crate) longest: Duration,
    pub(crate) reply: oneshot::Sender<Result<Measured, ComputeError>>,
}

/// One run, measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) busy_ns: u64,
    pub(crate) wall_ns: u64,
}

impl Lane {
    /// Runs a batch for nobody but its figures, which teach nothing to calibration: its inputs are made up.
    pub(crate) fn measure(&mut self, measure: Measure) {
        let Measure { model, entries, longest, reply } = measure;
        if reply.is_closed() {
            return;
        }
        let measured = self.measured(&model, &entries, longest);
        let _ = reply.send(measured);
    }

    fn measured(
        &mut self,
        model: &Model,
        entries: &[BatchEntry],
        longest: Duration,
    ) -> Result<Measured, ComputeError> {
        let key = &model.spec.key;
        let ModelState::Ready(signature) = model.state() else {
            return Err(ComputeError::NotFound(key.clone()));
        };
        if !self.loaded.contains(key) {
            self.reload(model, &signature)?;
        }
        let mut result = self.run_measured(model, entries, longest);
        if matches!(result, Err(BackendError::NotLoaded)) {
            // The device was restarted while it was idle.
            self.drop_models(key);
            self.reload(model, &signature)?;
            result = self.run_measured(model, entries, longest);
        }
        result.map_err(|error| refusal(model, error))
    }

    fn run_measured(
        &mut self,
        model: &Model,
        entries: &[BatchEntry],
        longest: Duration,
    ) -> Result<Measured, BackendError> {
        let run = self.device.number();
        let began = Instant::now();
        self.device.watch_run(run, began + longest);
        let result = self.backend.run(Batch { run, model: &model.spec.key, entries });
        let wall_ns = nanos(began.elapsed());
        match result {
            Ok(output) => {
                self.device.ledger.settle(output.busy_ns, 0);
                Ok(Measured { busy_ns: output.busy_ns, wall_ns })
            }
            Err(error) => {
                self.device.ledger.settle(error.busy_ns(), 0);
                if let BackendError::Lost { message, .. } = &error {
                    // Made-up inputs are no reason to quarantine a model.
                    self.lost(model, message, false);
                }
                Err(error)
            }
        }
    }
}
