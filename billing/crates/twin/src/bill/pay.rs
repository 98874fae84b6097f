use serde_json::{Value, json};

use super::{credit, invoice};
use crate::context::Context;
use crate::error::{ApiError, Result};
use crate::kind::Kind;
use crate::object::subscription;

/// Days between attempts at a payment.
const AGAIN: [i64; 3] = [3, 5, 7];
const DAY: i64 = 86_400;

/// Finalises a draft: its lines are fixed. With `advance` its payment is tried at once.
pub(crate) fn finalise(cx: &mut Context<'_>, draft: &Value, advance: bool) -> Result<Value> {
    let mut bill = draft.clone();
    let id = bill["id"].as_str().unwrap_or_default().to_owned();
    if bill["status"] != "draft" {
        return Err(ApiError::invalid(
            "This invoice is already finalized, you can't re-finalize a non-draft invoice.",
        )
        .code("invoice_not_editable")
        .executed());
    }
    let now = cx.now_of(&bill);
    let customer_id = bill["customer"].as_str().unwrap_or_default().to_owned();
    let customer = cx.state.find(Kind::Customer, &customer_id)?.clone();
    bill["starting_balance"] = json!(customer["balance"].as_i64().unwrap_or(0));
    invoice::refresh(cx.state, &mut bill, now);
    credit::apply(cx, &mut bill, now);
    let sequence = customer["next_invoice_sequence"].as_i64().unwrap_or(1);
    let total = bill["total"].as_i64().unwrap_or(0);
    let balance = bill["starting_balance"].as_i64().unwrap_or(0);
    // A balance below zero is the customer's: it pays first, and what is over stays.
    let ending = total.saturating_add(balance).min(0);
    bill["ending_balance"] = json!(ending);
    if ending != balance {
        cx.state.change(Kind::Customer, &customer_id, |c| c["balance"] = json!(ending));
    }
    bill["number"] =
        json!(format!("{}-{sequence:04}", customer["invoice_prefix"].as_str().unwrap_or("TWIN")));
    cx.state.change(Kind::Customer, &customer_id, |c| c["next_invoice_sequence"] = json!(sequence + 1));
    bill["status"] = json!("open");
    bill["effective_at"] = json!(now);
    bill["status_transitions"]["finalized_at"] = json!(now);
    bill["automatically_finalizes_at"] = Value::Null;
    bill["auto_advance"] = json!(advance);
    bill["hosted_invoice_url"] = json!(format!("{}/i/{id}", cx.base));
    bill["invoice_pdf"] = bill["hosted_invoice_url"].clone();
    bill["_due"] = Value::Null;
    if let Some(days) = bill["_days"].as_i64() {
        bill["due_date"] = json!(now + days * DAY);
        bill["_due"] = bill["due_date"].clone();
    }
    cx.state.put(Kind::Invoice, bill.clone());
    cx.emit("invoice.finalized", &bill);
    if bill["amount_due"] == 0 {
        settle(cx, &id, false);
    } else if bill["collection_method"] == "send_invoice" {
        cx.emit("invoice.sent", &bill);
    } else if advance {
        attempt(cx, &id);
    }
    Ok(cx.state.find(Kind::Invoice, &id)?.clone())
}

/// Tries a payment; whether it went through.
pub(crate) fn attempt(cx: &mut Context<'_>, id: &str) -> bool {
    let Some(bill) = cx.state.get(Kind::Invoice, id).cloned() else { return false };
    if bill["status"] != "open" {
        return false;
    }
    if card(cx, &bill).is_some_and(|card| card["_good"] == true) {
        settle(cx, id, false);
        return true;
    }
    let now = cx.now_of(&bill);
    let attempts = bill["attempt_count"].as_i64().unwrap_or(0) + 1;
    let most =
        cx.state.get(Kind::Setting, "faults").and_then(|f| f["unpaid_after"].as_i64()).unwrap_or(4).max(1);
    let over = attempts >= most;
    let wait = AGAIN[usize::try_from(attempts - 1).unwrap_or(0).min(AGAIN.len() - 1)] * DAY;
    let next = if over { Value::Null } else { json!(now + wait) };
    cx.state.change(Kind::Invoice, id, |bill| {
        bill["attempt_count"] = json!(attempts);
        bill["attempted"] = json!(true);
        bill["next_payment_attempt"] = next.clone();
        bill["_due"] = if bill["auto_advance"] == true { next } else { Value::Null };
    });
    let customer = bill["customer"].as_str().unwrap_or_default();
    cx.state.change(Kind::Customer, customer, |c| c["delinquent"] = json!(true));
    if let Some(failed) = cx.state.get(Kind::Invoice, id).cloned() {
        cx.emit("invoice.payment_failed", &failed);
    }
    if let Some(subscription) = subscription_of(&bill) {
        subscription::set_status(cx, &subscription, if over { "unpaid" } else { "past_due" });
    }
    false
}

/// Marks an invoice paid, and makes its subscription active again.
pub(crate) fn settle(cx: &mut Context<'_>, id: &str, out_of_band: bool) {
    let Some(bill) = cx.state.get(Kind::Invoice, id).cloned() else { return };
    let now = cx.now_of(&bill);
    cx.state.change(Kind::Invoice, id, |bill| {
        bill["status"] = json!("paid");
        bill["amount_paid"] = if out_of_band { json!(0) } else { bill["amount_remaining"].clone() };
        bill["amount_remaining"] = json!(0);
        if bill["amount_due"] != 0 {
            bill["attempt_count"] = json!(bill["attempt_count"].as_i64().unwrap_or(0) + 1);
        }
        bill["attempted"] = json!(true);
        bill["next_payment_attempt"] = Value::Null;
        bill["status_transitions"]["paid_at"] = json!(now);
        bill["_due"] = Value::Null;
    });
    let Some(paid) = cx.state.get(Kind::Invoice, id).cloned() else { return };
    cx.emit("invoice.paid", &paid);
    cx.emit("invoice.payment_succeeded", &paid);
    let customer = paid["customer"].as_str().unwrap_or_default();
    let owes =
        |bill: &Value| bill["customer"] == customer && bill["status"] == "open" && bill["attempted"] == true;
    let still_owes = cx.state.all(Kind::Invoice).any(owes);
    if !still_owes {
        cx.state.change(Kind::Customer, customer, |c| c["delinquent"] = json!(false));
        if let Some(subscription) = subscription_of(&paid) {
            subscription::set_status(cx, &subscription, "active");
        }
    }
}

/// The subscription that an invoice is for.
pub(crate) fn subscription_of(bill: &Value) -> Option<String> {
    bill["parent"]["subscription_details"]["subscription"].as_str().map(str::to_owned)
}

/// The card that an invoice is charged to.
fn card<'a>(cx: &'a Context<'_>, bill: &Value) -> Option<&'a Value> {
    let of_subscription = subscription_of(bill)
        .and_then(|id| cx.state.get(Kind::Subscription, &id))
        .map(|s| &s["default_payment_method"]);
    let customer = bill["customer"].as_str().and_then(|id| cx.state.get(Kind::Customer, id));
    let of_customer = customer.map(|c| &c["invoice_settings"]["default_payment_method"]);
    let ids = [Some(&bill["default_payment_method"]), of_subscription, of_customer];
    let id = ids.into_iter().flatten().find_map(Value::as_str)?;
    cx.state.get(Kind::PaymentMethod, id).filter(|method| method["customer"] == bill["customer"])
}
