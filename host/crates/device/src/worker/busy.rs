//! How long a run keeps the device busy.

use std::time::{Duration, Instant};

use wasmeter_usage::DeviceClass;

use crate::clock;

/// Processor time on processors, so that a noisy neighbour raises nobody's bill; passing time on accelerators.
pub(super) enum Busy {
    Processor(Duration),
    Accelerator(Instant),
}

impl Busy {
    pub(super) fn start(class: DeviceClass) -> Self {
        match class {
            DeviceClass::Cpu => Busy::Processor(clock::own()),
            DeviceClass::Gpu => Busy::Accelerator(Instant::now()),
        }
    }

    pub(super) fn ns(&self) -> u64 {
        let busy = match self {
            Busy::Processor(before) => clock::own().saturating_sub(*before),
            Busy::Accelerator(before) => before.elapsed(),
        };
        u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX)
    }
}
