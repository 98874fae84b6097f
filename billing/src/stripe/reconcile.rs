use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wasmeter_ledger::{CountedHour, Customer, InvoiceRow, Owed};
use wasmeter_stripe::{Catalogue, Client, StripeError};

use super::items::{self, Booked};
use super::{Stripe, TICK};
use crate::now::{now_ns, now_s};
use crate::readers::{AskError, Readers};
use crate::service::Service;

const HOUR: i64 = 3_600;

/// The reconciler looks back over what Stripe still takes.
const WINDOW: i64 = 35 * 24 * HOUR;

/// Stripe counts with a delay: the hours at hand are left to the next run.
const SETTLED: i64 = 2 * HOUR;

const DAY_NS: u64 = 86_400_000_000_000;

/// Differences that are told one by one in the log.
const TOLD: usize = 20;

/// An hour in which ledger and Stripe disagree.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Difference {
    pub(crate) tenant: String,
    pub(crate) customer: String,
    pub(crate) meter: &'static str,
    /// Beginning, seconds since the Unix epoch.
    pub(crate) hour: i64,
    /// Delivered, says the ledger.
    pub(crate) ledger: u64,
    /// Sent without an answer, says the ledger.
    pub(crate) unsure: u64,
    /// Counted, says Stripe.
    pub(crate) stripe: u64,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct Report {
    /// Hours of a customer and meter in which one of both has something.
    pub(crate) hours: u64,
    /// Hours that agree if what was not answered arrived, or did not.
    pub(crate) unsure: u64,
    pub(crate) differences: Vec<Difference>,
    /// Invoices that are out and whose period was computed anew.
    pub(crate) periods: u64,
    /// Items of them: what usage cost otherwise when it happened, minimums, corrections.
    pub(crate) items: u64,
    /// Those in which both disagree.
    pub(crate) item_differences: Vec<ItemDifference>,
}

/// An amount of an invoice on which ledger and Stripe disagree, in the smallest currency unit.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct ItemDifference {
    pub(crate) tenant: String,
    pub(crate) invoice: String,
    /// `prices`, `minimum`, `adjustments`; `invoice` where Stripe does not know it.
    pub(crate) kind: &'static str,
    /// What the ledger's entries and the prices under which they were booked make of it.
    pub(crate) ledger: i64,
    /// What the ledger noted when it was put on the invoice.
    pub(crate) noted: i64,
    /// What Stripe has.
    pub(crate) stripe: i64,
}

/// Which of the invoices that are out are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invoices {
    /// Those of the hours that are.
    Window,
    /// All that ever were.
    All,
}

impl Report {
    /// Whether both agree.
    pub(crate) fn agrees(&self) -> bool {
        self.differences.is_empty() && self.item_differences.is_empty()
    }
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    #[error(transparent)]
    Stripe(#[from] StripeError),
    #[error(transparent)]
    Catalogue(#[from] super::catalogue::CatalogueError),
    #[error(transparent)]
    Ledger(#[from] AskError),
}

/// Hours of either side, side by side: `(hour, ours, theirs)`.
fn align(ours: &[CountedHour], theirs: &[(i64, u64)]) -> Vec<(CountedHour, u64)> {
    let empty = |hour| (CountedHour { hour, delivered: 0, unsure: 0 }, 0);
    let mut all: BTreeMap<i64, (CountedHour, u64)> = BTreeMap::new();
    for one in ours {
        all.insert(one.hour, (*one, 0));
    }
    for (hour, value) in theirs {
        let sum = &mut all.entry(*hour).or_insert_with(|| empty(*hour)).1;
        *sum = sum.saturating_add(*value);
    }
    all.into_values().collect()
}

/// Compares one customer over the hours from the one of `from_s` to before `to_s`.
pub(crate) async fn compare(
    client: &Client,
    catalogue: &Catalogue,
    readers: &Readers,
    of: &Customer,
    (from_s, to_s): (i64, i64),
    report: &mut Report,
) -> Result<(), ReconcileError> {
    let from = from_s.div_euclid(HOUR) * HOUR;
    let to = (to_s + HOUR - 1).div_euclid(HOUR) * HOUR;
    if from >= to {
        return Ok(());
    }
    for (meter, id) in catalogue.all_meters() {
        let (customer, meter) = (of.customer.clone(), *meter);
        // Theirs first: what is delivered in between is not missed at Stripe.
        let theirs = client.counted(id, &of.customer, from, to).await?;
        let ours = readers.ask(move |r| r.counted_hours(&customer, meter, from, to)).await?;
        for (ours, stripe) in align(&ours, &theirs) {
            report.hours += 1;
            if stripe == ours.delivered {
                continue;
            }
            if stripe > ours.delivered && stripe <= ours.delivered.saturating_add(ours.unsure) {
                report.unsure += 1;
                continue;
            }
            report.differences.push(Difference {
                tenant: of.tenant.clone(),
                customer: of.customer.clone(),
                meter: meter.as_str(),
                hour: ours.hour,
                ledger: ours.delivered,
                unsure: ours.unsure,
                stripe,
            });
        }
    }
    Ok(())
}

/// Compares all customers over the last 35 days, but for the hours at hand, and the invoices that are out.
pub(crate) async fn all(
    client: &Client,
    catalogue: &Catalogue,
    readers: &Readers,
    settled_s: i64,
    which: Invoices,
) -> Result<Report, ReconcileError> {
    let mut report = Report::default();
    let to = (now_s() - settled_s).div_euclid(HOUR) * HOUR;
    for customer in readers.ask(wasmeter_ledger::Reader::customers).await? {
        compare(client, catalogue, readers, &customer, (to - WINDOW, to), &mut report).await?;
    }
    let from = to - WINDOW;
    let booked = Booked::default();
    for invoice in readers.ask(wasmeter_ledger::Reader::invoices).await? {
        let out = invoice.state == "done" && matches!(invoice.seen.status.as_str(), "open" | "paid");
        if out && (which == Invoices::All || invoice.seen.period_end >= from) {
            compare_invoice(client, readers, &booked, &invoice, &mut report).await?;
        }
    }
    Ok(report)
}

/// Compares an invoice that is out with what the ledger's entries make of its period, and with what was noted of it.
async fn compare_invoice(
    client: &Client,
    readers: &Readers,
    booked: &Booked,
    row: &InvoiceRow,
    report: &mut Report,
) -> Result<(), ReconcileError> {
    let difference = |kind, ledger, noted, stripe| ItemDifference {
        tenant: row.tenant.clone(),
        invoice: row.seen.invoice.clone(),
        kind,
        ledger,
        noted,
        stripe,
    };
    let invoice = match client.invoice(&row.seen.invoice).await {
        Ok(invoice) => invoice,
        Err(error) if error.is_missing() => {
            report.item_differences.push(difference("invoice", row.seen.total, row.seen.total, 0));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let theirs = client.items(&invoice.id).await?;
    let id = invoice.id.clone();
    let ours = readers.ask(move |r| r.items(&id)).await?;
    let (mut owed, mut usage, mut is_booked) = (Owed::default(), 0, true);
    if items::bills_a_period(&invoice) {
        let period = items::period(row, &invoice);
        owed = readers.ask(move |r| r.owed(&period)).await?;
        usage = items::usage(&invoice, &theirs);
        is_booked = booked.all(client, &invoice.id, &theirs).await?;
        report.periods += 1;
    }
    for (kind, ledger) in items::wanted(&owed, usage, is_booked) {
        let noted = ours.iter().find(|row| row.kind == kind).map_or(0, |row| row.amount);
        let of_kind = theirs.iter().filter(|item| item.kind() == Some(kind));
        let stripe = of_kind.map(|item| item.amount).fold(0, i64::saturating_add);
        report.items += u64::from(ledger != 0 || noted != 0 || stripe != 0);
        if ledger != noted || noted != stripe {
            report.item_differences.push(difference(kind, ledger, noted, stripe));
        }
    }
    Ok(())
}

/// Differences go to the log, for a person.
pub(crate) fn alert(report: &Report) {
    for Difference { tenant, customer, meter, hour, ledger, unsure, stripe } in
        report.differences.iter().take(TOLD)
    {
        tracing::error!(tenant, customer, meter, hour, ledger, unsure, stripe, "ledger and stripe disagree");
    }
    for ItemDifference { tenant, invoice, kind, ledger, noted, stripe } in
        report.item_differences.iter().take(TOLD)
    {
        tracing::error!(
            tenant,
            invoice,
            kind,
            ledger,
            noted,
            stripe,
            "ledger and stripe disagree about an invoice"
        );
    }
    let (hours, invoices) = (report.differences.len(), report.item_differences.len());
    let further = hours.saturating_sub(TOLD) + invoices.saturating_sub(TOLD);
    if further > 0 {
        tracing::error!(further, "ledger and stripe disagree in more; run `wasmeter-billing reconcile`");
    }
}

/// Once a day.
pub(super) async fn daily(service: Arc<Service>, stripe: Arc<Stripe>, stop: CancellationToken) {
    let mut next = now_ns().saturating_add(DAY_NS);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TICK * 4) => {}
        }
        if now_ns() < next {
            continue;
        }
        let run = async {
            let catalogue = stripe.catalogue().await?;
            all(&stripe.client, &catalogue, &service.readers, SETTLED, Invoices::Window).await
        };
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = run => outcome,
        };
        next = match outcome {
            Ok(report) => {
                let differences = report.differences.len() + report.item_differences.len();
                tracing::info!(
                    hours = report.hours,
                    unsure = report.unsure,
                    periods = report.periods,
                    differences,
                    "reconciled with stripe"
                );
                alert(&report);
                now_ns().saturating_add(DAY_NS)
            }
            Err(error) => {
                tracing::warn!(%error, "cannot reconcile with stripe; tried again in an hour");
                now_ns().saturating_add(DAY_NS / 24)
            }
        };
        match service.readers.ask(wasmeter_ledger::Reader::outbox_counts).await {
            Ok(counts) => tracing::info!(states = ?counts.states, uncounted = counts.uncounted, "outbox"),
            Err(error) => tracing::error!(%error, "the outbox cannot be read"),
        }
        if let Ok(Err(error)) = service.writer.with(|ledger| ledger.forget_webhooks(now_ns())).await {
            tracing::error!(%error, "old webhooks cannot be forgotten");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_of_both_sides_stand_side_by_side() {
        let ours = [
            CountedHour { hour: 0, delivered: 5, unsure: 0 },
            CountedHour { hour: 7_200, delivered: 1, unsure: 2 },
        ];
        let aligned = align(&ours, &[(3_600, 9), (7_200, 3)]);
        let told: Vec<_> = aligned.iter().map(|(o, t)| (o.hour, o.delivered, o.unsure, *t)).collect();
        assert_eq!(told, [(0, 5, 0, 0), (3_600, 0, 0, 9), (7_200, 1, 2, 3)]);
    }
}
