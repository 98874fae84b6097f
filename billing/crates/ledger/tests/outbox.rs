//! Usage on its way to Stripe: each unit in one bucket, each bucket sent until it is known to have arrived.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use proptest::prelude::*;
use support::{Fixture, NOW, batch, record};
use wasmeter_ledger::{
    Attempted, Claimed, Closing, Committed, InvoiceSeen, Lane, Probed, Refusal, SAFE_NS, Settled,
    SubscriptionSeen,
};
use wasmeter_usage::{Meter, UsageRecord};

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3_600 * SECOND;
const NOW_S: i64 = (NOW / SECOND) as i64;

fn units(meter: Meter) -> u64 {
    match meter {
        Meter::Fuel => 1_000_000,
        Meter::GpuTime | Meter::CpuTime => 1_000,
        _ => 1,
    }
}

fn subscribed(f: &mut Fixture, tenant: &str, start_s: i64) {
    let customer = f.ledger.keep_customer(tenant, &format!("cus_{tenant}"), NOW).unwrap();
    let seen = SubscriptionSeen {
        subscription: format!("sub_{tenant}"),
        customer,
        status: "active".into(),
        start_s,
        ended_s: None,
    };
    assert!(f.ledger.keep_subscription(&seen, NOW).unwrap());
}

fn at(tenant: &str, fuel: u64, end_ns: u64) -> UsageRecord {
    UsageRecord { end_ns, start_ns: end_ns - 1_000, ..record(tenant, "f", fuel) }
}

/// Books records when the last of them has ended.
fn append(f: &mut Fixture, first_seq: u64, records: &[UsageRecord]) -> Result<Committed, Refusal> {
    let now = records.iter().map(|r| r.end_ns).fold(NOW, u64::max);
    f.ledger.append(&[batch("n1", 1, first_seq, records)], now).unwrap().remove(0)
}

fn close_all(f: &mut Fixture, now: u64) -> u32 {
    while f.ledger.sweep(7, now).unwrap() > 0 {}
    f.ledger.close_buckets(&Closing::All, units, now).unwrap()
}

fn claim(f: &mut Fixture, now: u64) -> Vec<Claimed> {
    let lanes = f.reader.due_lanes(now).unwrap();
    f.ledger.claim(&lanes, now).unwrap()
}

fn settle(f: &mut Fixture, bucket: &Claimed, attempt: Attempted, now: u64) {
    f.ledger.settle(&[Settled { id: bucket.id, attempt, reason: "why".into() }], now).unwrap();
}

fn count(f: &Fixture, state: &str) -> u64 {
    f.reader.outbox_counts().unwrap().of(state)
}

#[test]
fn buckets_hold_each_entry_once_and_late_usage_opens_another() {
    let mut f = Fixture::new();
    subscribed(&mut f, "dev", 0);
    let records: Vec<_> = (0..10).map(|n| at("dev", 300_000, NOW + n * HOUR / 5)).collect();
    append(&mut f, 1, &records[..6]).unwrap();
    assert_eq!(f.ledger.sweep(4, NOW).unwrap(), 4);
    assert_eq!(f.reader.outbox_counts().unwrap().uncounted, 2);
    assert_eq!(f.ledger.sweep(4, NOW).unwrap(), 2);
    assert_eq!(f.ledger.sweep(4, NOW).unwrap(), 0);
    // Hours end at a time of their own; the grace has to be over.
    let due = Closing::Due(300 * SECOND, None);
    assert_eq!(f.ledger.close_buckets(&due, units, NOW + HOUR + 299 * SECOND).unwrap(), 0);
    // Fuel, requests and CPU time; five records are of the first hour.
    assert_eq!(f.ledger.close_buckets(&due, units, NOW + HOUR + 300 * SECOND).unwrap(), 3);
    append(&mut f, 7, &records[6..]).unwrap();
    append(&mut f, 11, &[at("dev", 700_000, NOW + 5 * SECOND)]).unwrap();
    assert_eq!(close_all(&mut f, NOW + 2 * HOUR), 6);
    let fuel: Vec<_> =
        f.reader.outbox_rows(None, 100).unwrap().into_iter().filter(|r| r.meter == "fuel").collect();
    let told: Vec<_> = fuel.iter().map(|r| (r.hour - NOW_S, r.raw.as_str(), r.value.unwrap())).collect();
    // 1.5 and what is left over, late 0.7 of the same hour and then 1.5 of the next.
    assert_eq!(told, [(0, "1500000", 1), (3_600, "1500000", 1), (0, "700000", 1)]);
    let identifiers: std::collections::BTreeSet<_> = fuel.iter().map(|r| r.identifier.clone()).collect();
    assert_eq!(identifiers.len(), 3);
    let sql = "UPDATE bucket SET value = 7 WHERE id = 1";
    let error = rusqlite_execute(&f, sql);
    assert!(error.contains("a closed bucket is fixed"), "{error}");
}

/// The error of a statement that somebody else runs on the file.
fn rusqlite_execute(f: &Fixture, sql: &str) -> String {
    f.ledger.try_statement(sql).unwrap_err().to_string()
}

#[test]
fn usage_waits_for_a_subscription_that_covers_it() {
    let mut f = Fixture::new();
    append(&mut f, 1, &[at("dev", 5_000_000, NOW), at("dev", 6_000_000, NOW + HOUR)]).unwrap();
    close_all(&mut f, NOW + 3 * HOUR);
    assert_eq!(count(&f, "waiting"), 6);
    assert!(claim(&mut f, NOW + 3 * HOUR).is_empty());
    // Within the second hour: that counts, the first does not.
    subscribed(&mut f, "dev", NOW_S + 3_600 + 1_800);
    let claimed = claim(&mut f, NOW + 4 * HOUR);
    assert_eq!(claimed.len(), 3);
    assert!(claimed.iter().all(|c| c.stamp_s == NOW_S + 7_199 && c.customer == "cus_dev"));
    assert_eq!((count(&f, "waiting"), count(&f, "sending")), (3, 3));
    // One call under way in each lane.
    assert!(claim(&mut f, NOW + 4 * HOUR).is_empty());
    for bucket in &claimed {
        settle(&mut f, bucket, Attempted::Delivered, NOW + 4 * HOUR);
    }
    assert_eq!((count(&f, "waiting"), count(&f, "delivered")), (3, 3));
    let hours = f.reader.counted_hours("cus_dev", Meter::Fuel, NOW_S, NOW_S + 9_999).unwrap();
    assert_eq!((hours.len(), hours[0].hour, hours[0].delivered), (1, NOW_S + 3_600, 6));
    assert_eq!(f.reader.undelivered("dev", NOW_S + 20_000).unwrap(), (0, 0));
}

fn one_fuel(f: &mut Fixture, fuel: u64, now: u64) -> Claimed {
    let lane = Lane { tenant: "dev".into(), meter: Meter::Fuel };
    let mut claimed = f.ledger.claim(&[lane], now).unwrap();
    assert_eq!((claimed.len(), claimed[0].value), (1, fuel));
    claimed.remove(0)
}

#[test]
fn what_may_have_arrived_is_resent_in_time_and_else_looked_up() {
    let mut f = Fixture::new();
    subscribed(&mut f, "dev", 0);
    append(&mut f, 1, &[at("dev", 5_000_000, NOW)]).unwrap();
    let mut now = NOW + 2 * HOUR;
    close_all(&mut f, now);
    let first = one_fuel(&mut f, 5, now);
    // Billing died: the next one parks it.
    assert_eq!(f.ledger.park_interrupted(now + SECOND).unwrap(), 1);
    let again = one_fuel(&mut f, 5, now + 60 * SECOND);
    assert_eq!((&again.identifier, again.stamp_s), (&first.identifier, first.stamp_s));
    settle(&mut f, &again, Attempted::Later(None), now + 61 * SECOND);
    assert_eq!(count(&f, "parked"), 1, "an earlier attempt may have arrived");
    now += SAFE_NS;
    let lane = Lane { tenant: "dev".into(), meter: Meter::Fuel };
    assert!(f.ledger.claim(&[lane], now).unwrap().is_empty(), "not sent again after 23 hours");
    let probes = f.reader.due_probes(now + HOUR).unwrap();
    assert_eq!((probes.len(), probes[0].hour), (1, NOW_S));
    // Neither nothing nor five: a person must look.
    assert_eq!(f.ledger.settle_probe(&probes[0], 3, now + HOUR).unwrap(), Probed::Unclear);
    now += 8 * HOUR;
    let probes = f.reader.due_probes(now).unwrap();
    assert_eq!(f.ledger.settle_probe(&probes[0], 0, now).unwrap(), Probed::Told { arrived: 0, absent: 1 });
    let third = one_fuel(&mut f, 5, now);
    assert_eq!(third.identifier, first.identifier);
    settle(&mut f, &third, Attempted::Unknown, now);
    // Now it is found: delivered, and for ever.
    now += SAFE_NS + 2 * HOUR;
    let probes = f.reader.due_probes(now).unwrap();
    assert_eq!(f.ledger.settle_probe(&probes[0], 5, now).unwrap(), Probed::Told { arrived: 1, absent: 0 });
    assert_eq!(count(&f, "parked"), 0);
    let error = rusqlite_execute(&f, "UPDATE bucket SET state = 'ready' WHERE state = 'delivered'");
    assert!(error.contains("not sent again"), "{error}");
}

#[test]
fn a_sum_is_not_believed_while_the_hour_is_busy() {
    let mut f = Fixture::new();
    subscribed(&mut f, "dev", 0);
    append(&mut f, 1, &[at("dev", 5_000_000, NOW)]).unwrap();
    let mut now = NOW + 2 * HOUR;
    close_all(&mut f, now);
    let first = one_fuel(&mut f, 5, now);
    settle(&mut f, &first, Attempted::Unknown, now);
    now += SAFE_NS + 2 * HOUR;
    let probes = f.reader.due_probes(now).unwrap();
    // Late usage of the same hour, just as much, is delivered between question and answer.
    append(&mut f, 2, &[at("dev", 5_000_000, NOW)]).unwrap();
    close_all(&mut f, now);
    let late = one_fuel(&mut f, 5, now);
    settle(&mut f, &late, Attempted::Delivered, now);
    assert_eq!(f.ledger.settle_probe(&probes[0], 5, now).unwrap(), Probed::Busy);
    now += 2 * HOUR;
    let probes = f.reader.due_probes(now).unwrap();
    assert_eq!(f.ledger.settle_probe(&probes[0], 5, now).unwrap(), Probed::Told { arrived: 0, absent: 1 });
}

#[test]
fn usage_of_a_period_that_is_billed_goes_on_the_next_invoice() {
    let mut f = Fixture::new();
    subscribed(&mut f, "dev", 0);
    let invoice = InvoiceSeen {
        invoice: "in_1".into(),
        customer: "cus_dev".into(),
        status: "draft".into(),
        period_start: NOW_S - 3_600,
        period_end: NOW_S + 3_600,
        total: 5,
    };
    f.ledger.keep_invoice(&invoice, NOW).unwrap();
    assert_eq!(f.reader.held_invoices().unwrap().len(), 1);
    append(&mut f, 1, &[at("dev", 5_000_000, NOW)]).unwrap();
    let now = NOW + 5 * HOUR;
    while f.ledger.sweep(100, now).unwrap() > 0 {}
    assert_eq!(f.reader.undelivered("dev", NOW_S + 3_600).unwrap(), (3, 0));
    assert_eq!(f.ledger.close_buckets(&Closing::Tenant("dev", NOW_S + 3_600), units, now).unwrap(), 3);
    f.ledger.keep_invoice(&InvoiceSeen { status: "open".into(), ..invoice }, now).unwrap();
    assert!(f.reader.held_invoices().unwrap().is_empty());
    let late = one_fuel(&mut f, 5, now);
    assert_eq!(late.stamp_s, (now / SECOND).cast_signed());
}

#[test]
fn a_restored_backup_sends_nothing_that_may_have_been_sent() {
    let mut f = Fixture::new();
    subscribed(&mut f, "dev", 0);
    append(&mut f, 1, &[at("dev", 5_000_000, NOW)]).unwrap();
    let now = NOW + 2 * HOUR;
    close_all(&mut f, now);
    let before = f.reader.outbox_rows(None, 10).unwrap();
    append(&mut f, 2, &[at("dev", 7_000_000, NOW + 2 * HOUR)]).unwrap();
    assert_eq!(f.ledger.revive(units, now).unwrap(), 6);
    assert!(claim(&mut f, now + HOUR).is_empty());
    assert_eq!(f.reader.due_probes(now + HOUR).unwrap().len(), 6);
    let after = f.reader.outbox_rows(None, 10).unwrap();
    assert_eq!(after[0].identifier, before[0].identifier);
    let copy = f.dir.path().join("copy.sqlite");
    f.reader.back_up(&copy).unwrap();
    assert_eq!(wasmeter_ledger::Reader::open(&copy).unwrap().entries().unwrap(), 2);
    assert!(f.reader.back_up(&copy).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Whatever is booked, swept and closed when, and whatever becomes of calls: what is delivered and what is left is
    /// the sum of the entries.
    #[test]
    fn buckets_are_the_entries(steps in prop::collection::vec((0u8..6, 0u64..3_000_000, 0u64..5), 1..60)) {
        let mut f = Fixture::new();
        subscribed(&mut f, "dev", 0);
        let (mut seq, mut fuel, mut now) = (1, 0u64, NOW + HOUR);
        let mut arrived: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
        for (what, amount, hours) in steps {
            match what {
                0 | 1 => {
                    append(&mut f, seq, &[at("dev", amount, NOW + hours * HOUR)]).unwrap();
                    seq += 1;
                    fuel += amount;
                }
                2 => { f.ledger.sweep(2, now).unwrap(); }
                3 => { close_all(&mut f, now); }
                4 => now += hours * HOUR,
                _ => {
                    for bucket in claim(&mut f, now) {
                        let attempt = match (amount + bucket.value) % 5 {
                            0 | 1 => Attempted::Delivered,
                            2 => Attempted::Later(None),
                            _ => Attempted::Unknown,
                        };
                        // Lost on the way there, or on the way back.
                        let is_there = attempt == Attempted::Delivered
                            || (attempt == Attempted::Unknown && amount % 2 == 0);
                        if is_there && bucket.lane.meter == Meter::Fuel {
                            arrived.insert(bucket.identifier.clone(), bucket.value);
                        }
                        settle(&mut f, &bucket, attempt, now);
                    }
                }
            }
        }
        // All ends well, within the window.
        close_all(&mut f, now);
        f.ledger.park_interrupted(now).unwrap();
        for _ in 0..200 {
            now += HOUR / 4;
            for bucket in claim(&mut f, now) {
                if bucket.lane.meter == Meter::Fuel {
                    arrived.insert(bucket.identifier.clone(), bucket.value);
                }
                settle(&mut f, &bucket, Attempted::Delivered, now);
            }
            for probe in f.reader.due_probes(now).unwrap() {
                let there: u64 = f.reader.outbox_rows(None, 10_000).unwrap().into_iter()
                    .filter(|r| r.meter == probe.meter.as_str() && r.stamp_s.is_some_and(|s| s - s % 3_600 == probe.hour))
                    .filter(|r| r.meter != "fuel" || arrived.contains_key(r.identifier.as_ref().unwrap()))
                    .map(|r| r.value.unwrap().cast_unsigned()).sum();
                f.ledger.settle_probe(&probe, there, now).unwrap();
            }
        }
        let rows = f.reader.outbox_rows(None, 10_000).unwrap();
        let of_fuel = || rows.iter().filter(|r| r.meter == "fuel");
        let raw: u64 = of_fuel().map(|r| r.raw.parse::<u64>().unwrap()).sum();
        prop_assert_eq!(raw, fuel);
        let sent: u64 = arrived.values().sum();
        prop_assert!(fuel - sent * 1_000_000 < 1_000_000, "{} of {}", sent, fuel);
        prop_assert!(rows.iter().all(|r| r.state == "delivered"), "{:?}", rows);
    }
}
