use serde_json::{Value, json};

use super::{Page, day, html, invoice, money, text};
use crate::bill::{invoice as bill, pay};
use crate::context::Context;
use crate::error::{ApiError, Result};
use crate::kind::Kind;
use crate::object::{payment_method, subscription};
use crate::params::Params;
use crate::twin::{Inner, Twin};

fn context<'a>(inner: &'a mut Inner, params: &'a Params, base: &'a str) -> Context<'a> {
    let now = inner.state.now("");
    Context { state: &mut inner.state, now, params, path: &[], base, request: ("", None) }
}

/// The page on which a customer sees plan, usage and invoices.
pub(super) fn show(twin: &Twin, id: &str) -> Option<Page> {
    let mut inner = twin.inner.lock();
    inner.catch_up(1000).ok()?;
    let session = inner.state.get(Kind::PortalSession, id)?.clone();
    let customer = session["customer"].as_str()?.to_owned();
    let theirs = |object: &&Value| object["customer"] == customer.as_str();
    let subscriptions: Vec<Value> =
        inner.state.all(Kind::Subscription).rev().filter(theirs).cloned().collect();
    let mut body = String::new();
    for s in &subscriptions {
        body.push_str(&plan(&mut inner, s));
    }
    if subscriptions.is_empty() {
        body.push_str("<p>No subscription.</p>");
    }
    let method =
        inner.state.get(Kind::Customer, &customer)?["invoice_settings"]["default_payment_method"].clone();
    let card = method.as_str().and_then(|id| inner.state.get(Kind::PaymentMethod, id));
    let card =
        card.map_or("none".to_owned(), |card| format!("…{}", card["card"]["last4"].as_str().unwrap_or("?")));
    body.push_str(&format!(
        "<h2>Payment method</h2><p>Card: {}</p><form method=post><input type=hidden name=do value=card>\
         <button name=card value=pm_card_visa>Use card …4242</button>\
         <button name=card value=pm_card_chargeCustomerFail>Use card …0341 (its charges will fail)</button></form>",
        text(&card)
    ));
    let rows: String = inner
        .state
        .all(Kind::Invoice)
        .rev()
        .filter(theirs)
        .take(50)
        .map(|bill| {
            let id = bill["id"].as_str().unwrap_or_default();
            let currency = bill["currency"].as_str().unwrap_or_default();
            let pay = if bill["status"] == "open" {
                format!("<form method=post><input type=hidden name=do value=pay><button name=invoice value={0}>Pay</button></form>", text(id))
            } else {
                String::new()
            };
            format!(
                "<tr><td><a href=\"/i/{}\">{}</a><td>{}<td>{}<td class=n>{}<td>{pay}",
                text(id),
                text(bill["number"].as_str().unwrap_or("draft")),
                day(bill["created"].as_i64().unwrap_or(0)),
                text(bill["status"].as_str().unwrap_or_default()),
                money(bill["total"].as_i64().unwrap_or(0), currency),
            )
        })
        .collect();
    body.push_str(&format!("<h2>Invoices</h2><table>{rows}</table>"));
    if let Some(url) = session["return_url"].as_str() {
        body.push_str(&format!("<p><a href=\"{}\">Back</a></p>", text(url)));
    }
    Some(Page::Html(200, html("Your billing", &body)))
}

fn plan(inner: &mut Inner, s: &Value) -> String {
    let id = text(s["id"].as_str().unwrap_or_default());
    let status = text(s["status"].as_str().unwrap_or_default());
    if s["status"] == "canceled" {
        return format!("<h2>Subscription ({status})</h2>");
    }
    let (params, base) = (Params::default(), inner.base.clone());
    let usage = {
        let mut cx = context(inner, &params, &base);
        bill::preview(&mut cx, s).map(|preview| invoice::lines(&preview)).unwrap_or_default()
    };
    // The preview took ids, no more.
    inner.state.undo();
    let (verb, label) = if s["cancel_at_period_end"] == true {
        ("resume", "Keep the subscription")
    } else {
        ("cancel", "Cancel at the end of the period")
    };
    let ends = day(subscription::end_of(s));
    format!(
        "<h2>Subscription ({status})</h2><p>The period ends on {ends}. So far:</p>{usage}<form method=post>\
         <input type=hidden name=subscription value=\"{id}\"><button name=do value={verb}>{label}</button></form>"
    )
}

/// A click on the page.
pub(super) fn act(twin: &Twin, id: &str, params: &Params) -> Option<Page> {
    let mut inner = twin.inner.lock();
    inner.catch_up(1000).ok()?;
    let customer = inner.state.get(Kind::PortalSession, id)?["customer"].as_str()?.to_owned();
    let base = inner.base.clone();
    let none = Params::default();
    let done = {
        let mut cx = context(&mut inner, &none, &base);
        click(&mut cx, &customer, params)
    };
    if let Err(error) = done.as_ref()
        && error.kind != "card_error"
    {
        inner.state.undo();
        return Some(Page::Html(
            error.status,
            html("Your billing", &format!("<p>{}</p>", text(&error.message))),
        ));
    }
    inner.state.commit().ok()?;
    Some(Page::To(format!("/p/session/{id}")))
}

fn click(cx: &mut Context<'_>, customer: &str, params: &Params) -> Result<()> {
    let own = |object: &Value, what: &str| {
        if object["customer"] == customer { Ok(()) } else { Err(ApiError::missing(what, "")) }
    };
    match params.need("do")? {
        verb @ ("cancel" | "resume") => {
            let id = params.need("subscription")?;
            own(cx.state.find(Kind::Subscription, id)?, "subscription")?;
            subscription::cancel_at_end(cx, id, verb == "cancel")?;
        }
        "card" => {
            let method = payment_method::attach_to(cx, params.need("card")?, customer)?;
            let before = cx.state.find(Kind::Customer, customer)?.clone();
            let mut after = before.clone();
            after["invoice_settings"]["default_payment_method"] = method["id"].clone();
            cx.state.put(Kind::Customer, after.clone());
            cx.emit_update("customer.updated", &before, &after);
            let theirs: Vec<String> = cx
                .state
                .all(Kind::Subscription)
                .filter(|s| s["customer"] == customer && s["status"] != "canceled")
                .filter_map(|s| s["id"].as_str().map(str::to_owned))
                .collect();
            for s in theirs {
                cx.state
                    .change(Kind::Subscription, &s, |s| s["default_payment_method"] = json!(method["id"]));
            }
        }
        "pay" => {
            let id = params.need("invoice")?;
            own(cx.state.find(Kind::Invoice, id)?, "invoice")?;
            if !pay::attempt(cx, id) {
                return Err(ApiError::new(402, "card_error", "The card was declined."));
            }
        }
        _ => return Err(ApiError::invalid("There is no such button.")),
    }
    Ok(())
}
