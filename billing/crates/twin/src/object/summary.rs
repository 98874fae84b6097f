use std::collections::BTreeMap;

use aws_lc_rs::digest;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{ApiError, Result};
use crate::kind::Kind;
use crate::list::page;
use crate::state::State;

pub(crate) const LIST: &[&str] = &[
    "limit",
    "starting_after",
    "ending_before",
    "customer",
    "start_time",
    "end_time",
    "value_grouping_window",
];

/// Windows in one answer's reach: more than a year of hours.
const MOST: i64 = 10_000;

/// What a meter counted for a customer, in whole or by UTC hour or day; windows without usage are left out. Start and
/// end lie on full minutes, hours or days (Stripe documentation, "Meter Event Summary").
pub(crate) fn list(cx: &mut Context<'_>) -> Result<Value> {
    let p = cx.params;
    let meter = cx.id();
    cx.state.find(Kind::Meter, meter)?;
    let customer = p.need("customer")?;
    cx.state.find_param(Kind::Customer, customer, "customer")?;
    let (from, to) = (p.need_int("start_time")?, p.need_int("end_time")?);
    let grouping = p.word("value_grouping_window", &["hour", "day"])?;
    let (step, name) = match grouping {
        Some("hour") => (3600, "hour"),
        Some(_) => (86_400, "day"),
        None => (60, "minute"),
    };
    for (value, param) in [(from, "start_time"), (to, "end_time")] {
        if value.rem_euclid(step) != 0 {
            return Err(
                ApiError::invalid(format!("{param} must be aligned with {name} boundaries.")).param(param)
            );
        }
    }
    if to <= from {
        return Err(ApiError::invalid("end_time must be after start_time.").param("end_time"));
    }
    if grouping.is_some() && (to - from) / step > MOST {
        return Err(ApiError::invalid("The window is too long for this grouping.").param("start_time"));
    }
    let mut windows: BTreeMap<i64, u128> = BTreeMap::new();
    for (time, value) in seen(cx.state, meter, customer, from, to, cx.now) {
        let start = if grouping.is_some() { time - time.rem_euclid(step) } else { from };
        *windows.entry(start).or_default() += u128::from(value);
    }
    if grouping.is_none() {
        windows.entry(from).or_default();
    }
    let rows: Vec<Value> = windows
        .into_iter()
        .rev()
        .map(|(start, value)| {
            let end = if grouping.is_some() { start + step } else { to };
            let name = format!("{meter} {customer} {start} {end}");
            let sum = hex::encode(&digest::digest(&digest::SHA256, name.as_bytes()).as_ref()[..12]);
            json!({
                "id": format!("mtrusg_test_{sum}"),
                "object": "billing.meter_event_summary",
                "aggregated_value": float(value),
                "start_time": start,
                "end_time": end,
                "livemode": false,
                "meter": meter,
            })
        })
        .collect();
    page(p, &format!("/v1/billing/meters/{meter}/event_summaries"), rows.iter(), "meter event summary")
}

/// Usage that has reached the sums: Stripe works on events after it has answered.
pub(crate) fn seen<'a>(
    state: &'a State,
    meter: &str,
    customer: &str,
    from: i64,
    to: i64,
    now: i64,
) -> impl Iterator<Item = (i64, u64)> + use<'a> {
    let lag = state.get(Kind::Setting, "faults").and_then(|f| f["summary_lag_s"].as_i64()).unwrap_or(0);
    state
        .usage(meter, customer, from, to)
        .filter(move |(_, _, id)| {
            let at = state.get(Kind::MeterEvent, id).and_then(|event| event["_at"].as_i64());
            lag <= 0 || at.is_none_or(|at| at + lag <= now)
        })
        .map(|(time, value, _)| (time, value))
}

/// Stripe writes sums as floats.
fn float(value: u128) -> Value {
    json!(value as f64)
}
