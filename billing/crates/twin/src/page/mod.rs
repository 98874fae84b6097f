//! Pages for people, in place of Stripe's own: checkout, portal, invoice, and what the twin is.

mod checkout;
mod index;
mod invoice;
mod portal;

use std::sync::Arc;

use hyper::Method;

use crate::bill::decimal;
use crate::exchange::Request;
use crate::params::Params;
use crate::twin::Twin;

/// What a browser gets.
pub(crate) enum Page {
    Html(u16, String),
    /// On to another address.
    To(String),
}

/// Answers a browser.
pub(crate) fn answer(twin: &Arc<Twin>, request: &Request) -> Page {
    let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    let body = std::str::from_utf8(&request.body).unwrap_or_default();
    let params = Params(crate::form::parse(body).unwrap_or_default());
    let page = match (&request.method, parts.as_slice()) {
        (&Method::GET, [""]) => Some(index::show(twin)),
        (&Method::GET, ["c", "pay", id]) => checkout::show(twin, id),
        (&Method::POST, ["c", "pay", id]) => checkout::complete(twin, id, &params),
        (&Method::GET, ["p", "session", id]) => portal::show(twin, id),
        (&Method::POST, ["p", "session", id]) => portal::act(twin, id, &params),
        (&Method::GET, ["i", id]) => invoice::show(twin, id),
        _ => None,
    };
    twin.news.notify_one();
    page.unwrap_or_else(|| Page::Html(404, html("Not found", "<p>This page is not here, or no longer.</p>")))
}

/// Text that a page may show.
fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn html(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{title}</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem;color:#1a1f36}}\
         table{{border-collapse:collapse;width:100%}}td,th{{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #e3e8ee}}\
         .n{{text-align:right}}button{{font:inherit;padding:.4rem 1rem;margin:.2rem .4rem .2rem 0;cursor:pointer}}\
         .note{{background:#fff8e1;padding:.5rem 1rem;border-radius:4px}}</style>\
         <p class=note>Billing twin: play money, no card is charged.</p><h1>{title}</h1>{body}</html>"
    )
}

/// An amount of the smallest unit in words.
fn money(amount: i64, currency: &str) -> String {
    let currency = currency.to_ascii_uppercase();
    let digits: u32 = match currency.as_str() {
        "JPY" => 0,
        "KWD" => 3,
        _ => 2,
    };
    let one = 10u64.pow(digits);
    let (sign, whole) = (if amount < 0 { "-" } else { "" }, amount.unsigned_abs());
    let fraction = if digits == 0 {
        String::new()
    } else {
        format!(".{:0width$}", whole % one, width = digits as usize)
    };
    text(&format!("{sign}{}{fraction} {currency}", whole / one))
}

/// A price in its currency's whole unit.
fn rate(decimal: &str, currency: &str) -> String {
    let parts = decimal::parse(decimal).unwrap_or(0);
    let digits = match currency {
        "jpy" => 0,
        "kwd" => 3,
        _ => 2,
    };
    let (whole, fraction) = (parts / decimal::ONE, parts % decimal::ONE);
    let places = digits + 12;
    let all = format!("{:0>width$}", whole * decimal::ONE + fraction, width = places + 1);
    let (units, rest) = all.split_at(all.len() - places);
    let rest = rest.trim_end_matches('0');
    text(&format!(
        "{units}{}{rest} {}",
        if rest.is_empty() { "" } else { "." },
        currency.to_ascii_uppercase()
    ))
}

/// A day.
fn day(seconds: i64) -> String {
    text(crate::event::instant(seconds).split('T').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_well_and_text_is_harmless() {
        assert_eq!((money(-1205, "usd"), money(5, "jpy")), ("-12.05 USD".into(), "5 JPY".into()));
        assert_eq!(rate("0.00002", "usd"), "0.0000002 USD");
        assert_eq!((rate("100", "usd"), rate("7", "jpy")), ("1 USD".into(), "7 JPY".into()));
        assert_eq!(text("<a href='x'>&"), "&lt;a href=&#39;x&#39;&gt;&amp;");
    }
}
