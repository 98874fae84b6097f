use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{ApiError, Result};
use crate::event::{emit_thin, instant};
use crate::form::clip;
use crate::kind::Kind;
use crate::state::State;

pub(crate) const CREATE: &[&str] = &["event_name", "payload.*", "identifier", "timestamp"];
pub(crate) const ADJUST: &[&str] = &["event_name", "type", "cancel.identifier"];

/// How far a timestamp may lie back and ahead (Stripe documentation, "Meter Event").
const BACK: i64 = 35 * 86_400;
const AHEAD: i64 = 5 * 60;
/// How long an identifier is remembered. Stripe promises at least this: the twin remembers no longer, so that whoever
/// relies on more is found out.
const REMEMBERED: i64 = 24 * 3600;
/// Digits of a value at most.
const DIGITS: usize = 15;
/// Events that cannot be used are reported together.
const REPORT_AFTER: i64 = 1;

/// Takes one event. What its shape shows is refused at once. What only its content shows, a customer or meter that is
/// not there or a value that is no whole number, is answered 200 and reported later, as at Stripe (documentation,
/// "Handle meter event errors").
pub(crate) fn create(cx: &mut Context<'_>) -> Result<Value> {
    cx.state.room(Kind::MeterEvent)?;
    let p = cx.params;
    p.need("event_name")?;
    let event_name = p.short("event_name", 100)?.unwrap_or_default();
    let payload = p.map("payload")?;
    if payload.is_empty() {
        return Err(ApiError::needed("payload"));
    }
    let identifier = match p.short("identifier", 100)? {
        Some(identifier) => identifier.to_owned(),
        None => cx.state.token(32),
    };
    let meter = cx.state.meter_by_name(event_name).cloned();
    let key = |setting: &str, otherwise: &str| {
        let name = meter.as_ref().and_then(|m| m[setting]["event_payload_key"].as_str()).unwrap_or(otherwise);
        payload.get(name).and_then(Value::as_str).map(str::to_owned)
    };
    let customer_id = key("customer_mapping", "stripe_customer_id");
    let value = key("value_settings", "value");
    let customer = customer_id.as_deref().and_then(|id| cx.state.get(Kind::Customer, id)).cloned();
    // A customer of a test clock lives by it.
    let now = customer.as_ref().map_or(cx.now, |customer| cx.now_of(customer));
    let timestamp = p.int("timestamp")?.unwrap_or(now);
    if timestamp < now - BACK {
        return Err(ApiError::invalid(format!(
            "The timestamp {timestamp} is too far in the past: it must be within the past 35 calendar days."
        ))
        .code("timestamp_too_far_in_past")
        .param("timestamp"));
    }
    if timestamp > now + AHEAD {
        return Err(ApiError::invalid(format!(
            "The timestamp {timestamp} is in the future: it may be up to 5 minutes ahead."
        ))
        .code("timestamp_in_future")
        .param("timestamp"));
    }
    if let Some((taken, _)) = cx.state.identifier(&identifier)
        && cx.now - taken < REMEMBERED
    {
        return Err(ApiError::invalid(format!("An event already exists with identifier {identifier}."))
            .code("duplicate_meter_event")
            .param("identifier")
            .executed());
    }
    let units = value.as_deref().and_then(whole);
    let wrong = if meter.is_none() {
        Some(("no_meter", format!("No meter found with event name {event_name}.")))
    } else if meter.as_ref().is_some_and(|meter| meter["status"] != "active") {
        Some(("archived_meter", format!("The meter of event name {event_name} is not active.")))
    } else if customer_id.is_none() {
        Some(("meter_event_no_customer_defined", "The payload names no customer.".to_owned()))
    } else if customer.as_ref().is_none_or(|customer| customer["deleted"] == true) {
        Some((
            "meter_event_customer_not_found",
            format!("No such customer: '{}'", clip(customer_id.as_deref().unwrap_or_default())),
        ))
    } else if value.is_none() {
        Some(("meter_event_value_not_found", "The payload has no value.".to_owned()))
    } else if units.is_none() {
        Some((
            "meter_event_invalid_value",
            format!(
                "{} is no whole number of at most {DIGITS} digits.",
                clip(value.as_deref().unwrap_or_default())
            ),
        ))
    } else {
        None
    };
    let id = cx.state.id(Kind::MeterEvent);
    let mut event = json!({
        "id": id,
        "object": "billing.meter_event",
        "created": now,
        "event_name": event_name,
        "identifier": identifier,
        "livemode": false,
        "payload": payload,
        "timestamp": timestamp,
        "_at": cx.now,
        "_meter": meter.as_ref().map(|meter| &meter["id"]),
        "_customer": customer_id,
    });
    match &wrong {
        None => {
            let count =
                meter.as_ref().is_some_and(|meter| meter["default_aggregation"]["formula"] == "count");
            event["_value"] = json!(if count { Some(1) } else { units });
        }
        Some((code, message)) => {
            event["_wrong"] = json!(code);
            let error = cx.state.id(Kind::MeterError);
            let due = cx.now + REPORT_AFTER;
            cx.state.put(
                Kind::MeterError,
                json!({
                    "id": error,
                    "code": code,
                    "message": message,
                    "meter": event["_meter"],
                    "identifier": identifier,
                    "at": cx.now,
                    "_due": due,
                }),
            );
        }
    }
    cx.state.put(Kind::MeterEvent, event.clone());
    // Stripe's meter events have no id.
    if let Some(fields) = event.as_object_mut() {
        fields.remove("id");
    }
    Ok(event)
}

/// A whole number of at most fifteen digits.
fn whole(text: &str) -> Option<u64> {
    let fits = !text.is_empty() && text.len() <= DIGITS && text.bytes().all(|b| b.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

/// Takes an event back, by its identifier, within 24 hours (Stripe documentation, "Meter Event Adjustment").
pub(crate) fn adjust(cx: &mut Context<'_>) -> Result<Value> {
    cx.state.room(Kind::Adjustment)?;
    let p = cx.params;
    let event_name = p.need("event_name")?;
    p.need("type")?;
    p.word("type", &["cancel"])?;
    let identifier = p.need("cancel.identifier")?;
    if cx.state.meter_by_name(event_name).is_none() {
        return Err(ApiError::no_such("billing meter", event_name, "event_name"));
    }
    let lost = || ApiError::no_such("meter event", identifier, "cancel[identifier]");
    let (taken, event) = cx.state.identifier(identifier).ok_or_else(lost)?;
    if cx.now - taken >= REMEMBERED {
        return Err(ApiError::invalid("Meter events can be cancelled within 24 hours.")
            .param("cancel[identifier]")
            .executed());
    }
    let mut event = cx.state.get(Kind::MeterEvent, event).ok_or_else(lost)?.clone();
    if event["event_name"] != event_name {
        return Err(lost());
    }
    if event["_canceled"] == true {
        return Err(ApiError::invalid("The meter event was cancelled before.")
            .param("cancel[identifier]")
            .executed());
    }
    event["_canceled"] = json!(true);
    cx.state.put(Kind::MeterEvent, event);
    let id = cx.state.id(Kind::Adjustment);
    let adjustment = json!({
        "id": id,
        "object": "billing.meter_event_adjustment",
        "cancel": { "identifier": identifier },
        "event_name": event_name,
        "livemode": false,
        "status": "complete",
        "type": "cancel",
    });
    cx.state.put(Kind::Adjustment, adjustment.clone());
    let mut shown = adjustment;
    if let Some(fields) = shown.as_object_mut() {
        fields.remove("id");
    }
    Ok(shown)
}

/// Reports events that could not be used: one thin event for each meter, and one for those without.
pub(crate) fn report(state: &mut State) {
    let waiting: Vec<Value> = state.all(Kind::MeterError).take(10_000).cloned().collect();
    let mut meters: Vec<&Value> = waiting.iter().map(|error| &error["meter"]).collect();
    meters.dedup();
    let mut done: Vec<&Value> = Vec::new();
    for meter in meters {
        if done.contains(&meter) {
            continue;
        }
        done.push(meter);
        let errors: Vec<&Value> = waiting.iter().filter(|error| error["meter"] == *meter).collect();
        let mut types: Vec<Value> = Vec::new();
        for error in &errors {
            let sample = json!({ "error_message": error["message"], "request": { "identifier": error["identifier"] } });
            match types.iter_mut().find(|kind| kind["code"] == error["code"]) {
                Some(kind) => {
                    kind["error_count"] = json!(kind["error_count"].as_i64().unwrap_or(0) + 1);
                    if let Some(samples) = kind["sample_errors"].as_array_mut().filter(|all| all.len() < 10) {
                        samples.push(sample);
                    }
                }
                None => {
                    types.push(json!({ "code": error["code"], "error_count": 1, "sample_errors": [sample] }))
                }
            }
        }
        let at = |error: Option<&&Value>| instant(error.and_then(|e| e["at"].as_i64()).unwrap_or_default());
        let count = errors.len();
        let data = json!({
            "developer_message_summary":
                format!("There {} {count} invalid event{}", if count == 1 { "is" } else { "are" }, if count == 1 { "" } else { "s" }),
            "reason": { "error_count": count, "error_types": types },
            "validation_start": at(errors.first()),
            "validation_end": at(errors.last()),
        });
        let (kind, related) = match meter.as_str() {
            Some(id) => (
                "v1.billing.meter.error_report_triggered",
                json!({ "id": id, "type": "billing.meter", "url": format!("/v1/billing/meters/{id}") }),
            ),
            None => ("v1.billing.meter.no_meter_found", Value::Null),
        };
        emit_thin(state, kind, related, &data);
    }
    for error in &waiting {
        state.remove(Kind::MeterError, error["id"].as_str().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_whole() {
        assert_eq!((whole("0"), whole("999999999999999")), (Some(0), Some(999_999_999_999_999)));
        for bad in ["", "1000000000000000", "1.0", "-1", "+1", "1e3", " 1"] {
            assert_eq!(whole(bad), None, "{bad:?}");
        }
    }
}
