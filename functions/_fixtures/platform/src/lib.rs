//! Says what the platform tells it: `/` its invocation and configuration, before and after some work.
//! `/log` writes a message of each level; `/flood?lines=` writes many.

use serde_json::{Value, json};
use wasmeter_guest::log::{self, Level};
use wasmeter_guest::{Request, Response, Result, config, invocation};

fn seen() -> Value {
    let spent = invocation::spent();
    json!({
        "id": invocation::id(),
        "time_left_ns": u64::try_from(invocation::time_left().as_nanos()).unwrap_or(u64::MAX),
        "fuel_left": invocation::fuel_left(),
        "fuel": spent.fuel,
        "device_ns": u64::try_from(spent.device.as_nanos()).unwrap_or(u64::MAX),
        "sent_bytes": spent.sent_bytes,
        "cost": spent.cost,
    })
}

#[wasmeter_guest::handler]
fn handle(req: Request) -> Result<Response> {
    match req.path() {
        "/log" => {
            for level in [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error, Level::Critical]
            {
                log::log(level, "fixture", "two\nlines");
            }
            log::info("without context");
            Ok(Response::text("logged\n"))
        }
        "/flood" => {
            let lines = req.query_param("lines").and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
            let wide = "ä".repeat(500);
            (0..lines).for_each(|_| log::warn(&wide));
            println!("and on standard output");
            Ok(Response::text("flooded\n"))
        }
        _ => {
            let first = seen();
            let work =
                (0..100_000u64).fold(1u64, |a, b| std::hint::black_box(a.wrapping_mul(31).wrapping_add(b)));
            let answer = json!({
                "first": first,
                "then": seen(),
                "work": work,
                "greeting": config::get("greeting")?,
                "missing": config::get("missing")?,
                "all": config::all()?,
                "env": std::env::var("greeting").ok(),
            });
            Ok(Response::json(&answer)?)
        }
    }
}
