use serde_json::{Value, json};

use crate::bill::{invoice as bill, pay};
use crate::context::Context;
use crate::error::{ApiError, Result};
use crate::kind::Kind;
use crate::list::{created_within, page};

pub(crate) const CREATE: &[&str] = &[
    "customer",
    "currency",
    "auto_advance",
    "collection_method",
    "days_until_due",
    "description",
    "metadata.*",
    "pending_invoice_items_behavior",
    "default_payment_method",
    "footer",
];
pub(crate) const UPDATE: &[&str] =
    &["auto_advance", "description", "metadata.*", "default_payment_method", "footer"];
pub(crate) const FINALIZE: &[&str] = &["auto_advance"];
pub(crate) const PAY: &[&str] = &["payment_method", "paid_out_of_band", "off_session", "forgive"];
pub(crate) const PREVIEW: &[&str] = &["customer", "subscription", "preview_mode"];
pub(crate) const LIST: &[&str] = &[
    "limit",
    "starting_after",
    "ending_before",
    "customer",
    "subscription",
    "status",
    "created.*",
    "collection_method",
    "due_date.*",
];
pub(crate) const LINES: &[&str] = &["limit", "starting_after", "ending_before"];

/// An invoice with a draft's lines as they are now.
fn current(cx: &Context<'_>, id: &str) -> Result<Value> {
    let mut invoice = cx.state.find(Kind::Invoice, id)?.clone();
    let now = cx.now_of(&invoice);
    bill::refresh(cx.state, &mut invoice, now);
    Ok(invoice)
}

/// The first lines of an invoice; more are had from its list of them.
fn with_first_lines(mut invoice: Value) -> Value {
    const SHOWN: usize = 10;
    if let Some(lines) = invoice["lines"]["data"].as_array_mut().filter(|lines| lines.len() > SHOWN) {
        lines.truncate(SHOWN);
        invoice["lines"]["has_more"] = json!(true);
    }
    invoice
}

pub(crate) fn create(cx: &mut Context<'_>) -> Result<Value> {
    let p = cx.params;
    let customer = cx.customer("customer")?.clone();
    let otherwise = customer["currency"].as_str().unwrap_or("usd");
    let currency = json!(p.text("currency")?.unwrap_or(otherwise));
    let mut invoice = bill::draft(cx, &customer, &currency, "manual")?;
    let id = invoice["id"].as_str().unwrap_or_default().to_owned();
    let send =
        p.word("collection_method", &["charge_automatically", "send_invoice"])? == Some("send_invoice");
    if send {
        invoice["collection_method"] = json!("send_invoice");
        invoice["_days"] = json!(p.need_int("days_until_due")?);
    }
    super::lay_texts(p, &mut invoice, &["description", "footer", "default_payment_method"])?;
    invoice["metadata"] = p.metadata("metadata", &json!({}))?;
    if p.word("pending_invoice_items_behavior", &["include", "exclude"])? == Some("include") {
        let pending: Vec<String> = cx
            .state
            .all(Kind::InvoiceItem)
            .filter(|item| {
                item["customer"] == customer["id"]
                    && item["invoice"].is_null()
                    && item["currency"] == currency
            })
            .filter_map(|item| item["id"].as_str().map(str::to_owned))
            .collect();
        for item in pending {
            cx.state.change(Kind::InvoiceItem, &item, |item| item["invoice"] = json!(id));
        }
    }
    let advance = p.bool("auto_advance")?.unwrap_or(false);
    bill::open_draft(cx, &mut invoice, advance);
    Ok(invoice)
}

pub(crate) fn retrieve(cx: &mut Context<'_>) -> Result<Value> {
    current(cx, cx.id()).map(with_first_lines)
}

pub(crate) fn lines(cx: &mut Context<'_>) -> Result<Value> {
    let invoice = current(cx, cx.id())?;
    let rows = invoice["lines"]["data"].as_array().into_iter().flatten();
    page(cx.params, &format!("/v1/invoices/{}/lines", cx.id()), rows, "line item")
}

pub(crate) fn update(cx: &mut Context<'_>) -> Result<Value> {
    let before = current(cx, cx.id())?;
    let mut invoice = before.clone();
    let p = cx.params;
    super::lay_texts(p, &mut invoice, &["description", "footer", "default_payment_method"])?;
    invoice["metadata"] = p.metadata("metadata", &before["metadata"])?;
    if let Some(advance) = p.bool("auto_advance")? {
        let now = cx.now_of(&invoice);
        bill::set_advance(cx.state, &mut invoice, advance, now);
        if invoice["status"] == "open" {
            invoice["_due"] = if advance { invoice["next_payment_attempt"].clone() } else { Value::Null };
        }
    }
    cx.state.put(Kind::Invoice, invoice.clone());
    cx.emit_update("invoice.updated", &before, &invoice);
    Ok(with_first_lines(invoice))
}

pub(crate) fn finalize(cx: &mut Context<'_>) -> Result<Value> {
    let invoice = current(cx, cx.id())?;
    let advance = cx.params.bool("auto_advance")?.unwrap_or(invoice["auto_advance"] == true);
    pay::finalise(cx, &invoice, advance).map(with_first_lines)
}

pub(crate) fn pay(cx: &mut Context<'_>) -> Result<Value> {
    let id = cx.id().to_owned();
    let mut invoice = current(cx, &id)?;
    let p = cx.params;
    if invoice["status"] == "draft" {
        invoice = pay::finalise(cx, &invoice, false)?;
    }
    if invoice["status"] == "paid" {
        return Err(ApiError::invalid("Invoice is already paid").code("invoice_already_paid").executed());
    }
    if invoice["status"] != "open" {
        return Err(ApiError::invalid("Only open invoices can be paid.").executed());
    }
    if p.bool("paid_out_of_band")? == Some(true) {
        pay::settle(cx, &id, true);
        return current(cx, &id).map(with_first_lines);
    }
    if let Some(method) = p.text("payment_method")? {
        cx.state.find_param(Kind::PaymentMethod, method, "payment_method")?;
        cx.state.change(Kind::Invoice, &id, |bill| bill["default_payment_method"] = json!(method));
    }
    if pay::attempt(cx, &id) {
        return current(cx, &id).map(with_first_lines);
    }
    Err(ApiError::new(402, "card_error", "Your card was declined.").code("card_declined").executed())
}

fn close(cx: &mut Context<'_>, status: &str, at: &str, event: &str) -> Result<Value> {
    let mut invoice = cx.state.find(Kind::Invoice, cx.id())?.clone();
    if invoice["status"] != "open" && !(invoice["status"] == "uncollectible" && status == "void") {
        return Err(ApiError::invalid("You can only pass in open invoices.")
            .code("invoice_not_editable")
            .executed());
    }
    invoice["status"] = json!(status);
    invoice["status_transitions"][at] = json!(cx.now_of(&invoice));
    invoice["next_payment_attempt"] = Value::Null;
    invoice["_due"] = Value::Null;
    cx.state.put(Kind::Invoice, invoice.clone());
    cx.emit(event, &invoice);
    Ok(with_first_lines(invoice))
}

pub(crate) fn void(cx: &mut Context<'_>) -> Result<Value> {
    close(cx, "void", "voided_at", "invoice.voided")
}

pub(crate) fn uncollectible(cx: &mut Context<'_>) -> Result<Value> {
    close(cx, "uncollectible", "marked_uncollectible_at", "invoice.marked_uncollectible")
}

/// Drafts that belong to no subscription can be taken away.
pub(crate) fn delete(cx: &mut Context<'_>) -> Result<Value> {
    let invoice = cx.state.find(Kind::Invoice, cx.id())?.clone();
    if invoice["status"] != "draft" || pay::subscription_of(&invoice).is_some() {
        return Err(ApiError::invalid("You can only delete draft invoices that belong to no subscription.")
            .code("invoice_not_editable")
            .executed());
    }
    let id = cx.id().to_owned();
    cx.state.remove(Kind::Invoice, &id);
    cx.emit("invoice.deleted", &invoice);
    Ok(json!({ "id": id, "object": "invoice", "deleted": true }))
}

/// The invoice that the running period would come to.
pub(crate) fn preview(cx: &mut Context<'_>) -> Result<Value> {
    let p = cx.params;
    let subscription = match (p.text("subscription")?, p.text("customer")?) {
        (Some(id), _) => cx.state.find_param(Kind::Subscription, id, "subscription")?.clone(),
        (None, Some(customer)) => cx
            .state
            .all(Kind::Subscription)
            .find(|s| s["customer"] == customer && s["status"] != "canceled")
            .cloned()
            .ok_or_else(|| {
                ApiError::invalid("No upcoming invoices for customer")
                    .code("invoice_upcoming_none")
                    .executed()
            })?,
        (None, None) => return Err(ApiError::needed("customer")),
    };
    if subscription["status"] == "canceled" {
        return Err(ApiError::invalid("No upcoming invoices for a subscription that has ended")
            .code("invoice_upcoming_none")
            .executed());
    }
    bill::preview(cx, &subscription).map(with_first_lines)
}

pub(crate) fn list(cx: &mut Context<'_>) -> Result<Value> {
    let p = cx.params;
    let status = p.word("status", &["draft", "open", "paid", "uncollectible", "void"])?;
    let (customer, subscription) = (p.text("customer")?, p.text("subscription")?);
    let mut rows = Vec::new();
    for invoice in cx.state.all(Kind::Invoice).rev() {
        let wanted = status.is_none_or(|status| invoice["status"] == status)
            && customer.is_none_or(|customer| invoice["customer"] == customer)
            && subscription.is_none_or(|s| pay::subscription_of(invoice).as_deref() == Some(s));
        if wanted && created_within(p, invoice)? {
            rows.push(invoice.clone());
        }
    }
    let mut page = page(p, "/v1/invoices", rows.iter(), "invoice")?;
    for row in page["data"].as_array_mut().into_iter().flatten() {
        let id = row["id"].as_str().unwrap_or_default().to_owned();
        *row = crate::state::shown(&with_first_lines(current(cx, &id)?));
    }
    Ok(page)
}
