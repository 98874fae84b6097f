//! Bodies that stream, heads that hold, callers that leave, and what is logged meanwhile.

use std::time::{Duration, Instant};

use http::Method;
use wasmeter_testkit::{Host, manifest};

const FIGURES: [&str; 4] = ["x-wasmeter-fuel", "x-wasmeter-device-ns", "x-wasmeter-cost", "server-timing"];

#[tokio::test]
async fn a_body_streams_and_its_figures_follow() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.deploy("slow-body", &manifest("slow-body").public()).await;
    let path = "/fn/dev/slow-body?chunks=20&delay_ms=100";
    let began = Instant::now();
    let mut answer = host.dev().get(path).header("te", "trailers").stream().await;
    let first = answer.chunk().await.expect("a body").expect("a piece");
    let waited = began.elapsed();
    assert!(waited < Duration::from_millis(1200), "the first piece came after {waited:?}");
    assert_eq!(answer.header("x-wasmeter-cost"), None, "the head was sent before the cost was known");
    assert!(answer.header("trailer").is_some_and(|t| t.contains("x-wasmeter-cost")));
    let rest = answer.rest().await.expect("the rest");
    assert!(began.elapsed() >= Duration::from_millis(2000), "{:?}", began.elapsed());
    let body = [&first[..], &rest.body[..]].concat();
    let lines: Vec<_> = std::str::from_utf8(&body).expect("text").lines().map(str::trim).collect();
    assert_eq!(lines, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    for name in FIGURES {
        assert!(rest.trailers.contains_key(name), "{name} in {:?}", rest.trailers);
    }
    let receipt = host.receipt("dev", &rest.invocation()).await;
    assert_eq!(receipt["cost_pico"], rest.cost_pico().expect("a cost").to_string());
    assert_eq!(receipt["record"]["egress_bytes"], 20 << 10);

    // No trailers for who did not ask for them, and none for who may not know.
    let plain = host.dev().get(path).send().await.expect(200);
    assert!(plain.trailers.is_empty(), "{:?}", plain.trailers);
    let anonymous = host.anonymous().get(path).header("te", "trailers").send().await.expect(200);
    assert!(FIGURES.iter().all(|name| !anonymous.trailers.contains_key(*name)), "{:?}", anonymous.trailers);
    // Short answers are held until the guest ends, so that their head has the figures.
    let quick = host.dev().get("/fn/dev/slow-body?chunks=3").send().await.expect(200);
    assert!(FIGURES.iter().all(|name| quick.header(name).is_some()), "{:?}", quick.headers);
}

#[tokio::test]
async fn who_leaves_pays_until_then() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.deploy("slow-body", &manifest("slow-body").limits("deadline = \"60s\"")).await;
    host.deploy("spin", &manifest("spin").limits("fuel = 1_000_000_000_000\ndeadline = \"60s\"")).await;
    let mut leaving = host.dev().get("/fn/dev/slow-body?chunks=2000&delay_ms=20").stream().await;
    leaving.chunk().await.expect("a body").expect("a piece");
    let invocation = leaving.header("x-wasmeter-invocation").expect("an id").to_owned();
    drop(leaving);
    let receipt = host.receipt("dev", &invocation).await;
    assert_eq!(receipt["record"]["outcome"], "disconnect", "{receipt}");
    assert!(receipt["cost_pico"].as_str().is_some_and(|c| c != "0"), "{receipt}");

    // Before the head, too, and in a loop that calls nobody.
    let call = tokio::spawn(host.dev().get("/fn/dev/spin").send());
    tokio::time::sleep(Duration::from_millis(300)).await;
    call.abort();
    let receipts = host.receipts_after("dev", 2).await;
    let spin = receipts.iter().find(|r| r["record"]["function"] == "spin").expect("the receipt of spin");
    assert_eq!(spin["record"]["outcome"], "disconnect", "{spin}");
    assert_eq!(spin["record"]["status"], 0, "{spin}");
}

#[tokio::test]
async fn answers_without_a_body() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.deploy("echo", &manifest("echo")).await;
    host.deploy("slow-body", &manifest("slow-body")).await;
    let head = host.dev().call(Method::HEAD, "/fn/dev/echo/x").send().await.expect(200);
    assert!(head.body.is_empty());
    assert!(head.cost_pico().is_some_and(|c| c > 0), "the head is the last byte: {:?}", head.headers);
    assert_eq!(host.receipt("dev", &head.invocation()).await["record"]["outcome"], "ok");
    let head =
        host.dev().call(Method::HEAD, "/fn/dev/slow-body?chunks=4&delay_ms=40").send().await.expect(200);
    assert!(head.cost_pico().is_some(), "the head of a slow body waits for its end: {:?}", head.headers);
    for status in [204, 304] {
        let none = host.dev().get(&format!("/fn/dev/echo?status={status}")).send().await.expect(status);
        assert!(none.body.is_empty());
        assert!(none.cost_pico().is_some(), "{status}: {:?}", none.headers);
    }
    for status in [201, 404, 418, 503] {
        let own = host.dev().get(&format!("/fn/dev/echo?status={status}")).send().await.expect(status);
        assert_eq!(own.json()["path"], "/", "the guest's own status comes with its own body");
        assert_eq!(own.header("x-wasmeter-error-source"), None);
    }
}

#[tokio::test]
async fn logs_are_kept_and_followed() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.deploy("log", &manifest("log")).await;
    let path = "/api/v1/tenants/dev/functions/log/logs";
    let mut follow = host.dev().get(&format!("{path}?follow=true")).stream().await;
    assert_eq!(follow.status(), 200);
    let answer = host.dev().get("/fn/dev/log?lines=2").send().await.expect(200);
    let mut followed = String::new();
    while followed.matches('\n').count() < 4 {
        let piece = tokio::time::timeout(Duration::from_secs(5), follow.chunk()).await.expect("in time");
        followed.push_str(&String::from_utf8_lossy(&piece.expect("a body").expect("a piece")));
    }
    let kept = host.dev().get(path).send().await.expect(200);
    let mut lines: Vec<serde_json::Value> =
        kept.text().lines().map(|l| serde_json::from_str(l).expect("a line is JSON")).collect();
    assert_eq!(kept.text(), followed);
    assert!(
        lines.iter().all(|l| l["invocation"] == answer.invocation() && l["time"].is_string()),
        "{lines:?}"
    );
    lines.sort_by_key(|l| (l["stream"].to_string(), l["text"].to_string()));
    let texts: Vec<_> = lines.iter().map(|l| (l["stream"].as_str(), l["text"].as_str())).collect();
    let want = [("stderr", 0), ("stderr", 1), ("stdout", 0), ("stdout", 1)];
    let want = want.map(|(stream, n)| (stream, format!("{stream} line {n}")));
    assert!(texts.iter().zip(&want).all(|(got, want)| *got == (Some(want.0), Some(&want.1))), "{texts:?}");
    assert_eq!(texts.len(), 4);
    // A flood is cut, not kept.
    host.dev().get("/fn/dev/log?lines=20000&width=200").send().await.expect(200);
    let flood = host.dev().get(path).send().await.expect(200);
    assert!(flood.body.len() < 4 << 20, "{} bytes of log are kept", flood.body.len());
}
