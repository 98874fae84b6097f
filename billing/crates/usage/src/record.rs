use serde::{Deserialize, Serialize};

use crate::{Draw, InvocationId, Payer, Work, payer};

/// The version of [`UsageRecord`] that this build writes.
pub const RECORD_VERSION: u16 = 1;

/// What one invocation used. Final when the store dies, and in the spool before its last response byte leaves.
///
/// The canonical form of a record is the text that the host wrote into its spool: one line of JSON as `serde_json` writes
/// this struct, fields in this order, absent options left out, no spaces. The ledger keeps that text to the byte, receipts
/// carry it and hash it (`wasmeter-receipt`), and nobody writes it anew, so that a field that a later version adds changes no
/// hash of a record from before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// Schema version: [`RECORD_VERSION`].
    pub v: u16,
    /// The billed unit and the idempotency key.
    pub invocation: InvocationId,
    /// The account that pays.
    pub tenant: String,
    /// Function name; absent for a direct model call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Revision id of the function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// How it ended; decides who pays.
    pub outcome: Outcome,
    /// HTTP status that the caller was given; 0 if the caller left before one.
    pub status: u16,
    /// Fuel units consumed by the guest.
    pub fuel: u64,
    /// Which table of operator costs `fuel` was counted with.
    pub fuel_schedule: String,
    /// Device time by model version and device, charged part only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelUse>,
    /// Tokens read by generating models.
    #[serde(default)]
    pub tokens_in: u64,
    /// Tokens written by generating models.
    #[serde(default)]
    pub tokens_out: u64,
    /// Request body bytes the guest was given.
    #[serde(default)]
    pub ingress_bytes: u64,
    /// Response body bytes.
    #[serde(default)]
    pub egress_bytes: u64,
    /// Start, nanoseconds since the Unix epoch.
    pub start_ns: u64,
    /// End, nanoseconds since the Unix epoch.
    pub end_ns: u64,
    /// Hash of the price sheet that the caller's cost header was computed with.
    pub price_book: String,
    /// Where a budget bounded the invocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draw: Option<Draw>,
}

/// Device time that an invocation is charged for on one model version and device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelUse {
    /// Model name.
    pub model: String,
    /// Model version.
    pub version: u32,
    /// Device, such as `cpu:0`.
    pub device: String,
    /// Which meter the time belongs to.
    pub class: DeviceClass,
    /// Computes.
    pub computes: u32,
    /// Charged busy time in nanoseconds.
    pub device_ns: u64,
}

/// Which meter a device's busy time belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceClass {
    /// Metered as `cpu_time`: the worker's CPU time.
    Cpu,
    /// Metered as `gpu_time`: lane time.
    Gpu,
}

/// How an invocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The guest answered.
    Ok,
    /// The guest trapped, or ended without an answer.
    Trap,
    /// The guest used up its fuel.
    OutOfFuel,
    /// The budget, the credits or the caller's `x-wasmeter-max-cost` ended it.
    Budget,
    /// The wall-clock limit ended it.
    Deadline,
    /// The caller left.
    Disconnect,
    /// The request broke a limit while the guest ran: nothing is charged.
    Refused,
    /// Our fault: nothing is charged.
    Platform,
    /// The device died under it and its own model was not the cause: nothing is charged.
    DeviceLost,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 9] = [
        Outcome::Ok,
        Outcome::Trap,
        Outcome::OutOfFuel,
        Outcome::Budget,
        Outcome::Deadline,
        Outcome::Disconnect,
        Outcome::Refused,
        Outcome::Platform,
        Outcome::DeviceLost,
    ];

    /// The word in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Trap => "trap",
            Outcome::OutOfFuel => "out_of_fuel",
            Outcome::Budget => "budget",
            Outcome::Deadline => "deadline",
            Outcome::Disconnect => "disconnect",
            Outcome::Refused => "refused",
            Outcome::Platform => "platform",
            Outcome::DeviceLost => "device_lost",
        }
    }

    /// Whether the tenant pays for the guest's own work ([`payer`] has the whole table).
    #[must_use]
    pub fn is_charged(self) -> bool {
        payer(self, Work::Guest) == Payer::Tenant
    }
}

/// What is measured and may carry a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meter {
    /// Fuel units; priced per million.
    Fuel,
    /// Accelerator time in nanoseconds.
    GpuTime,
    /// CPU time of models in nanoseconds.
    CpuTime,
    /// Invocations.
    Requests,
    /// Tokens read.
    TokensIn,
    /// Tokens written.
    TokensOut,
    /// Response body bytes.
    EgressBytes,
}

impl Meter {
    /// All meters, in the order of bills.
    pub const ALL: [Meter; 7] = [
        Meter::Requests,
        Meter::Fuel,
        Meter::CpuTime,
        Meter::GpuTime,
        Meter::TokensIn,
        Meter::TokensOut,
        Meter::EgressBytes,
    ];

    /// How many units a price is for: fuel by the million, time by the second, bytes by the GB.
    #[must_use]
    pub fn units_priced(self) -> u64 {
        match self {
            Meter::Fuel => 1_000_000,
            Meter::GpuTime | Meter::CpuTime | Meter::EgressBytes => 1_000_000_000,
            Meter::Requests | Meter::TokensIn | Meter::TokensOut => 1,
        }
    }

    /// The name in JSON, headers and the price book.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Meter::Fuel => "fuel",
            Meter::GpuTime => "gpu_time",
            Meter::CpuTime => "cpu_time",
            Meter::Requests => "requests",
            Meter::TokensIn => "tokens_in",
            Meter::TokensOut => "tokens_out",
            Meter::EgressBytes => "egress_bytes",
        }
    }
}

/// Charged quantities of one record, by meter. All zero where the outcome is not charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantities {
    /// Fuel units.
    pub fuel: u64,
    /// Nanoseconds.
    pub gpu_ns: u64,
    /// Nanoseconds.
    pub cpu_ns: u64,
    /// Count.
    pub requests: u64,
    /// Count.
    pub tokens_in: u64,
    /// Count.
    pub tokens_out: u64,
    /// Bytes.
    pub egress_bytes: u64,
}

impl Quantities {
    /// The quantity of one meter, in the meter's unit.
    #[must_use]
    pub fn get(&self, meter: Meter) -> u64 {
        match meter {
            Meter::Fuel => self.fuel,
            Meter::GpuTime => self.gpu_ns,
            Meter::CpuTime => self.cpu_ns,
            Meter::Requests => self.requests,
            Meter::TokensIn => self.tokens_in,
            Meter::TokensOut => self.tokens_out,
            Meter::EgressBytes => self.egress_bytes,
        }
    }

    /// The same, to be written.
    pub fn of_mut(&mut self, meter: Meter) -> &mut u64 {
        match meter {
            Meter::Fuel => &mut self.fuel,
            Meter::GpuTime => &mut self.gpu_ns,
            Meter::CpuTime => &mut self.cpu_ns,
            Meter::Requests => &mut self.requests,
            Meter::TokensIn => &mut self.tokens_in,
            Meter::TokensOut => &mut self.tokens_out,
            Meter::EgressBytes => &mut self.egress_bytes,
        }
    }
}

impl UsageRecord {
    /// Charged device nanoseconds over all models, whatever the class.
    #[must_use]
    pub fn device_ns(&self) -> u64 {
        self.models.iter().fold(0, |sum, m| sum.saturating_add(m.device_ns))
    }

    /// What the tenant is charged for. Sums saturate: billing refuses a record of that size anyway.
    #[must_use]
    pub fn quantities(&self) -> Quantities {
        if !self.outcome.is_charged() {
            return Quantities::default();
        }
        let time = |class| {
            self.models
                .iter()
                .filter(|m| m.class == class)
                .fold(0u64, |sum, m| sum.saturating_add(m.device_ns))
        };
        Quantities {
            fuel: self.fuel,
            gpu_ns: time(DeviceClass::Gpu),
            cpu_ns: time(DeviceClass::Cpu),
            requests: 1,
            tokens_in: self.tokens_in,
            tokens_out: self.tokens_out,
            egress_bytes: self.egress_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of this form lie in spools and ledgers: a change here needs a new version and a migration.
    const GOLDEN: &str = r#"{"v":1,"invocation":"01890a5d-ac96-774b-bcce-b302099a8057","tenant":"dev","function":"classify","revision":"r1","outcome":"ok","status":200,"fuel":1234567,"fuel_schedule":"wasmtime-48/1","models":[{"model":"efficientnet-lite0","version":1,"device":"cpu:0","class":"cpu","computes":1,"device_ns":20000000}],"tokens_in":0,"tokens_out":0,"ingress_bytes":240512,"egress_bytes":310,"start_ns":1790000000000000000,"end_ns":1790000000030000000,"price_book":"5f1c"}"#;

    #[test]
    fn golden_record() {
        let record: UsageRecord = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), GOLDEN);
        assert_eq!(record.quantities().cpu_ns, 20_000_000);
        assert_eq!(record.quantities().gpu_ns, 0);
    }

    #[test]
    fn an_outcome_is_one_word_everywhere() {
        for outcome in Outcome::ALL {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
    }

    #[test]
    fn our_failures_charge_nothing() {
        let mut record: UsageRecord = serde_json::from_str(GOLDEN).unwrap();
        for outcome in [Outcome::Refused, Outcome::Platform, Outcome::DeviceLost] {
            record.outcome = outcome;
            assert_eq!(record.quantities(), Quantities::default());
        }
    }
}
