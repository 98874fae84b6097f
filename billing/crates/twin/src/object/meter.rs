use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{ApiError, Result};
use crate::kind::Kind;
use crate::list::page;

pub(crate) const CREATE: &[&str] = &[
    "display_name",
    "event_name",
    "event_time_window",
    "default_aggregation.formula",
    "customer_mapping.event_payload_key",
    "customer_mapping.type",
    "value_settings.event_payload_key",
];
pub(crate) const UPDATE: &[&str] = &["display_name"];
pub(crate) const LIST: &[&str] = &["limit", "starting_after", "ending_before", "status"];

pub(crate) fn create(cx: &mut Context<'_>) -> Result<Value> {
    cx.state.room(Kind::Meter)?;
    let p = cx.params;
    p.need("display_name")?;
    p.need("event_name")?;
    let display_name = p.short("display_name", 250)?;
    let event_name = p.short("event_name", 100)?.unwrap_or_default();
    p.need("default_aggregation.formula")?;
    // Other formulas and pre-aggregated windows would need sums of another kind; nothing of ours uses them.
    let formula = p.word("default_aggregation.formula", &["sum", "count"])?;
    if p.has("event_time_window") {
        return Err(ApiError::invalid("The twin knows raw events only: leave event_time_window out.")
            .param("event_time_window"));
    }
    let mapping = p.word("customer_mapping.type", &["by_id"])?;
    if mapping.is_none() && p.has("customer_mapping") {
        return Err(ApiError::needed("customer_mapping[type]"));
    }
    if cx.state.meter_by_name(event_name).is_some_and(|meter| meter["status"] == "active") {
        return Err(ApiError::invalid(format!(
            "A meter with the event name {event_name} already exists; event names of active meters are unique."
        ))
        .code("resource_already_exists")
        .param("event_name")
        .executed());
    }
    let id = cx.state.id(Kind::Meter);
    let meter = json!({
        "id": id,
        "object": "billing.meter",
        "created": cx.now,
        "customer_mapping": {
            "event_payload_key": p.text("customer_mapping.event_payload_key")?.unwrap_or("stripe_customer_id"),
            "type": "by_id",
        },
        "default_aggregation": { "formula": formula },
        "display_name": display_name,
        "event_name": event_name,
        "event_time_window": null,
        "livemode": false,
        "status": "active",
        "status_transitions": { "deactivated_at": null },
        "updated": cx.now,
        "value_settings": {
            "event_payload_key": p.text("value_settings.event_payload_key")?.unwrap_or("value"),
        },
    });
    cx.state.put(Kind::Meter, meter.clone());
    cx.emit("billing.meter.created", &meter);
    Ok(meter)
}

pub(crate) fn retrieve(cx: &mut Context<'_>) -> Result<Value> {
    Ok(cx.state.find(Kind::Meter, cx.id())?.clone())
}

pub(crate) fn update(cx: &mut Context<'_>) -> Result<Value> {
    let before = cx.state.find(Kind::Meter, cx.id())?.clone();
    let mut meter = before.clone();
    if let Some(name) = cx.params.short("display_name", 250)? {
        meter["display_name"] = json!(name);
    }
    meter["updated"] = json!(cx.now);
    cx.state.put(Kind::Meter, meter.clone());
    cx.emit_update("billing.meter.updated", &before, &meter);
    Ok(meter)
}

pub(crate) fn deactivate(cx: &mut Context<'_>) -> Result<Value> {
    let mut meter = cx.state.find(Kind::Meter, cx.id())?.clone();
    if meter["status"] == "inactive" {
        return Err(ApiError::invalid("The meter is already inactive.").executed());
    }
    meter["status"] = json!("inactive");
    meter["status_transitions"]["deactivated_at"] = json!(cx.now);
    meter["updated"] = json!(cx.now);
    cx.state.put(Kind::Meter, meter.clone());
    cx.emit("billing.meter.deactivated", &meter);
    Ok(meter)
}

pub(crate) fn reactivate(cx: &mut Context<'_>) -> Result<Value> {
    let mut meter = cx.state.find(Kind::Meter, cx.id())?.clone();
    let name = meter["event_name"].as_str().unwrap_or_default();
    if cx.state.meter_by_name(name).is_some_and(|other| other["status"] == "active") {
        return Err(ApiError::invalid("An active meter has this event name.").executed());
    }
    meter["status"] = json!("active");
    meter["status_transitions"]["deactivated_at"] = Value::Null;
    meter["updated"] = json!(cx.now);
    cx.state.put(Kind::Meter, meter.clone());
    cx.emit("billing.meter.reactivated", &meter);
    Ok(meter)
}

pub(crate) fn list(cx: &mut Context<'_>) -> Result<Value> {
    let status = cx.params.word("status", &["active", "inactive"])?;
    let rows = cx.state.all(Kind::Meter).rev();
    let rows = rows.filter(|meter| status.is_none_or(|status| meter["status"] == status));
    page(cx.params, "/v1/billing/meters", rows, "billing meter")
}
