//! Receipts whose calls are run again: by `wasmeter verify --replay`, against what the host recorded of them.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use wasmeter_testkit::{Answer, Host, manifest};

fn builder() -> wasmeter_testkit::Builder {
    Host::builder(env!("CARGO_BIN_EXE_wasmeter"))
}

async fn record(host: &Host, on: bool) -> Value {
    let call = host.dev().put("/api/v1/tenants/dev/recording", "").json(&json!({ "on": on }));
    call.send().await.expect(200).json()
}

/// The receipts of the calls, each alone, one a line.
async fn receipts(host: &Host, calls: &[&Answer]) -> PathBuf {
    let mut text = String::new();
    for call in calls {
        let path = format!("/api/v1/tenants/dev/receipts/{}", call.invocation());
        let receipt = loop {
            let answer = host.dev().get(&path).send().await;
            if answer.status == 200 {
                break answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        text.push_str(receipt.text());
    }
    let path = host.data().join("receipts.ndjson");
    std::fs::write(&path, text).unwrap();
    path
}

/// `wasmeter verify --replay`: its status and what it printed.
async fn verify(host: &Host, receipts: &std::path::Path, format: &str) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasmeter"));
    command.args(["verify", "--replay", "--format", format, "--data-dir"]).arg(host.data()).arg(receipts);
    let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    (done.status.code().unwrap(), format!("{said}{}", String::from_utf8_lossy(&done.stderr)))
}

async fn report(host: &Host, receipts: &std::path::Path) -> (i32, Value) {
    let (status, text) = verify(host, receipts, "json").await;
    (status, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
}

#[tokio::test]
async fn recorded_calls_burn_again_what_their_receipts_say() {
    let mut host = builder().start().await;
    host.deploy("echo", &manifest("echo").public()).await;
    let platform = manifest("platform").public().section("config", "greeting = \"hello\"");
    host.deploy("platform", &platform).await;
    host.deploy("command", &manifest("command").public()).await;
    host.deploy("trap", &manifest("trap").public()).await;
    host.deploy("burn", &manifest("burn").public().limits("fuel = 30_000_000")).await;
    host.deploy("cgi-c", &manifest("cgi-c").public()).await;
    let before = host.dev().post("/fn/dev/echo/", "a").send().await;
    assert_eq!(record(&host, true).await, json!({ "on": true, "calls": 0, "bytes": 0 }));

    // Clocks, fuel and prices that the guest is told of; a body in; an environment; traps and the end of fuel.
    let mut calls = Vec::new();
    for _ in 0..3 {
        calls.push(host.dev().get("/fn/dev/platform/?a=b").send().await.expect(200));
    }
    calls.push(host.dev().post("/fn/dev/echo/x", "z".repeat(100_000)).send().await.expect(200));
    calls.push(host.dev().post("/fn/dev/command/body", "some body").send().await.expect(203));
    calls.push(host.dev().get("/fn/dev/command/env").send().await.expect(200));
    calls.push(host.dev().get("/fn/dev/command/trap").send().await);
    calls.push(host.dev().get("/fn/dev/trap/").send().await);
    calls.push(host.dev().get("/fn/dev/burn/?n=1000000000").send().await);
    calls.push(host.dev().post("/fn/dev/cgi-c/", "some body").send().await.expect(201));
    let calls: Vec<&Answer> = calls.iter().collect();
    let file = receipts(&host, &calls).await;
    let (status, found) = report(&host, &file).await;
    assert_eq!(status, 0, "{found:#}");
    assert_eq!(found["replay"], json!({ "agreed": calls.len(), "differ": [], "not_told": [] }));

    // A call from before the switch says that nothing is there.
    let file = receipts(&host, &[calls[0], &before]).await;
    let (status, text) = verify(&host, &file, "text").await;
    assert_eq!(status, 3, "{text}");
    assert!(text.contains("run again   1 calls") && text.contains("1 calls: it was not recorded"), "{text}");

    // Recordings outlive the host, sealed; the switch takes them away.
    host.restart().await;
    let file = receipts(&host, &calls[..2]).await;
    assert_eq!(report(&host, &file).await.0, 0);
    assert_eq!(record(&host, false).await, json!({ "on": false, "calls": 0, "bytes": 0 }));
    assert_eq!(report(&host, &file).await.0, 3);
}

/// The engines of JavaScript and Python are part of the component: what they do is fuel, and what they ask of the host while they
/// start is of the call.
#[tokio::test]
async fn calls_of_javascript_and_python_burn_again_what_their_receipts_say() {
    let host = builder().start().await;
    host.push_tiny("tiny").await;
    record(&host, true).await;
    for name in ["hello-js", "hello-py"] {
        let manifest = manifest(name).limits("memory = \"64MiB\"").models(&["tiny"]);
        host.deploy(name, &manifest.section("env", "GREETING = \"welcome\"")).await;
        let path = format!("/fn/dev/{name}");
        let mut calls = Vec::new();
        // The first call of a component, and later ones; a query and a body that it parses; a long one; a method that it refuses.
        for who in ["", "?name=you%20two", "?name=caf%C3%A9"] {
            calls.push(host.dev().get(&format!("{path}/a{who}")).send().await.expect(200));
        }
        let bodies = ["", "null", "{\"row\": [1, 2]}", "{\"row\": \"12345678\u{e4}\"}"];
        for body in bodies.map(str::to_owned).into_iter().chain([format!("[{}1]", "1,".repeat(20_000))]) {
            calls.push(host.dev().post(&path, body).send().await.expect(400));
        }
        calls.push(host.dev().put(&path, "x").send().await.expect(405));
        // Asking a model is asking a model in any language.
        let asked = host.dev().post(&path, "{\"row\": [1, 2, 3, 4, 5, 6, 7, 8]}").send().await.expect(200);
        let calls: Vec<&Answer> = calls.iter().chain([&asked]).collect();
        let file = receipts(&host, &calls).await;
        let (status, found) = report(&host, &file).await;
        let replay = &found["replay"];
        assert_eq!((status, &replay["differ"]), (3, &json!([])), "{name}: {found:#}");
        assert_eq!(replay["agreed"], calls.len() - 1, "{name}: {found:#}");
        let untold = replay["not_told"].as_array().unwrap();
        assert_eq!((untold.len(), &untold[0]["why"]), (1, &json!("it called wasi:nn")), "{name}: {found:#}");
    }
}

#[tokio::test]
async fn what_cannot_be_run_again_says_why() {
    let host = builder().start().await;
    host.deploy("keeper", &manifest("keeper").public().section("keyvalue", "allow = [\"default\"]")).await;
    host.deploy("echo", &manifest("echo").public()).await;
    record(&host, true).await;
    let kept = host.dev().get("/fn/dev/keeper/get?key=a").send().await.expect(200);
    let large = host.dev().post("/fn/dev/echo/", "z".repeat(300_000)).send().await.expect(200);
    let file = receipts(&host, &[&kept, &large]).await;
    let (status, found) = report(&host, &file).await;
    assert_eq!(status, 3);
    let untold = found["replay"]["not_told"].as_array().unwrap();
    let why: Vec<_> = untold.iter().map(|u| u["why"].as_str().unwrap()).collect();
    assert_eq!(why, ["it called wasi:keyvalue", "its body had no declared length, or more than 256 KiB"]);
    // Nothing of them is kept but that.
    let path = |call: &Answer| format!("/api/v1/tenants/dev/recordings/{}", call.invocation());
    let recording = host.dev().get(&path(&kept)).send().await.expect(200).json();
    assert!(recording["call"].is_null(), "{recording}");
    // It is for those who may change the functions, and of the tenant.
    let reader = host.anonymous().with_token(&host.mint("dev", &["read", "invoke"], 60).await);
    assert_eq!(reader.get(&path(&kept)).send().await.status, 403);
    host.put_tenant("stranger").await;
    let stranger = host.anonymous().with_token(&host.mint("stranger", &["deploy", "read"], 60).await);
    assert_eq!(stranger.get(&path(&kept)).send().await.status, 404);
}

/// A host that claims another fuel than a call burns: it signs what it likes, and the second run does not agree.
#[tokio::test]
async fn a_receipt_of_more_fuel_than_the_call_burns_is_found() {
    let host = builder().start().await;
    host.deploy("platform", &manifest("platform").public()).await;
    record(&host, true).await;
    let dear = host.dev().get("/fn/dev/platform/flood?lines=300").send().await.expect(200);
    let cheap = host.dev().get("/fn/dev/platform/log").send().await.expect(200);
    let file = receipts(&host, &[&dear]).await;
    assert_eq!(report(&host, &file).await.0, 0);

    // An edited receipt does not get so far.
    let text = std::fs::read_to_string(&file).unwrap();
    let fuel = dear.header("x-wasmeter-fuel").unwrap();
    let edited = text.replacen(&format!("\"fuel\":{fuel}"), "\"fuel\":1", 1);
    assert_ne!(edited, text);
    std::fs::write(&file, edited).unwrap();
    let (status, said) = verify(&host, &file, "text").await;
    assert!(status == 1 && said.contains("refused") && !said.contains("run again"), "{said}");

    // Booked with the fuel of the first, but the request on record is the second's: as if the host had added to it.
    let path = |call: &Answer| format!("/api/v1/tenants/dev/recordings/{}", call.invocation());
    let dear_is = host.dev().get(&path(&dear)).send().await.expect(200).json();
    let mut claimed = host.dev().get(&path(&cheap)).send().await.expect(200).json();
    claimed["invocation"] = dear_is["invocation"].clone();
    std::fs::write(&file, text).unwrap();
    let liar = Liar::before(&host, claimed).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasmeter"));
    command.args(["verify", "--replay", "--format", "json", "--url", &liar.url]).arg(&file);
    let token = std::fs::read_to_string(host.data().join("dev-token")).unwrap();
    command.env("WASMETER_TOKEN", token.trim());
    let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let found: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((done.status.code(), &found["ok"]), (Some(1), &false.into()), "{found:#}");
    let differ = &found["replay"]["differ"][0];
    assert_eq!(differ["receipt_fuel"].to_string(), fuel);
    assert_eq!(differ["replay_fuel"].to_string(), cheap.header("x-wasmeter-fuel").unwrap());
}

/// Passes a host on, but for recordings, of which it has its own.
struct Liar {
    url: String,
}

impl Liar {
    async fn before(host: &Host, recording: Value) -> Self {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let dev = host.dev().clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap();
                let body = if path.contains("/recordings/") {
                    recording.to_string().into_bytes()
                } else {
                    dev.get(path).send().await.expect(200).body.to_vec()
                };
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
            }
        });
        Self { url }
    }
}
