use serde_json::{Value, json};

use super::subscription::{self, Start};
use crate::context::Context;
use crate::error::{ApiError, Result};
use crate::kind::Kind;
use crate::list::page;
use crate::state::shown;

pub(crate) const CREATE: &[&str] = &[
    "mode",
    "customer",
    "customer_email",
    "client_reference_id",
    "line_items.#.price",
    "line_items.#.quantity",
    "success_url",
    "cancel_url",
    "metadata.*",
    "subscription_data.metadata.*",
    "subscription_data.description",
    "payment_method_collection",
    "payment_method_types.#",
    "billing_address_collection",
    "allow_promotion_codes",
    "locale",
    "expires_at",
    "ui_mode",
    "automatic_tax.enabled",
    "submit_type",
];
pub(crate) const LIST: &[&str] =
    &["limit", "starting_after", "ending_before", "customer", "subscription", "status", "created.*"];

/// How long a page waits for its customer.
const OPEN: i64 = 24 * 3600;

pub(crate) fn create(cx: &mut Context<'_>) -> Result<Value> {
    cx.state.room(Kind::Checkout)?;
    let p = cx.params;
    p.need("mode")?;
    if p.word("mode", &["subscription", "payment", "setup"])? != Some("subscription") {
        return Err(ApiError::invalid("The twin knows checkout of subscriptions only.").param("mode"));
    }
    let customer = match p.text("customer")? {
        Some(_) => Some(cx.customer("customer")?.clone()),
        None => None,
    };
    let items = subscription::items(cx, "line_items")?;
    let success = url(p.need("success_url")?, "success_url")?;
    let cancel = p.text("cancel_url")?.map(|text| url(text, "cancel_url")).transpose()?;
    let expires = p.int("expires_at")?.unwrap_or(cx.now + OPEN);
    if !(cx.now + 1800..=cx.now + OPEN).contains(&expires) {
        return Err(ApiError::invalid("expires_at must be between 30 minutes and 24 hours from now.")
            .param("expires_at"));
    }
    let id = cx.state.id(Kind::Checkout);
    let lines: Vec<Value> = items.iter().map(|(price, quantity)| json!([price["id"], quantity])).collect();
    let session = json!({
        "id": id,
        "object": "checkout.session",
        "allow_promotion_codes": p.bool("allow_promotion_codes")?,
        "amount_subtotal": 0,
        "amount_total": 0,
        "automatic_tax": { "enabled": false, "liability": null, "status": null },
        "billing_address_collection": p.text("billing_address_collection")?,
        "cancel_url": cancel,
        "client_reference_id": p.short("client_reference_id", 200)?,
        "created": cx.now,
        "currency": items[0].0["currency"],
        "customer": customer.as_ref().map(|customer| &customer["id"]),
        "customer_details": null,
        "customer_email": p.text("customer_email")?,
        "expires_at": expires,
        "invoice": null,
        "livemode": false,
        "locale": p.text("locale")?,
        "metadata": p.metadata("metadata", &json!({}))?,
        "mode": "subscription",
        "payment_method_collection": p.word("payment_method_collection", &["always", "if_required"])?.unwrap_or("always"),
        "payment_method_types": ["card"],
        "payment_status": "unpaid",
        "status": "open",
        "submit_type": null,
        "subscription": null,
        "success_url": success,
        "ui_mode": "hosted",
        "url": format!("{}/c/pay/{id}", cx.base),
        "_lines": lines,
        "_metadata": p.metadata("subscription_data.metadata", &json!({}))?,
        "_description": p.text("subscription_data.description")?,
        "_due": expires,
    });
    cx.state.put(Kind::Checkout, session.clone());
    Ok(session)
}

/// An address to come back to.
pub(crate) fn url(text: &str, param: &str) -> Result<String> {
    let fits = (text.starts_with("https://") || text.starts_with("http://"))
        && text.len() <= 5000
        && text.chars().all(|c| !c.is_whitespace() && !c.is_control());
    if fits {
        return Ok(text.to_owned());
    }
    Err(ApiError::invalid("Not a valid URL").code("url_invalid").param(param))
}

pub(crate) fn retrieve(cx: &mut Context<'_>) -> Result<Value> {
    Ok(cx.state.find(Kind::Checkout, cx.id())?.clone())
}

pub(crate) fn expire(cx: &mut Context<'_>) -> Result<Value> {
    let mut session = cx.state.find(Kind::Checkout, cx.id())?.clone();
    if session["status"] != "open" {
        return Err(ApiError::invalid("Only Checkout Sessions with a status in [\"open\"] can be expired.")
            .executed());
    }
    session["status"] = json!("expired");
    session["url"] = Value::Null;
    session["_due"] = Value::Null;
    cx.state.put(Kind::Checkout, session.clone());
    cx.emit("checkout.session.expired", &session);
    Ok(session)
}

pub(crate) fn line_items(cx: &mut Context<'_>) -> Result<Value> {
    let id = cx.id();
    let session = cx.state.find(Kind::Checkout, id)?;
    let rows: Vec<Value> = session["_lines"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|line| {
            let price = cx.state.get(Kind::Price, line[0].as_str()?)?;
            Some(json!({
                "id": crate::bill::lines::derived("li_", &[id, line[0].as_str()?]),
                "object": "item",
                "amount_subtotal": 0,
                "amount_total": 0,
                "currency": price["currency"],
                "description": price["nickname"],
                "price": shown(price),
                "quantity": line[1],
            }))
        })
        .collect();
    page(cx.params, &format!("/v1/checkout/sessions/{id}/line_items"), rows.iter(), "item")
}

pub(crate) fn list(cx: &mut Context<'_>) -> Result<Value> {
    let p = cx.params;
    let (customer, subscription, status) = (p.text("customer")?, p.text("subscription")?, p.text("status")?);
    let rows = cx.state.all(Kind::Checkout).rev();
    let rows = rows.filter(|session| {
        customer.is_none_or(|customer| session["customer"] == customer)
            && subscription.is_none_or(|subscription| session["subscription"] == subscription)
            && status.is_none_or(|status| session["status"] == status)
    });
    page(p, "/v1/checkout/sessions", rows, "checkout.session")
}

/// The customer has clicked: a card, a subscription, and the news of it.
pub(crate) fn complete(cx: &mut Context<'_>, id: &str, card: &str) -> Result<Value> {
    let session = cx.state.find(Kind::Checkout, id)?.clone();
    if session["status"] != "open" {
        return Err(ApiError::invalid("This Checkout Session is no longer open.").executed());
    }
    let mut customer = match session["customer"].as_str() {
        Some(customer) => cx.state.find(Kind::Customer, customer)?.clone(),
        None => {
            let mut made = super::customer::create(cx)?;
            made["email"] = session["customer_email"].clone();
            cx.state.put(Kind::Customer, made.clone());
            made
        }
    };
    if customer["deleted"] == true {
        return Err(ApiError::missing("customer", customer["id"].as_str().unwrap_or_default()));
    }
    let customer_id = customer["id"].as_str().unwrap_or_default().to_owned();
    let method = super::payment_method::attach_to(cx, card, &customer_id)?;
    customer["invoice_settings"]["default_payment_method"] = method["id"].clone();
    cx.state.put(Kind::Customer, customer.clone());
    let lines = session["_lines"].as_array().into_iter().flatten();
    let items: Vec<(Value, Option<i64>)> = lines
        .filter_map(|line| Some((cx.state.get(Kind::Price, line[0].as_str()?)?.clone(), line[1].as_i64())))
        .collect();
    let made = subscription::begin(
        cx,
        Start {
            customer: &customer,
            items,
            metadata: session["_metadata"].clone(),
            description: session["_description"].as_str(),
            method: method["id"].as_str(),
            days_until_due: None,
            anchor: None,
        },
    )?;
    let mut done = session;
    done["status"] = json!("complete");
    done["payment_status"] = json!("paid");
    done["customer"] = customer["id"].clone();
    done["customer_details"] =
        json!({ "email": customer["email"], "name": customer["name"], "tax_exempt": "none" });
    done["invoice"] = made["latest_invoice"].clone();
    done["subscription"] = made["id"].clone();
    done["url"] = Value::Null;
    done["_due"] = Value::Null;
    cx.state.put(Kind::Checkout, done.clone());
    cx.emit("checkout.session.completed", &done);
    Ok(done)
}
