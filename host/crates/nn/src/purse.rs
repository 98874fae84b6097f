//! Who pays for a compute, before it is queued.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wasmeter_inference::{ChargeMeter, ModelKey};
use wasmeter_types::ErrorKind;
use wasmeter_usage::DeviceClass;

use crate::bindings::errors::ErrorCode;
use crate::ctx::{Fault, NnCtx};
use crate::errors::NnError;

/// The least that a compute is begun with, where it is not known what one costs.
const LEAST: Duration = Duration::from_millis(1);

impl NnCtx {
    /// The meter of a model version, with money for one compute more: for all the time until the deadline if there is
    /// enough, and at least for what the computes before took on average. What one takes beyond is the platform's.
    pub(crate) fn paid_charges(&mut self, model: &ModelKey) -> Result<Arc<ChargeMeter>, NnError> {
        let meter = self.charges(model);
        let Some(purse) = &self.purse else { return Ok(meter) };
        let class = self.models.placement(model).map_or(DeviceClass::Cpu, |(_, class)| class);
        let least = nanos(LEAST).max(meter.charged_ns() / u64::from(meter.computes().max(1)));
        let most = nanos(self.deadline.saturating_duration_since(Instant::now())).max(least);
        // Those under way draw on the same room.
        let flights = u64::try_from(self.flying).unwrap_or(u64::MAX).max(1);
        let room = meter.room_ns();
        let lack = most.saturating_mul(flights).saturating_sub(room);
        let least = least.saturating_mul(flights).saturating_sub(room);
        if lack == 0 {
            return Ok(meter);
        }
        match purse.device(class, least, lack) {
            Some(ns) => meter.pay(ns),
            None if least == 0 => {}
            None => {
                let message = purse.why();
                self.fault = Some(Fault { kind: ErrorKind::PaymentRequired, message: message.clone() });
                return Err(NnError::new(ErrorCode::RuntimeError, message));
            }
        }
        Ok(meter)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
