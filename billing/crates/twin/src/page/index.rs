use super::{Page, html, text};
use crate::event::instant;
use crate::faults::SETTINGS;
use crate::kind::Kind;
use crate::twin::Twin;

/// What the twin is, what it holds, what can be set.
pub(super) fn show(twin: &Twin) -> Page {
    let inner = twin.inner.lock();
    let rows = |rows: Vec<(String, String)>| {
        let cells = rows.iter().map(|(a, b)| format!("<tr><td>{}<td>{}", text(a), text(b)));
        format!("<table>{}</table>", cells.collect::<String>())
    };
    let objects = Kind::ALL
        .iter()
        .map(|kind| (kind.as_str().to_owned(), inner.state.count(*kind).to_string()))
        .filter(|(name, count)| count != "0" && !name.starts_with('_'))
        .collect();
    let settings =
        SETTINGS.iter().map(|(name, _, means)| ((*name).to_owned(), (*means).to_owned())).collect();
    let body = format!(
        "<p>A stand-in for the part of Stripe that wasmeter uses. Its clock shows {}.</p><h2>Objects</h2>{}\
         <h2>Control</h2><p><a href=/_twin/state>/_twin/state</a> (<code>?kind=invoice</code>), \
         <a href=/_twin/meter-events>/_twin/meter-events</a>, <a href=/_twin/requests>/_twin/requests</a>, \
         <a href=/_twin/clock>/_twin/clock</a> (POST <code>{{\"advance\": seconds}}</code>), \
         <a href=/_twin/faults>/_twin/faults</a> (POST any of these):</p>{}",
        text(&instant(inner.state.now(""))),
        rows(objects),
        rows(settings),
    );
    Page::Html(200, html("wasmeter billing twin", &body))
}
