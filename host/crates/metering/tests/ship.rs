//! Spool to billing over a real socket, with a billing that fails.
#![allow(clippy::unwrap_used, reason = "the functions beside the tests are tests too")]

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use support::{Billing, Chaos, client, open, prices, record, ship_all};
use tokio_util::sync::CancellationToken;
use wasmeter_metering::{BillingClient, BillingError, BillingOptions, Shipper, Unshipped};
use wasmeter_usage::wire::{Call, UsageBy};

const MINUTE: Duration = Duration::from_secs(60);

fn segment_count(dir: &Path) -> usize {
    let is_segment = |e: &fs::DirEntry| e.path().extension().is_some_and(|e| e == "seg");
    fs::read_dir(dir).unwrap().map(Result::unwrap).filter(is_segment).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_once_over_a_billing_that_drops_connections() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let billing = Billing::start(&socket, Chaos { before: 150, after: 150 });
    let spool = open(dir.path());
    let shipper = Shipper::new(spool.clone(), client(&socket));
    let (handle, stop) = (shipper.handle(), CancellationToken::new());
    let task = tokio::spawn(shipper.run(stop.clone()));
    let mut ids = Vec::new();
    for n in 0..3000 {
        let record = record(n);
        spool.append_durably(&record).await.unwrap();
        ids.push(record.invocation);
        if n % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    handle.flush(MINUTE).await.unwrap();
    let ledger = billing.ledger.lock().unwrap().ids();
    ids.sort();
    assert_eq!(ledger, ids);
    // Booked segments go; the one that is being written stays.
    assert_eq!(segment_count(dir.path()), 1);
    assert_eq!(spool.unshipped(), 0);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn billing_away_then_back_then_killed() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let spool = open(dir.path());
    let shipper = Shipper::new(spool.clone(), client(&socket));
    let (handle, stop) = (shipper.handle(), CancellationToken::new());
    let task = tokio::spawn(shipper.run(stop.clone()));
    for n in 0..100 {
        spool.append(&record(n)).unwrap();
    }
    assert_eq!(handle.flush(Duration::from_millis(50)).await, Err(Unshipped { records: 100 }));
    let billing = Billing::start(&socket, Chaos::default());
    handle.flush(MINUTE).await.unwrap();
    let ledger = billing.kill();
    for n in 0..100 {
        spool.append(&record(n)).unwrap();
    }
    let billing = Billing::resume(&socket, Chaos::default(), ledger, prices(1));
    handle.flush(MINUTE).await.unwrap();
    assert_eq!(billing.ledger.lock().unwrap().ids().len(), 200);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_arrives_at_once_and_a_burst_shares_calls() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let billing = Billing::start(&socket, Chaos::default());
    let spool = open(dir.path());
    let shipper = Shipper::new(spool.clone(), client(&socket));
    let (handle, stop) = (shipper.handle(), CancellationToken::new());
    let task = tokio::spawn(shipper.run(stop.clone()));
    handle.flush(MINUTE).await.unwrap();
    let mut times = Vec::new();
    for n in 0..21 {
        let begun = Instant::now();
        spool.append(&record(n)).unwrap();
        handle.flush(MINUTE).await.unwrap();
        times.push(begun.elapsed());
    }
    times.sort();
    // A median of milliseconds would be a timer somewhere; the bound leaves room for a busy machine.
    assert!(times[10] < Duration::from_millis(100), "{times:?}");
    println!("median to the ledger's answer: {:?}", times[10]);
    let before = billing.ledger.lock().unwrap().appends;
    for n in 0..5000 {
        spool.append(&record(n)).unwrap();
    }
    handle.flush(MINUTE).await.unwrap();
    let calls = billing.ledger.lock().unwrap().appends - before;
    assert!(calls < 2500, "{calls} calls for 5000 records");
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_was_set_back_loses_nothing_of_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let billing = Billing::start(&socket, Chaos::default());
    let spool = open(dir.path());
    for n in 0..50 {
        spool.append(&record(n)).unwrap();
    }
    ship_all(&spool, &socket).await;
    drop(spool);
    // An older ledger comes back: the spool's last segment holds the newest records still.
    billing.kill();
    let billing = Billing::start(&socket, Chaos::default());
    let spool = open(dir.path());
    let left = spool.unshipped();
    assert!(left > 0 && left < 50);
    let new = record(1);
    spool.append(&new).unwrap();
    ship_all(&spool, &socket).await;
    assert_eq!(billing.ledger.lock().unwrap().booked, [new.invocation]);
    let damaged = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
    assert_eq!(damaged.filter(|p| p.extension().is_some_and(|e| e == "damaged")).count(), 1);
}

#[tokio::test]
async fn prices_are_kept_and_refreshed() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let options =
        BillingOptions { prices: Some(dir.path().join("prices.json")), ..BillingOptions::new(&socket, "n1") };
    let first = BillingClient::new(options.clone());
    assert!(first.prices().is_none());
    assert!(matches!(first.ready(Duration::from_millis(30)).await, Err(BillingError::Unavailable(_))));
    let billing = Billing::start(&socket, Chaos::default());
    first.ready(MINUTE).await.unwrap();
    assert_eq!(*first.prices().unwrap(), prices(1));
    let ledger = billing.kill();
    // A host that starts while billing is down prices with the last known sheet.
    let second = BillingClient::new(options.clone());
    assert_eq!(*second.prices().unwrap(), prices(1));
    let _billing = Billing::resume(&socket, Chaos::default(), ledger, prices(2));
    // The pooled connection is dead; the call does not notice, and brings the new prices.
    first.call(usage()).await.unwrap();
    assert_eq!(*first.prices().unwrap(), prices(2));
    fs::write(dir.path().join("prices.json"), "{").unwrap();
    assert!(BillingClient::new(options).prices().is_none());
}

fn usage() -> Call {
    Call::Usage { tenant: "dev".into(), from_ns: 0, to_ns: 1, by: UsageBy::Meter }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_is_bounded_and_refusals_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let billing = Billing::start(&socket, Chaos::default());
    let client = BillingClient::new(BillingOptions { pool: 3, ..BillingOptions::new(&socket, "n1") });
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let client = client.clone();
        tasks.spawn(async move { client.call(usage()).await.is_ok() });
    }
    assert!(tasks.join_all().await.into_iter().all(|ok| ok));
    assert!(billing.most_connections.load(std::sync::atomic::Ordering::SeqCst) <= 3);
    let bill = Call::Bill { tenant: "dev".into(), from_ns: 0, to_ns: 1 };
    match client.call(bill).await {
        Err(BillingError::Refused { code, .. }) => assert_eq!(code, "malformed"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_billing_that_does_not_answer_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let options = BillingOptions { timeout: Duration::from_millis(50), ..BillingOptions::new(&socket, "n1") };
    let error = BillingClient::new(options).call(usage()).await.unwrap_err();
    assert!(matches!(&error, BillingError::Unavailable(m) if m.contains("50ms")), "{error}");
}

#[derive(Clone, Debug)]
enum Op {
    Append(u8),
    /// Everything, over this many failures of 1000 calls.
    Ship(u16),
    /// For this many microseconds.
    ShipABit(u16),
    /// And these bytes of a frame that was being written.
    Crash(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u8..40).prop_map(Op::Append),
        1 => (0u16..200).prop_map(Op::Ship),
        2 => (0u16..2000).prop_map(Op::ShipABit),
        2 => any::<u8>().prop_map(Op::Crash),
    ]
}

async fn play(ops: Vec<Op>) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let mut billing = Billing::start(&socket, Chaos::default());
    let mut spool = open(dir.path());
    let mut ids = Vec::new();
    for op in ops {
        match op {
            Op::Append(n) => {
                for _ in 0..n {
                    let record = record(1);
                    spool.append(&record).unwrap();
                    ids.push(record.invocation);
                }
            }
            Op::Ship(failures) => {
                let chaos = Chaos { before: u64::from(failures), after: u64::from(failures) };
                billing = Billing::resume(&socket, chaos, billing.kill(), prices(1));
                ship_all(&spool, &socket).await;
                // One shipper an opening: what it took over is gone from the spool.
                drop(spool);
                spool = open(dir.path());
            }
            Op::ShipABit(micros) => {
                let stop = CancellationToken::new();
                let task = tokio::spawn(Shipper::new(spool.clone(), client(&socket)).run(stop.clone()));
                tokio::time::sleep(Duration::from_micros(micros.into())).await;
                stop.cancel();
                task.await.unwrap();
                drop(spool);
                spool = open(dir.path());
            }
            Op::Crash(garbage) => {
                let epoch = spool.epoch();
                drop(spool);
                let mut paths: Vec<_> =
                    fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
                let prefix = format!("{epoch:016x}-");
                paths.retain(|p| p.file_name().unwrap().to_str().unwrap().starts_with(&prefix));
                paths.sort();
                let mut frame = vec![0, 1, 0, 0, 1, 2, 3, 4, b'{'];
                frame.resize(usize::from(garbage), b'x');
                fs::OpenOptions::new()
                    .append(true)
                    .open(paths.last().unwrap())
                    .unwrap()
                    .write_all(&frame)
                    .unwrap();
                spool = open(dir.path());
            }
        }
    }
    billing = Billing::resume(&socket, Chaos::default(), billing.kill(), prices(1));
    ship_all(&spool, &socket).await;
    ids.sort();
    assert_eq!(billing.ledger.lock().unwrap().ids(), ids);
    assert_eq!(spool.unshipped(), 0);
    assert_eq!(segment_count(dir.path()), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn every_record_arrives_once_whatever_happens(ops in prop::collection::vec(op(), 0..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(ops));
    }
}
