use std::sync::Arc;

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use wasmeter_ledger::{About, InvoiceSeen, Ledger, LedgerError, Refresh, SubscriptionSeen};
use wasmeter_stripe::{Invoice, StripeError};

use super::{Stripe, TICK};
use crate::now::now_ns;
use crate::service::Service;

/// Waits between readings that fail.
const WAITS_NS: (u64, u64) = (1_000_000_000, 600_000_000_000);

/// Identifiers that one report of errors names.
const MAX_NAMED: usize = 1_000;

/// Why an object could not be read and kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum RefreshError {
    #[error(transparent)]
    Stripe(#[from] StripeError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Write(#[from] crate::writer::WriteFailed),
    #[error(transparent)]
    Ask(#[from] crate::readers::AskError),
}

/// Reads what webhooks are about, one after another: what is read last is what Stripe had last.
pub(super) async fn run(service: Arc<Service>, stripe: Arc<Stripe>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match service.readers.ask(|r| r.due_refresh(now_ns())).await {
            Ok(Some(refresh)) => {
                let one = one(&service, &stripe, refresh);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = one => continue,
                }
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "the ledger cannot be read"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = stripe.rung.notified() => {}
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

async fn one(service: &Service, stripe: &Stripe, refresh: Refresh) {
    let outcome = match refresh.about {
        About::Subscription => subscription(service, stripe, &refresh.object).await,
        About::Invoice => invoice(service, stripe, &refresh.object).await,
        About::Customer => customer(service, stripe, &refresh.object).await,
        About::MeterErrors => meter_errors(service, stripe, &refresh.object).await,
    };
    let object = refresh.object.clone();
    let written = match outcome {
        Ok(()) => service.writer.with(move |ledger| ledger.refreshed(&refresh)).await,
        Err(error) => {
            let wait = (WAITS_NS.0 << refresh.attempts.min(20)).min(WAITS_NS.1);
            tracing::warn!(object, %error, wait_s = wait / 1_000_000_000, "cannot read from stripe yet");
            service.writer.with(move |ledger| ledger.refresh_failed(&refresh, wait, now_ns())).await
        }
    };
    if let Ok(Err(error)) = written {
        tracing::error!(%error, "the ledger cannot be written");
    }
}

async fn write<T: Send + 'static>(
    service: &Service,
    task: impl FnOnce(&mut Ledger) -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, RefreshError> {
    Ok(service.writer.with(task).await??)
}

async fn subscription(service: &Service, stripe: &Stripe, id: &str) -> Result<(), RefreshError> {
    let Some(found) = stripe.client.subscription(id).await? else {
        let id = id.to_owned();
        return write(service, move |ledger| ledger.lose_subscription(&id, now_ns())).await;
    };
    let seen = SubscriptionSeen {
        start_s: found.start(),
        ended_s: found.ended_at,
        subscription: found.id,
        customer: found.customer,
        status: found.status,
    };
    let (subscription, status) = (seen.subscription.clone(), seen.status.clone());
    if write(service, move |ledger| ledger.keep_subscription(&seen, now_ns())).await? {
        tracing::info!(subscription, status, "subscription");
    } else {
        tracing::info!(subscription, "a subscription of a customer that is none of ours is left alone");
    }
    Ok(())
}

async fn customer(service: &Service, stripe: &Stripe, id: &str) -> Result<(), RefreshError> {
    if stripe.client.customer_exists(id).await? {
        return Ok(());
    }
    let customer = id.to_owned();
    if write(service, move |ledger| ledger.lose_customer(&customer, now_ns())).await? {
        tracing::warn!(customer = id, "a customer was deleted at stripe: its tenant has to subscribe anew");
    }
    Ok(())
}

async fn invoice(service: &Service, stripe: &Stripe, id: &str) -> Result<(), RefreshError> {
    let mut found = match stripe.client.invoice(id).await {
        Ok(found) => found,
        Err(error) if error.is_missing() => {
            // A draft that a person deleted.
            let id = id.to_owned();
            return write(service, move |ledger| ledger.lose_invoice(&id, now_ns())).await;
        }
        Err(error) => return Err(error.into()),
    };
    let customer = found.customer.clone();
    if service.readers.ask(move |r| r.tenant_of(&customer)).await?.is_none() {
        tracing::info!(invoice = id, "an invoice of a customer that is none of ours is left alone");
        return Ok(());
    }
    if found.status.as_deref() == Some("draft") && found.auto_advance {
        found = stripe.client.hold(id).await?;
        tracing::info!(invoice = id, "invoice held until it is what the ledger says");
    }
    let seen = seen(&found);
    write(service, move |ledger| ledger.keep_invoice(&seen, now_ns())).await
}

/// An invoice in the ledger's words.
pub(super) fn seen(invoice: &Invoice) -> InvoiceSeen {
    InvoiceSeen {
        invoice: invoice.id.clone(),
        customer: invoice.customer.clone(),
        status: invoice.status.clone().unwrap_or_else(|| "draft".to_owned()),
        period_start: invoice.period_start,
        period_end: invoice.period_end,
        total: invoice.total,
    }
}

/// Stripe took events and could not use them afterwards.
async fn meter_errors(service: &Service, stripe: &Stripe, id: &str) -> Result<(), RefreshError> {
    let data = stripe.client.thin_event(id).await?;
    let mut named = Vec::new();
    identifiers(&data, &mut named);
    let text: String = data.to_string().chars().take(2_000).collect();
    let reason = format!("stripe could not use it: event {id}");
    let refused = write(service, move |ledger| ledger.refuse_delivered(&named, &reason, now_ns())).await?;
    tracing::error!(event = id, refused, data = text, "stripe could not use meter events that it took");
    Ok(())
}

/// All identifiers that a report names, wherever they stand.
fn identifiers(value: &Value, found: &mut Vec<String>) {
    if found.len() >= MAX_NAMED {
        return;
    }
    match value {
        Value::Array(all) => all.iter().for_each(|one| identifiers(one, found)),
        Value::Object(fields) => {
            if let Some(Value::String(identifier)) = fields.get("identifier") {
                found.push(identifier.clone());
            }
            fields.values().for_each(|one| identifiers(one, found));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_identifiers_of_a_report() {
        let data = serde_json::json!({"reason": {"error_count": 2, "error_types": [{"code": "meter_event_no_customer_defined",
            "sample_errors": [{"error_message": "m", "request": {"identifier": "wm-1"}}, {"request": {"identifier": "wm-2"}}]}]}});
        let mut found = Vec::new();
        identifiers(&data, &mut found);
        assert_eq!(found, ["wm-1", "wm-2"]);
    }
}
