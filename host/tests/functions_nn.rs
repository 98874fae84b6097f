//! wasi-nn as a guest sees it: every tensor type, and every wrong call answered with an error code.

use serde_json::{Value, json};
use wasmeter_testkit::{Host, manifest};

const TYPES: [&str; 7] = ["f16", "bf16", "f32", "f64", "u8", "i32", "i64"];

async fn case(host: &Host, query: &str) -> Value {
    host.dev().get(&format!("/fn/dev/nn-raw?{query}")).send().await.expect(200).json()
}

#[tokio::test]
async fn every_tensor_type_and_every_wrong_call() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    let identities = TYPES.map(|t| format!("identity-{t}"));
    let mut allowed: Vec<&str> = identities.iter().map(String::as_str).collect();
    allowed.extend(["mlp"]);
    for name in &allowed {
        host.push_tiny(name).await;
    }
    // On the host, but not on the function's list.
    host.push_tiny("slow").await;
    host.deploy("nn-raw", &manifest("nn-raw").models(&allowed).limits("memory = \"256MiB\"")).await;

    let all = case(&host, "case=all-types").await;
    assert_eq!(
        all["outputs"],
        TYPES.iter().map(|t| ((*t).to_owned(), json!(true))).collect::<Value>(),
        "{all}"
    );
    let numbers = json!([1.5, -2.0, 0.0, 3.25]);
    let echo = host.dev().post("/fn/dev/nn-raw?case=echo", numbers.to_string()).send().await.expect(200);
    assert_eq!(echo.json()["outputs"][0]["values"], numbers);
    let right = case(&host, "case=ok").await;
    assert_eq!(right["outputs"][0]["dimensions"], json!([1, 10]), "{right}");
    // The input by its index, as other hosts of wasi-nn take it.
    assert_eq!(case(&host, "case=ok&input=0").await["outputs"], right["outputs"]);

    let wrong = [
        ("wrong-shape", "compute", "invalid-argument", "784"),
        ("wrong-rank", "compute", "invalid-argument", "784"),
        ("wrong-type", "compute", "invalid-argument", "i64"),
        ("short-bytes", "compute", "invalid-argument", "3"),
        ("long-bytes", "compute", "invalid-argument", "3140"),
        ("unknown-input", "compute", "invalid-argument", "nonsense"),
        ("no-input", "compute", "invalid-argument", "missing"),
        ("twice-named", "compute", "invalid-argument", "twice"),
        ("zero-rows", "compute", "invalid-argument", "empty"),
        ("overflow", "compute", "invalid-argument", ""),
        ("by-name", "load-by-name", "not-found", "nobody-has-this"),
        ("by-name&model=slow", "load-by-name", "not-found", "slow"),
        ("by-name&model=..%2F..%2Fetc%2Fpasswd", "load-by-name", "not-found", ""),
        ("load", "load", "security", ""),
    ];
    for (name, step, code, part) in wrong {
        let answer = case(&host, &format!("case={name}")).await;
        let got = (answer["ok"].as_bool(), answer["step"].as_str(), answer["code"].as_str());
        assert_eq!(got, (Some(false), Some(step), Some(code)), "{name}: {answer}");
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty() && message.contains(part), "{name}: {answer}");
    }
    // A guest that turns the error into its own 502 has answered: it is the guest's, and charged.
    let own = host.dev().get("/fn/dev/nn-raw/status?case=wrong-shape").send().await.expect(502);
    assert_eq!(own.header("x-wasmeter-error-source"), None);
    assert_eq!(host.receipt("dev", &own.invocation()).await["record"]["outcome"], "ok");
    // More tensors than an invocation may hold end the guest, not the host.
    let many = host.dev().get("/fn/dev/nn-raw?case=many-tensors&count=2000000").send().await.expect(502);
    assert_eq!(many.header("x-wasmeter-error-source"), Some("function"), "{}", many.text());
    let huge = host.dev().get("/fn/dev/nn-raw?case=huge&bytes=1048576").send().await.expect(200);
    assert_eq!(huge.json()["outputs"][0]["bytes"], 1 << 20);
    assert_eq!(case(&host, "case=ok").await["outputs"], right["outputs"]);
}

#[tokio::test]
async fn a_model_that_is_not_there() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    let manifest = manifest("nn-raw").models(&["nobody-has-this"]);
    let answer = host.try_deploy("dev", wasmeter_testkit::component("nn-raw"), &manifest).await.expect(422);
    assert_eq!(answer.code(), "invalid");
    assert!(answer.message().contains("nobody-has-this") && answer.message().contains("models list"));
    assert_eq!(host.dev().get("/api/v1/tenants/dev/functions/nn-raw").send().await.status, 404);
}
