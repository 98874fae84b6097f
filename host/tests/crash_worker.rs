//! The device worker dies under a call: the caller is told, nobody pays for the device, and the next call works.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod crash_parts;

use std::time::{Duration, Instant};

use crash_parts::books::{Books, device_account};
use crash_parts::load::{Done, call};
use crash_parts::{Process, builder, loaded, process};
use rustix::process::Signal;
use serde_json::Value;
use wasmeter_testkit::{Host, manifest};
use wasmeter_usage::Outcome;

/// A matrix product of some seconds; the guest answers 502 if it fails.
const SLOW: &str = "/fn/dev/nn-raw/status?case=slow&rounds=6";
/// The same, and the guest gets over it.
const SLOW_AND_CALM: &str = "/fn/dev/nn-raw?case=slow&rounds=6";
const REASON: &str = "the device worker died 2 times under it";
const QUICK: &str = "/fn/dev/nn-raw?case=ok";

/// Makes the call and kills the worker in the middle of it.
async fn killed_under(host: &Host, path: &'static str) -> (Done, Value, Process) {
    let client = host.dev().clone();
    let running = tokio::spawn(async move { client.post(path, "").send().await });
    let worker = process(host).wait_for_child("device-worker");
    worker.wait_until_busy();
    assert!(!running.is_finished(), "the call was to be slow");
    worker.signal(Signal::KILL);
    let answer = running.await.unwrap();
    assert_eq!(answer.header("x-wasmeter-device-ns"), Some("0"), "a lost run was charged");
    (Done::of(path, &answer), answer.json(), worker)
}

async fn works(host: &Host, path: &str) -> Done {
    let answer = host.dev().post(path, "").send().await.expect(200);
    assert_eq!(answer.json()["ok"], true, "{}", answer.text());
    Done::of(path, &answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_costs_its_callers_nothing() {
    let host = loaded(builder().allow_log("device lost").allow_log("model quarantined")).await;
    let first = works(&host, QUICK).await;

    // While it is idle nobody notices, and it is not the model's fault.
    let idle = process(&host).wait_for_child("device-worker");
    idle.signal(Signal::KILL);
    idle.wait_until_reaped();
    let unnoticed = works(&host, QUICK).await;

    let (lost, body, dead) = killed_under(&host, SLOW).await;
    assert_eq!((lost.status, &body["code"], &body["retry"]), (502, &"device_lost".into(), &true.into()));
    assert_eq!(body["invocation_id"], lost.invocation);
    let next = works(&host, QUICK).await;
    assert!(!dead.lives() && process(&host).wait_for_child("device-worker") != dead);

    // A guest that gets over it pays its own work, and no device.
    let (calm, body, _) = killed_under(&host, SLOW_AND_CALM).await;
    assert_eq!((calm.status, &body["ok"]), (200, &false.into()), "{body}");

    // The second death under one model version: nobody runs it any more, and the others go on.
    let refused = host.dev().post(SLOW, "").send().await;
    assert_eq!((refused.status, refused.code()), (503, "unavailable".to_owned()), "{}", refused.text());
    let message = refused.message();
    assert!(message.contains("slow version 1 is quarantined") && message.contains("2 times"), "{message}");
    assert!(refused.header("retry-after").is_some());
    let refused = Done::of(SLOW, &refused);
    let others = works(&host, QUICK).await;
    // Until the operator means it.
    let shown = host.operator().get("/api/v1/models/slow").send().await.expect(200).json();
    let shown = &shown["versions"][0];
    assert_eq!((&shown["state"], &shown["reason"]), (&"quarantined".into(), &REASON.into()), "{shown}");
    let lift = "/api/v1/models/slow/versions/1/quarantine";
    assert_eq!(host.dev().delete(lift).send().await.status, 403);
    let lifted = host.operator().delete(lift).send().await.expect(200).json();
    assert_eq!((&lifted["state"], lifted.get("reason")), (&"ready".into(), None), "{lifted}");
    let again = host.operator().delete(lift).send().await;
    assert_eq!(again.status, 409, "{}", again.text());
    assert!(again.message().contains("slow version 1 is not quarantined: it is ready"), "{}", again.text());
    assert_eq!(host.operator().delete("/api/v1/models/slow/versions/9/quarantine").send().await.status, 404);
    let forgiven = works(&host, "/fn/dev/nn-raw?case=slow&size=64").await;

    let books =
        Books::of(&host, [&first, &unnoticed, &lost, &next, &calm, &refused, &others, &forgiven]).await;
    for done in [&first, &unnoticed, &next, &others, &forgiven] {
        let record = &books.receipt(done).record;
        assert_eq!((record.outcome, record.models.len()), (Outcome::Ok, 1), "{record:?}");
        assert!(record.device_ns() > 0);
    }
    for (done, outcome) in [(&lost, Outcome::DeviceLost), (&refused, Outcome::Platform)] {
        let receipt = books.receipt(done);
        assert_eq!((receipt.record.outcome, receipt.cost_pico.0), (outcome, 0), "{receipt:?}");
        assert_eq!(receipt.record.device_ns(), 0);
    }
    let receipt = books.receipt(&calm);
    assert_eq!((receipt.record.outcome, receipt.record.device_ns()), (Outcome::Ok, 0));
    assert!(receipt.cost_pico.0 > 0);
    let (busy, charged) = device_account(&host).await;
    assert_eq!(charged, books.device_ns(), "what was charged is not what was booked");
    assert!(busy > charged, "the lost runs are the platform's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_a_model_call_at_once() {
    let host = loaded(builder()).await;
    let hasty = manifest("hasty").limits("deadline = \"600ms\"").models(&["slow"]);
    host.deploy("nn-raw", &hasty).await;
    let mut late = Vec::new();
    // More often than deaths quarantine a model: a deadline is not the model's fault.
    for _ in 0..3 {
        let began = Instant::now();
        let done = call(host.dev(), "/fn/dev/hasty?case=slow&rounds=6").await.unwrap();
        let took = began.elapsed();
        assert_eq!(done.status, 504, "{done:?}");
        assert!(done.error.as_ref().is_some_and(|e| e.contains("600ms")), "{done:?}");
        assert!((600..1500).contains(&took.as_millis()), "{took:?}");
        late.push(done);
        works(&host, QUICK).await;
    }
    let books = Books::of(&host, &late).await;
    for done in &late {
        let record = &books.receipt(done).record;
        assert_eq!(record.outcome, Outcome::Deadline, "work until a guest's own deadline is paid");
    }
    let longest = late.iter().map(|d| books.receipt(d).record.device_ns()).max().unwrap();
    assert!(longest > 0, "the device worked for them");
    let cores = u32::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
    assert!(Duration::from_nanos(longest) <= Duration::from_millis(650) * cores, "{longest} ns in 600 ms");
    let (_, charged) = device_account(&host).await;
    assert_eq!(charged, books.device_ns(), "what was charged is not what was booked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_time_is_charged_though_the_model_is_removed_meanwhile() {
    let host = loaded(builder()).await;
    let client = host.dev().clone();
    let path = "/fn/dev/nn-raw?case=slow&rounds=2";
    let running = tokio::spawn(async move { call(&client, path).await.unwrap() });
    process(&host).wait_for_child("device-worker").wait_until_busy();
    let removing = host.operator().delete("/api/v1/models/slow/versions/1").send().await;
    assert!(removing.status < 300, "{}", removing.text());
    let done = running.await.unwrap();
    assert_eq!(done.status, 200);
    let books = Books::of(&host, [&done]).await;
    let record = &books.receipt(&done).record;
    let (_, charged) = device_account(&host).await;
    assert!(charged > 0);
    assert_eq!((charged, books.device_ns()), (record.device_ns(), charged), "{record:?}");
}
