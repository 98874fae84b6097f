use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use wasmeter_usage::{PriceSheet, UsageRecord};

/// What a call used and cost, for a caller who holds the tenant's token.
#[derive(Clone, Debug)]
pub struct Figures {
    fuel: u64,
    device_ns: u64,
    cost: Option<String>,
    timing: String,
}

/// Where the wall time of one invocation went.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timing {
    pub(super) queue: Duration,
    pub(super) instantiate: Duration,
    pub(super) run: Duration,
    /// Calls of the guest to the host, which took part of it.
    pub(super) host_calls: u64,
}

const FUEL: HeaderName = HeaderName::from_static("x-wasmeter-fuel");
const DEVICE: HeaderName = HeaderName::from_static("x-wasmeter-device-ns");
const COST: HeaderName = HeaderName::from_static("x-wasmeter-cost");
const TIMING: HeaderName = HeaderName::from_static("server-timing");

impl Figures {
    /// The names that a `Trailer` header announces.
    pub(super) const TRAILERS: &str = "x-wasmeter-fuel, x-wasmeter-device-ns, x-wasmeter-cost, server-timing";

    pub(super) fn new(record: &UsageRecord, prices: Option<&PriceSheet>, timing: Timing) -> Self {
        let charged = record.quantities();
        let cost = prices.and_then(|p| Some(format!("{} {}", p.cost(record)?, p.currency)));
        let device_ns = charged.cpu_ns.saturating_add(charged.gpu_ns);
        let mut text = String::new();
        let parts = [("queue", timing.queue), ("instantiate", timing.instantiate), ("run", timing.run)];
        for (name, time) in parts {
            let _ = write!(text, "{name};dur={:.3}, ", time.as_secs_f64() * 1e3);
        }
        let _ = write!(text, "device;dur={:.3}, ", Duration::from_nanos(device_ns).as_secs_f64() * 1e3);
        let _ = write!(text, "host;desc=\"{} calls\"", timing.host_calls);
        Self { fuel: charged.fuel, device_ns, cost, timing: text }
    }

    /// Writes the headers (or trailers).
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(FUEL, self.fuel.into());
        headers.insert(DEVICE, self.device_ns.into());
        let texts = [(COST, self.cost.as_deref()), (TIMING, Some(self.timing.as_str()))];
        for (name, text) in texts {
            if let Some(Ok(value)) = text.map(HeaderValue::from_str) {
                headers.insert(name, value);
            }
        }
    }
}
