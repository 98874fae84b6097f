use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{ApiError, Result};
use crate::kind::Kind;
use crate::list::page;

pub(crate) const CREATE: &[&str] = &["frozen_time", "name"];
pub(crate) const ADVANCE: &[&str] = &["frozen_time"];

/// Two intervals of the longest kind that we sell, in one step (Stripe documentation, "Test clocks").
const FARTHEST: i64 = 2 * 366 * 86_400;

pub(crate) fn create(cx: &mut Context<'_>) -> Result<Value> {
    cx.state.room(Kind::TestClock)?;
    let p = cx.params;
    let frozen = p.need_int("frozen_time")?;
    let id = cx.state.id(Kind::TestClock);
    let clock = json!({
        "id": id,
        "object": "test_helpers.test_clock",
        "created": cx.now,
        "deletes_after": cx.now + 30 * 86_400,
        "frozen_time": frozen,
        "livemode": false,
        "name": p.short("name", 300)?,
        "status": "ready",
        "status_details": {},
    });
    cx.state.put(Kind::TestClock, clock.clone());
    cx.emit("test_helpers.test_clock.created", &clock);
    Ok(clock)
}

/// Moves the clock; what that brings about is done before the next request.
pub(crate) fn advance(cx: &mut Context<'_>) -> Result<Value> {
    let mut clock = cx.state.find(Kind::TestClock, cx.id())?.clone();
    let to = cx.params.need_int("frozen_time")?;
    let from = clock["frozen_time"].as_i64().unwrap_or(0);
    if to <= from || to > from.saturating_add(FARTHEST) {
        return Err(ApiError::invalid(
            "frozen_time must lie after the clock's time, by two intervals at most.",
        )
        .param("frozen_time"));
    }
    clock["frozen_time"] = json!(to);
    cx.state.put(Kind::TestClock, clock.clone());
    cx.emit("test_helpers.test_clock.advancing", &clock);
    cx.emit("test_helpers.test_clock.ready", &clock);
    clock["status"] = json!("advancing");
    Ok(clock)
}

pub(crate) fn retrieve(cx: &mut Context<'_>) -> Result<Value> {
    Ok(cx.state.find(Kind::TestClock, cx.id())?.clone())
}

pub(crate) fn delete(cx: &mut Context<'_>) -> Result<Value> {
    let clock = cx.state.find(Kind::TestClock, cx.id())?.clone();
    let id = cx.id().to_owned();
    for kind in [Kind::Subscription, Kind::Invoice, Kind::InvoiceItem, Kind::Customer] {
        let theirs: Vec<String> = cx
            .state
            .all(kind)
            .filter(|object| object["_clock"] == id.as_str())
            .filter_map(|object| object["id"].as_str().map(str::to_owned))
            .collect();
        for object in theirs {
            cx.state.remove(kind, &object);
        }
    }
    cx.state.remove(Kind::TestClock, &id);
    cx.emit("test_helpers.test_clock.deleted", &clock);
    Ok(json!({ "id": id, "object": "test_helpers.test_clock", "deleted": true }))
}

pub(crate) fn list(cx: &mut Context<'_>) -> Result<Value> {
    let rows = cx.state.all(Kind::TestClock).rev();
    page(cx.params, "/v1/test_helpers/test_clocks", rows, "test clock")
}
