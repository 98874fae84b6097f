//! What billing has under way, as metrics of the host: billing listens on no port of its own.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wasmeter_metering::BillingClient;
use wasmeter_usage::wire::{Call, Reply, UnderWay};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// The states of a bucket that are shown even where there is none.
const BUCKETS: [&str; 6] = ["open", "waiting", "ready", "sending", "parked", "refused"];

/// Asks billing again and again. While it is away, the last figures stay.
pub(crate) async fn keep(billing: BillingClient, stop: CancellationToken) {
    loop {
        match billing.call(Call::UnderWay).await {
            Ok(Reply::UnderWay(found)) => show(&found),
            Ok(other) => tracing::error!(
                ?other,
                "billing answered a question about what is under way with something else"
            ),
            Err(error) => tracing::debug!(%error, "billing does not say what is under way"),
        }
        if stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
            return;
        }
    }
}

fn show(found: &UnderWay) {
    for state in BUCKETS {
        let count = found.buckets.get(state).copied().unwrap_or(0);
        metrics::gauge!("wasmeter_outbox_buckets", "state" => state).set(count as f64);
    }
    metrics::gauge!("wasmeter_outbox_oldest_seconds").set(found.oldest_s as f64);
    metrics::gauge!("wasmeter_outbox_uncounted_records").set(found.uncounted as f64);
    for state in ["held", "differs"] {
        let count = found.invoices.get(state).copied().unwrap_or(0);
        metrics::gauge!("wasmeter_invoices_held", "state" => state).set(count as f64);
    }
    metrics::gauge!("wasmeter_alerts_pending").set(found.alerts as f64);
}
