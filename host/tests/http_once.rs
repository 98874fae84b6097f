//! Idempotency keys: one effect for each key, also after a restart and a crash.

use http::Method;
use wasmeter_testkit::{Answer, Call, Host, manifest, raw};

fn keyed(call: Call, key: &str) -> Call {
    call.header("idempotency-key", key)
}

fn is(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text());
}

#[tokio::test]
async fn a_trigger_with_a_key_runs_once() {
    let mut host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.deploy("echo", &manifest("echo").public()).await;
    host.deploy("trap", &manifest("trap")).await;
    let first = keyed(host.dev().post("/fn/dev/echo/x", "a"), "k1").send().await.expect(200);
    let again = keyed(host.dev().post("/fn/dev/echo/x", "a"), "k1").send().await;
    is(&again, 409, "conflict");
    assert_eq!(again.invocation(), first.invocation(), "the answer names the first invocation");
    assert_eq!(again.json()["invocation_id"], first.invocation());
    assert_eq!(again.header("x-wasmeter-error-source"), Some("platform"));
    for other in [host.dev().post("/fn/dev/echo/x", "b"), host.dev().post("/fn/dev/echo/y", "a")] {
        is(&keyed(other, "k1").send().await, 422, "invalid");
    }
    is(&keyed(host.dev().call(Method::PUT, "/fn/dev/echo/x").body("a"), "k1").send().await, 422, "invalid");
    // A stranger's key, and another key, are other keys.
    keyed(host.anonymous().post("/fn/dev/echo/x", "c"), "k1").send().await.expect(200);
    keyed(host.dev().post("/fn/dev/echo/x", "a"), "k2").send().await.expect(200);
    // A guest's own failure is an effect, too.
    let failed = keyed(host.dev().get("/fn/dev/trap"), "k1").send().await.expect(502);
    let again = keyed(host.dev().get("/fn/dev/trap"), "k1").send().await.expect(409);
    assert_eq!(again.invocation(), failed.invocation());
    // What is refused takes no key.
    is(&keyed(host.dev().post("/fn/dev/echo/x", "a"), "a b").send().await, 400, "malformed");
    let head = "POST /fn/dev/echo HTTP/1.1\r\nhost: x\r\nidempotency-key: k3";
    let large = raw(host.address(), format!("{head}\r\ncontent-length: 1048577\r\n\r\n").as_bytes()).await;
    assert!(large.starts_with("HTTP/1.1 413 ") && large.contains("idempotency-key"), "{large}");
    keyed(host.dev().post("/fn/dev/echo", vec![b'x'; 1 << 20]), "k3").send().await.expect(200);
    // Of many at one time, one runs.
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..12 {
        calls.spawn(keyed(host.dev().post("/fn/dev/echo/x", "many"), "k4").send());
    }
    let mut statuses: Vec<u16> = calls.join_all().await.iter().map(|a| a.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![200], vec![409; 11]].concat());
    // Each that ran was billed, and nothing else.
    assert_eq!(host.receipts_after("dev", 6).await.len(), 6);

    host.kill9();
    host.start().await;
    let again = keyed(host.dev().post("/fn/dev/echo/x", "a"), "k1").send().await;
    is(&again, 409, "conflict");
    assert_eq!(again.invocation(), first.invocation());
}

#[tokio::test]
async fn answers_are_kept_where_the_manifest_says() {
    let mut host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    let kept = |name: &str| manifest(name).section("idempotency", "keep-answers = \"10m\"");
    host.deploy("echo", &kept("echo")).await;
    host.deploy("slow-body", &kept("slow-body")).await;
    let call = |host: &Host| keyed(host.dev().post("/fn/dev/echo?status=201&set=x-own:1", "a"), "k");
    let first = call(&host).send().await.expect(201);
    let again = call(&host).send().await.expect(201);
    assert_eq!((&again.body, again.invocation()), (&first.body, first.invocation()));
    assert_eq!((again.header("idempotency-replayed"), again.header("x-own")), (Some("true"), Some("1")));
    assert_eq!(again.cost_pico(), None, "a replay costs nothing");
    assert_eq!(again.header("content-security-policy"), first.header("content-security-policy"));
    is(&keyed(host.dev().post("/fn/dev/echo?status=201&set=x-own:1", "b"), "k").send().await, 422, "invalid");
    // A streamed answer is not kept.
    let long = || keyed(host.dev().get("/fn/dev/slow-body?chunks=200"), "k");
    long().send().await.expect(200);
    is(&long().send().await, 409, "conflict");
    assert_eq!(host.receipts_after("dev", 2).await.len(), 2);
    host.restart().await;
    assert_eq!(call(&host).send().await.expect(201).body, first.body);
}

#[tokio::test]
async fn changes_of_the_control_api() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    let mint = |body: &str| {
        let call = host.dev().post("/api/v1/token", body.to_owned());
        keyed(call.header("content-type", "application/json"), "k")
    };
    let body = "{\"tenant\": \"dev\", \"scopes\": [\"invoke\"], \"ttl_seconds\": 60}";
    let first = mint(body).send().await;
    assert!(first.status < 300, "{} {}", first.status, first.text());
    let again = mint(body).send().await;
    is(&again, 409, "conflict");
    assert!(!again.text().contains("eyJ"), "a token was kept");
    is(&mint(&body.replace("60", "61")).send().await, 422, "invalid");
    is(
        &keyed(host.anonymous().post("/api/v1/token", body.to_owned()), "k").send().await,
        401,
        "unauthenticated",
    );
}
