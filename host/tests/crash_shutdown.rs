//! An orderly stop: what runs ends, what was used is booked, nothing stays behind.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod crash_parts;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crash_parts::books::{Books, check_ledger, metric};
use crash_parts::load::{Done, Load, call};
use crash_parts::proc::assert_gone;
use crash_parts::{builder, loaded, process};
use rustix::process::Signal;
use tokio::task::JoinHandle;
use wasmeter_testkit::{Host, manifest};
use wasmeter_usage::Outcome;

/// Streams for more than a second.
const LONG: &str = "/fn/dev/slow-body?chunks=12&delay_ms=100";

fn start(host: &Host, path: &'static str) -> JoinHandle<std::io::Result<Done>> {
    let client = host.dev().clone();
    tokio::spawn(async move { call(&client, path).await })
}

/// Entries of the ledger, with the host down.
fn entries(host: &Host) -> u64 {
    check_ledger(host)["entries"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_loses_nothing() {
    let mut host = loaded(builder()).await;
    let load = Load::start(&host, 8, 5000);
    load.wait_for(100).await;
    let in_flight: Vec<_> = (0..4).map(|_| start(&host, LONG)).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let family = process(&host).family();
    assert!(family.len() >= 2, "billing and a device worker");
    assert!(host.term().await.success());
    assert_gone(&family);
    let ended = load.join().await;
    let mut delivered = ended.whole;
    for running in in_flight {
        delivered.push(running.await.unwrap().expect("a call that ran was cut off"));
    }
    // All of it is in the ledger already; the restart finds nothing to ship.
    let booked = entries(&host);
    host.start().await;
    let books = Books::of(&host, &delivered).await;
    assert_eq!(booked, books.receipts.len() as u64, "usage was shipped only by the next start");
    books.hold(&delivered, ended.broken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once() {
    let mut host = loaded(builder()).await;
    host.deploy("spin", &manifest("spin").limits("deadline = \"30s\"\nfuel = 1_000_000_000_000")).await;
    let delivered = Load::start(&host, 4, 40).join().await.whole;
    let cut_off = start(&host, "/fn/dev/spin");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let family = process(&host).family();
    host.signal(Signal::TERM);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    let status = host.term().await;
    assert_eq!(status.code(), Some(130), "{status}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_gone(&family);
    assert!(cut_off.await.unwrap().is_err(), "a guest that never ends has answered");
    host.start().await;
    // The guest that was cut off by us is not billed.
    Books::of(&host, &delivered).await.hold(&delivered, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stop_cuts_off_is_not_charged() {
    let builder = builder().argument("--drain-timeout").argument("300ms");
    let mut host = loaded(builder.allow_log("connections were still open")).await;
    host.deploy("spin", &manifest("spin").limits("deadline = \"30s\"\nfuel = 1_000_000_000_000")).await;
    let spins = start(&host, "/fn/dev/spin");
    let streams = start(&host, "/fn/dev/slow-body?chunks=200&delay_ms=50");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(host.term().await.success());
    let told = spins.await.unwrap().expect("an answer");
    assert_eq!(told.status, 503, "{told:?}");
    assert!(streams.await.unwrap().is_err(), "a stream that was cut off looked whole");
    host.start().await;
    let books = Books::of(&host, [&told]).await;
    assert_eq!(books.receipts.len(), 2);
    for receipt in books.receipts.values() {
        assert_eq!((receipt.record.outcome, receipt.cost_pico.0), (Outcome::Platform, 0), "{receipt:?}");
    }
    assert_eq!(books.receipt(&told).record.status, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_waits_for_its_predecessor() {
    let mut host = loaded(builder()).await;
    let running = start(&host, LONG);
    // A second host on the same data.
    let url = host.data().join("url");
    std::fs::remove_file(&url).unwrap();
    let mut next = Command::new(env!("CARGO_BIN_EXE_wasmeter"));
    next.arg("serve").args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data"]);
    next.arg(host.data()).stdin(Stdio::null()).stderr(Stdio::null());
    let mut next = Killed(next.spawn().unwrap());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!url.exists(), "the second host did not wait");
    assert!(next.0.try_wait().unwrap().is_none(), "the second host gave up");
    assert!(host.term().await.success());
    let done = running.await.unwrap().expect("the call that ran was cut off");
    let until = Instant::now() + Duration::from_secs(20);
    while !url.exists() {
        assert!(Instant::now() < until, "the second host does not start");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(next);
    host.start().await;
    Books::of(&host, [&done]).await.hold(&[done], 0);
    assert_eq!(metric(&host, "wasmeter_spool_unshipped_records").await, 0);
}

struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
