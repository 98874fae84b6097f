use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use crate::{
    ComputeError, Tensor,
    calibration::Cost,
    former::Item,
    grouping::Plan,
    registry::Model,
    slot::{Answer, Slot},
};

/// One compute in a queue. Everything that the work needs travels with it.
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) tenant: String,
    pub(crate) model: Arc<Model>,
    pub(crate) inputs: Vec<Tensor>,
    /// The inputs filled up, once they have been needed so.
    pub(crate) padded: Option<Vec<Tensor>>,
    pub(crate) plan: Plan,
    pub(crate) deadline: Instant,
    pub(crate) submitted: Instant,
    /// What its tenant's share was debited.
    pub(crate) debited_ns: u64,
    pub(crate) slot: Arc<Slot>,
    pub(crate) reply: oneshot::Sender<Answer>,
}

impl Entry {
    /// Ends an entry without a charge.
    pub(crate) fn refuse(self, error: ComputeError) {
        if self.slot.settle(0).is_ok() {
            let _ = self.reply.send(Err(error));
        }
    }

    /// The entry's cost and the part of its padding, in nanoseconds alone. Work grows with the bytes.
    pub(crate) fn waste(&self, cost: u64) -> u64 {
        let bytes =
            |tensors: &[Tensor]| tensors.iter().map(|tensor| tensor.data().len() as u128).sum::<u128>();
        let Some(padded) = &self.padded else { return 0 };
        let (own, all) = (bytes(&self.inputs).max(1), bytes(padded));
        u64::try_from(u128::from(cost) * all.saturating_sub(own) / own).unwrap_or(u64::MAX)
    }
}

/// Fills up the inputs of a batch, if its entries have unlike sizes. Returns whether they have.
pub(crate) fn pad(batch: &mut [Entry]) -> bool {
    let Some((first, others)) = batch.split_first() else { return false };
    // Rows apart, entries of one group differ in nothing but the padded dimension.
    if others.iter().all(|entry| entry.plan.pad == first.plan.pad) {
        return false;
    }
    for entry in batch {
        if let (Some(padding), None) = (entry.plan.pad, &entry.padded) {
            entry.padded = Some(entry.model.grouping.pad(padding, &entry.inputs));
        }
    }
    true
}

impl Item for Entry {
    fn id(&self) -> u64 {
        self.id
    }

    fn tenant(&self) -> &str {
        &self.tenant
    }

    fn alike(&self, other: &Self) -> bool {
        self.plan.group.is_some()
            && Arc::ptr_eq(&self.model, &other.model)
            && self.plan.group == other.plan.group
    }

    fn rows(&self) -> u32 {
        self.plan.rows
    }

    fn max_batch(&self) -> u32 {
        if self.plan.group.is_some() { self.model.grouping.max_batch() } else { 1 }
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn due(&self) -> Instant {
        self.submitted + self.model.grouping.options().max_queue_delay
    }

    fn cost(&self) -> Cost {
        self.model.grouping.calibration.cost(&self.plan.shape)
    }

    fn expected(&self, rows: u32) -> Duration {
        match &self.plan.group {
            Some(group) => self.model.grouping.calibration.expected(group, rows),
            None => Duration::ZERO,
        }
    }

    fn debited(&mut self, ns: u64) {
        self.debited_ns = ns;
    }
}
