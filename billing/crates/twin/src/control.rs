use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::clock::wall_ms;
use crate::exchange::{Request, keep_faults};
use crate::faults::SETTINGS;
use crate::form;
use crate::kind::Kind;
use crate::twin::Twin;

/// Steps of time that one change of the clock does while the twin is locked; the rest follows at once.
const STEPS: usize = 200;
/// Rows of a dump at most.
const ROWS: usize = 200_000;

/// What an operator or a test asks of the twin itself, none of it Stripe's: JSON in, JSON out.
pub(crate) async fn answer(twin: &Arc<Twin>, request: &Request) -> (u16, Value) {
    let what = request.path.strip_prefix("/_twin/").unwrap_or_default();
    let query = form::parse(&request.query).unwrap_or_default();
    let number =
        |name: &str| query.get(name).and_then(Value::as_str).and_then(|text| text.parse::<usize>().ok());
    let body: Result<Map<String, Value>, String> = if request.body.is_empty() {
        Ok(Map::new())
    } else {
        serde_json::from_slice(&request.body).map_err(|error| format!("the body is no JSON object: {error}"))
    };
    let body = match body {
        Ok(body) => body,
        Err(error) => return (400, json!({ "error": error })),
    };
    match (request.method.as_str(), what) {
        ("GET", "faults") => (200, faults(twin)),
        ("POST", "faults") => {
            let mut inner = twin.inner.lock();
            match inner.faults.set(&body) {
                Ok(()) => {
                    keep_faults(&mut inner);
                    (200, inner.faults.to_json())
                }
                Err(error) => (400, json!({ "error": error })),
            }
        }
        ("GET", "clock") => (200, clock(twin)),
        ("POST", "clock") => match set_clock(twin, &body) {
            Ok(()) => {
                settle(twin).await;
                (200, clock(twin))
            }
            Err(error) => (400, json!({ "error": error })),
        },
        ("GET", "state") => {
            let kind = query.get("kind").and_then(Value::as_str);
            (200, state(twin, kind, number("limit").unwrap_or(1000).min(ROWS)))
        }
        ("GET", "meter-events") => {
            let (after, limit) = (number("after").unwrap_or(0), number("limit").unwrap_or(ROWS).min(ROWS));
            (200, meter_events(twin, after, limit))
        }
        ("GET", "requests") => {
            let inner = twin.inner.lock();
            (200, json!({ "requests": inner.requests }))
        }
        ("POST", "sign") => (200, json!({ "signature": sign(twin, &body) })),
        ("POST", "deliver") => (200, redeliver(twin, &body)),
        _ => (404, json!({ "error": "there is no such thing; GET / shows what there is" })),
    }
}

fn faults(twin: &Twin) -> Value {
    let inner = twin.inner.lock();
    let means: Map<String, Value> =
        SETTINGS.iter().map(|(name, _, means)| ((*name).to_owned(), json!(means))).collect();
    json!({ "faults": inner.faults.to_json(), "means": means, "counts": inner.counts })
}

fn clock(twin: &Twin) -> Value {
    let inner = twin.inner.lock();
    json!({ "now": inner.state.now(""), "clock": inner.state.clock().to_json() })
}

/// `{"advance": seconds}`, `{"set": time}` and `{"frozen": true}`; time never goes back.
fn set_clock(twin: &Twin, body: &Map<String, Value>) -> Result<(), String> {
    let mut inner = twin.inner.lock();
    let now = inner.state.now("");
    let mut clock = inner.state.clock();
    for (name, value) in body {
        clock = match (name.as_str(), value) {
            ("advance", Value::Number(by)) => {
                let by = by.as_i64().filter(|by| (0..=400 * 86_400).contains(by));
                clock.set(now + by.ok_or("advance is 0 to 400 days, in seconds")?)
            }
            ("set", Value::Number(to)) => {
                let to = to.as_i64().filter(|to| *to >= now && *to <= now + 400 * 86_400);
                clock.set(to.ok_or("set is a time from now on, by 400 days at most, in seconds")?)
            }
            ("frozen", Value::Bool(still)) => clock.freeze(*still),
            _ => return Err(format!("{name}: the clock takes advance, set and frozen")),
        };
    }
    inner.state.set_clock(clock);
    // What waits for its receiver need not wait for the machine's clock as well.
    let waiting: Vec<String> =
        inner.state.all(Kind::Delivery).filter_map(|d| d["id"].as_str().map(str::to_owned)).collect();
    for delivery in waiting {
        inner.state.change(Kind::Delivery, &delivery, |d| d["next_ms"] = json!(wall_ms()));
    }
    inner.state.commit().map_err(|error| error.to_string())
}

/// Does all that the new time brings, leaving room for requests in between.
async fn settle(twin: &Arc<Twin>) {
    loop {
        let done = twin.inner.lock().catch_up(STEPS);
        twin.news.notify_one();
        match done {
            Ok(STEPS) => tokio::task::yield_now().await,
            _ => return,
        }
    }
}

/// How many there are of each kind, and the newest of one kind in full, the twin's own names included.
fn state(twin: &Twin, kind: Option<&str>, limit: usize) -> Value {
    let inner = twin.inner.lock();
    let counts: Map<String, Value> =
        Kind::ALL.iter().map(|kind| (kind.as_str().to_owned(), json!(inner.state.count(*kind)))).collect();
    let mut answer = json!({
        "now": inner.state.now(""),
        "objects": counts,
        "requests": inner.counts,
        "waiting_webhooks": inner.state.count(Kind::Delivery),
    });
    if let Some(kind) = kind.and_then(Kind::parse).filter(|kind| *kind != Kind::Setting) {
        let mut rows: Vec<Value> = inner.state.all(kind).rev().take(limit).cloned().collect();
        for row in &mut rows {
            if let Some(fields) = row.as_object_mut() {
                fields.remove("_secret");
            }
        }
        answer["rows"] = json!(rows);
    }
    answer
}

/// Meter events that count, in the order in which they were taken: for checks of exactness.
fn meter_events(twin: &Twin, after: usize, limit: usize) -> Value {
    let inner = twin.inner.lock();
    let counted = |event: &&Value| event["_value"].is_u64() && event["_canceled"] != true;
    let rows: Vec<Value> = inner
        .state
        .all(Kind::MeterEvent)
        .filter(counted)
        .skip(after)
        .take(limit)
        .map(|event| {
            json!({
                "identifier": event["identifier"],
                "event_name": event["event_name"],
                "customer": event["_customer"],
                "value": event["_value"],
                "timestamp": event["timestamp"],
                "taken_at": event["_at"],
            })
        })
        .collect();
    json!({ "count": inner.state.all(Kind::MeterEvent).filter(counted).count(), "events": rows })
}

/// A signature by the twin's webhook secret over `body`, at `time`: so that a test can forge what Stripe would send.
fn sign(twin: &Twin, body: &Map<String, Value>) -> Value {
    let inner = twin.inner.lock();
    let secret =
        inner.state.get(Kind::Setting, "webhook_secret").and_then(|s| s["text"].as_str()).unwrap_or_default();
    let time = body.get("time").and_then(Value::as_i64).unwrap_or_else(crate::clock::wall);
    let text = body.get("body").and_then(Value::as_str).unwrap_or_default();
    json!(crate::webhook::signature(secret, time, text.as_bytes()))
}

/// Sends an event again to every endpoint: `{"event": "evt_…"}`.
fn redeliver(twin: &Twin, body: &Map<String, Value>) -> Value {
    let mut inner = twin.inner.lock();
    let id = body.get("event").and_then(Value::as_str).unwrap_or_default().to_owned();
    let event = inner.state.get(Kind::Event, &id).or_else(|| inner.state.get(Kind::ThinEvent, &id)).cloned();
    let Some(event) = event else { return json!({ "sent": 0 }) };
    let endpoints: Vec<Value> = inner.state.all(Kind::WebhookEndpoint).map(|e| e["id"].clone()).collect();
    let count = endpoints.len();
    for endpoint in endpoints {
        let delivery = inner.state.id(Kind::Delivery);
        inner.state.put(
            Kind::Delivery,
            json!({ "id": delivery, "event": id, "type": event["type"], "endpoint": endpoint, "attempts": 0,
                "next_ms": wall_ms(), "_due": event["_due"] }),
        );
    }
    let _ = inner.state.commit();
    drop(inner);
    twin.news.notify_one();
    json!({ "sent": count })
}
