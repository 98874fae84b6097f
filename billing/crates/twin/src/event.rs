use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::clock::wall_ms;
use crate::kind::Kind;
use crate::state::{State, shown};

/// The version of Stripe's interface that answers and events have.
pub(crate) const VERSION: &str = "2026-09-30.endive";

/// Events can be fetched for this long, by the twin's own clock, whatever a test clock shows (Stripe documentation,
/// "Event").
const KEPT: i64 = 30 * 86_400;

/// Records an event and, for each endpoint that wants it, a delivery.
pub(crate) fn emit(state: &mut State, kind: &str, object: &Value, before: Value, request: &Value) {
    let clock = object["_clock"].as_str().unwrap_or_default().to_owned();
    let mut data = json!({ "object": shown(object) });
    if !before.is_null() {
        data["previous_attributes"] = before;
    }
    let id = state.id(Kind::Event);
    let event = json!({
        "id": id,
        "object": "event",
        "api_version": VERSION,
        "created": state.now(&clock),
        "data": data,
        "livemode": false,
        "pending_webhooks": 0,
        "request": request,
        "type": kind,
        "_due": state.clock().now() + KEPT,
    });
    deliver(state, Kind::Event, event, kind);
}

/// Records a thin event (Stripe documentation, "Event destinations"): it travels without its data, which is fetched.
pub(crate) fn emit_thin(state: &mut State, kind: &str, related: Value, data: &Value) {
    let id = state.id(Kind::ThinEvent);
    let now = state.now("");
    let event = json!({
        "id": id,
        "object": "v2.core.event",
        "type": kind,
        "livemode": false,
        "created": instant(now),
        "context": null,
        "reason": null,
        "related_object": related,
        "data": data,
        "_due": state.clock().now() + KEPT,
    });
    deliver(state, Kind::ThinEvent, event, kind);
}

fn deliver(state: &mut State, table: Kind, mut event: Value, kind: &str) {
    let id = event["id"].clone();
    let wants = |endpoint: &&Value| {
        let types = endpoint["enabled_events"].as_array();
        endpoint["status"] == "enabled"
            && types.is_some_and(|types| types.iter().any(|name| name == "*" || name == kind))
    };
    let endpoints: Vec<Value> =
        state.all(Kind::WebhookEndpoint).filter(wants).map(|endpoint| endpoint["id"].clone()).collect();
    if table == Kind::Event {
        event["pending_webhooks"] = json!(endpoints.len());
    }
    let due = event["_due"].as_i64().unwrap_or_default();
    state.put(table, event);
    for endpoint in endpoints {
        let delivery = state.id(Kind::Delivery);
        state.put(
            Kind::Delivery,
            json!({
                "id": delivery,
                "event": id,
                "type": kind,
                "endpoint": endpoint,
                "attempts": 0,
                "next_ms": wall_ms(),
                "_due": due,
            }),
        );
    }
}

/// The former values of the names whose values differ.
pub(crate) fn changed(before: &Value, after: &Value) -> Value {
    let (before, after) = (shown(before), shown(after));
    let (Some(old), Some(new)) = (before.as_object(), after.as_object()) else { return Value::Null };
    let differs = old.iter().filter(|(name, value)| new.get(*name) != Some(value));
    Value::Object(differs.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>())
}

/// Seconds as RFC 3339, the form of the second interface.
pub(crate) fn instant(seconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}
