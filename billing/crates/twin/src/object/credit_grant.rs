use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{ApiError, Result};
use crate::kind::Kind;
use crate::list::page;

pub(crate) const CREATE: &[&str] = &[
    "customer",
    "amount.type",
    "amount.monetary.currency",
    "amount.monetary.value",
    "applicability_config.scope.price_type",
    "category",
    "effective_at",
    "expires_at",
    "metadata.*",
    "name",
    "priority",
];
pub(crate) const UPDATE: &[&str] = &["expires_at", "metadata.*"];
pub(crate) const LIST: &[&str] = &["limit", "starting_after", "ending_before", "customer"];
pub(crate) const BALANCE: &[&str] = &["customer", "filter.type", "filter.applicability_scope.price_type"];

pub(crate) fn create(cx: &mut Context<'_>) -> Result<Value> {
    cx.state.room(Kind::CreditGrant)?;
    let p = cx.params;
    let customer = cx.customer("customer")?.clone();
    p.need("amount.type")?;
    p.word("amount.type", &["monetary"])?;
    let currency = p.need("amount.monetary.currency")?;
    let value = p.need_int("amount.monetary.value")?;
    if value <= 0 {
        return Err(ApiError::invalid("The amount must be positive.").param("amount[monetary][value]"));
    }
    p.need("applicability_config.scope.price_type")?;
    p.word("applicability_config.scope.price_type", &["metered"])?;
    let priority = p.int("priority")?.unwrap_or(50);
    if !(0..=100).contains(&priority) {
        return Err(ApiError::invalid("priority is 0 to 100.").param("priority"));
    }
    let now = cx.now_of(&customer);
    let id = cx.state.id(Kind::CreditGrant);
    let grant = json!({
        "id": id,
        "object": "billing.credit_grant",
        "amount": { "monetary": { "currency": currency, "value": value }, "type": "monetary" },
        "applicability_config": { "scope": { "price_type": "metered" } },
        "category": p.word("category", &["paid", "promotional"])?.unwrap_or("paid"),
        "created": now,
        "customer": customer["id"],
        "effective_at": p.int("effective_at")?.unwrap_or(now),
        "expires_at": p.int("expires_at")?,
        "livemode": false,
        "metadata": p.metadata("metadata", &json!({}))?,
        "name": p.short("name", 100)?,
        "priority": priority,
        "test_clock": customer["test_clock"],
        "updated": now,
        "voided_at": null,
        "_clock": customer["_clock"],
        "_left": value,
    });
    cx.state.put(Kind::CreditGrant, grant.clone());
    cx.emit("billing.credit_grant.created", &grant);
    Ok(grant)
}

pub(crate) fn retrieve(cx: &mut Context<'_>) -> Result<Value> {
    Ok(cx.state.find(Kind::CreditGrant, cx.id())?.clone())
}

fn change(cx: &mut Context<'_>, change: impl FnOnce(&mut Value, i64)) -> Result<Value> {
    let before = cx.state.find(Kind::CreditGrant, cx.id())?.clone();
    let mut grant = before.clone();
    let now = cx.now_of(&grant);
    change(&mut grant, now);
    grant["updated"] = json!(now);
    cx.state.put(Kind::CreditGrant, grant.clone());
    cx.emit_update("billing.credit_grant.updated", &before, &grant);
    Ok(grant)
}

pub(crate) fn update(cx: &mut Context<'_>) -> Result<Value> {
    let metadata = cx.params.metadata("metadata", &cx.state.find(Kind::CreditGrant, cx.id())?["metadata"])?;
    let expires = cx.params.has("expires_at").then(|| cx.params.int("expires_at")).transpose()?;
    change(cx, |grant, _| {
        grant["metadata"] = metadata;
        if let Some(expires) = expires {
            grant["expires_at"] = json!(expires);
        }
    })
}

pub(crate) fn expire(cx: &mut Context<'_>) -> Result<Value> {
    change(cx, |grant, now| grant["expires_at"] = json!(now))
}

/// Takes back a grant that nothing was paid from.
pub(crate) fn void(cx: &mut Context<'_>) -> Result<Value> {
    let grant = cx.state.find(Kind::CreditGrant, cx.id())?;
    if grant["_left"] != grant["amount"]["monetary"]["value"] {
        return Err(
            ApiError::invalid("A credit grant that was applied to an invoice cannot be voided.").executed()
        );
    }
    change(cx, |grant, now| grant["voided_at"] = json!(now))
}

pub(crate) fn list(cx: &mut Context<'_>) -> Result<Value> {
    let customer = cx.params.text("customer")?;
    let rows = cx.state.all(Kind::CreditGrant).rev();
    let rows = rows.filter(|grant| customer.is_none_or(|customer| grant["customer"] == customer));
    page(cx.params, "/v1/billing/credit_grants", rows, "credit grant")
}

/// What a customer's grants still hold.
pub(crate) fn balance(cx: &mut Context<'_>) -> Result<Value> {
    let customer = cx.customer("customer")?.clone();
    let now = cx.now_of(&customer);
    let mut sums: Vec<(Value, i64)> = Vec::new();
    for grant in cx.state.all(Kind::CreditGrant).filter(|grant| grant["customer"] == customer["id"]) {
        let over = grant["expires_at"].as_i64().is_some_and(|at| at <= now) || grant["voided_at"].is_i64();
        let begun = grant["effective_at"].as_i64().is_none_or(|at| at <= now);
        let left = if over || !begun { 0 } else { grant["_left"].as_i64().unwrap_or(0) };
        let currency = grant["amount"]["monetary"]["currency"].clone();
        match sums.iter_mut().find(|(known, _)| *known == currency) {
            Some((_, sum)) => *sum += left,
            None => sums.push((currency, left)),
        }
    }
    let money = |(currency, value): &(Value, i64)| json!({ "monetary": { "currency": currency, "value": value }, "type": "monetary" });
    let balances: Vec<Value> = sums
        .iter()
        .map(|sum| json!({ "available_balance": money(sum), "ledger_balance": money(sum) }))
        .collect();
    Ok(json!({
        "object": "billing.credit_balance_summary",
        "balances": balances,
        "customer": customer["id"],
        "livemode": false,
    }))
}
