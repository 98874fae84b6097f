use super::{Page, html, rate, text};
use crate::context::Context;
use crate::kind::Kind;
use crate::object::checkout;
use crate::params::Params;
use crate::twin::Twin;

/// The page on which a customer subscribes.
pub(super) fn show(twin: &Twin, id: &str) -> Option<Page> {
    let inner = twin.inner.lock();
    let session = inner.state.get(Kind::Checkout, id)?;
    if session["status"] != "open" {
        return Some(Page::Html(410, html("Checkout", "<p>This checkout is complete or has expired.</p>")));
    }
    let lines = session["_lines"].as_array().into_iter().flatten();
    let prices: String = lines
        .filter_map(|line| inner.state.get(Kind::Price, line[0].as_str()?))
        .map(|price| {
            let currency = price["currency"].as_str().unwrap_or_default();
            let amount = match price["unit_amount_decimal"].as_str() {
                Some(amount) => rate(amount, currency),
                None => "in tiers".to_owned(),
            };
            let name = price["nickname"].as_str().or(price["product"].as_str()).unwrap_or_default();
            format!("<tr><td>{}<td class=n>{amount}", text(name))
        })
        .collect();
    let cancel = match session["cancel_url"].as_str() {
        Some(url) => format!("<p><a href=\"{}\">Back without subscribing</a></p>", text(url)),
        None => String::new(),
    };
    let body = format!(
        "<p>Pay for what you use, billed at the end of each period.</p><table>{prices}</table>\
         <form method=post><button name=card value=pm_card_visa>Subscribe with card …4242</button>\
         <button name=card value=pm_card_chargeCustomerFail>Subscribe with card …0341 (its charges will fail)</button></form>{cancel}"
    );
    Some(Page::Html(200, html("Subscribe", &body)))
}

/// The click.
pub(super) fn complete(twin: &Twin, id: &str, params: &Params) -> Option<Page> {
    let card = params.text("card").ok().flatten().unwrap_or("pm_card_visa").to_owned();
    let mut inner = twin.inner.lock();
    inner.state.get(Kind::Checkout, id)?;
    inner.catch_up(1000).ok()?;
    let (base, now, none) = (inner.base.clone(), inner.state.now(""), Params::default());
    let mut cx = Context {
        state: &mut inner.state,
        now,
        params: &none,
        path: &[id],
        base: &base,
        request: ("", None),
    };
    let done = checkout::complete(&mut cx, id, &card);
    let page = match done {
        Ok(session) => {
            let url = session["success_url"].as_str().unwrap_or("/").replace("{CHECKOUT_SESSION_ID}", id);
            Page::To(url)
        }
        Err(error) => {
            inner.state.undo();
            return Some(Page::Html(
                error.status,
                html("Checkout", &format!("<p>{}</p>", text(&error.message))),
            ));
        }
    };
    inner.state.commit().ok()?;
    Some(page)
}
