use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wasmeter_ledger::{Closing, Customer, InvoiceRow};
use wasmeter_stripe::divisor;

use super::reconcile::{Report, alert, compare};
use super::refresher::seen;
use super::{Stripe, TICK};
use crate::now::{now_ns, now_s};
use crate::service::Service;

/// Stripe counts with a delay: a difference is one only this long after the period, in seconds.
const SETTLED: i64 = 2 * 3_600;

/// Clocks differ by no more, in seconds.
const AHEAD: i64 = 300;

/// Finalises held invoices once all usage of their period is delivered and counted as the ledger says.
pub(super) async fn run(service: Arc<Service>, stripe: Arc<Stripe>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TICK * 2) => {}
        }
        let held = match service.readers.ask(wasmeter_ledger::Reader::held_invoices).await {
            Ok(held) => held,
            Err(error) => {
                tracing::error!(%error, "held invoices cannot be read");
                continue;
            }
        };
        for invoice in held {
            let one = one(&service, &stripe, &invoice);
            tokio::select! {
                () = stop.cancelled() => return,
                () = one => {}
            }
        }
    }
}

/// Where a held invoice stands.
enum Verdict {
    Waits(String),
    Differs(String),
    Finalise,
}

async fn one(service: &Service, stripe: &Stripe, invoice: &InvoiceRow) {
    let id = invoice.seen.invoice.clone();
    let (differs, detail) = match examine(service, stripe, invoice).await {
        Ok(Verdict::Finalise) => return finalise(service, stripe, &id).await,
        Ok(Verdict::Waits(detail)) => (false, detail),
        Ok(Verdict::Differs(detail)) => (true, detail),
        Err(error) => (invoice.state == "differs", error.to_string()),
    };
    if detail == invoice.detail {
        return;
    }
    if differs {
        tracing::error!(
            invoice = id,
            tenant = invoice.tenant,
            detail,
            "invoice is not finalised: a person must look"
        );
    } else {
        tracing::info!(invoice = id, tenant = invoice.tenant, detail, "invoice is held");
    }
    if let Ok(Err(error)) = service.writer.with(move |l| l.hold_invoice(&id, differs, &detail)).await {
        tracing::error!(%error, "the ledger cannot be written");
    }
}

async fn examine(service: &Service, stripe: &Stripe, invoice: &InvoiceRow) -> anyhow::Result<Verdict> {
    let (start, end) = (invoice.seen.period_start, invoice.seen.period_end);
    let grace_s = i64::try_from(stripe.buckets.grace_ns / 1_000_000_000)?;
    // A period that ends ahead of our clock is over by the clock of a twin, and that cannot be waited for.
    let ours = end <= now_s().saturating_add(AHEAD);
    if ours && now_s() < end.saturating_add(grace_s) {
        return Ok(Verdict::Waits("late usage of its period is awaited".to_owned()));
    }
    let tenant = invoice.tenant.clone();
    let close = move |ledger: &mut wasmeter_ledger::Ledger| {
        while ledger.sweep(5_000, now_ns())? > 0 {}
        ledger.close_buckets(&Closing::Tenant(&tenant, end), divisor, now_ns())
    };
    service.writer.with(close).await??;
    let tenant = invoice.tenant.clone();
    let (left, refused) = service.readers.ask(move |r| r.undelivered(&tenant, end)).await?;
    if refused > 0 {
        return Ok(Verdict::Differs(format!("{refused} buckets of its period were refused by stripe")));
    }
    if left > 0 {
        return Ok(Verdict::Waits(format!("{left} buckets of its period are not delivered yet")));
    }
    let catalogue = stripe.catalogue().await?;
    let customer = Customer { tenant: invoice.tenant.clone(), customer: invoice.seen.customer.clone() };
    let mut report = Report::default();
    compare(&stripe.client, &catalogue, &service.readers, &customer, (start, end), &mut report).await?;
    if report.differences.is_empty() {
        return Ok(match super::items::settle(service, stripe, invoice).await? {
            Some(detail) => Verdict::Differs(detail),
            None => Verdict::Finalise,
        });
    }
    let differences = report.differences.len();
    if ours && now_s() < end.saturating_add(SETTLED) {
        return Ok(Verdict::Waits(format!("stripe counts otherwise in {differences} hours so far")));
    }
    let detail = format!("ledger and stripe disagree in {differences} hours of its period");
    if detail != invoice.detail {
        alert(&report);
    }
    Ok(Verdict::Differs(detail))
}

async fn finalise(service: &Service, stripe: &Stripe, id: &str) {
    let finalised = match stripe.client.finalise(id).await {
        Ok(finalised) => finalised,
        Err(error) => {
            // It may be done: a webhook, or the next look, tells.
            tracing::warn!(invoice = id, %error, "invoice cannot be finalised yet");
            let id = id.to_owned();
            let read = service
                .writer
                .with(move |l| l.want_refresh(wasmeter_ledger::About::Invoice, &id, now_ns()))
                .await;
            if let Ok(Err(error)) = read {
                tracing::error!(%error, "the ledger cannot be written");
            }
            return;
        }
    };
    tracing::info!(invoice = id, total = finalised.total, "invoice is what the ledger says: finalised");
    let seen = seen(&finalised);
    if let Ok(Err(error)) = service.writer.with(move |l| l.keep_invoice(&seen, now_ns())).await {
        tracing::error!(%error, "the ledger cannot be written");
    }
}
