use aws_lc_rs::digest;
use stripe_billing::subscription::{
    ListSubscription, UpdateSubscription, UpdateSubscriptionItems, UpdateSubscriptionProrationBehavior,
};
use stripe_client_core::StripeRequest;
use wasmeter_usage::Meter;

use crate::object::{Page, Price, Subscription};
use crate::setup::PAGE;
use crate::{Catalogue, Client, StripeError};

/// Attempts at one subscription: a fault that Stripe answered to an earlier run with the same key is repeated for a day, and each
/// such costs one.
const ATTEMPTS: u32 = 12;

/// One item of a subscription that is to be another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It gets the price of the book in force.
    Exchange {
        /// `si_…`.
        item: String,
        /// Whose usage it is for.
        meter: Meter,
        /// `price_…`.
        from: String,
        /// `price_…`.
        to: String,
    },
    /// The book prices what no item is for.
    Add {
        /// Whose usage it is for.
        meter: Meter,
        /// `price_…`.
        to: String,
    },
    /// The book does not price it any more.
    Remove {
        /// `si_…`.
        item: String,
        /// `price_…`.
        from: String,
    },
}

/// What is to become of a subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Move {
    /// In the order of the meters; what goes comes last.
    pub changes: Vec<Change>,
    /// Why something of it stays as it is, in words.
    pub left: Vec<String>,
}

impl Catalogue {
    /// What it takes to charge a subscription by this catalogue. Prices that no price book made were agreed by somebody: they
    /// stay, and so does what they are for.
    #[must_use]
    pub fn moves(&self, subscription: &Subscription) -> Move {
        let mut found = Move::default();
        if matches!(subscription.status.as_str(), "canceled" | "incomplete_expired") {
            return found;
        }
        if subscription.status == "incomplete" {
            found.left.push("it is incomplete, and changes no more until it is paid".to_owned());
            return found;
        }
        let Some(items) = subscription.items() else {
            found.left.push("it has more items than stripe shows at once".to_owned());
            return found;
        };
        for ((meter, id), to) in self.meters.iter().zip(&self.prices) {
            let mut of_meter = items.iter().filter(|item| item.price.meter() == Some(id)).peekable();
            if of_meter.peek().is_none() {
                found.changes.push(Change::Add { meter: *meter, to: to.clone() });
                continue;
            }
            let mut there = items.iter().any(|item| item.price.id == *to);
            for item in of_meter.filter(|item| item.price.id != *to) {
                let (item_id, from) = (item.id.clone(), item.price.id.clone());
                if item.price.sheet().is_none() {
                    found.left.push(format!("{}: {from} is of no price book", meter.as_str()));
                } else if there {
                    found.changes.push(Change::Remove { item: item_id, from });
                } else {
                    there = true;
                    let (meter, to) = (*meter, to.clone());
                    found.changes.push(Change::Exchange { item: item_id, meter, from, to });
                }
            }
        }
        for item in items.iter().filter(|item| item.price.sheet().is_some()) {
            let meter = item.price.meter();
            if !self.meters.iter().any(|(_, id)| meter == Some(id)) {
                found.changes.push(Change::Remove { item: item.id.clone(), from: item.price.id.clone() });
            }
        }
        found
    }
}

impl Client {
    /// All subscriptions that have not ended.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn subscriptions(&self) -> Result<Vec<Subscription>, StripeError> {
        let mut all: Vec<Subscription> = Vec::new();
        loop {
            let mut list = ListSubscription::new().limit(PAGE);
            if let Some(last) = all.last() {
                list = list.starting_after(last.id.clone());
            }
            let page: Page<Subscription> = self.call(list.build()).await?;
            let more = page.has_more && !page.data.is_empty();
            all.extend(page.data);
            if !more {
                return Ok(all);
            }
        }
    }

    /// Charges a subscription by a catalogue from now on, in one change and without proration; whether there was anything to
    /// change. Whatever becomes of an attempt, the subscription is looked at before the next one.
    ///
    /// # Errors
    /// [`StripeError`]; then all of it is changed, or nothing.
    pub async fn move_to(
        &self,
        catalogue: &Catalogue,
        subscription: &Subscription,
    ) -> Result<bool, StripeError> {
        let mut plan = catalogue.moves(subscription);
        // Stripe repeats a fault that it answered by its key: then it is another key.
        let (mut faults, mut attempt) = (0, 1);
        while !plan.changes.is_empty() {
            let key = key(&subscription.id, &plan.changes, faults);
            let error =
                match self.attempt_as::<Subscription>(update(&subscription.id, &plan.changes), &key).await {
                    Ok(_) => return Ok(true),
                    Err(error) if error.may_pass() && attempt < ATTEMPTS => error,
                    Err(error) => return Err(error),
                };
            faults += u32::from(matches!(error, StripeError::Refused { status: 500.., .. }));
            tracing::debug!(%error, attempt, "the change of a subscription is looked after");
            self.pause(attempt.min(3)).await;
            attempt += 1;
            let Some(now) = self.subscription(&subscription.id).await? else { return Ok(true) };
            plan = catalogue.moves(&now);
        }
        Ok(attempt > 1)
    }

    /// Whether a price was made of a price book.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn is_of_a_book(&self, price: &str) -> Result<bool, StripeError> {
        let price: Price = self.call(stripe_product::price::RetrievePrice::new(price).build()).await?;
        Ok(price.sheet().is_some())
    }
}

fn update(subscription: &str, changes: &[Change]) -> stripe_client_core::RequestBuilder {
    let items = changes.iter().map(|change| {
        let mut item = UpdateSubscriptionItems::new();
        match change {
            Change::Exchange { item: id, to, .. } => {
                item.id = Some(id.clone());
                item.price = Some(to.clone());
            }
            Change::Add { to, .. } => item.price = Some(to.clone()),
            Change::Remove { item: id, .. } => {
                item.id = Some(id.clone());
                item.deleted = Some(true);
                // Without it a metered item stays; the meter's sums do not care.
                item.clear_usage = Some(true);
            }
        }
        item
    });
    UpdateSubscription::new(subscription)
        .items(items.collect::<Vec<_>>())
        .proration_behavior(UpdateSubscriptionProrationBehavior::None)
        .build()
}

/// The same for the same change, whoever asks for it and when.
fn key(subscription: &str, changes: &[Change], faults: u32) -> String {
    let mut text = String::new();
    for change in changes {
        let (kind, item, price) = match change {
            Change::Exchange { item, to, .. } => ("exchange", item.as_str(), to),
            Change::Add { to, .. } => ("add", "", to),
            Change::Remove { item, from } => ("remove", item.as_str(), from),
        };
        text.push_str(&format!("{kind} {item} {price}\n"));
    }
    let sum = digest::digest(&digest::SHA256, text.as_bytes());
    format!("wasmeter-move-{subscription}-{}-{faults}", hex::encode(&sum.as_ref()[..16]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn catalogue() -> Catalogue {
        Catalogue {
            meters: vec![(Meter::Fuel, "mtr_fuel".into()), (Meter::Requests, "mtr_requests".into())],
            prices: vec!["price_fuel_2".into(), "price_requests_2".into()],
            ..Catalogue::default()
        }
    }

    fn subscription(status: &str, items: &[(&str, &str, &str, bool)]) -> Subscription {
        let items: Vec<_> = items
            .iter()
            .map(|(id, price, meter, ours)| {
                let metadata = if *ours { json!({ "price_sheet": "ab" }) } else { json!({}) };
                json!({ "id": id, "price": { "id": price, "active": true, "currency": "usd",
                    "unit_amount_decimal": "1", "recurring": { "meter": meter }, "metadata": metadata } })
            })
            .collect();
        serde_json::from_value(
            json!({ "id": "sub_1", "customer": "cus_1", "status": status, "currency": "usd",
            "items": { "data": items, "has_more": false } }),
        )
        .unwrap()
    }

    #[test]
    fn a_subscription_gets_the_prices_of_the_book_in_force() {
        let old = subscription(
            "active",
            &[("si_1", "price_fuel_1", "mtr_fuel", true), ("si_2", "price_gpu_1", "mtr_gpu", true)],
        );
        let plan = catalogue().moves(&old);
        let exchange = Change::Exchange {
            item: "si_1".into(),
            meter: Meter::Fuel,
            from: "price_fuel_1".into(),
            to: "price_fuel_2".into(),
        };
        let add = Change::Add { meter: Meter::Requests, to: "price_requests_2".into() };
        let remove = Change::Remove { item: "si_2".into(), from: "price_gpu_1".into() };
        assert_eq!(plan, Move { changes: vec![exchange, add, remove], left: vec![] });
        let first = key("sub_1", &plan.changes, 0);
        assert_eq!(first, key("sub_1", &plan.changes, 0));
        assert_ne!(first, key("sub_1", &plan.changes, 1));
        assert_ne!(first, key("sub_1", &plan.changes[..1], 0));

        let new =
            [("si_1", "price_fuel_2", "mtr_fuel", true), ("si_3", "price_requests_2", "mtr_requests", true)];
        assert_eq!(catalogue().moves(&subscription("past_due", &new)), Move::default());
        // Two items of ours for one meter would charge twice.
        let twice = [new[0], new[1], ("si_4", "price_fuel_1", "mtr_fuel", true)];
        let plan = catalogue().moves(&subscription("active", &twice));
        assert_eq!(plan.changes, [Change::Remove { item: "si_4".into(), from: "price_fuel_1".into() }]);
    }

    #[test]
    fn what_was_agreed_otherwise_stays() {
        let items = [
            ("si_1", "price_agreed", "mtr_fuel", false),
            ("si_2", "price_requests_1", "mtr_requests", true),
            ("si_3", "price_support", "mtr_other", false),
        ];
        let plan = catalogue().moves(&subscription("active", &items));
        assert_eq!(plan.left, ["fuel: price_agreed is of no price book"]);
        assert!(matches!(&plan.changes[..], [Change::Exchange { item, .. }] if item == "si_2"), "{plan:?}");
        assert!(catalogue().moves(&subscription("canceled", &items)).changes.is_empty());
        let incomplete = catalogue().moves(&subscription("incomplete", &items));
        assert!(incomplete.changes.is_empty() && incomplete.left[0].contains("incomplete"));
    }
}
