use wasmeter_usage::UsageRecord;

use super::figures::Timing;
use super::guest_body::Seen;

/// One line of the access log, and the counts of it that have no tenant.
pub(super) fn access_line(record: &UsageRecord, seen: &Seen, timing: Timing) {
    metrics::counter!("wasmeter_invocations_total", "outcome" => record.outcome.as_str()).increment(1);
    metrics::counter!("wasmeter_fuel_total").increment(record.fuel);
    metrics::counter!("wasmeter_host_calls_total").increment(timing.host_calls);
    let seconds = (timing.queue + timing.instantiate + timing.run).as_secs_f64();
    metrics::histogram!("wasmeter_invocation_seconds").record(seconds);
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
