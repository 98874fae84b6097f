//! Versions, labels, owners and memory of models, on a real host with a real engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use wasmeter_testkit::{Answer, Call, Host, component, manifest, model_card, tiny_model};

const PROGRAM: &str = env!("CARGO_BIN_EXE_wasmeter");

/// A version of any model.
fn form(call: Call, model: &str, bytes: &[u8]) -> Call {
    let (boundary, mut body) = ("wasmeter-test", Vec::new());
    for (name, content) in [("card", model_card(model).as_bytes()), ("model.onnx", bytes)] {
        let head = format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    call.header("content-type", &format!("multipart/form-data; boundary={boundary}")).body(body)
}

async fn push(host: &Host, model: &str, version: u32, bytes: &[u8]) -> Answer {
    let path = format!("/api/v1/models/{model}/versions/{version}");
    form(host.operator().call(Method::PUT, &path), model, bytes).send().await
}

async fn state(host: &Host, model: &str, version: u32) -> String {
    let answer = host.operator().get(&format!("/api/v1/models/{model}")).send().await.expect(200).json();
    let versions = answer["versions"].as_array().expect("versions").clone();
    let found = versions.iter().find(|v| v["version"] == version).expect("the version");
    found["state"].as_str().expect("a state").to_owned()
}

async fn label(host: &Host, model: &str, label: &str, version: u32) {
    let path = format!("/api/v1/models/{model}/labels/{label}");
    drop(
        host.operator()
            .call(Method::POST, &path)
            .json(&json!({ "version": version }))
            .send()
            .await
            .expect(200),
    );
}

/// The compute of `nn-raw` gave outputs.
fn good(answer: &Answer) {
    assert_eq!((answer.status, &answer.json()["ok"]), (200, &json!(true)), "{}", answer.text());
}

/// The model was not found.
fn absent(answer: &Answer) {
    let json = answer.json();
    assert_eq!((&json["ok"], &json["code"]), (&json!(false), &json!("not-found")), "{}", answer.text());
}

/// Which versions the receipts of the tenant `dev` name.
async fn versions_used(host: &Host, calls: usize) -> Vec<u64> {
    let receipts = host.receipts_after("dev", calls).await;
    let version = |r: &Value| r["record"]["models"].as_array()?.first()?["version"].as_u64();
    receipts.iter().filter_map(version).collect()
}

#[tokio::test]
async fn versions_are_swapped_under_load_without_a_failed_call() {
    let mut host = Host::builder(PROGRAM).start().await;
    drop(push(&host, "mlp", 1, &tiny_model("mlp")).await.expect(201));
    label(&host, "mlp", "stable", 1).await;
    host.deploy("nn-raw", &manifest("nn-raw").public().models(&["mlp"])).await;
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (client, stop, calls) = (host.anonymous().clone(), Arc::clone(&stop), Arc::clone(&calls));
        callers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                good(&client.get("/fn/dev/nn-raw/ok").send().await);
                calls.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for version in 2..8 {
        drop(push(&host, "mlp", version, &tiny_model("mlp")).await.expect(201));
        label(&host, "mlp", "stable", version).await;
        let old = format!("/api/v1/models/mlp/versions/{}", version - 1);
        drop(host.operator().delete(&old).send().await.expect(204));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::Relaxed);
    callers.join_all().await;
    let calls = usize::try_from(calls.load(Ordering::Relaxed)).unwrap();
    let mut used = versions_used(&host, calls).await;
    assert_eq!(used.len(), calls, "every call is booked with its version");
    used.sort_unstable();
    used.dedup();
    assert!(used.len() > 1, "{used:?}");
    assert!(host.term().await.success());
}

#[tokio::test]
async fn names_mean_what_the_labels_say() {
    let mut host = Host::builder(PROGRAM).start().await;
    for version in 1..=3 {
        drop(push(&host, "mlp", version, &tiny_model("mlp")).await.expect(201));
    }
    host.deploy("nn-raw", &manifest("nn-raw").public().models(&["mlp"])).await;
    let call = |model: &str| host.dev().get(&format!("/fn/dev/nn-raw/ok?model={model}")).send();
    good(&call("mlp").await);
    label(&host, "mlp", "stable", 1).await;
    label(&host, "mlp", "canary", 2).await;
    for model in ["mlp", "mlp@canary", "mlp@3"] {
        good(&call(model).await);
    }
    absent(&call("mlp@4").await);
    absent(&call("mlp@none").await);
    assert_eq!(versions_used(&host, 6).await, [3, 1, 2, 3]);
    assert!(host.term().await.success());
}

#[tokio::test]
async fn a_small_budget_evicts_and_loads_again() {
    let config = |budget: u64| {
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin-listen = \"127.0.0.1:0\"\n[engines]\nmodel-memory = \"{budget}B\"\n"
        )
    };
    let mut host = Host::builder(PROGRAM).config(&config(1 << 30)).start().await;
    let (identity, mlp) = (tiny_model("identity-f32"), tiny_model("mlp"));
    let took = |answer: &Answer| answer.json()["memory"].as_u64().expect("what it takes");
    let first = push(&host, "mlp", 1, &mlp).await.expect(201);
    let second = push(&host, "identity-f32", 1, &identity).await.expect(201);
    let (first, second) = (took(&first), took(&second));
    assert!(first >= mlp.len() as u64 && second >= identity.len() as u64);
    drop(host.operator().delete("/api/v1/models/identity-f32/versions/1").send().await.expect(204));
    assert!(host.term().await.success());
    // Room for each, not for both: what loads take differs by some pages from time to time.
    let budget = first.max(second) + first.min(second) / 4;
    let file = host.data().parent().expect("its folder").join("server.toml");
    std::fs::write(file, config(budget)).expect("the configuration is written");
    host.start().await;
    assert_eq!(state(&host, "mlp", 1).await, "ready");
    drop(push(&host, "identity-f32", 1, &identity).await.expect(201));
    assert_eq!(state(&host, "mlp", 1).await, "evicted");
    assert_eq!(state(&host, "identity-f32", 1).await, "ready");
    host.deploy("nn-raw", &manifest("nn-raw").public().models(&["mlp", "identity-f32"])).await;
    good(&host.dev().get("/fn/dev/nn-raw/ok").send().await);
    assert_eq!(state(&host, "mlp", 1).await, "ready");
    assert_eq!(state(&host, "identity-f32", 1).await, "evicted");
    assert!(host.term().await.success());
}

#[tokio::test]
async fn a_tenants_model_is_private_and_shadows() {
    let mut host = Host::builder(PROGRAM).start().await;
    drop(push(&host, "mlp", 5, &tiny_model("mlp")).await.expect(201));
    drop(host.operator().put("/api/v1/tenants/other", "").send().await.expect(201));
    host.deploy("nn-raw", &manifest("nn-raw").public().models(&["mlp"])).await;
    let raw = component("nn-raw");
    let other = host.try_deploy("other", raw, &manifest("nn-raw").public().models(&["mlp"])).await;
    assert_eq!(other.status, 201, "{}", other.text());
    good(&host.dev().get("/fn/dev/nn-raw/ok").send().await);

    let own = "/api/v1/tenants/dev/models/mlp/versions/1";
    let pushed = form(host.dev().call(Method::PUT, own), "mlp", &tiny_model("mlp")).send().await.expect(201);
    assert_eq!(
        (pushed.json()["state"].as_str(), pushed.json()["tenant"].as_str()),
        (Some("ready"), Some("dev"))
    );
    good(&host.dev().get("/fn/dev/nn-raw/ok").send().await);
    assert_eq!(versions_used(&host, 2).await, [5, 1], "its own model shadows the operator's");
    // Nobody else meets it: the other tenant's calls go to the operator's.
    good(&host.anonymous().get("/fn/other/nn-raw/ok").send().await);
    let receipts = host.receipts_after("other", 1).await;
    assert_eq!(receipts[0]["record"]["models"][0]["version"], 5);

    // After a restart it is loaded when it is first used.
    host.restart().await;
    let show = host.dev().get("/api/v1/tenants/dev/models/mlp").send().await.expect(200).json();
    assert_eq!(show["versions"][0]["state"], "evicted");
    good(&host.dev().get("/fn/dev/nn-raw/ok").send().await);
    let show = host.dev().get("/api/v1/tenants/dev/models/mlp").send().await.expect(200).json();
    assert_eq!(show["versions"][0]["state"], "ready");

    // What is not granted is not there.
    let grants = "/api/v1/models/mlp/grants";
    drop(
        host.operator()
            .call(Method::PUT, grants)
            .json(&json!({ "tenants": ["dev"] }))
            .send()
            .await
            .expect(200),
    );
    absent(&host.anonymous().get("/fn/other/nn-raw/ok").send().await);
    drop(host.dev().delete(own).send().await.expect(204));
    good(&host.dev().get("/fn/dev/nn-raw/ok").send().await);
    assert!(host.term().await.success());
}

#[tokio::test]
async fn a_version_that_failed_is_pushed_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = folder.path().join("libonnxruntime.so");
    let real = wasmeter_device::find_onnxruntime(None).expect("the engine");
    let put = || std::os::unix::fs::symlink(&real, &library).expect("a link");
    put();
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin-listen = \"127.0.0.1:0\"\n[engines]\nonnxruntime = {:?}\n",
        library.display().to_string()
    );
    let mut host = Host::builder(PROGRAM).config(&config).allow_log("model not loaded").start().await;
    drop(push(&host, "mlp", 1, &tiny_model("mlp")).await.expect(201));
    host.deploy("nn-raw", &manifest("nn-raw").public().models(&["mlp"])).await;
    assert!(host.term().await.success());
    std::fs::remove_file(&library).expect("the link");
    host.start().await;
    let why = state(&host, "mlp", 1).await;
    assert!(why.starts_with("failed: ") && why.contains("libonnxruntime.so"), "{why}");
    assert_eq!(host.dev().get("/fn/dev/nn-raw/status?case=ok").send().await.status, 503);

    // Still not: the same answer, and the version stays as it is.
    let again = push(&host, "mlp", 1, &tiny_model("mlp")).await;
    assert_eq!((again.status, again.code()), (503, "unavailable".to_owned()), "{}", again.text());
    assert_eq!(state(&host, "mlp", 1).await, why);
    // Neither other bytes nor another card take its place.
    put();
    let other = push(&host, "mlp", 1, &tiny_model("identity-f32")).await;
    assert_eq!((other.status, other.code()), (409, "conflict".to_owned()), "{}", other.text());
    let card = model_card("mlp") + "[batching]\nmax-batch = 4\n";
    let other = host.try_push("mlp", 1, &card, &[("model.onnx".to_owned(), tiny_model("mlp"))]).await;
    assert_eq!((other.status, other.code()), (409, "conflict".to_owned()), "{}", other.text());
    assert_eq!(state(&host, "mlp", 1).await, why);

    // The same bytes: tried once more, and good.
    let again = push(&host, "mlp", 1, &tiny_model("mlp")).await.expect(200);
    assert_eq!(again.json()["state"], "ready");
    good(&host.dev().get("/fn/dev/nn-raw/ok").send().await);
    assert_eq!(push(&host, "mlp", 1, &tiny_model("mlp")).await.expect(200).json()["state"], "ready");
    assert_eq!(
        host.try_push("mlp", 1, &card, &[("model.onnx".to_owned(), tiny_model("mlp"))]).await.status,
        409
    );
    let max = host.operator().get("/api/v1/models/mlp").send().await.expect(200).json();
    assert_eq!(max["versions"][0]["max_batch"], 1);
    assert!(host.term().await.success());
}
