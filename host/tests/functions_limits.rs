//! Guests that do not end, fail, or want too much: each ends at its limit, is billed as it should, and harms nobody.

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

async fn logs(host: &Host, function: &str) -> String {
    let path = format!("/api/v1/tenants/dev/functions/{function}/logs");
    host.dev().get(&path).send().await.expect(200).text().to_owned()
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
        assert!(answer.cost_pico().is_some_and(|c| c > 0), "work until the deadline is paid");
    }

    host.deploy("spin", &manifest("spin").limits("fuel = 1_000_000")).await;
    let answer = host.dev().get("/fn/dev/spin").send().await;
    failed(&answer, 502, "guest_failed", &["limits.fuel", "1000000"]);
    assert_eq!(outcome(&host, &answer).await, "out_of_fuel");
    assert_eq!(answer.header("x-wasmeter-fuel"), Some("1000000"));
}

#[tokio::test]
async fn what_fails_is_said_and_billed() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    for name in ["trap", "stack", "silent", "echo"] {
        host.deploy(name, &manifest(name)).await;
    }
    host.deploy("memory", &manifest("memory").limits("memory = \"16MiB\"")).await;
    host.deploy("big-body", &manifest("big-body").limits("response-body = \"256KiB\"")).await;
    let get = |path: &'static str| host.dev().get(path).send();

    let answer = get("/fn/dev/trap").await;
    failed(&answer, 502, "guest_failed", &[]);
    assert!(!answer.text().contains("deliberate_panic"), "the backtrace is the author's, not the caller's");
    assert_eq!(outcome(&host, &answer).await, "trap");
    let log = logs(&host, "trap").await;
    for part in ["deliberate_panic", "the trap fixture panics, as asked", &answer.invocation()] {
        assert!(log.contains(part), "{part:?} in {log}");
    }
    failed(&get("/fn/dev/trap/unreachable").await, 502, "guest_failed", &["unreachable"]);
    // After a head and 100,000 bytes, only a body that breaks off can tell.
    let mut late = host.dev().get("/fn/dev/trap/late").stream().await;
    assert_eq!(late.status(), 200);
    let invocation = late.header("x-wasmeter-invocation").expect("an id").to_owned();
    let broken = loop {
        match late.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken, "the answer looked whole");
    assert_eq!(host.receipt("dev", &invocation).await["record"]["outcome"], "trap");

    assert_eq!(get("/fn/dev/stack?depth=1000").await.expect(200).text(), "1000\n");
    let answer = get("/fn/dev/stack").await;
    failed(&answer, 502, "guest_failed", &["stack"]);
    for path in ["/fn/dev/silent", "/fn/dev/silent/leak"] {
        let answer = get(path).await;
        failed(&answer, 502, "guest_failed", &["without an answer"]);
        assert_eq!(outcome(&host, &answer).await, "trap");
    }

    // A guest that gets over a refusal goes on; one that does not is told which limit it met.
    let pages = get("/fn/dev/memory").await.expect(200).json();
    assert!(pages["pages"].as_u64().is_some_and(|p| p <= 256 && p > 200), "{pages}");
    let answer = get("/fn/dev/memory/allocate?bytes=20000000").await;
    failed(&answer, 502, "guest_failed", &["limits.memory", "16MiB"]);
    get("/fn/dev/memory/allocate?bytes=2000000").await.expect(200);

    assert_eq!(get("/fn/dev/big-body?bytes=262144").await.expect(200).body.len(), 262_144);
    for path in ["/fn/dev/big-body?bytes=262145&whole=true", "/fn/dev/big-body?bytes=2000000"] {
        // After its head, only a body that breaks off can tell.
        let answer = host.dev().get(path).try_send().await;
        assert!(answer.is_err(), "an answer beyond its limit looked whole");
    }
    host.deploy("big-body", &manifest("big-body").limits("response-body = \"32KiB\"")).await;
    for path in ["/fn/dev/big-body?bytes=32769", "/fn/dev/big-body?bytes=40000&whole=true"] {
        failed(&get(path).await, 502, "guest_failed", &["limits.response-body", "32768"]);
    }
    assert_eq!(get("/fn/dev/echo/hello").await.expect(200).text(), "hello\n");
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
