use serde_json::{Value, json};

use crate::bill::invoice::item_amount;
use crate::context::Context;
use crate::error::{ApiError, Result};
use crate::kind::Kind;
use crate::list::page;

pub(crate) const CREATE: &[&str] = &[
    "customer",
    "amount",
    "currency",
    "description",
    "metadata.*",
    "invoice",
    "subscription",
    "quantity",
    "unit_amount_decimal",
    "period.start",
    "period.end",
    "discountable",
];
pub(crate) const UPDATE: &[&str] =
    &["amount", "description", "metadata.*", "quantity", "unit_amount_decimal"];
pub(crate) const LIST: &[&str] =
    &["limit", "starting_after", "ending_before", "customer", "invoice", "pending"];

/// A line of one's own on a draft, or on the customer's next invoice.
pub(crate) fn create(cx: &mut Context<'_>) -> Result<Value> {
    cx.state.room(Kind::InvoiceItem)?;
    let p = cx.params;
    let customer = cx.customer("customer")?.clone();
    let quantity = p.int("quantity")?.unwrap_or(1);
    let amount = item_amount(p.int("amount")?, p.text("unit_amount_decimal")?, quantity)?;
    let mut currency = p.text("currency")?.map(str::to_owned);
    if let Some(invoice) = p.text("invoice")? {
        let found = cx.state.find_param(Kind::Invoice, invoice, "invoice")?;
        if found["status"] != "draft" || found["customer"] != customer["id"] {
            return Err(ApiError::invalid("The invoice is not a draft of this customer.")
                .code("invoice_not_editable")
                .param("invoice")
                .executed());
        }
        let theirs = found["currency"].as_str().unwrap_or_default();
        if currency.get_or_insert_with(|| theirs.to_owned()) != theirs {
            return Err(ApiError::invalid("The currency differs from the invoice's.").param("currency"));
        }
    }
    let currency = currency.ok_or_else(|| ApiError::needed("currency"))?;
    let subscription = p.text("subscription")?;
    if let Some(subscription) = subscription {
        cx.state.find_param(Kind::Subscription, subscription, "subscription")?;
    }
    let now = cx.now_of(&customer);
    let id = cx.state.id(Kind::InvoiceItem);
    let item = json!({
        "id": id,
        "object": "invoiceitem",
        "amount": amount,
        "currency": currency,
        "customer": customer["id"],
        "date": now,
        "description": p.text("description")?,
        "discountable": p.bool("discountable")?.unwrap_or(true),
        "discounts": [],
        "invoice": p.text("invoice")?,
        "livemode": false,
        "metadata": p.metadata("metadata", &json!({}))?,
        "parent": null,
        "period": { "start": p.int("period.start")?.unwrap_or(now), "end": p.int("period.end")?.unwrap_or(now) },
        "pricing": {
            "price_details": null,
            "type": "unit_amount",
            "unit_amount_decimal": p.text("unit_amount_decimal")?.map_or_else(|| amount.to_string(), str::to_owned),
        },
        "proration": false,
        "quantity": quantity,
        "tax_rates": [],
        "test_clock": customer["test_clock"],
        "_clock": customer["_clock"],
        "_subscription": subscription,
    });
    cx.state.put(Kind::InvoiceItem, item.clone());
    cx.emit("invoiceitem.created", &item);
    Ok(item)
}

fn editable(cx: &Context<'_>) -> Result<Value> {
    let item = cx.state.find(Kind::InvoiceItem, cx.id())?;
    let invoice = item["invoice"].as_str().and_then(|id| cx.state.get(Kind::Invoice, id));
    if invoice.is_some_and(|invoice| invoice["status"] != "draft") {
        return Err(ApiError::invalid("The invoice of this item is not a draft any more.")
            .code("invoice_not_editable")
            .executed());
    }
    Ok(item.clone())
}

pub(crate) fn update(cx: &mut Context<'_>) -> Result<Value> {
    let mut item = editable(cx)?;
    let p = cx.params;
    super::lay_texts(p, &mut item, &["description"])?;
    item["metadata"] = p.metadata("metadata", &item["metadata"])?;
    if p.has("amount") || p.has("unit_amount_decimal") {
        let quantity = p.int("quantity")?.unwrap_or(1);
        item["amount"] = json!(item_amount(p.int("amount")?, p.text("unit_amount_decimal")?, quantity)?);
        item["quantity"] = json!(quantity);
    }
    cx.state.put(Kind::InvoiceItem, item.clone());
    Ok(item)
}

pub(crate) fn delete(cx: &mut Context<'_>) -> Result<Value> {
    let item = editable(cx)?;
    let id = cx.id().to_owned();
    cx.state.remove(Kind::InvoiceItem, &id);
    cx.emit("invoiceitem.deleted", &item);
    Ok(json!({ "id": id, "object": "invoiceitem", "deleted": true }))
}

pub(crate) fn retrieve(cx: &mut Context<'_>) -> Result<Value> {
    Ok(cx.state.find(Kind::InvoiceItem, cx.id())?.clone())
}

pub(crate) fn list(cx: &mut Context<'_>) -> Result<Value> {
    let p = cx.params;
    let (customer, invoice, pending) = (p.text("customer")?, p.text("invoice")?, p.bool("pending")?);
    let rows = cx.state.all(Kind::InvoiceItem).rev();
    let rows = rows.filter(|item| {
        customer.is_none_or(|customer| item["customer"] == customer)
            && invoice.is_none_or(|invoice| item["invoice"] == invoice)
            && pending.is_none_or(|pending| item["invoice"].is_null() == pending)
    });
    page(p, "/v1/invoiceitems", rows, "invoiceitem")
}
