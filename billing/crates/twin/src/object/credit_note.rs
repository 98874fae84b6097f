use serde_json::{Value, json};

use crate::bill::pay;
use crate::context::Context;
use crate::error::{ApiError, Result};
use crate::kind::Kind;
use crate::list::page;

pub(crate) const CREATE: &[&str] = &[
    "invoice",
    "amount",
    "memo",
    "reason",
    "metadata.*",
    "credit_amount",
    "refund_amount",
    "out_of_band_amount",
];
pub(crate) const LIST: &[&str] = &["limit", "starting_after", "ending_before", "customer", "invoice"];

/// Takes an amount off an invoice that is final: of an open one what is due, of a paid one to the customer's balance or
/// back to the card.
pub(crate) fn create(cx: &mut Context<'_>) -> Result<Value> {
    cx.state.room(Kind::CreditNote)?;
    let p = cx.params;
    let invoice_id = p.need("invoice")?;
    let invoice = cx.state.find_param(Kind::Invoice, invoice_id, "invoice")?.clone();
    let amount = p.need_int("amount")?;
    let part = |name: &str| Ok::<i64, ApiError>(p.int(name)?.unwrap_or(0));
    let (credit, refund, outside) =
        (part("credit_amount")?, part("refund_amount")?, part("out_of_band_amount")?);
    let noted = invoice["pre_payment_credit_notes_amount"].as_i64().unwrap_or(0)
        + invoice["post_payment_credit_notes_amount"].as_i64().unwrap_or(0);
    let total = invoice["total"].as_i64().unwrap_or(0);
    if amount <= 0 || amount.saturating_add(noted) > total || credit < 0 || refund < 0 || outside < 0 {
        return Err(ApiError::invalid(
            "The amount must be positive and, with earlier credit notes, at most the invoice's total.",
        )
        .param("amount")
        .executed());
    }
    let reason = p.word("reason", &["duplicate", "fraudulent", "order_change", "product_unsatisfactory"])?;
    let paid = match invoice["status"].as_str() {
        Some("open") if credit + refund + outside == 0 => false,
        Some("paid") if credit + refund + outside == amount => true,
        Some("open" | "paid") => {
            return Err(ApiError::invalid(
                "The sum of credit_amount, refund_amount and out_of_band_amount must equal the credit note amount of a paid invoice, and be zero otherwise.",
            )
            .executed());
        }
        _ => {
            return Err(ApiError::invalid("Credit notes are for open and paid invoices.")
                .param("invoice")
                .executed());
        }
    };
    let now = cx.now_of(&invoice);
    let id = cx.state.id(Kind::CreditNote);
    let count = cx.state.all(Kind::CreditNote).filter(|note| note["invoice"] == invoice_id).count();
    let note = json!({
        "id": id,
        "object": "credit_note",
        "amount": amount,
        "created": now,
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        "invoice": invoice_id,
        "livemode": false,
        "memo": p.text("memo")?,
        "metadata": p.metadata("metadata", &json!({}))?,
        "number": format!("{}-CN-{:02}", invoice["number"].as_str().unwrap_or("TWIN"), count + 1),
        "out_of_band_amount": if paid { json!(outside) } else { Value::Null },
        "reason": reason,
        "refunds": [],
        "status": "issued",
        "subtotal": amount,
        "total": amount,
        "type": if paid { "post_payment" } else { "pre_payment" },
        "voided_at": null,
        "_clock": invoice["_clock"],
        "_credit": credit,
        "_refund": refund,
    });
    cx.state.put(Kind::CreditNote, note.clone());
    let sum = if paid { "post_payment_credit_notes_amount" } else { "pre_payment_credit_notes_amount" };
    cx.state.change(Kind::Invoice, invoice_id, |bill| {
        bill[sum] = json!(bill[sum].as_i64().unwrap_or(0) + amount);
        if !paid {
            bill["amount_remaining"] =
                json!((bill["amount_remaining"].as_i64().unwrap_or(0) - amount).max(0));
        }
    });
    if credit > 0 {
        let customer = invoice["customer"].as_str().unwrap_or_default();
        cx.state.change(Kind::Customer, customer, |c| {
            c["balance"] = json!(c["balance"].as_i64().unwrap_or(0) - credit);
        });
    }
    cx.emit("credit_note.created", &note);
    if !paid && cx.state.find(Kind::Invoice, invoice_id)?["amount_remaining"] == 0 {
        pay::settle(cx, invoice_id, false);
    }
    Ok(note)
}

pub(crate) fn retrieve(cx: &mut Context<'_>) -> Result<Value> {
    Ok(cx.state.find(Kind::CreditNote, cx.id())?.clone())
}

pub(crate) fn list(cx: &mut Context<'_>) -> Result<Value> {
    let (customer, invoice) = (cx.params.text("customer")?, cx.params.text("invoice")?);
    let rows = cx.state.all(Kind::CreditNote).rev();
    let rows = rows.filter(|note| {
        customer.is_none_or(|customer| note["customer"] == customer)
            && invoice.is_none_or(|invoice| note["invoice"] == invoice)
    });
    page(cx.params, "/v1/credit_notes", rows, "credit note")
}
