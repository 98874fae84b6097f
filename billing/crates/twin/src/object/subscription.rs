use serde_json::{Value, json};

use crate::bill::amount::parts;
use crate::bill::{invoice, pay, period};
use crate::context::Context;
use crate::error::{ApiError, Result};
use crate::expand::inner_list;
use crate::kind::Kind;
use crate::list::{created_within, page};
use crate::object::summary::seen;
use crate::state::shown;

pub(crate) const CREATE: &[&str] = &[
    "customer",
    "items.#.price",
    "items.#.quantity",
    "items.#.metadata.*",
    "metadata.*",
    "description",
    "default_payment_method",
    "collection_method",
    "days_until_due",
    "cancel_at_period_end",
    "currency",
    "billing_cycle_anchor",
    "proration_behavior",
    "payment_behavior",
    "off_session",
    "billing_mode.type",
];
pub(crate) const UPDATE: &[&str] = &[
    "metadata.*",
    "description",
    "default_payment_method",
    "collection_method",
    "days_until_due",
    "cancel_at_period_end",
    "cancel_at",
    "items.#.id",
    "items.#.price",
    "items.#.quantity",
    "items.#.deleted",
    "items.#.clear_usage",
    "items.#.metadata.*",
    "proration_behavior",
    "payment_behavior",
    "off_session",
    "cancellation_details.comment",
    "cancellation_details.feedback",
];
pub(crate) const CANCEL: &[&str] =
    &["invoice_now", "prorate", "cancellation_details.comment", "cancellation_details.feedback"];
pub(crate) const LIST: &[&str] = &[
    "limit",
    "starting_after",
    "ending_before",
    "customer",
    "status",
    "price",
    "created.*",
    "collection_method",
    "test_clock",
];

/// Items of a subscription at most (Stripe documentation, "Subscriptions").
const ITEMS: usize = 20;

/// What a subscription is made of.
pub(crate) struct Start<'a> {
    pub(crate) customer: &'a Value,
    /// Prices and, for licensed ones, how many.
    pub(crate) items: Vec<(Value, Option<i64>)>,
    pub(crate) metadata: Value,
    pub(crate) description: Option<&'a str>,
    pub(crate) method: Option<&'a str>,
    /// Days until an invoice is due that is sent; none where the card is charged.
    pub(crate) days_until_due: Option<i64>,
    pub(crate) anchor: Option<i64>,
}

/// The prices at `items[…]` or `line_items[…]`, checked.
pub(crate) fn items(cx: &Context<'_>, list: &str) -> Result<Vec<(Value, Option<i64>)>> {
    let p = cx.params;
    let count = p.len(list);
    if count == 0 {
        return Err(ApiError::needed(list));
    }
    if count > ITEMS {
        return Err(ApiError::invalid(format!("At most {ITEMS} items.")).param(list));
    }
    let mut items: Vec<(Value, Option<i64>)> = Vec::new();
    for at in 0..count {
        let param = format!("{list}[{at}][price]");
        let price = cx.state.find_param(Kind::Price, p.need(&format!("{list}.{at}.price"))?, &param)?;
        let wrong = |why: &str| ApiError::invalid(why.to_owned()).param(param.clone()).executed();
        if price["active"] != true {
            return Err(wrong("The price specified is inactive. This field only accepts active prices."));
        }
        let recurring = &price["recurring"];
        if recurring.is_null() {
            return Err(wrong(
                "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`.",
            ));
        }
        let quantity = p.int(&format!("{list}.{at}.quantity"))?;
        let metered = recurring["usage_type"] == "metered";
        if metered && quantity.is_some() {
            return Err(ApiError::invalid("Quantity should not be specified where usage_type is `metered`.")
                .param(format!("{list}[{at}][quantity]")));
        }
        if quantity.is_some_and(|quantity| !(0..=1_000_000).contains(&quantity)) {
            return Err(ApiError::invalid("Invalid quantity.").param(format!("{list}[{at}][quantity]")));
        }
        if items.iter().any(|(other, _)| other["id"] == price["id"]) {
            return Err(wrong("Each price may stand in one item only."));
        }
        if let Some((first, _)) = items.first() {
            let same = |name: &str| first["recurring"][name] == recurring[name];
            if first["currency"] != price["currency"] || !same("interval") || !same("interval_count") {
                return Err(wrong("All prices must have the same currency and billing interval."));
            }
        }
        items.push((price.clone(), if metered { None } else { Some(quantity.unwrap_or(1)) }));
    }
    Ok(items)
}

pub(crate) fn create(cx: &mut Context<'_>) -> Result<Value> {
    let p = cx.params;
    let customer = cx.customer("customer")?.clone();
    let items = items(cx, "items")?;
    let send =
        p.word("collection_method", &["charge_automatically", "send_invoice"])? == Some("send_invoice");
    let days = p.int("days_until_due")?;
    if send != days.is_some() {
        return Err(ApiError::invalid("days_until_due goes with collection_method send_invoice.")
            .param("days_until_due"));
    }
    let metadata = p.metadata("metadata", &json!({}))?;
    let anchor = p.int("billing_cycle_anchor")?;
    if anchor.is_some_and(|anchor| anchor <= cx.now_of(&customer)) {
        return Err(
            ApiError::invalid("billing_cycle_anchor must be in the future.").param("billing_cycle_anchor")
        );
    }
    let start = Start {
        customer: &customer,
        items,
        metadata,
        description: p.text("description")?,
        method: p.text("default_payment_method")?,
        days_until_due: days,
        anchor,
    };
    let subscription = begin(cx, start)?;
    if p.bool("cancel_at_period_end")? == Some(true) {
        let id = subscription["id"].as_str().unwrap_or_default();
        return cancel_at_end(cx, id, true);
    }
    Ok(subscription)
}

/// Begins a subscription, with its first invoice, which has nothing but what is paid in advance.
pub(crate) fn begin(cx: &mut Context<'_>, start: Start<'_>) -> Result<Value> {
    cx.state.room(Kind::Subscription)?;
    let now = cx.now_of(start.customer);
    let customer = start.customer["id"].as_str().unwrap_or_default().to_owned();
    if let Some(method) = start.method {
        let found = cx.state.find_param(Kind::PaymentMethod, method, "default_payment_method")?;
        if found["customer"] != customer.as_str() {
            return Err(ApiError::no_such("PaymentMethod", method, "default_payment_method"));
        }
    }
    let first = &start.items[0].0;
    let (interval, every) = interval(first);
    let anchor = start.anchor.unwrap_or(now);
    let end = start.anchor.unwrap_or_else(|| period::next(anchor, &interval, every, now));
    let id = cx.state.id(Kind::Subscription);
    let rows: Vec<Value> =
        start.items.iter().map(|(price, quantity)| item(cx, &id, price, *quantity, now, now, end)).collect();
    let subscription = json!({
        "id": id,
        "object": "subscription",
        "application": null,
        "automatic_tax": { "disabled_reason": null, "enabled": false, "liability": null },
        "billing_cycle_anchor": anchor,
        "billing_mode": { "type": "flexible" },
        "cancel_at": null,
        "cancel_at_period_end": false,
        "canceled_at": null,
        "cancellation_details": { "comment": null, "feedback": null, "reason": null },
        "collection_method": if start.days_until_due.is_some() { "send_invoice" } else { "charge_automatically" },
        "created": now,
        "currency": first["currency"],
        "customer": customer,
        "days_until_due": start.days_until_due,
        "default_payment_method": start.method,
        "description": start.description,
        "discounts": [],
        "ended_at": null,
        "items": inner_list(&rows, &format!("/v1/subscription_items?subscription={id}")),
        "latest_invoice": null,
        "livemode": false,
        "metadata": start.metadata,
        "next_pending_invoice_item_invoice": null,
        "pause_collection": null,
        "start_date": now,
        "status": "active",
        "test_clock": start.customer["test_clock"],
        "trial_end": null,
        "trial_start": null,
        "_clock": start.customer["_clock"],
        "_due": end,
        "_start": now,
    });
    cx.state.put(Kind::Subscription, subscription.clone());
    cx.state.change(Kind::Customer, &customer, |c| c["currency"] = subscription["currency"].clone());
    cx.emit("customer.subscription.created", &subscription);
    let first_invoice =
        invoice::of_period(cx, &subscription, now, now, Some((now, end)), "subscription_create")?;
    pay::finalise(cx, &first_invoice, true)?;
    Ok(cx.state.find(Kind::Subscription, &id)?.clone())
}

fn interval(price: &Value) -> (String, i64) {
    let interval = price["recurring"]["interval"].as_str().unwrap_or("month").to_owned();
    (interval, price["recurring"]["interval_count"].as_i64().unwrap_or(1))
}

fn item(
    cx: &mut Context<'_>,
    subscription: &str,
    price: &Value,
    quantity: Option<i64>,
    created: i64,
    from: i64,
    to: i64,
) -> Value {
    let mut item = json!({
        "id": format!("si_{}", cx.state.token(14)),
        "object": "subscription_item",
        "billing_thresholds": null,
        "created": created,
        "current_period_start": from,
        "current_period_end": to,
        "discounts": [],
        "metadata": {},
        "price": shown(price),
        "subscription": subscription,
        "tax_rates": [],
    });
    if let Some(quantity) = quantity {
        item["quantity"] = json!(quantity);
    }
    item
}

pub(crate) fn retrieve(cx: &mut Context<'_>) -> Result<Value> {
    Ok(cx.state.find(Kind::Subscription, cx.id())?.clone())
}

fn alive(cx: &Context<'_>) -> Result<Value> {
    let subscription = cx.state.find(Kind::Subscription, cx.id())?;
    if subscription["status"] == "canceled" {
        return Err(ApiError::missing("subscription", cx.id()));
    }
    Ok(subscription.clone())
}

pub(crate) fn update(cx: &mut Context<'_>) -> Result<Value> {
    let before = alive(cx)?;
    let mut subscription = before.clone();
    let p = cx.params;
    super::lay_texts(p, &mut subscription, &["description", "default_payment_method"])?;
    if let Some(method) = p.text("default_payment_method")? {
        cx.state.find_param(Kind::PaymentMethod, method, "default_payment_method")?;
    }
    subscription["metadata"] = p.metadata("metadata", &before["metadata"])?;
    for name in ["comment", "feedback"] {
        if let Some(text) = p.raw(&format!("cancellation_details.{name}"))? {
            subscription["cancellation_details"][name] = json!(text);
        }
    }
    change_items(cx, &mut subscription)?;
    cx.state.put(Kind::Subscription, subscription.clone());
    let id = cx.id().to_owned();
    if let Some(end) = cx.params.bool("cancel_at_period_end")? {
        mark_end(cx, &id, end);
    }
    if cx.params.has("cancel_at") {
        let at = cx.params.int("cancel_at")?;
        if at.is_some_and(|at| at <= cx.now_of(&before)) {
            return Err(ApiError::invalid("cancel_at must be in the future.").param("cancel_at"));
        }
        let now = cx.now_of(&before);
        cx.state.change(Kind::Subscription, &id, |s| {
            s["cancel_at"] = json!(at);
            s["canceled_at"] = json!(at.map(|_| now));
            s["_due"] = json!(at.map_or(end_of(s), |at| at.min(end_of(s))));
        });
    }
    let after = cx.state.find(Kind::Subscription, &id)?.clone();
    cx.emit_update("customer.subscription.updated", &before, &after);
    Ok(after)
}

/// Adds, exchanges and removes items. Usage of a metered price counts from when it joins; what it counted until it goes is an
/// invoice item, unless `proration_behavior` is `none`: then nobody bills it (Stripe documentation, "Update prices mid-cycle",
/// of subscriptions with flexible billing, which all are here).
fn change_items(cx: &mut Context<'_>, subscription: &mut Value) -> Result<()> {
    let p = cx.params;
    let prorates =
        p.word("proration_behavior", &["create_prorations", "none", "always_invoice"])? != Some("none");
    p.word(
        "payment_behavior",
        &["allow_incomplete", "default_incomplete", "error_if_incomplete", "pending_if_incomplete"],
    )?;
    let count = p.len("items");
    if count > 0 && subscription["status"].as_str().is_some_and(|status| status.starts_with("incomplete")) {
        return Err(
            ApiError::invalid("The items of an incomplete subscription cannot be updated.").executed()
        );
    }
    let id = subscription["id"].as_str().unwrap_or_default().to_owned();
    let mut rows = subscription["items"]["data"].as_array().cloned().unwrap_or_default();
    let (now, end) = (cx.now_of(subscription), end_of(subscription));
    let mut gone = Vec::new();
    let mut named: Vec<&str> = Vec::new();
    for at in 0..count {
        let name = |field: &str| format!("items.{at}.{field}");
        let price = match p.text(&name("price"))? {
            Some(price) => Some(joining(cx, subscription, price, at)?),
            None => None,
        };
        let quantity = p.int(&name("quantity"))?;
        let Some(item_id) = p.text(&name("id"))? else {
            let price = price.ok_or_else(|| ApiError::needed(&format!("items[{at}][price]")))?;
            rows.push(item(cx, &id, &price, counted(&price, quantity, at)?, now, now, end));
            continue;
        };
        let place = rows
            .iter()
            .position(|row| row["id"] == item_id)
            .ok_or_else(|| ApiError::no_such("subscription item", item_id, &format!("items[{at}][id]")))?;
        if named.contains(&item_id) {
            return Err(ApiError::invalid("Each item may be named once.").param(format!("items[{at}][id]")));
        }
        named.push(item_id);
        if p.bool(&name("deleted"))? == Some(true) {
            if price.is_some() {
                return Err(ApiError::invalid("A deleted item has no new price.")
                    .param(format!("items[{at}][price]")));
            }
            if rows[place]["price"]["recurring"]["usage_type"] == "metered"
                && p.bool(&name("clear_usage"))? != Some(true)
            {
                return Err(ApiError::invalid(
                    "Subscription items with usage cannot be deleted without `clear_usage=true`.",
                ));
            }
            gone.push(rows.remove(place));
            continue;
        }
        let row = &mut rows[place];
        if let Some(price) = price.filter(|price| price["id"] != row["price"]["id"]) {
            gone.push(row.clone());
            // A quantity that is not given is one again.
            let quantity = counted(&price, quantity, at)?;
            row["price"] = shown(&price);
            row["current_period_start"] = json!(now);
            match quantity {
                Some(quantity) => row["quantity"] = json!(quantity),
                None => {
                    row.as_object_mut().map(|row| row.remove("quantity"));
                }
            }
        } else if let Some(quantity) = quantity {
            let quantity = counted(&row["price"], Some(quantity), at)?;
            row["quantity"] = json!(quantity);
        }
    }
    if rows.is_empty() || rows.len() > ITEMS {
        return Err(ApiError::invalid(format!("A subscription has 1 to {ITEMS} items.")).param("items"));
    }
    for (at, row) in rows.iter().enumerate() {
        if rows[..at].iter().any(|other| other["price"]["id"] == row["price"]["id"]) {
            return Err(ApiError::invalid("Each price may stand in one item only.")
                .param("items")
                .executed());
        }
    }
    if prorates {
        for row in gone {
            bill_until_now(cx, subscription, &row, now)?;
        }
    }
    subscription["items"] = inner_list(&rows, &format!("/v1/subscription_items?subscription={id}"));
    Ok(())
}

/// A price that is to join a subscription: active, of its currency, and of its interval.
fn joining(cx: &Context<'_>, subscription: &Value, price: &str, at: usize) -> Result<Value> {
    let param = format!("items[{at}][price]");
    let price = cx.state.find_param(Kind::Price, price, &param)?;
    let wrong = |why: &str| Err(ApiError::invalid(why.to_owned()).param(param.clone()).executed());
    if price["active"] != true {
        return wrong("The price specified is inactive. This field only accepts active prices.");
    }
    let recurring = &price["recurring"];
    if recurring.is_null() {
        return wrong(
            "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`.",
        );
    }
    let first = &subscription["items"]["data"][0]["price"]["recurring"];
    let same = |name: &str| first[name] == recurring[name];
    if subscription["currency"] != price["currency"] || !same("interval") || !same("interval_count") {
        return wrong("All prices must have the same currency and billing interval.");
    }
    Ok(price.clone())
}

/// How many of a price: none of a metered one.
fn counted(price: &Value, quantity: Option<i64>, at: usize) -> Result<Option<i64>> {
    let metered = price["recurring"]["usage_type"] == "metered";
    let param = format!("items[{at}][quantity]");
    match quantity {
        Some(_) if metered => {
            Err(ApiError::invalid("Quantity should not be specified where usage_type is `metered`.")
                .param(param))
        }
        Some(quantity) if !(0..=1_000_000).contains(&quantity) => {
            Err(ApiError::invalid("Invalid quantity.").param(param))
        }
        None if metered => Ok(None),
        quantity => Ok(Some(quantity.unwrap_or(1))),
    }
}

/// An invoice item for what a metered item counted since it joined; it waits for the next invoice.
fn bill_until_now(cx: &mut Context<'_>, subscription: &Value, row: &Value, now: i64) -> Result<()> {
    let price = row["price"]["id"].as_str().unwrap_or_default();
    let price = cx.state.get(Kind::Price, price).unwrap_or(&row["price"]).clone();
    if price["recurring"]["usage_type"] != "metered" {
        return Ok(());
    }
    let from = row["current_period_start"].as_i64().unwrap_or(now);
    let meter = price["recurring"]["meter"].as_str().unwrap_or_default();
    let customer = subscription["customer"].as_str().unwrap_or_default();
    let used = seen(cx.state, meter, customer, from, now, cx.now).map(|(_, value)| u128::from(value)).sum();
    let amount = parts(&price, used).iter().map(|part| part.amount).fold(0, i64::saturating_add);
    cx.state.room(Kind::InvoiceItem)?;
    let id = cx.state.id(Kind::InvoiceItem);
    let label = price["nickname"].as_str().unwrap_or("usage");
    let item = json!({
        "id": id,
        "object": "invoiceitem",
        "amount": amount,
        "currency": price["currency"],
        "customer": customer,
        "date": now,
        "description": format!("{used} × {label}, until its price changed"),
        "discountable": true,
        "discounts": [],
        "invoice": null,
        "livemode": false,
        "metadata": {},
        "parent": {
            "subscription_details": { "subscription": subscription["id"], "subscription_item": row["id"] },
            "type": "subscription_details",
        },
        "period": { "start": from, "end": now },
        "pricing": {
            "price_details": { "price": price["id"], "product": price["product"] },
            "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        },
        "proration": true,
        "quantity": u64::try_from(used).unwrap_or(u64::MAX),
        "tax_rates": [],
        "test_clock": subscription["test_clock"],
        "_clock": subscription["_clock"],
        "_subscription": subscription["id"],
    });
    cx.state.put(Kind::InvoiceItem, item.clone());
    cx.emit("invoiceitem.created", &item);
    Ok(())
}

/// Start of the current period, whatever joined since.
pub(crate) fn start_of(subscription: &Value) -> Option<i64> {
    let items = subscription["items"]["data"].as_array().into_iter().flatten();
    let joined = items.filter_map(|item| item["current_period_start"].as_i64()).min();
    subscription["_start"].as_i64().or(joined)
}

/// End of the current period.
pub(crate) fn end_of(subscription: &Value) -> i64 {
    subscription["items"]["data"][0]["current_period_end"].as_i64().unwrap_or(i64::MAX)
}

/// Cancels at the end of the period, or no longer.
pub(crate) fn cancel_at_end(cx: &mut Context<'_>, id: &str, end: bool) -> Result<Value> {
    let before = cx.state.find(Kind::Subscription, id)?.clone();
    mark_end(cx, id, end);
    let after = cx.state.find(Kind::Subscription, id)?.clone();
    cx.emit_update("customer.subscription.updated", &before, &after);
    Ok(after)
}

fn mark_end(cx: &mut Context<'_>, id: &str, end: bool) {
    let now = cx.state.get(Kind::Subscription, id).map_or(cx.now, |s| cx.now_of(s));
    cx.state.change(Kind::Subscription, id, |s| {
        s["cancel_at_period_end"] = json!(end);
        s["cancel_at"] = if end { json!(end_of(s)) } else { Value::Null };
        s["canceled_at"] = if end { json!(now) } else { Value::Null };
        s["cancellation_details"]["reason"] = if end { json!("cancellation_requested") } else { Value::Null };
        s["_due"] = json!(end_of(s));
    });
}

/// Ends a subscription now. Usage that no invoice has is lost unless `invoice_now` (Stripe documentation, "Cancel
/// subscriptions").
pub(crate) fn cancel(cx: &mut Context<'_>) -> Result<Value> {
    let subscription = alive(cx)?;
    let id = cx.id().to_owned();
    let p = cx.params;
    for name in ["comment", "feedback"] {
        if let Some(text) = p.text(&format!("cancellation_details.{name}"))? {
            let text = text.to_owned();
            cx.state.change(Kind::Subscription, &id, |s| s["cancellation_details"][name] = json!(text));
        }
    }
    if p.bool("invoice_now")? == Some(true) {
        let now = cx.now_of(&subscription);
        invoice::of_current(cx, &subscription, now, "subscription_update")?;
    }
    end(cx, &id, "cancellation_requested");
    Ok(cx.state.find(Kind::Subscription, &id)?.clone())
}

/// Ends a subscription as it is.
pub(crate) fn end(cx: &mut Context<'_>, id: &str, reason: &str) {
    let now = cx.state.get(Kind::Subscription, id).map_or(cx.now, |s| cx.now_of(s));
    cx.state.change(Kind::Subscription, id, |s| {
        s["status"] = json!("canceled");
        s["ended_at"] = json!(now);
        if s["canceled_at"].is_null() {
            s["canceled_at"] = json!(now);
        }
        if s["cancellation_details"]["reason"].is_null() {
            s["cancellation_details"]["reason"] = json!(reason);
        }
        s["_due"] = Value::Null;
    });
    if let Some(ended) = cx.state.get(Kind::Subscription, id).cloned() {
        cx.emit("customer.subscription.deleted", &ended);
    }
}

/// The period has ended: an invoice for what was used, and the next period, or the end.
pub(crate) fn roll(cx: &mut Context<'_>, id: &str) -> Result<()> {
    let before = cx.state.find(Kind::Subscription, id)?.clone();
    let (now, end) = (cx.now, end_of(&before));
    if before["cancel_at"].as_i64().is_some_and(|at| at <= now) {
        invoice::of_current(cx, &before, now.min(end), "subscription_cycle")?;
        self::end(cx, id, "cancellation_requested");
        return Ok(());
    }
    let (interval, every) = interval(&before["items"]["data"][0]["price"]);
    let anchor = before["billing_cycle_anchor"].as_i64().unwrap_or(end);
    let next = period::next(anchor, &interval, every, end);
    cx.state.change(Kind::Subscription, id, |s| {
        for item in s["items"]["data"].as_array_mut().into_iter().flatten() {
            item["current_period_start"] = json!(end);
            item["current_period_end"] = json!(next);
        }
        s["_start"] = json!(end);
        s["_due"] = json!(s["cancel_at"].as_i64().map_or(next, |at| at.min(next)));
    });
    let start = start_of(&before).unwrap_or(end);
    invoice::of_period(cx, &before, start, end, Some((end, next)), "subscription_cycle")?;
    let after = cx.state.find(Kind::Subscription, id)?.clone();
    cx.emit_update("customer.subscription.updated", &before, &after);
    Ok(())
}

/// Moves a subscription to another state, if it is alive and in another.
pub(crate) fn set_status(cx: &mut Context<'_>, id: &str, status: &str) {
    let Some(before) = cx.state.get(Kind::Subscription, id).cloned() else { return };
    if before["status"] == "canceled" || before["status"] == status {
        return;
    }
    cx.state.change(Kind::Subscription, id, |s| s["status"] = json!(status));
    if let Some(after) = cx.state.get(Kind::Subscription, id).cloned() {
        cx.emit_update("customer.subscription.updated", &before, &after);
    }
}

pub(crate) fn list(cx: &mut Context<'_>) -> Result<Value> {
    let p = cx.params;
    let status = p.word(
        "status",
        &[
            "active",
            "past_due",
            "unpaid",
            "canceled",
            "incomplete",
            "incomplete_expired",
            "trialing",
            "paused",
            "all",
            "ended",
        ],
    )?;
    let (customer, price) = (p.text("customer")?, p.text("price")?);
    let mut rows = Vec::new();
    for s in cx.state.all(Kind::Subscription).rev() {
        let right_status = match status {
            None => s["status"] != "canceled",
            Some("all") => true,
            Some("ended") => s["status"] == "canceled",
            Some(status) => s["status"] == status,
        };
        let mut items = s["items"]["data"].as_array().into_iter().flatten();
        let wanted = right_status
            && customer.is_none_or(|customer| s["customer"] == customer)
            && price.is_none_or(|price| items.any(|item| item["price"]["id"] == price));
        if wanted && created_within(p, s)? {
            rows.push(s);
        }
    }
    page(p, "/v1/subscriptions", rows.into_iter(), "subscription")
}
