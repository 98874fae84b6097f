//! Models and tensors that mean harm, through the whole host: clear errors, bounded time, and a neighbour that goes on.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wasmeter_testkit::{Answer, Client, Host, component, manifest, model_card, repository};

/// A model that the device's own tests use.
fn hostile(name: &str) -> Vec<(String, Vec<u8>)> {
    let path = repository().join("host/crates/device/tests/models").join(format!("{name}.onnx"));
    vec![("model.onnx".to_owned(), std::fs::read(path).unwrap())]
}

/// A host with a tenant beside `dev` that uses a good model of the same worker all the time.
struct Scene {
    host: Host,
    stop: Arc<AtomicBool>,
    neighbour: tokio::task::JoinHandle<usize>,
}

/// Every call of the neighbour succeeds; how many there were.
async fn neighbour(client: Client, stop: Arc<AtomicBool>) -> usize {
    let mut calls = 0;
    while !stop.load(Ordering::Relaxed) {
        let answer = client.get("/fn/other/nn-raw/ok").send().await.expect(200);
        assert_eq!(answer.json()["ok"], true, "{}", answer.text());
        calls += 1;
    }
    calls
}

impl Scene {
    async fn start(models: &[&str]) -> Self {
        let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
        host.push_tiny("mlp").await;
        host.put_tenant("other").await;
        let beside = manifest("nn-raw").public().models(&["mlp"]);
        host.try_deploy("other", component("nn-raw"), &beside).await.expect(201);
        for model in models {
            host.try_push(model, 1, &model_card(model), &hostile(model)).await.expect(201);
        }
        let hasty = manifest("nn-raw").public().limits("deadline = \"1500ms\"").models(models);
        host.deploy("nn-raw", &hasty).await;
        let stop = Arc::new(AtomicBool::new(false));
        let neighbour = tokio::spawn(neighbour(host.anonymous().clone(), Arc::clone(&stop)));
        Self { host, stop, neighbour }
    }

    /// A call with any tensors.
    async fn call(&self, model: &str, tensors: Value) -> Answer {
        let path = format!("/fn/dev/nn-raw?case=any&model={model}");
        let began = Instant::now();
        let answer = self.host.dev().post(&path, tensors.to_string()).send().await;
        assert!(began.elapsed() < Duration::from_secs(10), "{model} took {:?}", began.elapsed());
        answer
    }

    async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        assert!(self.neighbour.await.unwrap() > 0);
        assert!(self.host.term().await.success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_files_are_refused() {
    let scene = Scene::start(&[]).await;
    for (model, words) in [
        ("external", "external files"),
        ("cyclic", "before any node produces it"),
        ("huge-claim", "larger than 2147483648 bytes"),
    ] {
        let answer = scene.host.try_push("bad", 1, &model_card("bad"), &hostile(model)).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "invalid"), "{}", answer.text());
        assert!(answer.message().contains(words), "{model}: {}", answer.message());
        assert_eq!(scene.host.operator().get("/api/v1/models/bad").send().await.status, 404, "it was stored");
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_work_ends_at_the_deadline() {
    let scene = Scene::start(&["endless-loop", "giant-matmul"]).await;
    let endless = json!([["x", "f32", [4], [1, 1, 1, 1]]]);
    let giant = json!([["x", "f32", [1, 1], [1]], ["n", "i64", [2], [12_000, 12_000]]]);
    for (model, tensors) in [("endless-loop", endless), ("giant-matmul", giant)] {
        let answer = scene.call(model, tensors).await;
        assert_eq!(answer.status, 504, "{model}: {}", answer.text());
        assert!(answer.message().contains("1500ms"), "{}", answer.message());
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_tensors_are_clean_errors() {
    let scene = Scene::start(&["tera", "identity-f32"]).await;
    let fails = |answer: Answer, code: &str, words: &str| {
        let json = answer.expect(200).json();
        assert_eq!((&json["ok"], &json["code"]), (&json!(false), &json!(code)), "{json}");
        assert!(json["message"].as_str().unwrap().contains(words), "{json}");
    };
    // 2^40 elements, first as what comes out, then as what is said to go in.
    let tera = scene.call("tera", json!([["n", "i64", [1], [1u64 << 40]]])).await.expect(200).json();
    assert_eq!(tera["ok"], false, "{tera}");
    let claim = json!([["x", "f32", [1 << 20, 1 << 20], [1]]]);
    fails(scene.call("identity-f32", claim).await, "invalid-argument", "");
    // i64 where f32 is due.
    let wrong = json!([["x", "i64", [1, 2], [1, 2]]]);
    fails(scene.call("identity-f32", wrong).await, "invalid-argument", "f32");
    // NaN is a number like any other, and nothing is too.
    let nan = scene.call("identity-f32", json!([["x", "f32", [1, 2], [null, 1]]])).await.expect(200).json();
    assert_eq!((&nan["ok"], &nan["outputs"][0]["values"]), (&json!(true), &json!([null, 1.0])), "{nan}");
    let empty = scene.call("identity-f32", json!([["x", "f32", [0, 2], []]])).await.expect(200).json();
    assert!(empty["ok"] == true || empty["code"] == "invalid-argument", "{empty}");
    scene.end().await;
}
