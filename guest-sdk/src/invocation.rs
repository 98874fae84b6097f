//! The invocation that is running: its id, what it may still use, and its bill so far.

use std::time::Duration;

use crate::raw::wasmeter::function::invocation as raw;

/// What was used so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Fuel units.
    pub fuel: u64,
    /// Time on devices, of computes that have ended.
    pub device: Duration,
    /// Bytes of bodies that outbound calls sent.
    pub sent_bytes: u64,
    /// List price in 10^-12 of the currency, and the currency's ISO 4217 code; nothing where prices are not known.
    pub cost: Option<(u64, String)>,
}

/// The id that the caller gets in `x-wasmeter-invocation`.
pub fn id() -> String {
    raw::id()
}

/// Time until the deadline, which covers model queues, outbound calls and the answer's body.
pub fn time_left() -> Duration {
    Duration::from_nanos(raw::time_left())
}

/// Fuel that is left; at 0 the invocation ends.
pub fn fuel_left() -> u64 {
    raw::fuel_left()
}

/// The bill so far; what the rest of the answer sends is not in it yet.
pub fn spent() -> Spent {
    let raw::Usage { fuel, device_ns, sent_bytes, cost } = raw::spent();
    let cost = cost.map(|price| (price.pico, price.currency));
    Spent { fuel, device: Duration::from_nanos(device_ns), sent_bytes, cost }
}
