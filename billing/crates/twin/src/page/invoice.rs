use serde_json::Value;

use super::{Page, day, html, money, text};
use crate::bill::invoice;
use crate::kind::Kind;
use crate::twin::Twin;

/// An invoice, line by line.
pub(super) fn show(twin: &Twin, id: &str) -> Option<Page> {
    let inner = twin.inner.lock();
    let mut bill = inner.state.get(Kind::Invoice, id)?.clone();
    invoice::refresh(&inner.state, &mut bill, inner.state.now(""));
    let title = format!("Invoice {}", text(bill["number"].as_str().unwrap_or("(draft)")));
    Some(Page::Html(200, html(&title, &lines(&bill))))
}

/// The lines and sums of an invoice.
pub(super) fn lines(bill: &Value) -> String {
    let currency = bill["currency"].as_str().unwrap_or_default();
    let amount = |value: &Value| money(value.as_i64().unwrap_or(0), currency);
    let rows = bill["lines"]["data"].as_array().into_iter().flatten().map(|line| {
        format!(
            "<tr><td>{}<td class=n>{}",
            text(line["description"].as_str().unwrap_or_default()),
            amount(&line["amount"])
        )
    });
    format!(
        "<p>{}, {} to {}</p><table>{}<tr><th>Total<th class=n>{}<tr><td>Due<td class=n>{}</table>",
        text(bill["status"].as_str().unwrap_or_default()),
        day(bill["period_start"].as_i64().unwrap_or(0)),
        day(bill["period_end"].as_i64().unwrap_or(0)),
        rows.collect::<String>(),
        amount(&bill["total"]),
        amount(&bill["amount_remaining"]),
    )
}
