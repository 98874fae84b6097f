use std::sync::LazyLock;

use metrics::{Counter, Histogram, counter, histogram};
use wasmeter_usage::{Outcome, UsageRecord};

use super::figures::Timing;
use super::guest_body::Seen;

/// Handles of what every invocation counts; to look them up each time costs more than to count. They are made at the first
/// invocation, long after the recorder was installed.
struct Counts {
    outcomes: [(Outcome, Counter); 9],
    fuel: Counter,
    host_calls: Counter,
    seconds: Histogram,
}

static COUNTS: LazyLock<Counts> = LazyLock::new(|| Counts {
    outcomes: Outcome::ALL.map(|o| (o, counter!("wasmeter_invocations_total", "outcome" => o.as_str()))),
    fuel: counter!("wasmeter_fuel_total"),
    host_calls: counter!("wasmeter_host_calls_total"),
    seconds: histogram!("wasmeter_invocation_seconds"),
});

/// One line of the access log, and the counts of it that have no tenant.
pub(super) fn access_line(record: &UsageRecord, seen: &Seen, timing: Timing) {
    let counts = &*COUNTS;
    if let Some((_, count)) = counts.outcomes.iter().find(|(outcome, _)| *outcome == record.outcome) {
        count.increment(1);
    }
    counts.fuel.increment(record.fuel);
    counts.host_calls.increment(timing.host_calls);
    let seconds = (timing.queue + timing.instantiate + timing.run).as_secs_f64();
    counts.seconds.record(seconds);
    tracing::info!(
        target: "wasmeter::access",
        invocation = %record.invocation,
        tenant = record.tenant,
        function = record.function,
        revision = record.revision,
        status = record.status,
        outcome = ?record.outcome,
        fuel = record.fuel,
        host_calls = timing.host_calls,
        device_ns = record.device_ns(),
        bytes_in = seen.bytes(),
        bytes_out = record.egress_bytes,
        queue_us = u64::try_from(timing.queue.as_micros()).unwrap_or(u64::MAX),
        instantiate_us = u64::try_from(timing.instantiate.as_micros()).unwrap_or(u64::MAX),
        run_us = u64::try_from(timing.run.as_micros()).unwrap_or(u64::MAX),
    );
}
