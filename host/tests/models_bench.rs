//! `models bench` on a real host with a real engine: figures, advice, and that nobody pays.

use http::Method;
use serde_json::{Value, json};
use wasmeter_testkit::{Answer, Client, Host, fixture, manifest};

const PROGRAM: &str = env!("CARGO_BIN_EXE_wasmeter");

async fn bench(client: &Client, models: &str, asked: Value) -> Answer {
    let path = format!("{models}/versions/1/bench");
    client.call(Method::POST, &path).json(&asked).send().await
}

/// Busy nanoseconds of a meter over all devices.
async fn total(host: &Host, name: &str) -> u64 {
    let metrics = host.admin().get("/metrics").send().await.expect(200);
    let lines =
        metrics.text().lines().filter(|line| line.starts_with(&format!("wasmeter_device_{name}_ns_total{{")));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[tokio::test]
async fn batches_are_measured_and_nobody_pays() {
    let mut host = Host::builder(PROGRAM).start().await;
    host.push_tiny("mlp").await;
    host.push_tiny("slow").await;
    let (charged, platform) = (total(&host, "charged").await, total(&host, "platform").await);
    let asked = json!({ "max_batch": 6, "seconds": 20 });
    let report = bench(host.operator(), "/api/v1/models/mlp", asked).await.expect(200).json();
    assert_eq!(report["device"], "cpu:0");
    assert_eq!(report["inputs"], json!(["x f32 [1, 784]"]));
    let steps = report["steps"].as_array().expect("steps");
    assert_eq!(steps.iter().map(|step| step["rows"].as_u64()).collect::<Vec<_>>(), [1, 2, 4, 6].map(Some));
    let mut measured = 0;
    for step in steps {
        for figure in ["busy_ns", "latency_ns"] {
            let [min, median, max] = ["min", "median", "max"].map(|f| step[figure][f].as_u64().expect("ns"));
            assert!(0 < min && min <= median && median <= max, "{step}");
        }
        measured += step["busy_ns"]["min"].as_u64().unwrap() * step["runs"].as_u64().unwrap();
    }
    let recommended = report["recommended"]["max_batch"].as_u64().expect("a number");
    assert!([1, 2, 4, 6].contains(&recommended), "{report}");
    assert_eq!(total(&host, "charged").await, charged, "nobody is charged");
    assert!(total(&host, "platform").await >= platform + measured, "the platform is, for all of it");
    assert_eq!(
        total(&host, "busy").await,
        total(&host, "charged").await + total(&host, "platform").await,
        "conservation"
    );

    // Rows of this one cannot share a run: batch 1, and why.
    let values = json!({ "values": { "size": 16, "rounds": 1 }, "seconds": 5 });
    let alone = bench(host.operator(), "/api/v1/models/slow", values).await.expect(200).json();
    assert_eq!(alone["steps"].as_array().map(Vec::len), Some(1));
    assert!(alone["alone"].as_str().is_some_and(|why| !why.is_empty()), "{alone}");
    assert_eq!(alone["recommended"]["max_batch"], 1);
    assert!(host.term().await.success());
}

#[tokio::test]
async fn wrong_questions_are_refused_and_tenants_measure_their_own() {
    let mut host = Host::builder(PROGRAM).start().await;
    host.push_tiny("identity-f32").await;
    let models = "/api/v1/models/identity-f32";
    let ask = |asked: Value| bench(host.operator(), models, asked);
    let open = ask(json!({})).await;
    assert_eq!((open.status, open.message().contains("\"columns\"")), (422, true), "{}", open.text());
    let sized = json!({ "dimensions": { "columns": 8 }, "max_batch": 2, "seconds": 5 });
    assert_eq!(ask(sized.clone()).await.expect(200).json()["inputs"], json!(["x f32 [1, 8]"]));
    for (asked, status) in [
        (json!({ "dimensions": { "columns": 8, "other": 1 } }), 422),
        (json!({ "dimensions": { "columns": 8 }, "values": { "y": 1 } }), 422),
        (json!({ "dimensions": { "columns": 4_000_000_000u32 } }), 422),
        (json!({ "max_batch": 0 }), 400),
        (json!({ "seconds": 61 }), 400),
        (json!({ "nonsense": 1 }), 400),
    ] {
        assert_eq!(ask(asked.clone()).await.status, status, "{asked}");
    }
    assert_eq!(bench(host.operator(), "/api/v1/models/none", sized.clone()).await.status, 404);
    // The operator's model is not the tenant's to measure; its own is.
    assert_eq!(bench(host.dev(), models, sized.clone()).await.status, 403);
    let own = "/api/v1/tenants/dev/models/tiny";
    assert_eq!(bench(host.dev(), own, json!({})).await.status, 404);
    let files = [("model.onnx".to_owned(), fixture("models/tiny.onnx"))];
    drop(host.push_own("dev", "tiny", &files).await.expect(201));
    let report = bench(host.dev(), own, json!({ "max_batch": 4, "seconds": 10 })).await.expect(200).json();
    assert_eq!(report["steps"].as_array().map(Vec::len), Some(3), "{report}");
    // Calls go on as before.
    host.deploy("nn-raw", &manifest("nn-raw").models(&["identity-f32"])).await;
    drop(host.dev().post("/fn/dev/nn-raw?case=echo", "[1.5]").send().await.expect(200));
    assert!(host.term().await.success());
}
