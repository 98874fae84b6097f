//! Limits of time and of concurrency: guests that do not end are ended, and nobody takes all. `hostile.rs` has the rest.

use std::time::{Duration, Instant};

use wasmeter_testkit::{Answer, Host, component, manifest};

/// The receipt's outcome of an answer's invocation.
async fn outcome(host: &Host, answer: &Answer) -> String {
    let receipt = host.receipt("dev", &answer.invocation()).await;
    receipt["record"]["outcome"].as_str().unwrap_or_default().to_owned()
}

/// An error of the function, as a caller sees it.
fn failed(answer: &Answer, status: u16, code: &str, parts: &[&str]) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text());
    assert_eq!(answer.header("x-wasmeter-error-source"), Some("function"));
    assert_eq!(answer.json()["invocation_id"], answer.invocation());
    for part in parts {
        assert!(answer.message().contains(part), "{part:?} in {:?}", answer.message());
    }
}

#[tokio::test]
async fn what_does_not_end_is_ended() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    let endless = "fuel = 1_000_000_000_000\ndeadline = \"2s\"";
    host.deploy("spin", &manifest("spin").limits(endless)).await;
    host.deploy("echo", &manifest("echo").public()).await;
    let began = Instant::now();
    let calls: Vec<_> = (0..3).map(|_| tokio::spawn(host.dev().get("/fn/dev/spin").send())).collect();
    // Meanwhile others are served: a guest that never yields holds no thread.
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 0..5 {
        let began = Instant::now();
        host.anonymous().get("/fn/dev/echo/hello").send().await.expect(200);
        assert!(began.elapsed() < Duration::from_millis(1200), "{:?}", began.elapsed());
    }
    for call in calls {
        let answer = call.await.expect("the call");
        assert!(began.elapsed() >= Duration::from_millis(1990), "{:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        failed(&answer, 504, "deadline", &["limits.deadline", "2s"]);
        assert_eq!(outcome(&host, &answer).await, "deadline");
        assert!(host.charged_pico("dev", &answer).await > 0, "work until the deadline is paid");
    }

    host.deploy("spin", &manifest("spin").limits("fuel = 1_000_000")).await;
    let answer = host.dev().get("/fn/dev/spin").send().await;
    failed(&answer, 502, "guest_failed", &["limits.fuel", "1000000"]);
    assert_eq!(outcome(&host, &answer).await, "out_of_fuel");
    assert_eq!(answer.header("x-wasmeter-fuel"), Some("1000000"));
}

#[tokio::test]
async fn concurrency_is_the_functions_own() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.deploy("slow-body", &manifest("slow-body").limits("concurrency = 2")).await;
    host.deploy("echo", &manifest("echo")).await;
    let slow = || host.dev().get("/fn/dev/slow-body?chunks=100&delay_ms=20");
    let (first, second) = (slow().stream().await, slow().stream().await);
    let refused = slow().send().await.expect(429);
    assert_eq!((refused.code().as_str(), refused.json()["retry"].as_bool()), ("quota", Some(true)));
    assert!(refused.message().contains("limits.concurrency"), "{}", refused.text());
    let after = refused.header("retry-after").and_then(|s| s.parse::<u64>().ok());
    assert!(after.is_some_and(|s| s >= 1), "{after:?}");
    assert_eq!(refused.header("x-wasmeter-error-source"), Some("platform"));
    host.dev().get("/fn/dev/echo/hello").send().await.expect(200);
    // What was admitted ends well, and makes room.
    assert_eq!(first.rest().await.expect("the first answer").body.len(), 100 << 10);
    drop(second);
    let end = Instant::now() + Duration::from_secs(2);
    while slow().stream().await.status() != 200 {
        assert!(Instant::now() < end, "there is no room after the end of an invocation");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A refused request is no invocation.
    let receipts = host.receipts("dev").await;
    assert!(!receipts.iter().any(|r| r["invocation"] == refused.invocation()), "{receipts:?}");
}

#[tokio::test]
async fn a_tenant_has_its_share_of_the_host() {
    let config = "[admission]\nin-flight = 3\ntenant-percent = 67\n";
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).config(config).start().await;
    host.put_tenant("other").await;
    for tenant in ["dev", "other"] {
        host.try_deploy(tenant, component("slow-body"), &manifest("slow-body").public()).await.expect(201);
    }
    let call = |tenant: &str| host.anonymous().get(&format!("/fn/{tenant}/slow-body?chunks=200&delay_ms=20"));
    let held = [call("dev").stream().await, call("dev").stream().await];
    let refused = call("dev").send().await.expect(429);
    assert_eq!((refused.code().as_str(), refused.header("retry-after")), ("quota", Some("1")));
    assert!(refused.message().contains("share"), "{}", refused.message());
    let others = call("other").stream().await;
    assert_eq!(others.status(), 200, "one tenant took the whole host");
    let full = call("other").send().await.expect(503);
    assert_eq!((full.code().as_str(), full.header("retry-after")), ("overloaded", Some("1")));
    assert_eq!(full.json()["retry"], true);
    drop((held, others));
}

#[tokio::test]
async fn what_a_function_has_provisioned_is_there_when_the_host_is_full() {
    let config = "[admission]\nin-flight = 4\ntenant-percent = 50\nprovisioned-percent = 50\n";
    let mut host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).config(config).start().await;
    host.put_tenant("other").await;
    let wide = manifest("slow-body").public();
    host.deploy("slow-body", &wide).await;
    host.try_deploy("other", component("slow-body"), &wide).await.expect(201);
    // Half of half of the host is one tenant's.
    let kept = |n: u32| manifest("echo").public().limits(&format!("concurrency = 2\nprovisioned = {n}"));
    let refused = host.try_deploy("dev", component("echo"), &kept(2)).await.expect(409);
    assert!(refused.message().contains("tenant dev has 1 left of 1"), "{}", refused.message());
    host.deploy("echo", &kept(1)).await;
    let shown = host.dev().get("/api/v1/tenants/dev/functions/echo").send().await.expect(200).json();
    assert_eq!(
        (shown["provisioned"].as_u64(), shown["revision"]["limits"]["provisioned"].as_u64()),
        (Some(1), Some(1))
    );
    for start in 0..2 {
        let call =
            |tenant: &str| host.anonymous().get(&format!("/fn/{tenant}/slow-body?chunks=500&delay_ms=20"));
        // Its tenant's share is full, and the host is but for its one place.
        let held = [call("dev").stream().await, call("dev").stream().await, call("other").stream().await];
        held.iter().for_each(|stream| assert_eq!(stream.status(), 200, "start {start}"));
        call("other").send().await.expect(503);
        for _ in 0..3 {
            host.anonymous().get("/fn/dev/echo/hello").send().await.expect(200);
        }
        drop(held);
        if start == 0 {
            host.restart().await;
        }
    }
    // With the function its place goes back to all.
    host.dev().delete("/api/v1/tenants/dev/functions/echo").send().await.expect(204);
    host.try_deploy("other", component("echo"), &kept(1)).await.expect(201);
}

/// A command that answers nothing, of so many functions that compiling it takes a while.
fn large() -> Vec<u8> {
    let work = "i32.const 3 i32.mul local.get 0 i32.rotl ".repeat(20);
    let functions = format!("(func (param i32) (result i32) local.get 0 {work})").repeat(30_000);
    let text = format!("(module (memory (export \"memory\") 1) (func (export \"_start\")) {functions})");
    wat::parse_str(text).expect("it is Wasm")
}

#[tokio::test]
async fn what_must_be_compiled_again_keeps_nobody_past_the_deadline() {
    let mut host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    let began = Instant::now();
    let deploy = host.try_deploy("dev", large(), &manifest("large").limits("deadline = \"200ms\"")).await;
    deploy.expect(201);
    println!("deployed after {:?}", began.elapsed());
    assert!(host.term().await.success());
    std::fs::remove_dir_all(host.data().join("artifacts")).expect("artifacts can be deleted");
    host.start().await;

    let call = || host.dev().get("/fn/dev/large").send();
    let began = Instant::now();
    let answer = call().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"), "{}", answer.text());
    assert!(answer.message().contains("limits.deadline of 200ms"), "{}", answer.message());
    assert!(answer.header("retry-after").is_some(), "{:?}", answer.headers);
    assert_eq!(answer.header("x-wasmeter-error-source"), Some("platform"));
    let receipt = host.receipt("dev", &answer.invocation()).await;
    assert_eq!((&receipt["record"]["outcome"], &receipt["cost_pico"]), (&"platform".into(), &"0".into()));
    // Who leaves stops nothing; what was begun for them is there for others.
    assert!(tokio::time::timeout(Duration::from_millis(20), call()).await.is_err());
    let end = began + Duration::from_secs(60);
    loop {
        let answer = call().await;
        if answer.status == 200 {
            break;
        }
        // Ready just before a deadline, it is the guest that is late.
        assert!(matches!(answer.status, 503 | 504), "{}", answer.text());
        assert!(Instant::now() < end, "it is never compiled");
    }
    println!("called after {:?}", began.elapsed());
}
