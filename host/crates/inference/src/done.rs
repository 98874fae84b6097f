use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    ComputeError, Computed, NamedTensor, Signature, Tensor, attribution, entry::Entry, registry::Model,
};

/// A batch that the device has run, not yet answered.
pub(crate) struct Done {
    pub(crate) model: Arc<Model>,
    pub(crate) signature: Arc<Signature>,
    pub(crate) entries: Vec<Entry>,
    /// For each entry its outputs, as many as the signature has.
    pub(crate) outputs: Vec<Vec<Tensor>>,
    /// For each entry its cost alone; none for a batch of one, which pays what was measured.
    pub(crate) costs: Option<Vec<u64>>,
    /// Whether the entries ran filled up.
    pub(crate) padded: bool,
    pub(crate) busy_ns: u64,
    pub(crate) started: Instant,
}

impl Done {
    /// Says who pays, books it, and answers the callers, in this order: a caller that has its answer finds the
    /// account true.
    pub(crate) fn answer(self) {
        let Self { model, signature, entries, outputs, costs, padded, busy_ns, started } = self;
        let device = &model.device;
        let shares = match costs {
            None => vec![busy_ns; entries.len()],
            Some(costs) => {
                let parts = entries.iter().zip(&costs).filter(|_| padded);
                let waste = parts.fold(0u64, |sum, (entry, cost)| sum.saturating_add(entry.waste(*cost)));
                attribution::split(busy_ns, &costs, waste)
            }
        };
        let mut charged_ns = 0u64;
        let mut answers = Vec::with_capacity(entries.len());
        let computes = entries.len();
        for ((entry, tensors), share) in entries.into_iter().zip(outputs).zip(shares) {
            match entry.slot.settle(share) {
                Ok(charged) => {
                    charged_ns = charged_ns.saturating_add(charged);
                    answers.push((entry, tensors, charged));
                }
                // A caller who left in time has fixed its own charge.
                Err(fixed_ns) => charged_ns = charged_ns.saturating_add(fixed_ns),
            }
        }
        device.ledger.computed(computes);
        device.ledger.settle(busy_ns, charged_ns);
        device.compute_seconds.record(seconds(busy_ns));
        for (entry, tensors, charged_ns) in answers {
            let tensors = match entry.plan.pad {
                Some(padding) if padded => model.grouping.cut(padding, &tensors),
                _ => tensors,
            };
            let named = signature.outputs.iter().zip(tensors);
            let outputs =
                named.map(|(port, tensor)| NamedTensor { name: port.name.clone(), tensor }).collect();
            let queue_ns = nanos(started.saturating_duration_since(entry.submitted));
            device.queue_seconds.record(seconds(queue_ns));
            let (device, class) = (Arc::clone(&device.name), device.class);
            let _ = entry.reply.send(Ok(Computed { outputs, device, class, charged_ns, queue_ns }));
        }
    }
}

/// Answers entries whose run failed. Nobody pays but who left before with a fixed charge.
pub(crate) fn fail(model: &Model, entries: Vec<Entry>, busy_ns: u64, error: &ComputeError) {
    let mut charged_ns = 0u64;
    let mut answers = Vec::with_capacity(entries.len());
    for entry in entries {
        match entry.slot.settle(0) {
            Ok(_) => answers.push(entry.reply),
            Err(fixed_ns) => charged_ns = charged_ns.saturating_add(fixed_ns),
        }
    }
    model.device.ledger.settle(busy_ns, charged_ns);
    for reply in answers {
        let _ = reply.send(Err(error.clone()));
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[allow(clippy::cast_precision_loss, reason = "a histogram needs no exact nanoseconds")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
