use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{ApiError, Result};
use crate::kind::Kind;
use crate::list::page;

pub(crate) const ATTACH: &[&str] = &["customer"];
pub(crate) const LIST: &[&str] = &["limit", "starting_after", "ending_before", "customer", "type"];

/// Stripe's test cards (documentation, "Test cards"): name, last four digits, whether it can be charged.
const CARDS: [(&str, &str, bool); 4] = [
    ("pm_card_visa", "4242", true),
    ("pm_card_mastercard", "4444", true),
    ("pm_card_chargeCustomerFail", "0341", false),
    ("pm_card_chargeDeclined", "0002", false),
];

/// Makes a card of one of the test cards' names, or takes one that is there, and gives it to a customer.
pub(crate) fn attach_to(cx: &mut Context<'_>, name: &str, customer: &str) -> Result<Value> {
    if let Some((_, last4, good)) = CARDS.into_iter().find(|(card, ..)| *card == name) {
        cx.state.room(Kind::PaymentMethod)?;
        let id = cx.state.id(Kind::PaymentMethod);
        let method = json!({
            "id": id,
            "object": "payment_method",
            "allow_redisplay": "unspecified",
            "billing_details": { "address": null, "email": null, "name": null, "phone": null },
            "card": {
                "brand": if last4 == "4444" { "mastercard" } else { "visa" },
                "country": "US",
                "exp_month": 12,
                "exp_year": 2034,
                "funding": "credit",
                "last4": last4,
            },
            "created": cx.now,
            "customer": customer,
            "livemode": false,
            "metadata": {},
            "type": "card",
            "_good": good,
        });
        cx.state.put(Kind::PaymentMethod, method.clone());
        cx.emit("payment_method.attached", &method);
        return Ok(method);
    }
    let mut method = cx.state.find_param(Kind::PaymentMethod, name, "payment_method")?.clone();
    if method["customer"].is_string() && method["customer"] != customer {
        return Err(ApiError::invalid(
            "The payment method you provided has already been attached to a customer.",
        ));
    }
    method["customer"] = json!(customer);
    cx.state.put(Kind::PaymentMethod, method.clone());
    cx.emit("payment_method.attached", &method);
    Ok(method)
}

pub(crate) fn attach(cx: &mut Context<'_>) -> Result<Value> {
    let customer = cx.customer("customer")?["id"].as_str().unwrap_or_default().to_owned();
    attach_to(cx, cx.id(), &customer)
}

pub(crate) fn detach(cx: &mut Context<'_>) -> Result<Value> {
    let mut method = cx.state.find(Kind::PaymentMethod, cx.id())?.clone();
    method["customer"] = Value::Null;
    cx.state.put(Kind::PaymentMethod, method.clone());
    cx.emit("payment_method.detached", &method);
    Ok(method)
}

pub(crate) fn retrieve(cx: &mut Context<'_>) -> Result<Value> {
    Ok(cx.state.find(Kind::PaymentMethod, cx.id())?.clone())
}

pub(crate) fn list(cx: &mut Context<'_>) -> Result<Value> {
    let customer = cx.params.text("customer")?;
    let rows = cx.state.all(Kind::PaymentMethod).rev();
    let rows = rows.filter(|method| customer.is_some_and(|customer| method["customer"] == customer));
    page(cx.params, "/v1/payment_methods", rows, "PaymentMethod")
}
