use aws_lc_rs::digest;
use serde_json::{Value, json};

use super::amount::{Part, parts};
use super::decimal;
use crate::kind::Kind;
use crate::object::summary::seen;
use crate::state::State;

/// A window of time, from one second up to another.
pub(crate) type Window = (i64, i64);

/// Lines for what a subscription's metered prices counted, each item from when it joined, and for what is licensed in
/// advance. `invoice` is the id that they belong to.
pub(crate) fn of_subscription(
    state: &State,
    subscription: &Value,
    invoice: &str,
    (from, to): Window,
    advance: Option<Window>,
    now: i64,
) -> Vec<Value> {
    let customer = subscription["customer"].as_str().unwrap_or_default();
    let mut lines = Vec::new();
    for item in subscription["items"]["data"].as_array().into_iter().flatten() {
        let id = item["price"]["id"].as_str().unwrap_or_default();
        let price = state.get(Kind::Price, id).unwrap_or(&item["price"]);
        let (quantity, window) = if price["recurring"]["usage_type"] == "metered" {
            let meter = price["recurring"]["meter"].as_str().unwrap_or_default();
            let start = item["current_period_start"].as_i64().unwrap_or(from).max(from).min(to);
            let used = seen(state, meter, customer, start, to, now).map(|(_, value)| u128::from(value)).sum();
            (used, (start, to))
        } else {
            let Some(window) = advance else { continue };
            (item["quantity"].as_u64().unwrap_or(1).into(), window)
        };
        for part in parts(price, quantity) {
            lines.push(line(state, subscription, item, price, invoice, &part, window));
        }
    }
    lines
}

fn line(
    state: &State,
    subscription: &Value,
    item: &Value,
    price: &Value,
    invoice: &str,
    part: &Part,
    (from, to): Window,
) -> Value {
    let product = price["product"].as_str().unwrap_or_default();
    let name = state.get(Kind::Product, product).and_then(|p| p["name"].as_str()).unwrap_or(product);
    let label = price["nickname"].as_str().unwrap_or(name);
    let unit = decimal::format(part.unit);
    let tier = if part.tier > 0 { format!("Tier {} at ", part.tier) } else { "at ".to_owned() };
    let flat = if part.flat > 0 { format!(" + {}", decimal::format(part.flat)) } else { String::new() };
    json!({
        "id": derived("il_", &[invoice, item["id"].as_str().unwrap_or_default(), &part.tier.to_string()]),
        "object": "line_item",
        "amount": part.amount,
        "currency": price["currency"],
        "description": format!("{} × {label} ({tier}{unit}{flat} each)", part.quantity),
        "discount_amounts": [],
        "discountable": true,
        "discounts": [],
        "invoice": invoice,
        "livemode": false,
        "metadata": subscription["metadata"],
        "parent": {
            "invoice_item_details": null,
            "subscription_item_details": {
                "invoice_item": null,
                "proration": false,
                "proration_details": null,
                "subscription": subscription["id"],
                "subscription_item": item["id"],
            },
            "type": "subscription_item_details",
        },
        "period": { "start": from, "end": to },
        "pretax_credit_amounts": [],
        "pricing": {
            "price_details": { "price": price["id"], "product": product },
            "type": "price_details",
            "unit_amount_decimal": unit,
        },
        "quantity": u64::try_from(part.quantity).unwrap_or(u64::MAX),
        "subtotal": part.amount,
        "taxes": [],
    })
}

/// A line for an invoice item.
pub(crate) fn of_item(item: &Value, invoice: &str) -> Value {
    let id = item["id"].as_str().unwrap_or_default();
    json!({
        "id": derived("il_", &[invoice, id]),
        "object": "line_item",
        "amount": item["amount"],
        "currency": item["currency"],
        "description": item["description"],
        "discount_amounts": [],
        "discountable": true,
        "discounts": [],
        "invoice": invoice,
        "livemode": false,
        "metadata": item["metadata"],
        "parent": {
            "invoice_item_details": {
                "invoice_item": id,
                "proration": false,
                "proration_details": null,
                "subscription": item["_subscription"],
            },
            "subscription_item_details": null,
            "type": "invoice_item_details",
        },
        "period": item["period"],
        "pretax_credit_amounts": [],
        "pricing": item["pricing"],
        "quantity": item["quantity"],
        "subtotal": item["amount"],
        "taxes": [],
    })
}

/// An id that is the same whenever it is asked for.
pub(crate) fn derived(prefix: &str, parts: &[&str]) -> String {
    let sum = digest::digest(&digest::SHA256, parts.join(" ").as_bytes());
    format!("{prefix}{}", hex::encode(&sum.as_ref()[..12]))
}
