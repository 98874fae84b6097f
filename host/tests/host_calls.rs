//! Calls to the host are metered, and a guest that does little else is stopped like any other.

use serde_json::Value;
use wasmeter_testkit::{Host, component, manifest};

async fn host(limits: &str) -> Host {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.try_deploy("dev", component("hostile"), &manifest("hostile").limits(limits)).await.expect(201);
    host
}

/// The record of one call, whatever came of it.
async fn record(host: &Host, path: &str) -> Value {
    let answer = host.dev().get(&format!("/fn/dev/hostile{path}")).send().await;
    let receipt = host.receipt("dev", &answer.invocation()).await;
    receipt["record"].clone()
}

fn fuel(record: &Value) -> u64 {
    record["fuel"].as_u64().expect("fuel")
}

#[tokio::test]
async fn each_call_costs_the_same() {
    let host = host("fuel = 20_000_000_000\ndeadline = \"60s\"").await;
    let few = record(&host, "/calls?n=1000").await;
    assert_eq!(few["outcome"], "ok", "{few}");
    assert_ne!(few["fuel_schedule"], "wasmtime-48/1", "what a unit is has changed");
    for _ in 0..3 {
        assert_eq!(record(&host, "/calls?n=1000").await["fuel"], few["fuel"], "the same call, the same fuel");
    }
    // More calls than are settled at one time, and no multiple of it; the guest's own loop is a few units each.
    let more = record(&host, "/calls?n=4321").await;
    let each = (fuel(&more) - fuel(&few)) / 3321;
    assert!((500..600).contains(&each), "{each} units a call");
    let told = host.dev().get("/fn/dev/hostile/calls?n=1000").send().await.expect(200);
    let timing = told.header("server-timing").unwrap_or_default();
    let calls: u64 = timing
        .split_once("host;desc=\"")
        .and_then(|(_, calls)| calls.split_once(" calls\""))
        .and_then(|(calls, _)| calls.parse().ok())
        .unwrap_or_else(|| panic!("no calls in {timing}"));
    assert!((1000..1100).contains(&calls), "{timing}");
}

#[tokio::test]
async fn calls_alone_use_up_the_fuel() {
    let host = host("fuel = 3_000_000\ndeadline = \"60s\"").await;
    for path in ["/calls", "/random", "/environment", "/loop-in-host"] {
        let record = record(&host, path).await;
        assert_eq!(record["outcome"], "out_of_fuel", "{path}: {record}");
        assert_eq!(fuel(&record), 3_000_000, "{path}: never more than the limit");
    }
}

/// Before calls were charged, random bytes ran 1.3 s past this deadline.
#[tokio::test]
async fn a_loop_of_calls_ends_at_its_deadline() {
    let host = host("fuel = 1_000_000_000_000\ndeadline = \"400ms\"").await;
    for path in ["/random", "/environment", "/loop-in-host"] {
        let record = record(&host, path).await;
        assert_eq!(
            (&record["outcome"], &record["status"]),
            (&"deadline".into(), &504.into()),
            "{path}: {record}"
        );
        assert!(fuel(&record) > 1_000_000, "{path}: what it used is billed: {record}");
        let ns = |key: &str| record[key].as_u64().expect("a time");
        let took = ns("end_ns") - ns("start_ns");
        // Loosely, since other tests take the machine too.
        assert!(took < 1_000_000_000, "{path}: stopped {} ms after its start", took / 1_000_000);
    }
}
