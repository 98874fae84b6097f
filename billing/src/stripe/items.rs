use std::collections::HashMap;

use parking_lot::Mutex;
use wasmeter_ledger::{InvoiceRow, ItemRow, Owed, Period};
use wasmeter_stripe::{Client, Invoice, Item, NewItem, StripeError};

use super::Stripe;
use crate::now::{now_ns, now_s};
use crate::service::Service;

/// What an invoice may have beside usage, and how the customer is told.
pub(super) const PRICES: &str = "prices";
pub(super) const MINIMUM: &str = "minimum";
pub(super) const ADJUSTMENTS: &str = "adjustments";

/// Whether a draft bills a period of a subscription: only such have a minimum and corrections.
pub(super) fn bills_a_period(invoice: &Invoice) -> bool {
    let reason = invoice.billing_reason.as_deref().unwrap_or_default();
    reason.starts_with("subscription")
        && reason != "subscription_create"
        && invoice.period_start < invoice.period_end
}

/// What the items have to come to: (kind, amount), zero for none. `booked` is whether all lines of usage are at prices of a
/// price book.
pub(super) fn wanted(owed: &Owed, usage: i64, booked: bool) -> [(&'static str, i64); 3] {
    // Stripe has the prices of its items as they are now, and of an item that got another one the usage since then alone. What
    // the calls cost when they ran is in the ledger. Prices that somebody agreed otherwise are not ours to correct.
    let prices = match owed.usage {
        Some(due) if booked => due.saturating_sub(usage),
        _ => 0,
    };
    // As in a bill: the minimum is of the lines of usage, corrections come after it.
    let lacking = owed.minimum.saturating_sub(usage.saturating_add(prices)).max(0);
    [(PRICES, prices), (MINIMUM, lacking), (ADJUSTMENTS, owed.adjustments)]
}

/// Which prices at Stripe were made of a price book: no price becomes another.
#[derive(Default)]
pub(crate) struct Booked(Mutex<HashMap<String, bool>>);

impl Booked {
    /// Whether all usage of an invoice is at such prices.
    pub(super) async fn all(
        &self,
        client: &Client,
        invoice: &str,
        items: &[Item],
    ) -> Result<bool, StripeError> {
        let mut prices = client.prices_of(invoice).await?;
        for item in items.iter().filter(|item| item.proration) {
            let Some(price) = item.price() else { return Ok(false) };
            prices.insert(price.to_owned());
        }
        for price in prices {
            let known = self.0.lock().get(&price).copied();
            let booked = match known {
                Some(booked) => booked,
                None => {
                    let booked = client.is_of_a_book(&price).await?;
                    self.0.lock().insert(price, booked);
                    booked
                }
            };
            if !booked {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What Stripe says of usage: what an invoice has beside its items, and those that it made of usage itself.
pub(super) fn usage(invoice: &Invoice, items: &[Item]) -> i64 {
    let others = items.iter().filter(|item| !item.proration).map(|item| item.amount);
    invoice.subtotal.saturating_sub(others.fold(0, i64::saturating_add))
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
    let booked = stripe.booked.all(&stripe.client, id, &items).await?;
    for (kind, amount) in wanted(&owed, usage(&draft, &items), booked) {
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
        (PRICES, _) => "Usage at the prices in force when it happened, less what is above".to_owned(),
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
        let of = |owed: &Owed, usage| wanted(owed, usage, true);
        assert_eq!(of(&owed, 120), [("prices", 0), ("minimum", 380), ("adjustments", -700)]);
        assert_eq!(of(&Owed { usage: Some(501), ..owed }, 501)[1], ("minimum", 0));
        assert_eq!(of(&Owed::default(), 7), [("prices", 0), ("minimum", 0), ("adjustments", 0)]);
        assert_eq!(description("adjustments", &owed), "Refunds and corrections (2)");
    }

    #[test]
    fn usage_costs_what_it_cost_when_it_happened() {
        let owed = Owed { usage: Some(300), minimum: 350, adjustments: 0, count: 0 };
        // Stripe has it at a dearer price, or has lost what was before the change.
        assert_eq!(wanted(&owed, 400, true)[..2], [("prices", -100), ("minimum", 50)]);
        assert_eq!(wanted(&owed, 90, true)[..2], [("prices", 210), ("minimum", 50)]);
        // At prices that somebody agreed with the customer.
        assert_eq!(wanted(&owed, 90, false)[..2], [("prices", 0), ("minimum", 260)]);
        let unknown = Owed { usage: None, ..owed };
        assert_eq!(wanted(&unknown, 90, true)[..2], [("prices", 0), ("minimum", 260)]);
    }
}
