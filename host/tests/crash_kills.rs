//! The device worker of a real host is killed again and again under calls over HTTP: each answer is right or says that
//! the device was lost, none hangs, and account and receipts agree to the nanosecond. `WASMETER_KILLS=calls,every-ms`
//! sets another size (`deploy/bench/kills.sh`: 10,000 calls, a kill a second).
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod crash_parts;

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crash_parts::books::{Books, device_account, metric};
use crash_parts::load::Done;
use crash_parts::{builder, process};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use wasmeter_testkit::{Client, Host, manifest};
use wasmeter_usage::Outcome;

const CALLERS: usize = 16;
const CONFIG: &str = "[server]\nlisten = \"127.0.0.1:0\"\nadmin-listen = \"127.0.0.1:0\"\n\
    [engines]\nquarantine-after = 1000000\n";
/// The functions' deadline, and something for the way.
const PATIENCE: Duration = Duration::from_secs(11);

/// Calls, and the time between kills.
fn size() -> (usize, Duration) {
    let text = env::var("WASMETER_KILLS").unwrap_or_else(|_| "1500,200".to_owned());
    let (calls, every) = text.split_once(',').expect("WASMETER_KILLS=calls,every-ms");
    (calls.parse().unwrap(), Duration::from_millis(every.parse().unwrap()))
}

/// Every other call is a row through the network, the rest are numbers that no other call has.
async fn call(client: &Client, index: usize, mlp: &Value) -> Done {
    let number = u16::try_from(index % 50_000).unwrap();
    let (path, body, right) = if index.is_multiple_of(2) {
        ("/fn/dev/nn-raw/status?case=ok", String::new(), mlp.clone())
    } else {
        let numbers = json!([f32::from(number), 0.5, -1.0]);
        ("/fn/dev/nn-raw/status?case=echo", numbers.to_string(), numbers)
    };
    let began = Instant::now();
    let answer = client.post(path, body).send().await;
    assert!(began.elapsed() < PATIENCE, "call {index} took {:?}", began.elapsed());
    match answer.status {
        200 => assert_eq!(answer.json()["outputs"][0]["values"], right, "call {index}"),
        502 => assert_eq!(answer.code(), "device_lost", "call {index}: {}", answer.text()),
        _ => assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"), "{}", answer.text()),
    }
    Done::of(path, &answer)
}

/// Kills the worker, if one runs.
fn kill(host: &Host) -> bool {
    let workers = process(host).children().into_iter().filter(|child| child.is("device-worker"));
    workers.map(|worker| worker.signal(Signal::KILL)).count() > 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_again_and_again() {
    let (calls, every) = size();
    let host = builder().config(CONFIG).allow_log("device lost").allow_log("batching is off").start().await;
    for model in ["mlp", "identity-f32"] {
        host.push_tiny(model).await;
    }
    host.deploy("nn-raw", &manifest("nn-raw").models(&["mlp", "identity-f32"])).await;
    let first = host.dev().post("/fn/dev/nn-raw?case=ok", "").send().await.expect(200);
    let mlp = Arc::new(first.json()["outputs"][0]["values"].clone());
    assert_eq!(mlp.as_array().map(Vec::len), Some(10));
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    // Spread over enough kills, however fast the machine is.
    let pace = every * 40 * u32::try_from(CALLERS).unwrap() / u32::try_from(calls).unwrap();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (client, mlp, next) = (host.dev().clone(), Arc::clone(&mlp), Arc::clone(&next));
        callers.spawn(async move {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= calls {
                    return done;
                }
                done.push(call(&client, index, &mlp).await);
                tokio::time::sleep(pace).await;
            }
        });
    }
    let mut kills = 0;
    while next.load(Ordering::Relaxed) < calls {
        tokio::time::sleep(every).await;
        kills += u32::from(kill(&host));
    }
    let done: Vec<Done> = callers.join_all().await.into_iter().flatten().collect();
    let took = began.elapsed();
    assert_eq!(done.len(), calls);

    let first = Done::of("", &first);
    let books = Books::of(&host, done.iter().chain([&first])).await;
    let mut failed = 0;
    for done in &done {
        let receipt = books.receipt(done);
        if done.status == 200 {
            assert_eq!((receipt.record.outcome, receipt.record.models.len()), (Outcome::Ok, 1));
        } else {
            failed += 1;
            assert!(!receipt.record.outcome.is_charged(), "{receipt:?}");
            assert_eq!((receipt.cost_pico.0, receipt.record.device_ns()), (0, 0), "{receipt:?}");
        }
    }
    let (busy, charged) = device_account(&host).await;
    assert_eq!(charged, books.device_ns(), "what was charged is not what was booked");
    let [losses, reloads] = [
        metric(&host, "wasmeter_device_losses_total").await,
        metric(&host, "wasmeter_device_reloads_total").await,
    ];
    println!(
        "{calls} calls at {CALLERS} callers in {took:.1?}: {kills} kills, {losses} of them under a call, {reloads} reloads; \
         {failed} calls told so, none wrong, none late; busy {busy} ns = charged {charged} + platform {}",
        busy - charged
    );
    assert!(kills >= 20, "only {kills} kills");
    assert!(failed <= 8 * kills, "{failed} failures of {kills} kills");
}
