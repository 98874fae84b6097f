use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wasmeter_ledger::{Probe, Probed};

use super::catalogue::meter_id;
use super::{Stripe, TICK};
use crate::now::now_ns;
use crate::service::Service;

/// How long a probe that failed waits for the next.
const AGAIN_NS: u64 = 600_000_000_000;

/// Asks Stripe's sums what became of parked buckets that it would be unsafe to send again.
pub(super) async fn run(service: Arc<Service>, stripe: Arc<Stripe>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match service.readers.ask(|r| r.due_probes(now_ns())).await {
            Ok(probes) => {
                for probe in probes {
                    let one = one(&service, &stripe, probe);
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = one => {}
                    }
                }
            }
            Err(error) => tracing::error!(%error, "the outbox cannot be read"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

async fn one(service: &Service, stripe: &Stripe, probe: Probe) {
    let (customer, hour) = (probe.customer.clone(), probe.hour);
    let meter = probe.meter.as_str();
    let counted = match count(stripe, &probe).await {
        Ok(counted) => counted,
        Err(reason) => {
            tracing::warn!(customer, meter, hour, reason, "parked usage cannot be looked up at stripe yet");
            let put_off = move |ledger: &mut wasmeter_ledger::Ledger| {
                ledger.postpone_probe(&probe, &reason, AGAIN_NS, now_ns())
            };
            if let Ok(Err(error)) = service.writer.with(put_off).await {
                tracing::error!(%error, "the outbox cannot be written");
            }
            return;
        }
    };
    match service.writer.with(move |ledger| ledger.settle_probe(&probe, counted, now_ns())).await {
        Ok(Ok(Probed::Told { arrived, absent })) => {
            tracing::info!(customer, meter, hour, arrived, absent, "the sums of stripe tell of parked usage");
        }
        Ok(Ok(Probed::Busy)) | Err(_) => {}
        Ok(Ok(Probed::Unclear)) => tracing::error!(
            customer,
            meter,
            hour,
            counted,
            "the sums of stripe do not tell which parked usage arrived: a person must look; see `wasmeter-billing outbox list --state parked`"
        ),
        Ok(Err(error)) => tracing::error!(%error, "the outbox cannot be written"),
    }
}

/// Stripe's sum of the hour.
async fn count(stripe: &Stripe, probe: &Probe) -> Result<u64, String> {
    let catalogue = stripe.catalogue().await.map_err(|e| e.to_string())?;
    let meter = meter_id(&catalogue, probe.meter)
        .ok_or_else(|| format!("the price book has no price for {} any more", probe.meter.as_str()))?;
    let (from, to) = (probe.hour, probe.hour + 3_600);
    let hours = stripe.client.counted(meter, &probe.customer, from, to).await.map_err(|e| e.to_string())?;
    Ok(hours
        .iter()
        .filter(|(hour, _)| *hour == from)
        .fold(0u64, |sum, (_, value)| sum.saturating_add(*value)))
}
