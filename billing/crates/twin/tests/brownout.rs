//! Stripe away for two days of virtual time, one answer in a hundred lost: the ledger's outbox and our client against
//! the twin. Nothing stays unbilled and nothing is billed twice.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::json;
use serde_json::value::to_raw_value;
use support::{Home, now, sheet, wait};
use tokio::task::JoinSet;
use wasmeter_ledger::{
    Attempted, Batch, Claimed, Closing, Ledger, Probed, Reader, Settled, Stamp, SubscriptionSeen,
};
use wasmeter_stripe::{Client, Delivery, MeterEvent, divisor};
use wasmeter_usage::{DeviceClass, InvocationId, Meter, ModelUse, Outcome, RECORD_VERSION, UsageRecord};

const SECOND: u64 = 1_000_000_000;
const HOUR: i64 = 3_600;
const TENANTS: usize = 200;
/// Hours with usage; three meters each make 20,400 buckets.
const HOURS: i64 = 34;
/// Stripe goes away within the usage, and comes back two days later.
const AWAY_FROM: i64 = 6;
const AWAY: i64 = 48;
const CONCURRENT: usize = 32;

#[test]
fn child() {
    support::be_the_child();
}

fn used(tenant: usize, hour: i64, end_s: i64, price_book: &str) -> UsageRecord {
    let end_ns = u64::try_from(end_s).unwrap() * SECOND;
    let n = u64::try_from(hour).unwrap() * 1_000 + tenant as u64;
    UsageRecord {
        v: RECORD_VERSION,
        invocation: InvocationId::new(),
        tenant: format!("t{tenant}"),
        function: Some("f".into()),
        revision: Some("r1".into()),
        outcome: Outcome::Ok,
        status: 200,
        fuel: 3_000_000 + n * 777,
        fuel_schedule: "wasmtime-48/2".into(),
        models: vec![ModelUse {
            model: "minilm".into(),
            version: 1,
            device: "cpu:0".into(),
            class: DeviceClass::Cpu,
            computes: 1,
            device_ns: 5_000_000 + n * 1_003,
        }],
        tokens_in: 0,
        tokens_out: 0,
        ingress_bytes: 0,
        egress_bytes: 0,
        start_ns: end_ns - 1_000,
        end_ns,
        price_book: price_book.to_owned(),
        draw: None,
    }
}

struct Run {
    ledger: Ledger,
    reader: Reader,
    client: Arc<Client>,
    meters: BTreeMap<&'static str, String>,
    unknown: usize,
    told: (usize, usize),
}

impl Run {
    /// Sends what is due, 32 calls at a time, until nothing is or Stripe is away.
    async fn send(&mut self, at: u64) {
        loop {
            let mut lanes = self.reader.due_lanes(at).unwrap();
            lanes.truncate(CONCURRENT);
            let claimed = self.ledger.claim(&lanes, at).unwrap();
            if claimed.is_empty() {
                return;
            }
            let mut calls: JoinSet<(Claimed, Delivery)> = JoinSet::new();
            for bucket in claimed {
                let client = Arc::clone(&self.client);
                calls.spawn(async move {
                    let event = MeterEvent {
                        meter: bucket.lane.meter,
                        customer: bucket.customer.clone(),
                        value: bucket.value,
                        identifier: bucket.identifier.clone(),
                        timestamp: bucket.stamp_s,
                    };
                    let delivery = client.send_event(&event).await;
                    (bucket, delivery)
                });
            }
            let mut settled = Vec::new();
            let mut answered = false;
            for (bucket, delivery) in calls.join_all().await {
                let (attempt, reason) = match delivery {
                    Delivery::Delivered => (Attempted::Delivered, String::new()),
                    Delivery::Later { reason, .. } => (Attempted::Later(None), reason),
                    Delivery::Unknown(reason) => {
                        self.unknown += 1;
                        (Attempted::Unknown, reason)
                    }
                    Delivery::Refused(reason) => panic!("{reason}"),
                };
                answered |= matches!(attempt, Attempted::Delivered);
                settled.push(Settled { id: bucket.id, attempt, reason });
            }
            self.ledger.settle(&settled, at).unwrap();
            if !answered {
                return;
            }
        }
    }

    /// Asks the sums about what may have arrived longer ago than identifiers are remembered.
    async fn probe(&mut self, at: u64) {
        for probe in self.reader.due_probes(at).unwrap() {
            let meter = &self.meters[probe.meter.as_str()];
            match self.client.counted(meter, &probe.customer, probe.hour, probe.hour + HOUR).await {
                Ok(hours) => {
                    let counted = hours.iter().map(|(_, value)| value).sum();
                    if let Probed::Told { arrived, absent } =
                        self.ledger.settle_probe(&probe, counted, at).unwrap()
                    {
                        self.told = (self.told.0 + arrived, self.told.1 + absent);
                    }
                }
                Err(error) => {
                    self.ledger.postpone_probe(&probe, &error.to_string(), 600 * SECOND, at).unwrap()
                }
            }
        }
    }
}

#[test]
fn two_days_away_and_lost_answers_leave_nothing_unbilled_and_nothing_billed_twice() {
    let home = Home::new();
    let _twin = home.spawn();
    wait("its address", || home.data().join("twin-url").exists());
    home.control("POST", "clock", &json!({"frozen": true}));
    home.faults(&json!({"rate_per_second": 1_000_000, "meter_rate_per_second": 1_000_000}));
    let start = now() / HOUR * HOUR + HOUR;
    let price_book = sheet();
    let dir = tempfile::tempdir().unwrap();
    let at = |second: i64| u64::try_from(second).unwrap() * SECOND;
    let mut ledger = Ledger::open(&dir.path().join("ledger.sqlite"), Stamp::Twin, "USD", at(start)).unwrap();
    ledger.add_sheet(&price_book, at(start)).unwrap();
    let reader = ledger.reader().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut run = runtime.block_on(async {
        let client = home.client(1);
        let catalogue = client.set_up(&price_book).await.unwrap();
        let meters = catalogue.meters.iter().map(|(meter, id)| (meter.as_str(), id.clone())).collect();
        for tenant in 0..TENANTS {
            let name = format!("t{tenant}");
            let customer = client.create_customer(&name, "ledger", &name).await.unwrap();
            let customer = ledger.keep_customer(&name, &customer, at(start)).unwrap();
            let seen = SubscriptionSeen {
                subscription: format!("sub_{tenant}"),
                customer,
                status: "active".into(),
                start_s: start - HOUR,
                ended_s: None,
            };
            assert!(ledger.keep_subscription(&seen, at(start)).unwrap());
        }
        Run { ledger, reader, client: Arc::new(client), meters, unknown: 0, told: (0, 0) }
    });
    home.faults(&json!({"only": "/v1/billing/meter_events", "drop_after": 0.01}));

    let mut raw: BTreeMap<(String, &'static str), u128> = BTreeMap::new();
    for hour in 0..HOURS + AWAY + 36 {
        let clock = start + hour * HOUR + HOUR / 2;
        home.control("POST", "clock", &json!({"set": clock}));
        if hour == AWAY_FROM {
            home.faults(&json!({"down_until": clock + AWAY * HOUR}));
        }
        if hour < HOURS {
            let records: Vec<UsageRecord> =
                (0..TENANTS).map(|tenant| used(tenant, hour, clock, &price_book.hash)).collect();
            for record in &records {
                let mut add = |meter: Meter, units: u64| {
                    *raw.entry((record.tenant.clone(), meter.as_str())).or_default() += u128::from(units);
                };
                add(Meter::Requests, 1);
                add(Meter::Fuel, record.fuel);
                add(Meter::CpuTime, record.models[0].device_ns);
            }
            let first_seq = u64::try_from(hour).unwrap() * TENANTS as u64 + 1;
            let records = records.iter().map(|record| to_raw_value(record).unwrap()).collect();
            let batch = Batch { node: "n1".into(), epoch: 1, first_seq, records };
            run.ledger.append(&[batch], at(clock)).unwrap().remove(0).unwrap();
        }
        while run.ledger.sweep(5_000, at(clock)).unwrap() > 0 {}
        run.ledger.close_buckets(&Closing::Due(300 * SECOND, None), divisor, at(clock)).unwrap();
        runtime.block_on(async {
            run.send(at(clock)).await;
            run.probe(at(clock)).await;
            run.send(at(clock)).await;
        });
    }

    let counts = run.reader.outbox_counts().unwrap();
    let undone: u64 =
        ["open", "ready", "sending", "parked", "refused", "waiting"].iter().map(|s| counts.of(s)).sum();
    assert_eq!((counts.uncounted, undone), (0, 0));
    let delivered = counts.of("delivered");
    assert_eq!(delivered, TENANTS as u64 * HOURS.unsigned_abs() * 3);

    let counted = home.control("GET", "meter-events", &json!({}));
    let events = counted["events"].as_array().unwrap();
    let identifiers: HashSet<&str> = events.iter().map(|e| e["identifier"].as_str().unwrap()).collect();
    assert_eq!(identifiers.len(), events.len(), "an identifier counts twice");
    let mut billed: BTreeMap<(String, String), u128> = BTreeMap::new();
    for event in events {
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        *billed.entry((text("customer"), text("event_name"))).or_default() +=
            u128::from(event["value"].as_u64().unwrap());
    }
    let mut sent: BTreeMap<(String, String), u128> = BTreeMap::new();
    let customers: BTreeMap<String, String> = home.control("GET", "state?kind=customer", &json!({}))["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["name"].as_str().unwrap().to_owned(), c["id"].as_str().unwrap().to_owned()))
        .collect();
    for ((tenant, name), units) in &raw {
        let meter = Meter::ALL.into_iter().find(|meter| meter.as_str() == *name).unwrap();
        let key = (customers[tenant].clone(), wasmeter_stripe::event_name(meter));
        sent.insert(key, units / u128::from(divisor(meter)));
    }
    assert_eq!(billed, sent);
    println!(
        "{delivered} buckets, {} without an answer, by the sums {} had arrived and {} had not: 0 unbilled, 0 billed twice",
        run.unknown, run.told.0, run.told.1
    );
    assert!(run.unknown > 100 && run.told.0 > 0, "{} {:?}", run.unknown, run.told);
}
