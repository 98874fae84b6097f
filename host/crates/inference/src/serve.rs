use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    BackendError, Batch, BatchEntry, BatchOutput, ComputeError, ModelState, Signature,
    done::{Done, fail},
    entry::{Entry, pad},
    former::Item,
    lane::{ATTEMPTS, Lane},
    registry::Model,
    slot::{Part, Running},
};

/// A run that takes this many times as long as expected, and somebody's deadline with it, is ended.
const PATIENCE: u32 = 10;

impl Lane {
    /// One batch, from the queue to its answers. All entries are of one model.
    pub(crate) fn serve(&mut self, batch: Vec<Entry>) {
        let Some(model) = batch.first().map(|entry| Arc::clone(&entry.model)) else { return };
        let refuse = |batch: Vec<Entry>, error: ComputeError| {
            batch.into_iter().for_each(|entry| entry.refuse(error.clone()));
        };
        let signature = match model.state() {
            ModelState::Ready(signature) => signature,
            ModelState::Failed(error) => return refuse(batch, error.into()),
            ModelState::Loading | ModelState::Evicted | ModelState::Unloaded => {
                return refuse(batch, ComputeError::NotFound(model.spec.key.clone()));
            }
        };
        if !self.loaded.contains(&model.spec.key)
            && let Err(error) = self.reload(&model, &signature)
        {
            return refuse(batch, error);
        }
        let mut waiting = batch;
        let mut attempts = 0;
        loop {
            attempts += 1;
            // A load may have taken longer than a caller wanted to wait.
            let Some(mut flight) = self.take_off(waiting) else { return };
            let result = self.fly(&model, &mut flight);
            let busy_ns = match &result {
                Err(BackendError::NotLoaded) if attempts < ATTEMPTS => 0,
                Err(BackendError::Away { busy_ns, .. }) if attempts < ATTEMPTS => *busy_ns,
                _ => return self.land(&model, &signature, flight, result),
            };
            // The device died before it took the run up, so the callers need not notice.
            waiting = self.take_back(flight.entries, busy_ns);
            if waiting.is_empty() {
                return;
            }
            self.drop_models(&model.spec.key);
            if let Err(error) = self.reload(&model, &signature) {
                return refuse(waiting, error);
            }
        }
    }

    /// Marks the entries as running; those past their deadline, and those whose callers left, stay behind.
    fn take_off(&mut self, batch: Vec<Entry>) -> Option<Flight> {
        let started = Instant::now();
        let mut entries = Vec::with_capacity(batch.len());
        for entry in batch {
            if entry.deadline <= started {
                entry.refuse(ComputeError::Deadline { charged_ns: 0 });
            } else {
                entries.push(entry);
            }
        }
        let padded = pad(&mut entries);
        let latest = entries.iter().map(Item::deadline).max()?;
        let rows = entries.iter().fold(0u32, |rows, entry| rows.saturating_add(entry.plan.rows));
        let shared = entries.len() > 1;
        let mut costs: Vec<u64> = entries.iter().map(|entry| entry.cost().ns).collect();
        let waste = |(entry, cost): (&Entry, &u64)| u128::from(if padded { entry.waste(*cost) } else { 0 });
        let total = costs.iter().map(|cost| u128::from(*cost)).sum::<u128>()
            + entries.iter().zip(&costs).map(waste).sum::<u128>();
        let expected = entries.first().map_or_else(Default::default, |lead| lead.expected(rows));
        let patience = started + expected * PATIENCE;
        let run = self.device.number();
        let mut index = 0;
        entries.retain(|entry| {
            let cost = costs[index];
            let part = if shared { Part::Shared { cost, total } } else { Part::Alone };
            let hopeless = latest.min(patience.max(entry.deadline));
            let started = entry.slot.start(Running { run, part, hopeless });
            if started {
                index += 1;
            } else {
                costs.remove(index);
            }
            started
        });
        if entries.is_empty() {
            return None;
        }
        Some(Flight { run, entries, costs: shared.then_some(costs), padded, started })
    }

    fn fly(&mut self, model: &Model, flight: &mut Flight) -> Result<BatchOutput, BackendError> {
        let entry = |entry: &Entry| {
            let inputs = if flight.padded { entry.padded.as_ref() } else { None };
            BatchEntry { tenant: entry.tenant.clone(), inputs: inputs.unwrap_or(&entry.inputs).clone() }
        };
        let entries: Vec<_> = flight.entries.iter().map(entry).collect();
        let output =
            self.backend.run(Batch { run: flight.run, model: &model.spec.key, entries: &entries })?;
        let busy_ns = output.busy_ns;
        match model.state() {
            ModelState::Ready(signature)
                if output.entries.len() != entries.len()
                    || output.entries.iter().any(|tensors| tensors.len() != signature.outputs.len()) =>
            {
                let message = "the device gave another number of outputs than the model has".to_owned();
                Err(BackendError::Engine { message, busy_ns })
            }
            _ => Ok(output),
        }
    }

    /// Books the run and answers the callers, or gives each another chance.
    fn land(
        &mut self,
        model: &Arc<Model>,
        signature: &Arc<Signature>,
        flight: Flight,
        result: Result<BatchOutput, BackendError>,
    ) {
        let Flight { run, entries, costs, padded, started } = flight;
        let error = match result {
            Ok(BatchOutput { entries: outputs, busy_ns }) => {
                self.learn(model, &entries, costs.is_none().then_some(busy_ns), started);
                let (model, signature) = (Arc::clone(model), Arc::clone(signature));
                let done = Done { model, signature, entries, outputs, costs, padded, busy_ns, started };
                let device = Arc::clone(&self.device);
                if let Err(done) = device.queue.hand_over(done) {
                    done.answer();
                }
                return;
            }
            Err(error) => error,
        };
        let busy_ns = error.busy_ns();
        let alone = entries.len() == 1;
        if let BackendError::Lost { message, .. } = &error {
            // Who of many is at fault shows when each runs alone.
            let interrupted = self.device.was_interrupted(run);
            self.lost(model, message, alone && !interrupted);
            if !alone && !interrupted {
                self.batch_lost(model, &entries);
            }
        }
        if alone || matches!(error, BackendError::NotLoaded | BackendError::Away { .. }) {
            if let [entry] = &entries[..] {
                self.device.queue.correct(entry, busy_ns);
            }
            let error = ComputeError::from_backend(&self.device.name, &model.spec.key, error);
            return fail(model, entries, busy_ns, &error);
        }
        if matches!(error, BackendError::TooLarge { .. }) {
            let rows = entries.iter().fold(0u32, |rows, entry| rows.saturating_add(entry.plan.rows));
            model.grouping.lower(rows);
        }
        let device = &*self.device.name;
        tracing::debug!(device, model = %model.spec.key, entries = entries.len(), %error, "batch failed, entries run alone");
        self.device.ledger.retried();
        for entry in self.take_back(entries, busy_ns) {
            self.serve(vec![entry]);
        }
    }

    /// The entries of a run that gave nothing, without those whose callers have left. Books the run.
    fn take_back(&self, entries: Vec<Entry>, busy_ns: u64) -> Vec<Entry> {
        let mut charged_ns = 0u64;
        let mut again = Vec::with_capacity(entries.len());
        for entry in entries {
            match entry.slot.back_to_waiting() {
                Ok(()) => again.push(entry),
                Err(fixed_ns) => charged_ns = charged_ns.saturating_add(fixed_ns),
            }
        }
        self.device.ledger.settle(busy_ns, charged_ns);
        again
    }

    /// What the run tells about costs.
    fn learn(&self, model: &Model, entries: &[Entry], alone_ns: Option<u64>, started: Instant) {
        let calibration = &model.grouping.calibration;
        if let ([entry], Some(busy_ns)) = (entries, alone_ns) {
            calibration.alone(&entry.plan.shape, busy_ns);
            self.device.queue.correct(entry, busy_ns);
        }
        if let Some(group) = entries.first().and_then(|entry| entry.plan.group.as_ref()) {
            let rows = entries.iter().fold(0u32, |rows, entry| rows.saturating_add(entry.plan.rows));
            calibration.ran(group, rows, Instant::now().saturating_duration_since(started));
        }
    }

    /// The device died under a batch of several. A model that does so again and again runs entries alone.
    fn batch_lost(&mut self, model: &Model, entries: &[Entry]) {
        let now = Instant::now();
        let deaths = self.batch_deaths.entry(model.spec.key.clone()).or_default();
        deaths.retain(|death| now.saturating_duration_since(*death) < self.quarantine.window);
        deaths.push(now);
        if u32::try_from(deaths.len()).unwrap_or(u32::MAX) >= self.quarantine.deaths {
            let device = &*self.device.name;
            let entries = entries.len();
            tracing::warn!(device, model = %model.spec.key, entries, "batching is off: the device died under batches");
            model.grouping.lower(1);
            self.batch_deaths.remove(&model.spec.key);
        }
    }
}

/// Entries inside a run.
struct Flight {
    run: u64,
    entries: Vec<Entry>,
    /// Costs alone, of a batch that began with several entries.
    costs: Option<Vec<u64>>,
    padded: bool,
    started: Instant,
}
