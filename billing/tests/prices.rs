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
use wasmeter_usage::wire::{Call, Reply};
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

/// Runs `setup` with a price book and the ledger; whether it was content, its JSON, and what it complained of.
fn setup(pair: &Pair, book: &str, more: &[&str]) -> (bool, Value, String) {
    let mut command = setup_command(pair, book, more);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.success(), serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
}

fn setup_command(pair: &Pair, book: &str, more: &[&str]) -> std::process::Command {
    let mut command = pair.home.command();
    command.arg("setup").args(pair.stripe_args()).args(["--format", "json", "--prices", book, "--data"]);
    command.arg(pair.home.data()).arg("--clock-file").arg(pair.home.dir.path().join("clock")).args(more);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command
}

/// The bill of a tenant over the period of an invoice.
fn bill(client: &mut Client, tenant: &str, invoice: &Value) -> i64 {
    let ns = |key: &str| invoice[key].as_u64().unwrap() * 1_000_000_000;
    let call = Call::Bill { tenant: tenant.into(), from_ns: ns("period_start"), to_ns: ns("period_end") };
    let Reply::Bill(bill) = client.call(&call) else { panic!("no bill") };
    bill.due_minor
}

/// A tenant's invoice of the `n`th period.
fn invoice_of(pair: &Pair, client: &mut Client, tenant: &str, n: usize) -> Value {
    let customer = pair.standing(client, tenant).customer.unwrap();
    let mut rows = pair.rows("invoice");
    rows.retain(|i| i["billing_reason"] == "subscription_cycle" && i["customer"] == customer.as_str());
    rows.sort_by_key(|i| i["period_end"].as_i64());
    rows.swap_remove(n)
}

/// The items of a customer's subscription: meter and hash of the price sheet, sorted.
fn items(pair: &Pair, customer: &str) -> Vec<(String, Value)> {
    let rows = pair.rows("subscription");
    let of = rows.iter().find(|s| s["customer"] == customer).unwrap();
    let mut items: Vec<_> = of["items"]["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let nickname = item["price"]["nickname"].as_str().unwrap_or("agreed");
            let word = nickname.split(' ').next().unwrap();
            (word.to_owned(), item["price"]["metadata"]["price_sheet"].clone())
        })
        .collect();
    items.sort_by(|a, b| a.0.cmp(&b.0));
    items
}

const OLD: &str = "[book.list]\nrequest = \"0.01\"\ngpu_second = \"1\"";
const NEW: &str = "[book.list]\nrequest = \"0.03\"\ncpu_second = \"2\"";

/// In the middle of a month the operator writes another entry and runs `setup --move`, killed again and again: subscriptions are
/// at the new prices, and the invoice of that month has each call at the price that held when it ran.
#[test]
fn a_new_price_book_moves_subscriptions_and_each_call_costs_what_it_cost() {
    let mut pair = Pair::new();
    let book = pair.home.dir.path().join("prices.toml");
    let file = book.to_str().unwrap().to_owned();
    let args = [&ARGS[..], &["--prices", &file]].concat();
    let first = entry(pair.twin.now_ns() - 1_000_000_000, OLD);
    std::fs::write(&book, &first).unwrap();
    let mut billing = pair.start(&args);
    let mut client = pair.home.client();
    for tenant in ["dev", "later", "vip"] {
        pair.subscribe(&mut client, tenant, "pm_card_visa");
        pair.await_state(&mut client, tenant, StandingState::Active);
    }
    let old = client.prices.clone();
    let customer = |client: &mut Client, tenant: &str| pair.standing(client, tenant).customer.unwrap();
    let (dev, later, vip) =
        (customer(&mut client, "dev"), customer(&mut client, "later"), customer(&mut client, "vip"));
    // One customer has a price that somebody agreed with it; a subscription of somebody else is in the same account.
    let price = pair.rows("price").into_iter().find(|p| p["nickname"] == "Requests by the request").unwrap();
    let (id, meter) = (price["id"].as_str().unwrap(), price["recurring"]["meter"].as_str().unwrap());
    let agreed = pair.stripe(
        "POST",
        "/v1/prices",
        &format!(
            "currency=usd&product=wasmeter_usage&unit_amount=5&recurring%5Binterval%5D=month\
             &recurring%5Busage_type%5D=metered&recurring%5Bmeter%5D={meter}"
        ),
    );
    let of_vip = pair.rows("subscription").into_iter().find(|s| s["customer"] == vip.as_str()).unwrap();
    let rows = of_vip["items"]["data"].as_array().unwrap();
    let item = rows.iter().find(|item| item["price"]["id"] == id).unwrap()["id"].as_str().unwrap();
    pair.stripe(
        "POST",
        &format!("/v1/subscriptions/{}", of_vip["id"].as_str().unwrap()),
        &format!(
            "items%5B0%5D%5Bid%5D={item}&items%5B0%5D%5Bprice%5D={}&proration_behavior=none",
            agreed["id"].as_str().unwrap()
        ),
    );
    let stranger = pair.stripe("POST", "/v1/customers", "name=stranger&payment_method=pm_card_visa");
    let stranger = stranger["id"].as_str().unwrap();
    pair.stripe("POST", "/v1/subscriptions", &format!("customer={stranger}&items%5B0%5D%5Bprice%5D={id}"));

    calls(&mut client, &old, "dev", 10, pair.twin.now_ns());
    pair.delivered(60);
    let clock = |pair: &Pair| (pair.rows("price").len(), pair.rows("subscription"));
    let (ok, plan, said) = setup(&pair, &file, &["--move"]);
    assert!(ok, "{said}");
    // Nothing to move, but that one price is nobody's to move.
    assert_eq!(plan["subscriptions"].as_array().unwrap().len(), 1, "{plan}");
    assert_eq!(plan["subscriptions"][0]["changes"], json!([]), "{plan}");

    pair.twin.advance(10 * DAY);
    std::fs::write(&book, first + &entry(pair.twin.now_ns(), NEW)).unwrap();
    billing.signal(rustix::process::Signal::TERM);
    assert!(billing.wait().success());
    // A plan changes nothing.
    let before = clock(&pair);
    let (ok, plan, said) = setup(&pair, &file, &["--move", "--dry-run"]);
    assert!(ok, "{said}");
    assert_eq!(clock(&pair), before);
    let planned = plan["subscriptions"].as_array().unwrap();
    assert_eq!(
        planned.iter().map(|s| s["tenant"].as_str().unwrap()).collect::<Vec<_>>(),
        ["dev", "later", "vip"]
    );
    let kinds = |s: &Value| {
        let all = s["changes"].as_array().unwrap();
        all.iter().map(|c| c["do"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&planned[0]), ["exchange", "add", "remove"], "{plan}");
    assert_eq!(kinds(&planned[2]), ["add", "remove"], "{plan}");
    assert!(planned[2]["left"][0].as_str().unwrap().contains("is of no price book"), "{plan}");
    assert_eq!(plan["created"].as_array().unwrap().len(), 3, "{plan}");

    let _billing = pair.start(&args);
    let mut client = pair.home.client();
    let new = client.prices.clone();
    assert_ne!(old.hash, new.hash);
    calls(&mut client, &new, "dev", 4, pair.twin.now_ns());
    pair.delivered(60);

    // Killed at any instant, with answers lost and faults kept by their keys.
    pair.twin.post(
        "faults",
        &json!({"only": "/v1/subscriptions", "drop_before": 0.2, "drop_after": 0.2, "error_500": 0.2,
            "error_500_after": 0.2}),
    );
    for wait in [15, 30, 45, 60, 90, 120, 200, 400] {
        let mut killed = setup_command(&pair, &file, &["--move"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        let _ = killed.kill();
        killed.wait().unwrap();
    }
    pair.twin.post(
        "faults",
        &json!({"only": "", "drop_before": 0, "drop_after": 0, "error_500": 0, "error_500_after": 0}),
    );
    until(60, || {
        let (ok, _, said) = setup(&pair, &file, &["--move"]);
        if ok { Ok(()) } else { Err(said) }
    });
    let (ok, again, said) = setup(&pair, &file, &["--move"]);
    assert!(ok, "{said}");
    assert_eq!(
        (&again["created"], again["subscriptions"].as_array().unwrap().len()),
        (&json!([]), 1),
        "{again}"
    );
    assert_eq!(again["subscriptions"][0]["tenant"], "vip");
    let sheet = json!(new.hash);
    let at_new = [("CPU".to_owned(), sheet.clone()), ("Requests".to_owned(), sheet.clone())];
    assert_eq!(items(&pair, &dev), at_new);
    assert_eq!(items(&pair, &later), at_new);
    assert_eq!(items(&pair, &vip), [("CPU".to_owned(), sheet), ("agreed".to_owned(), Value::Null)]);
    assert_eq!(items(&pair, stranger), [("Requests".to_owned(), json!(old.hash))]);
    assert_eq!(pair.rows("invoiceitem"), [] as [Value; 0]);

    calls(&mut client, &new, "dev", 6, pair.twin.now_ns());
    calls(&mut client, &new, "later", 6, pair.twin.now_ns());
    calls(&mut client, &new, "vip", 5, pair.twin.now_ns());
    pair.delivered(60);
    pair.twin.advance(22 * DAY);
    let cycles = until(60, || {
        let mut rows = pair.rows("invoice");
        rows.retain(|i| i["billing_reason"] == "subscription_cycle" && i["customer"] != stranger);
        let paid = rows.len() == 3 && rows.iter().all(|i| i["status"] == "paid");
        if paid { Ok(rows) } else { Err((pair.outbox(), pair.home.log())) }
    });
    let total = |customer: &str| cycles.iter().find(|i| i["customer"] == customer).unwrap()["total"].clone();
    // 10 at 1 cent and 10 at 3; 10 times 1.23 ms of a processor at 2 dollars a second.
    assert_eq!(total(&dev), 10 + 30 + 2);
    assert_eq!(total(&later), 18 + 1);
    assert_eq!(total(&vip), 25 + 1);
    let invoice = invoice_of(&pair, &mut client, "dev", 0);
    assert_eq!(bill(&mut client, "dev", &invoice), 42);
    // Stripe has the six calls since the move: the rest is one item.
    let kinds: Vec<_> = pair
        .rows("invoiceitem")
        .iter()
        .map(|item| {
            (item["customer"].clone(), item["metadata"]["wasmeter_kind"].clone(), item["amount"].clone())
        })
        .collect();
    assert_eq!(kinds, [(json!(dev), json!("prices"), json!(42 - 19))]);

    // The next month has one price alone.
    calls(&mut client, &new, "dev", 2, pair.twin.now_ns());
    pair.delivered(60);
    pair.twin.advance(31 * DAY);
    until(60, || {
        let found = pair.rows("invoice");
        let of = |i: &&Value| i["billing_reason"] == "subscription_cycle" && i["customer"] == dev.as_str();
        let all: Vec<_> =
            found.iter().filter(of).map(|i| (i["total"].clone(), i["status"].clone())).collect();
        if all.contains(&(json!(6), json!("paid"))) { Ok(()) } else { Err(all) }
    });
    assert_eq!(pair.rows("invoiceitem").len(), 1);
    until(60, || {
        let (agree, report) = pair.reconcile_with(&["--prices", &file]);
        if agree && report["periods"] == 6 { Ok(()) } else { Err(report) }
    });
}

/// Nobody ran `setup`: an entry of the book comes into force while billing runs, calls cost what it says, and so do the invoices
/// of subscriptions that are at other prices still; who subscribes from then on does so at the new ones.
#[test]
fn prices_come_into_force_by_themselves() {
    let mut pair = Pair::new();
    let book = pair.home.dir.path().join("prices.toml");
    let file = book.to_str().unwrap().to_owned();
    let now = pair.twin.now_ns();
    let later = now + 5 * 86_400_000_000_000;
    std::fs::write(&book, entry(now - 1_000_000_000, OLD) + &entry(later, NEW)).unwrap();
    let _billing = pair.start(&[&ARGS[..], &["--prices", &file]].concat());
    let mut client = pair.home.client();
    pair.subscribe(&mut client, "dev", "pm_card_visa");
    pair.await_state(&mut client, "dev", StandingState::Active);
    let old = client.prices.clone();
    calls(&mut client, &old, "dev", 3, pair.twin.now_ns());
    pair.delivered(60);
    pair.twin.advance(6 * DAY);
    let mut client = pair.home.client();
    let new = client.prices.clone();
    assert_ne!(new.hash, old.hash);
    calls(&mut client, &new, "dev", 4, pair.twin.now_ns());
    pair.subscribe(&mut client, "fresh", "pm_card_visa");
    pair.await_state(&mut client, "fresh", StandingState::Active);
    let fresh = pair.standing(&mut client, "fresh").customer.unwrap();
    assert!(items(&pair, &fresh).iter().all(|(_, sheet)| *sheet == json!(new.hash)));
    pair.delivered(60);
    pair.twin.advance(26 * DAY);
    let dev = pair.standing(&mut client, "dev").customer.unwrap();
    let invoice = until(60, || {
        let rows = pair.rows("invoice");
        let mut of = rows
            .iter()
            .filter(|i| i["billing_reason"] == "subscription_cycle" && i["customer"] == dev.as_str());
        of.next().filter(|i| i["status"] == "paid").cloned().ok_or_else(|| pair.home.log())
    });
    // 3 at 1 cent, 4 at 3, and 4 times 1.23 ms of a processor; Stripe has 7 at 1 cent.
    assert_eq!((&invoice["total"], bill(&mut client, "dev", &invoice)), (&json!(16), 16));
    until(60, || {
        let (agree, report) = pair.reconcile_with(&["--prices", &file]);
        if agree && report["items"] == 1 { Ok(()) } else { Err(report) }
    });
}

#[test]
fn a_book_in_another_currency_changes_nothing() {
    let pair = Pair::new();
    let _billing = pair.start(&ARGS);
    let mut client = pair.home.client();
    pair.subscribe(&mut client, "dev", "pm_card_visa");
    pair.await_state(&mut client, "dev", StandingState::Active);
    let prices = pair.rows("price").len();
    let book = pair.home.dir.path().join("prices.toml");
    let file = book.to_str().unwrap();
    std::fs::write(&book, entry(1_000_000_000, NEW).replace("USD", "EUR")).unwrap();
    let (ok, _, said) = setup(&pair, file, &["--move"]);
    assert!(!ok && said.contains("counts in USD for ever") && said.contains("nothing was changed"), "{said}");
    // Somebody subscribed this customer in another currency.
    let meter = pair.rows("billing.meter").remove(0)["id"].as_str().unwrap().to_owned();
    let foreign = pair.stripe(
        "POST",
        "/v1/prices",
        &format!(
            "currency=eur&product=wasmeter_usage&unit_amount=5&recurring%5Binterval%5D=month\
             &recurring%5Busage_type%5D=metered&recurring%5Bmeter%5D={meter}"
        ),
    );
    let customer = pair.standing(&mut client, "dev").customer.unwrap();
    let price = foreign["id"].as_str().unwrap();
    pair.stripe("POST", "/v1/subscriptions", &format!("customer={customer}&items%5B0%5D%5Bprice%5D={price}"));
    std::fs::write(&book, entry(1_000_000_000, NEW)).unwrap();
    let (ok, _, said) = setup(&pair, file, &["--move"]);
    assert!(!ok && said.contains("is in EUR") && said.contains("nothing was changed"), "{said}");
    assert_eq!(pair.rows("price").len(), prices + 1);
}
