use wasmeter_ledger::{InvoiceRow, ItemRow, Owed, Period};
use wasmeter_stripe::{Invoice, Item, NewItem};

use super::Stripe;
use crate::now::{now_ns, now_s};
use crate::service::Service;

/// What an invoice may have beside usage, and how the customer is told.
pub(super) const MINIMUM: &str = "minimum";
pub(super) const ADJUSTMENTS: &str = "adjustments";

/// Whether a draft bills a period of a subscription: only such have a minimum and corrections.
pub(super) fn bills_a_period(invoice: &Invoice) -> bool {
    let reason = invoice.billing_reason.as_deref().unwrap_or_default();
    reason.starts_with("subscription")
        && reason != "subscription_create"
        && invoice.period_start < invoice.period_end
}

/// What the items have to come to: (kind, amount), zero for none.
pub(super) fn wanted(owed: &Owed, usage: i64) -> [(&'static str, i64); 2] {
    // As in a bill: the minimum is of the lines of usage, corrections come after it.
    let lacking = owed.minimum.saturating_sub(usage).max(0);
    [(MINIMUM, lacking), (ADJUSTMENTS, owed.adjustments)]
}

/// What Stripe says of usage: what an invoice has beside its items.
pub(super) fn usage(invoice: &Invoice, items: &[Item]) -> i64 {
    invoice.subtotal.saturating_sub(items.iter().map(|item| item.amount).fold(0, i64::saturating_add))
}

/// The period of an invoice, as the ledger was when it was finalised.
pub(super) fn period(row: &InvoiceRow, invoice: &Invoice) -> Period {
    // In whole seconds there: what was booked within that one may be on it.
    let booked = invoice.finalised().and_then(|at| u64::try_from(at + 1).ok());
    Period {
        tenant: row.tenant.clone(),
        customer: row.seen.customer.clone(),
        invoice: invoice.id.clone(),
        window: (invoice.period_start, invoice.period_end),
        booked_by_ns: booked.map_or(u64::MAX, |at| at.saturating_mul(1_000_000_000)),
    }
}

/// Brings what is not usage onto a draft, each kind once, whatever was tried before. `Some` says why only a person can
/// help.
pub(super) async fn settle(
    service: &Service,
    stripe: &Stripe,
    invoice: &InvoiceRow,
) -> anyhow::Result<Option<String>> {
    let id = invoice.seen.invoice.as_str();
    let draft = stripe.client.invoice(id).await?;
    if !bills_a_period(&draft) {
        return Ok(None);
    }
    let items = stripe.client.items(id).await?;
    let period = period(invoice, &draft);
    let owed = service.readers.ask(move |r| r.owed(&period)).await?;
    for (kind, amount) in wanted(&owed, usage(&draft, &items)) {
        let found: Vec<&Item> = items.iter().filter(|item| item.kind() == Some(kind)).collect();
        let item = match found[..] {
            [] if amount == 0 => continue,
            [] => {
                stripe
                    .client
                    .add_item(&NewItem {
                        invoice: id,
                        customer: &invoice.seen.customer,
                        kind,
                        amount,
                        currency: &service.currency,
                        description: description(kind, &owed),
                        // An answered fault of theirs is repeated for a day by its key: another hour is another key, and the
                        // items were looked at before.
                        key: format!("wasmeter-item-{id}-{kind}-{amount}-{}", now_s() / 3_600),
                    })
                    .await?
            }
            [one] if one.amount == amount => one.clone(),
            // Usage came late, or a correction, while the draft was held.
            [one] => stripe.client.change_item(&one.id, amount).await?,
            _ => {
                return Ok(Some(format!("the invoice has {} items for its {kind}: leave one", found.len())));
            }
        };
        if item.amount != amount {
            return Ok(Some(format!("stripe has {} for its {kind}, the ledger {amount}", item.amount)));
        }
        let row = ItemRow { invoice: id.to_owned(), kind: kind.to_owned(), item: item.id, amount };
        service.writer.with(move |ledger| ledger.keep_item(&row, now_ns())).await??;
    }
    Ok(None)
}

fn description(kind: &str, owed: &Owed) -> String {
    match (kind, owed.count) {
        (MINIMUM, _) => "Minimum of the period, less its usage".to_owned(),
        (_, 1) => "Refund or correction".to_owned(),
        (_, count) => format!("Refunds and corrections ({count})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minimum_is_of_usage_alone() {
        let owed = Owed { usage: Some(120), minimum: 500, adjustments: -700, count: 2 };
        assert_eq!(wanted(&owed, 120), [("minimum", 380), ("adjustments", -700)]);
        assert_eq!(wanted(&owed, 501)[0], ("minimum", 0));
        assert_eq!(wanted(&Owed::default(), 7), [("minimum", 0), ("adjustments", 0)]);
        assert_eq!(description("adjustments", &owed), "Refunds and corrections (2)");
    }
}
