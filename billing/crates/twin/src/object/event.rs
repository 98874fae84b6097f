use serde_json::Value;

use crate::context::Context;
use crate::error::Result;
use crate::kind::Kind;
use crate::list::{created_within, page};

pub(crate) const LIST: &[&str] =
    &["limit", "starting_after", "ending_before", "type", "types.#", "created.*", "delivery_success"];

pub(crate) fn retrieve(cx: &mut Context<'_>) -> Result<Value> {
    Ok(cx.state.find(Kind::Event, cx.id())?.clone())
}

/// A thin event, with the data that it travelled without.
pub(crate) fn retrieve_thin(cx: &mut Context<'_>) -> Result<Value> {
    Ok(cx.state.find(Kind::ThinEvent, cx.id())?.clone())
}

pub(crate) fn list(cx: &mut Context<'_>) -> Result<Value> {
    let p = cx.params;
    let (kind, kinds) = (p.text("type")?, p.texts("types"));
    let mut rows = Vec::new();
    for event in cx.state.all(Kind::Event).rev() {
        let name = event["type"].as_str().unwrap_or_default();
        let wanted = kind
            .is_none_or(|kind| name == kind || kind.strip_suffix(".*").is_some_and(|k| name.starts_with(k)))
            && (kinds.is_empty() || kinds.contains(&name));
        if wanted && created_within(p, event)? {
            rows.push(event);
        }
    }
    page(p, "/v1/events", rows.into_iter(), "event")
}
