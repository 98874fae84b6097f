//! Billing against the twin of Stripe, both as processes: all that is used is charged, once, whatever fails.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;
#[path = "support/twin.rs"]
mod twin;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use support::{Client, record};
use twin::{Pair, http, until};
use wasmeter_usage::wire::{Call, Reply};
use wasmeter_usage::{DeviceClass, Meter, ModelUse, Pico, PriceSheet, StandingState, UsageRecord};

const DAY: i64 = 86_400;

/// What Stripe's unit of a meter is, and its price in pico of the currency.
fn sku(prices: &PriceSheet, meter: Meter) -> (u64, u128) {
    let rates = &prices.rates;
    match meter {
        Meter::Fuel => (1_000_000, rates.fuel_million.into()),
        Meter::GpuTime => (1_000, u128::from(rates.gpu_second) / 1_000_000),
        Meter::CpuTime => (1_000, u128::from(rates.cpu_second) / 1_000_000),
        Meter::Requests => (1, rates.request.into()),
        Meter::TokensIn => (1, rates.token_in.into()),
        Meter::TokensOut => (1, rates.token_out.into()),
        // In thousands: a byte is finer than a pico.
        Meter::EgressBytes => (1, rates.egress_gb.into()),
    }
}

fn heavy(prices: &PriceSheet, tenant: &str, n: u64, end_ns: u64) -> UsageRecord {
    let mut record = record(prices, tenant, 30_000_000_000_000 + n * 777_777);
    record.models.push(ModelUse {
        model: "big".into(),
        version: 1,
        device: "cuda:0".into(),
        class: DeviceClass::Gpu,
        computes: 1,
        device_ns: 9_000_000_123 + n,
    });
    (record.start_ns, record.end_ns) = (end_ns - 1_000, end_ns);
    record
}

fn append(client: &mut Client, records: &[UsageRecord]) {
    let first = client.high_water() + 1;
    for (n, part) in records.chunks(2_000).enumerate() {
        let first = first + n as u64 * 2_000;
        match client.append(first, part).unwrap() {
            Reply::Acked { acked_seq } => assert_eq!(acked_seq, first + part.len() as u64 - 1),
            other => panic!("{other:?}"),
        }
    }
}

/// What Stripe must have counted of records, by meter.
fn expected<'a>(
    prices: &PriceSheet,
    records: impl Iterator<Item = &'a UsageRecord>,
) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    let mut raw: BTreeMap<Meter, u64> = BTreeMap::new();
    for record in records {
        for meter in Meter::ALL {
            *raw.entry(meter).or_default() += record.quantities().get(meter);
        }
    }
    for (meter, raw) in raw {
        let (units, price) = sku(prices, meter);
        if price > 0 && raw / units > 0 {
            sums.insert(format!("wasmeter_{}", meter.as_str()), raw / units);
        }
    }
    sums
}

fn counted(pair: &Pair, customer: &str) -> BTreeMap<String, u64> {
    let (_, sums) = pair.twin.events();
    sums.into_iter().filter(|((of, _), _)| of == customer).map(|((_, name), sum)| (name, sum)).collect()
}

#[test]
fn from_checkout_to_a_paid_and_an_unpaid_invoice() {
    let mut pair = Pair::new();
    let (_, first) = pair.run("setup", &[]);
    assert!(!first["created"].as_array().unwrap().is_empty());
    let (_, second) = pair.run("setup", &[]);
    assert_eq!((&second["created"], &second["skus"]), (&json!([]), &first["skus"]));

    let _billing = pair.start(&["--flush-after", "1", "--bucket-grace", "1"]);
    let mut client = pair.home.client();
    let portal = Call::Portal { tenant: "dev".into(), return_url: "http://127.0.0.1:9/".into() };
    assert_eq!(support::refusal(client.call(&portal)).0, "no_customer");
    pair.subscribe(&mut client, "dev", "pm_card_visa");
    pair.subscribe(&mut client, "poor", "pm_card_chargeCustomerFail");
    pair.await_state(&mut client, "dev", StandingState::Active);
    pair.await_state(&mut client, "poor", StandingState::Active);
    assert!(matches!(client.call(&portal), Reply::Page { .. }));

    let prices = client.prices.clone();
    let records: Vec<_> = (0..90)
        .map(|n| heavy(&prices, ["dev", "poor", "internal"][n as usize % 3], n, pair.twin.now_ns()))
        .collect();
    append(&mut client, &records[..60]);
    pair.delivered(60);
    append(&mut client, &records[60..]);
    let outbox = pair.delivered(60);
    assert!(outbox["states"]["waiting"].as_u64().unwrap() >= 5, "{outbox}");
    let dev = pair.standing(&mut client, "dev");
    let of = |tenant: &'static str| records.iter().filter(move |r| r.tenant == tenant);
    let customer = dev.customer.clone().unwrap();
    assert_eq!(counted(&pair, &customer), expected(&prices, of("dev")));
    let (agree, report) = pair.reconcile();
    assert!(agree && report["hours"].as_u64().unwrap() >= 10, "{report}");

    // Webhooks that Stripe did not send, or sent before, change nothing.
    let now = i64::try_from(pair.twin.now_ns() / 1_000_000_000).unwrap();
    let forged = json!({"id": "evt_forged", "object": "event", "type": "customer.deleted", "created": now,
        "data": {"object": {"id": customer, "object": "customer"}}})
    .to_string();
    let good = pair.twin.sign(&forged, now);
    for (signature, word) in [
        (format!("t={now},v1={}", "0".repeat(64)), "no signature fits"),
        (pair.twin.sign(&forged, now - 301), "ago"),
        (pair.twin.sign(&forged, now + 330), "ahead"),
        (good.replace("v1=", "v0="), "no signature fits"),
        (String::new(), "malformed"),
    ] {
        let header = [("stripe-signature", signature.as_str())];
        let (status, why) = http(&pair.twin.webhooks, "POST", "/stripe/webhook", &forged, &header);
        assert_eq!(status, 400, "{why}");
        assert!(why.contains(word), "{why}");
    }
    // Signed by somebody who has the secret, and untrue: what Stripe says counts.
    let header = [("stripe-signature", good.as_str())];
    for _ in 0..3 {
        let (status, why) = http(&pair.twin.webhooks, "POST", "/stripe/webhook", &forged, &header);
        assert_eq!(status, 200, "{why}");
    }
    assert_eq!(pair.standing(&mut client, "dev"), dev);

    // A month later: held, reconciled, finalised, and paid or not.
    pair.twin.advance(32 * DAY);
    let invoices = until(60, || {
        let state = pair.twin.get("state?kind=invoice");
        let rows: Vec<_> = state["rows"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|i| i["billing_reason"] == "subscription_cycle")
            .cloned()
            .collect();
        if rows.len() >= 2 && rows.iter().all(|i| i["status"] != "draft") { Ok(rows) } else { Err(rows) }
    });
    assert!(pair.home.log().contains("invoice held until it is what the ledger says"));
    let bill = invoices.iter().find(|i| i["customer"] == customer.as_str() && i["total"] != 0).unwrap();
    assert_eq!(bill["status"], "paid", "{bill}");
    let due: u128 = Meter::ALL
        .into_iter()
        .map(|meter| {
            let quantity =
                *expected(&prices, of("dev")).get(&format!("wasmeter_{}", meter.as_str())).unwrap_or(&0);
            let pico = match meter {
                Meter::EgressBytes => u128::from(quantity) * sku(&prices, meter).1 / 1_000_000_000,
                _ => u128::from(quantity) * sku(&prices, meter).1,
            };
            // One rounding, to the cent.
            (pico + 5_000_000_000) / 10_000_000_000
        })
        .sum();
    assert!(due > 100, "{due}");
    assert_eq!(bill["total"].as_u64().unwrap(), u64::try_from(due).unwrap());

    // Grace, and then nothing any more.
    pair.await_state(&mut client, "poor", StandingState::Grace);
    assert!(matches!(client.call(&Call::Budgets), Reply::Budgets { unpaid, .. } if unpaid.is_empty()));
    pair.twin.advance(8 * DAY);
    pair.await_state(&mut client, "poor", StandingState::Unpaid);
    let Reply::Budgets { unpaid, .. } = client.call(&Call::Budgets) else { panic!("no budgets") };
    assert_eq!(unpaid.iter().map(|u| u.tenant.as_str()).collect::<Vec<_>>(), ["poor"]);
    assert_eq!(pair.standing(&mut client, "dev").state, StandingState::Active);
}

/// Billing is killed at any instant while the twin loses answers and fails: each bucket counts once.
#[test]
fn killed_at_any_instant_each_bucket_is_delivered_once() {
    let pair = Pair::new();
    let mut sent = Vec::new();
    let args = ["--flush-after", "0", "--stripe-rate", "1000"];
    {
        let _billing = pair.start(&args);
        let mut client = pair.home.client();
        pair.subscribe(&mut client, "dev", "pm_card_visa");
        pair.subscribe(&mut client, "other", "pm_card_visa");
        pair.await_state(&mut client, "dev", StandingState::Active);
        pair.await_state(&mut client, "other", StandingState::Active);
    }
    pair.twin.post(
        "faults",
        &json!({"only": "/v1/billing/meter_events", "drop_before": 0.1, "drop_after": 0.15, "error_500": 0.1,
            "error_500_after": 0.1, "error_429": 0.05}),
    );
    for round in 0..12u64 {
        let mut billing = pair.start(&args);
        let mut client = pair.home.client();
        let prices = client.prices.clone();
        for part in 0..3 {
            let tenant = if part == 1 { "other" } else { "dev" };
            let records: Vec<_> =
                (0..7).map(|n| heavy(&prices, tenant, round * 100 + n, support::now_ns())).collect();
            append(&mut client, &records);
            sent.extend(records);
            std::thread::sleep(Duration::from_millis(20 + round * 97 % 310));
        }
        billing.child.kill().unwrap();
        billing.wait();
    }
    pair.twin.post(
        "faults",
        &json!({"only": "", "drop_before": 0, "drop_after": 0, "error_500": 0,
        "error_500_after": 0, "error_429": 0}),
    );
    let _billing = pair.start(&args);
    let mut client = pair.home.client();
    let outbox = pair.delivered(120);
    for tenant in ["dev", "other"] {
        let customer = pair.standing(&mut client, tenant).customer.unwrap();
        let of = sent.iter().filter(|r| r.tenant == tenant);
        assert_eq!(counted(&pair, &customer), expected(&client.prices, of));
    }
    let (identifiers, _) = pair.twin.events();
    let mut unique = identifiers.clone();
    unique.dedup();
    assert_eq!(unique.len(), identifiers.len());
    assert!(pair.reconcile().0);
    println!("{} events, outbox {}", identifiers.len(), outbox["states"]);
}

/// Stripe is away for two days with acknowledgements lost before and after: nothing is unbilled, nothing billed twice.
#[test]
fn two_days_of_outage() {
    let tenants: u64 = std::env::var("WASMETER_OUTAGE_TENANTS").ok().map_or(6, |n| n.parse().unwrap());
    let mut pair = Pair::new();
    let _billing = pair.start(&["--stripe-rate", "1000"]);
    let mut client = pair.home.client();
    let prices = client.prices.clone();
    let names: Vec<String> = (0..tenants).map(|n| format!("t{n}")).collect();
    for name in &names {
        pair.subscribe(&mut client, name, "pm_card_visa");
    }
    for name in &names {
        pair.await_state(&mut client, name, StandingState::Active);
    }
    let mut sent = Vec::new();
    let mut hour = |pair: &mut Pair, client: &mut Client, n: u64| {
        let records: Vec<_> =
            names.iter().map(|name| heavy(&prices, name, n * 1_000, pair.twin.now_ns())).collect();
        append(client, &records);
        sent.extend(records);
        pair.twin.advance(3_600);
    };
    // Answers are lost, and then all is: what was sent last stays unknown for longer than identifiers are remembered.
    pair.twin.post("faults", &json!({"only": "/v1/billing/meter_events", "drop_after": 0.4}));
    hour(&mut pair, &mut client, 0);
    hour(&mut pair, &mut client, 1);
    until(60, || {
        let outbox = pair.outbox();
        if outbox["states"]["parked"].as_u64().unwrap_or(0) > 0 { Ok(()) } else { Err(outbox) }
    });
    let up = i64::try_from(pair.twin.now_ns() / 1_000_000_000).unwrap() + 48 * 3_600;
    pair.twin.post("faults", &json!({"only": "", "drop_after": 0.01, "down_until": up}));
    for n in 2..50 {
        hour(&mut pair, &mut client, n);
    }
    let before = pair.outbox();
    pair.twin.advance(4 * 3_600);
    // What is unknown for long is looked up once Stripe's sums are up to date.
    let outbox = until(600, || {
        let outbox = pair.outbox();
        let under_way = ["open", "ready", "sending", "parked"].map(|state| outbox["states"][state].as_u64());
        if under_way.iter().all(Option::is_none) {
            return Ok(outbox);
        }
        if under_way[..3].iter().all(Option::is_none) {
            pair.twin.advance(1_800);
        }
        Err(outbox)
    });
    let (identifiers, sums) = pair.twin.events();
    let mut unique = identifiers.clone();
    unique.dedup();
    assert_eq!(unique.len(), identifiers.len(), "an identifier counts twice");
    let mut wrong = Vec::new();
    for name in &names {
        let customer = pair.standing(&mut client, name).customer.unwrap();
        for (event, value) in expected(&prices, sent.iter().filter(|r| r.tenant == *name)) {
            let found = sums.get(&(customer.clone(), event.clone())).copied().unwrap_or(0);
            if found != value {
                wrong.push((name, event, value, found));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(pair.reconcile().0);
    assert!(pair.home.log().contains("the sums of stripe tell of parked usage"));
    println!(
        "{} buckets delivered, {} events, parked at the end of the outage {}, 0 unbilled, 0 billed twice",
        outbox["states"]["delivered"],
        identifiers.len(),
        before["states"]["parked"]
    );
}

/// A backup is taken while usage waits, what waits is sent, and the ledger is lost: the backup in its place sends
/// nothing a second time.
#[test]
fn a_selftest_and_a_restored_backup() {
    let mut pair = Pair::new();
    let output = pair
        .home
        .command()
        .arg("selftest")
        .args(pair.stripe_args())
        .args(["--patience", "20"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("selftest against twin passed"), "{text}");

    let mut billing = pair.start(&[]);
    let mut client = pair.home.client();
    pair.subscribe(&mut client, "dev", "pm_card_visa");
    pair.await_state(&mut client, "dev", StandingState::Active);
    let records: Vec<_> = (0..9).map(|n| heavy(&client.prices, "dev", n, pair.twin.now_ns())).collect();
    append(&mut client, &records);
    until(30, || {
        let outbox = pair.outbox();
        if outbox["states"]["open"].as_u64() == Some(5) && outbox["uncounted"] == 0 {
            Ok(())
        } else {
            Err(outbox)
        }
    });
    let (data, copy) = (pair.home.data(), pair.home.dir.path().join("copy"));
    let backup = || {
        let mut command = pair.home.command();
        command.arg("backup").arg("--data").arg(&data).arg("--to").arg(&copy).output().unwrap()
    };
    assert!(backup().status.success());
    let again = backup();
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists; name another file"));
    let refused = pair
        .home
        .command()
        .arg("restore")
        .arg("--data")
        .arg(&data)
        .arg("--from")
        .arg(&copy)
        .output()
        .unwrap();
    assert!(!refused.status.success());

    // All of it is sent, and then all but the backup is lost.
    pair.twin.advance(2 * 3_600);
    pair.delivered(60);
    let (before, _) = pair.twin.events();
    assert_eq!(before.iter().filter(|id| id.starts_with("wm-")).count(), 5);
    drop(client);
    billing.signal(rustix::process::Signal::TERM);
    assert!(billing.wait().success());
    std::fs::rename(&data, pair.home.dir.path().join("lost")).unwrap();
    let output = pair
        .home
        .command()
        .arg("restore")
        .arg("--data")
        .arg(&data)
        .arg("--from")
        .arg(&copy)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("9 entries, 5 buckets parked"), "{text}{output:?}");
    let _billing = pair.start(&[]);
    let _client = pair.home.client();
    pair.twin.advance(4 * 3_600);
    let outbox = pair.delivered(60);
    assert_eq!(outbox["states"]["delivered"], 5, "{outbox}");
    assert_eq!(pair.twin.events().0, before);
    let (agree, report) = pair.reconcile();
    assert!(agree, "{report}");
}

const WITH_MINIMUM: &str = r#"
[[book]]
effective = "2026-01-01T00:00:00Z"
currency = "USD"
[book.list]
gpu_second = "1"
request = "0.01"
[book.minimum]
amount = "5"
currency = "USD"
"#;

/// What the price book makes of the ledger is what the invoice says, with the minimum and what was given back, each
/// once, though billing is killed and answers are lost while it is put there.
#[test]
fn a_minimum_and_refunds_are_on_the_invoice() {
    let mut pair = Pair::new();
    let book = pair.home.dir.path().join("prices.toml");
    std::fs::write(&book, WITH_MINIMUM).unwrap();
    let prices = ["--prices", book.to_str().unwrap()];
    let args = [&["--flush-after", "1", "--bucket-grace", "1"][..], &prices].concat();
    let mut billing = pair.start(&args);
    let mut client = pair.home.client();
    for tenant in ["small", "big", "idle"] {
        pair.subscribe(&mut client, tenant, "pm_card_visa");
        pair.await_state(&mut client, tenant, StandingState::Active);
    }
    let sheet = client.prices.clone();
    let mut records: Vec<_> = (0..7).map(|_| record(&sheet, "small", 1)).collect();
    records.iter_mut().for_each(|one| {
        (one.start_ns, one.end_ns) = (pair.twin.now_ns() - 5, pair.twin.now_ns());
    });
    records.extend((0..3).map(|n| heavy(&sheet, "big", n, pair.twin.now_ns())));
    append(&mut client, &records);
    pair.delivered(60);
    let adjust = |client: &mut Client, tenant: &str, id: &str, of: Option<usize>, amount: Option<i128>| {
        let call = Call::Adjust {
            tenant: tenant.into(),
            id: id.into(),
            invocation: of.map(|n| records[n].invocation),
            amount: amount.map(Pico),
            reason: "an outage".into(),
        };
        assert!(matches!(client.call(&call), Reply::Adjustment(_)), "{id}");
    };
    adjust(&mut client, "small", "one call", Some(0), None);
    adjust(&mut client, "big", "one call", Some(8), None);
    adjust(&mut client, "big", "a courtesy", None, Some(-1_005_000_000_000));
    adjust(&mut client, "big", "a courtesy", None, Some(-1_005_000_000_000));

    pair.twin.post(
        "faults",
        &json!({"only": "/v1/invoiceitems", "next": ["drop_after", "none", "none", "drop_after", "none", "drop_before"]}),
    );
    pair.twin.advance(32 * DAY);
    // Killed while the items are put on the drafts.
    until(60, || {
        let items = pair.rows("invoiceitem");
        if items.is_empty() { Err(pair.home.log()) } else { Ok(()) }
    });
    billing.child.kill().unwrap();
    billing.wait();
    let _billing = pair.start(&args);
    let mut client = pair.home.client();
    let invoices = until(60, || {
        let mut rows = pair.rows("invoice");
        rows.retain(|i| i["billing_reason"] == "subscription_cycle");
        if rows.len() >= 3 && rows.iter().all(|i| i["status"] == "paid") { Ok(rows) } else { Err(rows) }
    });
    let mut dues = Vec::new();
    for tenant in ["small", "big", "idle"] {
        let customer = pair.standing(&mut client, tenant).customer.unwrap();
        let invoice = invoices.iter().find(|i| i["customer"] == customer.as_str()).unwrap();
        let ns = |key: &str| invoice[key].as_u64().unwrap() * 1_000_000_000;
        let call = Call::Bill { tenant: tenant.into(), from_ns: ns("period_start"), to_ns: ns("period_end") };
        let Reply::Bill(bill) = client.call(&call) else { panic!("no bill") };
        assert_eq!(invoice["total"], bill.due_minor, "{tenant}: {invoice} {bill:?}");
        dues.push(bill.due_minor);
    }
    // 7 cents of 5 dollars, and a cent back; three calls of 9.01, less one and 1.005 more.
    assert_eq!(dues, [499, 2_703 - 1_002, 0]);
    let items = pair.rows("invoiceitem");
    assert_eq!(items.len(), 3, "{items:?}");
    // An invoice is compared once billing has heard that it is paid.
    until(60, || {
        let (agree, report) = pair.reconcile_with(&prices);
        if agree && report["items"] == 3 { Ok(()) } else { Err(report) }
    });
    let check = pair.home.check();
    assert_eq!((&check["faults"], &check["adjustments"]), (&json!(0), &json!(3)));
    // Somebody changes an item by hand in the books of Stripe: the next reconciliation tells.
    let customer = pair.standing(&mut client, "big").customer.unwrap();
    pair.stripe(
        "POST",
        "/v1/invoiceitems",
        &format!("customer={customer}&amount=77&currency=usd&description=by%20hand"),
    );
    assert!(pair.reconcile_with(&prices).0, "an item of others is theirs");
}

/// Stripe counts what the ledger does not have: the invoice stays held, with the rows in the log, until that is mended.
#[test]
fn an_invoice_that_differs_stays_held() {
    let mut pair = Pair::new();
    let _billing = pair.start(&["--flush-after", "1", "--bucket-grace", "1"]);
    let mut client = pair.home.client();
    pair.subscribe(&mut client, "dev", "pm_card_visa");
    pair.await_state(&mut client, "dev", StandingState::Active);
    let records: Vec<_> = (0..5).map(|n| heavy(&client.prices, "dev", n, pair.twin.now_ns())).collect();
    append(&mut client, &records);
    pair.delivered(60);
    let customer = pair.standing(&mut client, "dev").customer.unwrap();
    let subscription = &pair.rows("subscription")[0];
    let end = subscription["items"]["data"][0]["current_period_end"].as_i64().unwrap();
    let now = i64::try_from(pair.twin.now_ns() / 1_000_000_000).unwrap();
    pair.twin.advance(end - now - 7_200);
    let form = format!(
        "event_name=wasmeter_requests&identifier=foreign&payload%5Bstripe_customer_id%5D={customer}\
         &payload%5Bvalue%5D=7&timestamp={}",
        pair.twin.now_ns() / 1_000_000_000 - 86_400
    );
    pair.stripe("POST", "/v1/billing/meter_events", &form);
    pair.twin.advance(7_200 + 3 * 3_600);
    let held = until(60, || {
        let outbox = pair.outbox();
        let held = outbox["held_invoices"].as_array().unwrap().iter().find(|i| i["state"] == "differs");
        held.cloned().ok_or(outbox)
    });
    assert_eq!(held["tenant"], "dev");
    assert!(held["detail"].as_str().unwrap().contains("disagree in 1 hours"), "{held}");
    let log = pair.home.log();
    let row = log.lines().find(|line| line.contains("ledger and stripe disagree")).unwrap();
    for part in ["ERROR", "tenant=\"dev\"", "meter=\"requests\"", "ledger=0", "stripe=7"] {
        assert!(row.contains(part), "{part}: {row}");
    }
    assert!(log.contains("invoice is not finalised: a person must look"), "{log}");
    assert!(matches!(client.call(&Call::UnderWay), Reply::UnderWay(u) if u.invoices["differs"] == 1));
    let status = |pair: &Pair| {
        let rows = pair.rows("invoice");
        rows.iter().find(|i| i["id"] == held["invoice"]).unwrap()["status"].clone()
    };
    // Time changes nothing of it, and the reconciler says the same.
    pair.twin.advance(7_200);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(status(&pair), "draft");
    let (agree, report) = pair.reconcile();
    assert!(!agree && report["differences"].as_array().unwrap().len() == 1, "{report}");
    // A person takes the foreign event back.
    let form = "event_name=wasmeter_requests&type=cancel&cancel%5Bidentifier%5D=foreign";
    pair.stripe("POST", "/v1/billing/meter_event_adjustments", form);
    until(60, || if status(&pair) == "paid" { Ok(()) } else { Err(pair.outbox()) });
    assert!(pair.reconcile().0);
}

/// What Stripe took and could not use comes back by a thin event, whose data billing fetches: it is not delivered, and
/// the invoice waits for a person.
#[test]
fn a_report_of_meter_errors_takes_back_what_was_delivered() {
    let mut pair = Pair::new();
    let _billing = pair.start(&["--flush-after", "1", "--bucket-grace", "1"]);
    let mut client = pair.home.client();
    pair.subscribe(&mut client, "dev", "pm_card_visa");
    pair.await_state(&mut client, "dev", StandingState::Active);
    let meters = pair.rows("billing.meter");
    let meter = meters.iter().find(|m| m["event_name"] == "wasmeter_gpu_time").unwrap();
    let meter = meter["id"].as_str().unwrap();
    pair.stripe("POST", &format!("/v1/billing/meters/{meter}/deactivate"), "");
    let records: Vec<_> = (0..3).map(|n| heavy(&client.prices, "dev", n, pair.twin.now_ns())).collect();
    append(&mut client, &records);
    pair.delivered(60);
    assert_eq!(pair.outbox()["states"].get("refused"), None);
    pair.twin.advance(7_200);
    let refused = until(60, || {
        let outbox = pair.outbox();
        let rows = outbox["buckets"].as_array().unwrap();
        rows.iter().find(|row| row["state"] == "refused").cloned().ok_or(outbox)
    });
    assert_eq!((&refused["meter"], &refused["tenant"]), (&json!("gpu_time"), &json!("dev")));
    assert!(refused["reason"].as_str().unwrap().contains("stripe could not use it"), "{refused}");
    let log = pair.home.log();
    assert!(log.contains("stripe could not use meter events that it took"), "{log}");
    assert!(log.contains("archived_meter"), "{log}");
    pair.twin.advance(32 * DAY);
    let held = until(60, || {
        let outbox = pair.outbox();
        let held = outbox["held_invoices"].as_array().unwrap().first().filter(|i| i["state"] == "differs");
        held.cloned().ok_or(outbox)
    });
    assert!(held["detail"].as_str().unwrap().contains("1 buckets of its period were refused"), "{held}");
}
