//! `/metrics`, the OpenAPI document, and what is on which listener.

use std::collections::BTreeMap;

use wasmeter_testkit::{Host, manifest};

/// Samples of the text format 0.0.4, by name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
        let value = value.parse().unwrap_or_else(|_| panic!("no number: {line:?}"));
        assert!(series.starts_with("wasmeter_"), "{line}");
        assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
    }
    samples
}

#[tokio::test]
async fn metrics_add_up_and_name_nobody() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.put_tenant("secretive").await;
    host.push_tiny("mlp").await;
    let manifest = manifest("nn-raw").public().models(&["mlp"]);
    host.try_deploy("secretive", wasmeter_testkit::component("nn-raw"), &manifest).await.expect(201);
    for _ in 0..5 {
        host.anonymous().get("/fn/secretive/nn-raw?case=ok").send().await.expect(200);
    }
    let receipts = host.receipts_after("secretive", 5).await;
    let answer = host.admin().get("/metrics").send().await.expect(200);
    assert!(answer.header("content-type").is_some_and(|t| t.starts_with("text/plain; version=0.0.4")));
    assert!(!answer.text().contains("secretive"), "tenants are never labels");
    let samples = samples(answer.text());
    let device = |what: &str| samples[&format!("wasmeter_device_{what}_ns_total{{device=\"cpu:0\"}}")];
    assert_eq!(device("charged") + device("platform"), device("busy"));
    assert!(device("platform") > 0.0, "the load of the model is the platform's");
    let charged: u64 = receipts.iter().filter_map(|r| r["record"]["models"][0]["device_ns"].as_u64()).sum();
    assert_eq!(device("charged"), charged as f64, "what devices charged is what the ledger has");

    assert_eq!(samples["wasmeter_invocations_total{outcome=\"ok\"}"], 5.0);
    let fuel: u64 = receipts.iter().filter_map(|r| r["record"]["fuel"].as_u64()).sum();
    assert_eq!(samples["wasmeter_fuel_total"], fuel as f64, "and so is what guests burnt");

    assert_eq!(host.anonymous().get("/metrics").send().await.status, 404);
    assert_eq!(host.admin().get("/").send().await.status, 404);
    assert_eq!(host.admin().get("/fn/secretive/nn-raw").send().await.status, 404);
    assert_eq!(host.admin().get("/api/v1/tenants").send().await.status, 404);
    assert_eq!(host.anonymous().get("/healthz").send().await.expect(200).text(), "ok\n");

    let document = host.anonymous().get("/api/openapi.json").send().await.expect(200).json();
    assert!(document["openapi"].as_str().is_some_and(|v| v.starts_with("3.1")));
    let paths = document["paths"].as_object().expect("paths");
    let want = [
        ("/api/v1/tenants", "get"),
        ("/api/v1/tenants/{tenant}", "put"),
        ("/api/v1/tenants/{tenant}/functions", "get"),
        ("/api/v1/tenants/{tenant}/functions/{function}", "put"),
        ("/api/v1/tenants/{tenant}/functions/{function}", "delete"),
        ("/api/v1/tenants/{tenant}/functions/{function}/logs", "get"),
        ("/api/v1/tenants/{tenant}/usage", "get"),
        ("/api/v1/tenants/{tenant}/bill", "get"),
        ("/api/v1/tenants/{tenant}/receipts", "get"),
        ("/api/v1/tenants/{tenant}/receipts/{invocation}", "get"),
        ("/api/v1/models", "get"),
        ("/api/v1/models/{model}/versions/{version}", "put"),
        ("/api/v1/token", "post"),
    ];
    for (path, method) in want {
        assert!(
            paths.get(path).is_some_and(|p| p.get(method).is_some()),
            "{method} {path}: {:?}",
            paths.keys()
        );
    }
}
