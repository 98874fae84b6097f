//! Revisions behind aliases: a canary gets its part of the traffic, and neither a swap nor a rollback costs a call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use wasmeter_testkit::{Answer, Host, Manifest, manifest};

const PROGRAM: &str = env!("CARGO_BIN_EXE_wasmeter");

const FUNCTION: &str = "/api/v1/tenants/dev/functions/echo";

async fn set(host: &Host, alias: &str, revisions: Value) -> Answer {
    let path = format!("{FUNCTION}/aliases/{alias}");
    host.dev().call(Method::PUT, &path).json(&json!({ "revisions": revisions })).send().await
}

async fn rollback(host: &Host, body: Value) -> Answer {
    host.dev().call(Method::POST, &format!("{FUNCTION}/rollback")).json(&body).send().await
}

/// Deploys `echo` so that it differs from every other deployment, and gives the revision.
async fn deploy(host: &Host, manifest: &Manifest) -> String {
    host.deploy("echo", manifest).await["revision"].as_str().expect("a revision").to_owned()
}

fn echo(step: u64) -> Manifest {
    manifest("echo").public().limits(&format!("fuel = {}", 1_000_000_000 + step))
}

/// How many of `calls` calls each revision answered.
async fn answered(host: &Host, path: &str, calls: usize) -> BTreeMap<String, usize> {
    let mut by_revision = BTreeMap::new();
    for _ in 0..calls {
        let answer = host.dev().get(path).send().await.expect(200);
        let revision = answer.header("x-wasmeter-revision").expect("the tenant is told").to_owned();
        *by_revision.entry(revision).or_default() += 1;
    }
    by_revision
}

#[tokio::test]
async fn an_alias_spreads_its_traffic_and_goes_back() {
    let host = Host::builder(PROGRAM).start().await;
    let old = deploy(&host, &echo(0)).await;
    let answer = rollback(&host, json!({})).await;
    assert_eq!((answer.status, answer.code().as_str()), (409, "conflict"), "{}", answer.text());
    assert!(answer.message().contains("nothing to roll back to"), "{}", answer.text());
    let new = deploy(&host, &echo(1)).await;
    assert_eq!(answered(&host, "/fn/dev/echo/hello", 5).await, [(new.clone(), 5)].into());
    let anonymous = host.anonymous().get("/fn/dev/echo/hello").send().await.expect(200);
    assert_eq!(anonymous.header("x-wasmeter-revision"), None, "what answers is the tenant's business");

    let view = set(&host, "canary", json!({ &old: 3, &new: 1 })).await.expect(200).json();
    assert_eq!(view["aliases"], json!({ "live": { &new: 1 }, "canary": { &old: 3, &new: 1 } }));
    let spread = answered(&host, "/fn/dev/echo@canary/hello", 200).await;
    // Of 200 fair draws at 1/4, fewer than 20 or more than 85 come up once in 10^8 runs.
    assert!((20..=85).contains(&spread[&new]) && spread[&old] + spread[&new] == 200, "{spread:?}");

    let view = rollback(&host, json!({})).await.expect(200).json();
    assert_eq!((&view["live"], &view["aliases"]["canary"]), (&json!(old), &json!({ &old: 3, &new: 1 })));
    assert_eq!(answered(&host, "/fn/dev/echo/hello", 5).await, [(old.clone(), 5)].into());
    drop(set(&host, "canary", json!({ &new: 1 })).await.expect(200));
    let view = rollback(&host, json!({ "alias": "canary" })).await.expect(200).json();
    assert_eq!(view["aliases"]["canary"], json!({ &old: 3, &new: 1 }));
    let receipts = host.receipts_after("dev", 211).await;
    let booked = |id: &str| receipts.iter().filter(|r| r["record"]["revision"] == id).count();
    assert_eq!(booked(&old) + booked(&new), 211, "receipts name the revision that answered");

    let path = format!("{FUNCTION}/aliases/canary");
    drop(host.dev().delete(&path).send().await.expect(204));
    drop(host.dev().get("/fn/dev/echo@canary/hello").send().await.expect(404));
    drop(host.dev().delete(&path).send().await.expect(404));
}

#[tokio::test]
async fn a_deployment_can_leave_live_alone() {
    let mut host = Host::builder(PROGRAM).start().await;
    let old = deploy(&host, &echo(0)).await;
    let upload = echo(1);
    let answer =
        host.try_deploy_to("dev", Some("canary"), wasmeter_testkit::component("echo"), &upload).await;
    let new = answer.expect(201).json()["revision"].as_str().expect("a revision").to_owned();
    // What is deployed outlives the process, with its weights and the way back.
    host.restart().await;
    assert_eq!(answered(&host, "/fn/dev/echo/hello", 2).await, [(old, 2)].into());
    assert_eq!(answered(&host, "/fn/dev/echo@canary/hello", 2).await, [(new.clone(), 2)].into());
    let answer = host.try_deploy_to("dev", Some("a--b"), wasmeter_testkit::component("echo"), &upload).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_changes_nothing() {
    let host = Host::builder(PROGRAM).start().await;
    let old = deploy(&host, &manifest("echo")).await;
    let new = deploy(&host, &echo(1)).await;
    let many: Value = (0..11).map(|i| (format!("r{i}"), json!(1))).collect::<serde_json::Map<_, _>>().into();
    for (revisions, status, part) in [
        (json!({}), 422, "1 to 10 revisions"),
        (many, 422, "not 11"),
        (json!({ &new: 0 }), 422, "weight"),
        (json!({ &new: 10_001 }), 422, "1 to 10000"),
        (json!({ &new: 1, &old: 1 }), 422, "public"),
        (json!({ &new: -1 }), 400, "body"),
        (json!({ "nowhere": 1 }), 404, ""),
    ] {
        let answer = set(&host, "live", revisions.clone()).await;
        assert_eq!(answer.status, status, "{revisions}: {}", answer.text());
        assert!(answer.message().contains(part), "{part:?} in {}", answer.text());
    }
    drop(set(&host, "a--b", json!({ &new: 1 })).await.expect(400));
    let answer = host.dev().delete(&format!("{FUNCTION}/aliases/live")).send().await;
    assert_eq!((answer.status, answer.code().as_str()), (409, "conflict"), "{}", answer.text());
    let view = host.dev().get(FUNCTION).send().await.expect(200).json();
    assert_eq!(view["aliases"], json!({ "live": { &new: 1 } }));
    // Another tenant's function and an unknown one look the same.
    let path = "/api/v1/tenants/other/functions/echo/aliases/live";
    let body = json!({ "revisions": { &new: 1 } });
    drop(host.dev().call(Method::PUT, path).json(&body).send().await.expect(404));
}

#[tokio::test]
async fn swaps_and_rollbacks_under_load_fail_no_call() {
    let host = Host::builder(PROGRAM).start().await;
    let old = deploy(&host, &echo(0)).await;
    let new = deploy(&host, &echo(1)).await;
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (client, stop, calls) = (host.anonymous().clone(), Arc::clone(&stop), Arc::clone(&calls));
        callers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = client.get("/fn/dev/echo/hello").send().await.expect(200);
                assert_eq!(answer.text(), "hello\n");
                calls.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for step in 2..8 {
        drop(set(&host, "live", json!({ &old: 9, &new: 1 })).await.expect(200));
        deploy(&host, &echo(step)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(rollback(&host, json!({})).await.expect(200));
    }
    stop.store(true, Ordering::Relaxed);
    callers.join_all().await;
    let calls = usize::try_from(calls.load(Ordering::Relaxed)).unwrap();
    let receipts = host.receipts_after("dev", calls).await;
    let used: std::collections::BTreeSet<_> =
        receipts.iter().filter_map(|r| r["record"]["revision"].as_str()).collect();
    assert!(receipts.len() == calls && used.len() > 2, "{calls} calls, revisions {used:?}");
}
