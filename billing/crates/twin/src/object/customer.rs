use serde_json::{Value, json};

use super::lay_texts;
use crate::context::Context;
use crate::error::{ApiError, Result};
use crate::kind::Kind;
use crate::list::{created_within, page};
use crate::state::shown;

pub(crate) const CREATE: &[&str] = &[
    "name",
    "email",
    "description",
    "phone",
    "metadata.*",
    "test_clock",
    "payment_method",
    "balance",
    "invoice_settings.default_payment_method",
    "address.*",
    "preferred_locales.#",
];
pub(crate) const UPDATE: &[&str] = &[
    "name",
    "email",
    "description",
    "phone",
    "metadata.*",
    "balance",
    "invoice_settings.default_payment_method",
    "address.*",
    "preferred_locales.#",
];
pub(crate) const LIST: &[&str] =
    &["limit", "starting_after", "ending_before", "email", "created.*", "test_clock"];

const TEXTS: &[&str] = &["name", "email", "description", "phone"];

/// A customer is made of a request, or of nothing where a checkout needs one.
pub(crate) fn create(cx: &mut Context<'_>) -> Result<Value> {
    cx.state.room(Kind::Customer)?;
    let p = cx.params;
    let clock = p.text("test_clock")?;
    if let Some(clock) = clock {
        cx.state.find_param(Kind::TestClock, clock, "test_clock")?;
    }
    let id = cx.state.id(Kind::Customer);
    let prefix = cx.state.token(8).to_ascii_uppercase();
    let mut customer = json!({
        "id": id,
        "object": "customer",
        "address": null,
        "balance": p.int("balance")?.unwrap_or(0),
        "created": cx.state.now(clock.unwrap_or_default()),
        "currency": null,
        "default_source": null,
        "delinquent": false,
        "description": null,
        "email": null,
        "invoice_prefix": prefix,
        "invoice_settings": {
            "custom_fields": null,
            "default_payment_method": null,
            "footer": null,
            "rendering_options": null,
        },
        "livemode": false,
        "metadata": p.metadata("metadata", &json!({}))?,
        "name": null,
        "next_invoice_sequence": 1,
        "phone": null,
        "preferred_locales": p.texts("preferred_locales"),
        "shipping": null,
        "tax_exempt": "none",
        "test_clock": clock,
    });
    if let Some(clock) = clock {
        customer["_clock"] = json!(clock);
    }
    if p.has("address") {
        customer["address"] = Value::Object(p.map("address")?);
    }
    lay_texts(p, &mut customer, TEXTS)?;
    cx.state.put(Kind::Customer, customer.clone());
    if let Some(method) = p.text("payment_method")? {
        let method = super::payment_method::attach_to(cx, method, &id)?;
        customer["invoice_settings"]["default_payment_method"] = method["id"].clone();
        cx.state.put(Kind::Customer, customer.clone());
    }
    set_default(cx, &mut customer)?;
    cx.emit("customer.created", &customer);
    Ok(customer)
}

fn set_default(cx: &mut Context<'_>, customer: &mut Value) -> Result<()> {
    const PARAM: &str = "invoice_settings.default_payment_method";
    if let Some(method) = cx.params.text(PARAM)? {
        let found = cx.state.find_param(Kind::PaymentMethod, method, "payment_method")?;
        if found["customer"] != customer["id"] {
            return Err(ApiError::invalid(
                "The customer does not have a payment method with the ID that was given; attach it first.",
            )
            .code("resource_missing"));
        }
        customer["invoice_settings"]["default_payment_method"] = json!(method);
        cx.state.put(Kind::Customer, customer.clone());
    }
    Ok(())
}

/// A customer that was deleted is still found, as little more than its id.
pub(crate) fn retrieve(cx: &mut Context<'_>) -> Result<Value> {
    Ok(cx.state.find(Kind::Customer, cx.id())?.clone())
}

fn alive(cx: &Context<'_>) -> Result<Value> {
    let customer = cx.state.find(Kind::Customer, cx.id())?;
    if customer["deleted"] == true {
        return Err(ApiError::missing("customer", cx.id()));
    }
    Ok(customer.clone())
}

pub(crate) fn update(cx: &mut Context<'_>) -> Result<Value> {
    let before = alive(cx)?;
    let mut customer = before.clone();
    let p = cx.params;
    lay_texts(p, &mut customer, TEXTS)?;
    customer["metadata"] = p.metadata("metadata", &before["metadata"])?;
    if let Some(balance) = p.int("balance")? {
        customer["balance"] = json!(balance);
    }
    if p.has("address") {
        customer["address"] = Value::Object(p.map("address")?);
    }
    cx.state.put(Kind::Customer, customer.clone());
    set_default(cx, &mut customer)?;
    cx.emit_update("customer.updated", &before, &customer);
    Ok(customer)
}

/// Takes the customer away with its subscriptions, which end without a last invoice.
pub(crate) fn delete(cx: &mut Context<'_>) -> Result<Value> {
    let customer = alive(cx)?;
    let id = cx.id().to_owned();
    let theirs = |s: &&Value| s["customer"] == id.as_str() && s["status"] != "canceled";
    let subscriptions: Vec<String> = cx
        .state
        .all(Kind::Subscription)
        .filter(theirs)
        .filter_map(|s| s["id"].as_str().map(str::to_owned))
        .collect();
    for subscription in subscriptions {
        super::subscription::end(cx, &subscription, "cancellation_requested");
    }
    let gone = json!({
        "id": id,
        "object": "customer",
        "deleted": true,
        "_clock": customer["_clock"],
    });
    cx.state.put(Kind::Customer, gone.clone());
    cx.emit("customer.deleted", &customer);
    Ok(gone)
}

pub(crate) fn list(cx: &mut Context<'_>) -> Result<Value> {
    let p = cx.params;
    let (email, clock) = (p.text("email")?, p.text("test_clock")?);
    let mut rows = Vec::new();
    for customer in cx.state.all(Kind::Customer).rev() {
        let wanted = customer["deleted"] != true
            && email.is_none_or(|email| customer["email"] == email)
            && clock.map_or(customer["_clock"].is_null(), |clock| customer["_clock"] == clock);
        if wanted && created_within(p, customer)? {
            rows.push(customer);
        }
    }
    page(p, "/v1/customers", rows.into_iter(), "customer")
}

/// The customer's payment methods.
pub(crate) fn payment_methods(cx: &mut Context<'_>) -> Result<Value> {
    let id = cx.id();
    cx.state.find(Kind::Customer, id)?;
    let rows = cx.state.all(Kind::PaymentMethod).rev().filter(|method| method["customer"] == id).map(shown);
    let rows: Vec<Value> = rows.collect();
    page(cx.params, &format!("/v1/customers/{id}/payment_methods"), rows.iter(), "PaymentMethod")
}
