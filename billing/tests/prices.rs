//! Price books that change, against the twin of Stripe: what is charged is what held when it was used.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;
#[path = "support/twin.rs"]
mod twin;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Client, acked, record};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use twin::{Pair, until};
use wasmeter_ledger::Ledger;
use wasmeter_usage::{PriceSheet, StandingState, UsageRecord};

const DAY: i64 = 86_400;
const ARGS: [&str; 4] = ["--flush-after", "1", "--bucket-grace", "1"];

/// An entry of a price book, in force from a time in nanoseconds.
fn entry(from_ns: u64, rest: &str) -> String {
    let from = OffsetDateTime::from_unix_timestamp_nanos(from_ns.into()).unwrap();
    let from = from.replace_nanosecond(0).unwrap().format(&Rfc3339).unwrap();
    format!("[[book]]\neffective = \"{from}\"\ncurrency = \"USD\"\n{rest}\n")
}

/// Appends so many calls of a tenant that end at a time.
fn calls(client: &mut Client, sheet: &PriceSheet, tenant: &str, count: usize, end_ns: u64) {
    let one = |_| UsageRecord { start_ns: end_ns - 5, end_ns, ..record(sheet, tenant, 1) };
    let records: Vec<_> = (0..count).map(one).collect();
    let first = client.high_water() + 1;
    assert_eq!(acked(client.append(first, &records)), first + count as u64 - 1);
}

/// The invoices of periods, once all of them are paid.
fn invoices(pair: &Pair, count: usize) -> Vec<Value> {
    until(60, || {
        let mut rows = pair.rows("invoice");
        rows.retain(|i| i["billing_reason"] == "subscription_cycle");
        if rows.len() >= count && rows.iter().all(|i| i["status"] == "paid") {
            Ok(rows)
        } else {
            Err((rows, pair.home.log()))
        }
    })
}

/// Changes the ledger behind billing's back.
fn tamper(pair: &Pair, statements: &[&str]) {
    let ledger = Ledger::open(&pair.home.data().join("ledger.sqlite"), None, "USD", 1).unwrap();
    for statement in statements {
        ledger.try_statement(statement).unwrap();
    }
}

/// Every closed period is computed anew from its entries and the prices under which they were booked, however long ago:
/// not by the book of today, and without what came after its invoice was out.
#[test]
fn minimums_of_old_periods_are_computed_anew() {
    let mut pair = Pair::new();
    let book = pair.home.dir.path().join("prices.toml");
    let file = book.to_str().unwrap().to_owned();
    let args = [&ARGS[..], &["--prices", &file]].concat();
    let of = |minimum: u32| {
        format!("[book.list]\nrequest = \"0.01\"\n[book.minimum]\namount = \"{minimum}\"\ncurrency = \"USD\"")
    };
    let first = entry(pair.twin.now_ns() - 1_000_000_000, &of(5));
    std::fs::write(&book, &first).unwrap();
    let mut billing = pair.start(&args);
    let mut client = pair.home.client();
    for tenant in ["small", "idle"] {
        pair.subscribe(&mut client, tenant, "pm_card_visa");
        pair.await_state(&mut client, tenant, StandingState::Active);
    }
    let sheet = client.prices.clone();
    let began = pair.twin.now_ns();
    calls(&mut client, &sheet, "small", 7, began);
    pair.delivered(60);
    pair.twin.advance(32 * DAY);
    let totals = |rows: &[Value]| {
        let mut all: Vec<_> = rows.iter().map(|i| i["total"].as_i64().unwrap()).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(totals(&invoices(&pair, 2)), [0, 500]);
    // A call of the first month whose record comes in the second: it is on the next invoice, and the one that is out stays right.
    // Stripe says in whole seconds when that was.
    std::thread::sleep(Duration::from_secs(2));
    calls(&mut client, &sheet, "idle", 1, began);

    // Another minimum, from now on.
    std::fs::write(&book, first + &entry(pair.twin.now_ns(), &of(9))).unwrap();
    billing.signal(rustix::process::Signal::TERM);
    assert!(billing.wait().success());
    let mut billing = pair.start(&args);
    let mut client = pair.home.client();
    let dearer = client.prices.clone();
    assert_eq!(dearer.terms.minimum_minor, 900);
    calls(&mut client, &dearer, "small", 3, pair.twin.now_ns());
    pair.delivered(60);
    pair.twin.advance(31 * DAY);
    assert_eq!(totals(&invoices(&pair, 4)), [0, 1, 500, 900]);
    pair.twin.advance(31 * DAY);
    assert_eq!(totals(&invoices(&pair, 6)), [0, 0, 0, 1, 500, 900]);
    let prices = ["--prices", file.as_str()];
    let report = until(60, || {
        let (agree, report) = pair.reconcile_with(&prices);
        if agree && report["periods"] == 6 { Ok(report) } else { Err(report) }
    });
    assert_eq!(report["items"], 2, "{report}");

    // What was noted is not what the entries come to.
    billing.signal(rustix::process::Signal::TERM);
    assert!(billing.wait().success());
    tamper(&pair, &["UPDATE stripe_item SET amount = 93 WHERE amount = 493"]);
    let (agree, report) = pair.reconcile_with(&prices);
    let told = |report: &Value| {
        let all = report["item_differences"].as_array().unwrap();
        let one = |d: &Value| json!([d["tenant"], d["kind"], d["ledger"], d["noted"], d["stripe"]]);
        Value::Array(all.iter().map(one).collect())
    };
    assert!(!agree, "{report}");
    assert_eq!(told(&report), json!([["small", "minimum", 493, 93, 493]]));
    // Noted and charged alike, and yet not what the price book of that month said.
    tamper(
        &pair,
        &[
            "UPDATE stripe_item SET amount = 493 WHERE amount = 93",
            "DROP TRIGGER price_sheet_append_1",
            "UPDATE price_sheet SET json = replace(json, '\"minimum_minor\":500', '\"minimum_minor\":450')",
        ],
    );
    let (agree, report) = pair.reconcile_with(&prices);
    assert!(!agree, "{report}");
    assert_eq!(told(&report), json!([["small", "minimum", 443, 493, 493]]));
}
