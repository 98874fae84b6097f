use serde_json::{Value, json};

use super::lines::{self, Window};
use super::{credit, decimal};
use crate::context::Context;
use crate::error::{ApiError, Result};
use crate::expand::inner_list;
use crate::kind::Kind;
use crate::object::subscription::{end_of, start_of};
use crate::state::{State, shown};

/// An empty draft for a customer.
pub(crate) fn draft(cx: &mut Context<'_>, customer: &Value, currency: &Value, reason: &str) -> Result<Value> {
    cx.state.room(Kind::Invoice)?;
    let now = cx.now_of(customer);
    let id = cx.state.id(Kind::Invoice);
    Ok(json!({
        "id": id,
        "object": "invoice",
        "account_country": "US",
        "account_name": "wasmeter twin",
        "amount_due": 0,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_remaining": 0,
        "attempt_count": 0,
        "attempted": false,
        "auto_advance": true,
        "automatically_finalizes_at": null,
        "billing_reason": reason,
        "collection_method": "charge_automatically",
        "created": now,
        "currency": currency,
        "customer": customer["id"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "default_payment_method": null,
        "description": null,
        "discounts": [],
        "due_date": null,
        "effective_at": null,
        "ending_balance": null,
        "footer": null,
        "hosted_invoice_url": null,
        "invoice_pdf": null,
        "last_finalization_error": null,
        "lines": inner_list(&[], &format!("/v1/invoices/{id}/lines")),
        "livemode": false,
        "metadata": {},
        "next_payment_attempt": null,
        "number": null,
        "parent": null,
        "period_start": now,
        "period_end": now,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "starting_balance": customer["balance"],
        "statement_descriptor": null,
        "status": "draft",
        "status_transitions": { "finalized_at": null, "marked_uncollectible_at": null, "paid_at": null, "voided_at": null },
        "subtotal": 0,
        "subtotal_excluding_tax": 0,
        "test_clock": customer["test_clock"],
        "total": 0,
        "total_discount_amounts": [],
        "total_excluding_tax": 0,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        "_clock": customer["_clock"],
        "_due": null,
    }))
}

/// An invoice over what a subscription used from the start of its period up to `to`.
pub(crate) fn of_current(cx: &mut Context<'_>, subscription: &Value, to: i64, reason: &str) -> Result<Value> {
    let from = start_of(subscription).unwrap_or(to);
    of_period(cx, subscription, from, to, None, reason)
}

/// The draft of an invoice for a window of a subscription. It follows the usage until it is finalised.
pub(crate) fn of_period(
    cx: &mut Context<'_>,
    subscription: &Value,
    from: i64,
    to: i64,
    advance: Option<Window>,
    reason: &str,
) -> Result<Value> {
    let customer_id = subscription["customer"].as_str().unwrap_or_default();
    let customer = cx.state.find(Kind::Customer, customer_id)?.clone();
    let mut invoice = draft(cx, &customer, &subscription["currency"], reason)?;
    let id = invoice["id"].as_str().unwrap_or_default().to_owned();
    invoice["collection_method"] = subscription["collection_method"].clone();
    invoice["_days"] = subscription["days_until_due"].clone();
    invoice["period_start"] = json!(from);
    invoice["period_end"] = json!(to);
    invoice["parent"] = json!({
        "quote_details": null,
        "subscription_details": { "metadata": subscription["metadata"], "subscription": subscription["id"] },
        "type": "subscription_details",
    });
    // Prices and the items' periods as they are now: the subscription goes on.
    invoice["_subscription"] = shown(subscription);
    invoice["_window"] = json!([from, to]);
    invoice["_advance"] = json!(advance.map(|(from, to)| [from, to]));
    let pending: Vec<String> = cx
        .state
        .all(Kind::InvoiceItem)
        .filter(|item| {
            let other = item["_subscription"].as_str();
            item["customer"] == customer_id
                && item["invoice"].is_null()
                && item["currency"] == invoice["currency"]
                && other.is_none_or(|other| subscription["id"] == other)
        })
        .filter_map(|item| item["id"].as_str().map(str::to_owned))
        .collect();
    for item in pending {
        cx.state.change(Kind::InvoiceItem, &item, |item| item["invoice"] = json!(id));
    }
    // What the customer does not pay for is not charged again: it stays a draft.
    let unpaid = subscription["status"] == "unpaid";
    open_draft(cx, &mut invoice, !unpaid);
    cx.state.change(Kind::Subscription, subscription["id"].as_str().unwrap_or_default(), |s| {
        s["latest_invoice"] = json!(id);
    });
    Ok(invoice)
}

/// Stores a draft, sets when it will be finalised, and tells of it.
pub(crate) fn open_draft(cx: &mut Context<'_>, invoice: &mut Value, advance: bool) {
    refresh(cx.state, invoice, cx.now);
    set_advance(cx.state, invoice, advance, cx.now);
    cx.state.put(Kind::Invoice, invoice.clone());
    cx.emit("invoice.created", invoice);
}

/// Whether time goes on with an invoice by itself.
pub(crate) fn set_advance(state: &State, invoice: &mut Value, advance: bool, now: i64) {
    invoice["auto_advance"] = json!(advance);
    if invoice["status"] != "draft" {
        return;
    }
    let draft = state.get(Kind::Setting, "faults").and_then(|f| f["draft_s"].as_i64()).unwrap_or(3600);
    let at = invoice["created"].as_i64().unwrap_or(now).saturating_add(draft).max(now);
    invoice["automatically_finalizes_at"] = if advance { json!(at) } else { Value::Null };
    invoice["_due"] = invoice["automatically_finalizes_at"].clone();
}

/// Brings a draft's lines and sums to what is known now: usage that came late is on it.
pub(crate) fn refresh(state: &State, invoice: &mut Value, now: i64) {
    if invoice["status"] != "draft" {
        return;
    }
    let id = invoice["id"].as_str().unwrap_or_default().to_owned();
    let window = |value: &Value| Some((value[0].as_i64()?, value[1].as_i64()?));
    let mut rows = Vec::new();
    if let Some(used) = window(&invoice["_window"]) {
        let subscription = &invoice["_subscription"];
        rows = lines::of_subscription(state, subscription, &id, used, window(&invoice["_advance"]), now);
    }
    let items = state.all(Kind::InvoiceItem).filter(|item| item["invoice"] == id.as_str());
    rows.extend(items.map(|item| lines::of_item(item, &id)));
    invoice["lines"] = inner_list(&rows, &format!("/v1/invoices/{id}/lines"));
    sum(invoice);
}

/// The sums of an invoice's lines, what credits take off, and what the customer's balance does.
pub(crate) fn sum(invoice: &mut Value) {
    let amounts =
        invoice["lines"]["data"].as_array().into_iter().flatten().filter_map(|line| line["amount"].as_i64());
    let subtotal: i64 = amounts.fold(0, i64::saturating_add);
    let credits = invoice["total_pretax_credit_amounts"].as_array().into_iter().flatten();
    let credits: i64 = credits.filter_map(|credit| credit["amount"].as_i64()).fold(0, i64::saturating_add);
    let total = subtotal.saturating_sub(credits);
    let balance = invoice["starting_balance"].as_i64().unwrap_or(0);
    let due = total.saturating_add(balance).max(0);
    for name in ["subtotal", "subtotal_excluding_tax"] {
        invoice[name] = json!(subtotal);
    }
    for name in ["total", "total_excluding_tax"] {
        invoice[name] = json!(total);
    }
    invoice["amount_due"] = json!(due);
    invoice["amount_remaining"] = json!(due);
}

/// What the next invoice of a subscription would be by now.
pub(crate) fn preview(cx: &mut Context<'_>, subscription: &Value) -> Result<Value> {
    let customer_id = subscription["customer"].as_str().unwrap_or_default();
    let customer = cx.state.find(Kind::Customer, customer_id)?.clone();
    let mut invoice = draft(cx, &customer, &subscription["currency"], "upcoming")?;
    let id = invoice["id"].as_str().unwrap_or_default().replacen("in_", "upcoming_in_", 1);
    let end = end_of(subscription);
    let from = start_of(subscription).unwrap_or(end);
    invoice["id"] = json!(id);
    invoice["period_start"] = json!(from);
    invoice["period_end"] = json!(end);
    invoice["_subscription"] = shown(subscription);
    invoice["_window"] = json!([from, end]);
    invoice["parent"] = json!({
        "quote_details": null,
        "subscription_details": { "metadata": subscription["metadata"], "subscription": subscription["id"] },
        "type": "subscription_details",
    });
    let now = cx.now;
    refresh(cx.state, &mut invoice, now);
    credit::preview(cx.state, &mut invoice, now);
    Ok(invoice)
}

/// An amount of an invoice item: a whole amount, or a fine unit price times a quantity, rounded once.
pub(crate) fn item_amount(amount: Option<i64>, unit: Option<&str>, quantity: i64) -> Result<i64> {
    match (amount, unit) {
        (Some(amount), None) => Ok(amount),
        (None, Some(unit)) => {
            let (sign, text) = unit.strip_prefix('-').map_or((1, unit), |text| (-1, text));
            let parts = decimal::parse(text)
                .ok_or_else(|| ApiError::invalid("Invalid decimal.").param("unit_amount_decimal"))?;
            let quantity = u128::try_from(quantity)
                .map_err(|_| ApiError::invalid("Invalid quantity.").param("quantity"))?;
            Ok(sign * decimal::round(parts.saturating_mul(quantity)))
        }
        (Some(_), Some(_)) => {
            Err(ApiError::invalid("Only one of amount and unit_amount_decimal can be set.")
                .code("parameters_exclusive"))
        }
        (None, None) => Err(ApiError::needed("amount")),
    }
}
