//! Every version of wasi:nn, core modules, and computes under way, on the real host with real guests.

use serde_json::{Value, json};
use wasmeter_testkit::{Answer, Host, component, manifest, repository};

const MODELS: [&str; 3] = ["mlp", "identity-f32", "slow"];

async fn host(guests: &[&str]) -> Host {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    for model in MODELS {
        host.push_tiny(model).await;
    }
    for guest in guests {
        host.deploy(guest, &manifest(guest).public().models(&MODELS)).await;
    }
    host
}

async fn case(host: &Host, guest: &str, query: &str) -> Value {
    host.anonymous().get(&format!("/fn/dev/{guest}?case={query}")).send().await.expect(200).json()
}

fn fails(answer: &Answer, status: u16, code: &str, part: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text());
    assert!(answer.message().contains(part), "{}", answer.message());
}

#[tokio::test]
async fn guests_of_older_versions_run_unchanged() {
    let guests = ["nn-2024-06", "nn-2024-08"];
    let host = host(&guests).await;
    for guest in guests {
        let value = json!({ "dimensions": [1, 2], "type": "TensorType::Fp32", "values": [1.5, -2.0] });
        for name in ["ok", "by-index"] {
            let answer = case(&host, guest, name).await;
            assert_eq!((&answer["ok"], &answer["value"]), (&json!(true), &value), "{guest}: {answer}");
        }
        assert_eq!(case(&host, guest, "again").await["value"]["values"], json!([2.0, 3.0]));
        for (name, code) in [
            ("not-computed", "UnsupportedOperation"),
            ("unknown-output", "InvalidArgument"),
            ("unknown-input", "InvalidArgument"),
            ("short-bytes", "InvalidArgument"),
            ("load", "Security"),
            ("load-tensorflow", "InvalidEncoding"),
            ("load-tpu", "UnsupportedOperation"),
            ("load-nothing", "InvalidArgument"),
            ("by-name", "NotFound"),
        ] {
            let answer = case(&host, guest, name).await;
            let told = answer["code"].as_str().unwrap_or_default();
            assert!(told.ends_with(code), "{guest} {name}: {answer}");
        }
        let contexts = case(&host, guest, "contexts").await;
        assert_eq!(contexts["value"]["count"], 64, "{contexts}");
    }
}

#[tokio::test]
async fn the_published_guest_crate_works_unchanged() {
    let host = host(&["nn-p1"]).await;
    let ok = case(&host, "nn-p1", "ok").await;
    assert_eq!((&ok["ok"], &ok["value"]["bytes"]), (&json!(true), &json!(40)), "{ok}");
    let steps = case(&host, "nn-p1", "steps").await;
    assert_eq!(steps["value"]["values"], json!([3.0, 4.0, 5.0]), "{steps}");
    let echo = host.anonymous().post("/fn/dev/nn-p1?case=echo", "[1.5, -2, 0.25]").send().await;
    assert_eq!(echo.expect(200).json()["value"]["values"], json!([1.5, -2.0, 0.25]));
    for (name, told) in [
        ("load", "Unsupported Operation"),
        ("load-auto", "Unsupported Operation"),
        ("load-tpu", "Unsupported Operation"),
        ("load-tensorflow", "Invalid Encoding"),
        ("by-name", "Not Found"),
        ("wrong-shape", "invalid argument"),
        ("no-input", "invalid argument"),
        ("no-output", "invalid argument"),
        ("not-computed", "Unsupported Operation"),
        ("small-buffer", "Too Large"),
    ] {
        let answer = case(&host, "nn-p1", name).await;
        assert!(answer["error"].as_str().unwrap_or_default().contains(told), "{name}: {answer}");
    }
    for name in ["graphs", "contexts"] {
        let answer = case(&host, "nn-p1", name).await;
        let full = answer["value"]["error"].as_str().unwrap_or_default();
        assert!(full.contains("Too Large") && answer["value"]["count"] == 64, "{answer}");
    }
}

#[tokio::test]
async fn bad_handles_and_pointers_of_core_modules_are_refused() {
    let host = host(&["nn-p1"]).await;
    for (name, number) in [
        ("raw-handle", 1),
        ("raw-negative-handle", 1),
        ("raw-context", 1),
        ("raw-encoding", 1),
        ("raw-target", 1),
        ("raw-no-parts", 1),
        ("raw-many-parts", 7),
        ("raw-parts-outside", 1),
        ("raw-name-outside", 1),
        ("raw-name-huge", 1),
        ("raw-name-no-text", 1),
        ("raw-type", 1),
        ("raw-dims-outside", 1),
        ("raw-dims-unaligned", 1),
        ("raw-dims-many", 1),
        ("raw-data-outside", 1),
        ("raw-data-huge", 7),
        ("raw-data-short", 1),
        ("raw-output-outside", 1),
    ] {
        let answer = case(&host, "nn-p1", name).await;
        assert_eq!(answer["value"], number, "{name}: {answer}");
    }
    for name in ["raw-result-outside", "raw-tensor-outside"] {
        let answer = host.anonymous().get(&format!("/fn/dev/nn-p1?case={name}")).send().await;
        fails(&answer, 502, "guest_failed", "");
    }
    // The host and its device are as before.
    assert_eq!(case(&host, "nn-p1", "ok").await["ok"], true);
}

#[tokio::test]
async fn a_core_module_is_a_cgi_program() {
    let host = host(&[]).await;
    let told = manifest("nn-p1").limits("response-body = \"2MiB\"").section("env", "GREETING = \"hi\"");
    host.deploy("nn-p1", &told).await;
    let dev = host.dev();
    let call = dev.get("/fn/dev/nn-p1/a/b%20c?case=env&x=1");
    let env = call.header("x-one", "a").header("proxy", "http://evil/").send().await.expect(200);
    assert_eq!(env.header("content-type"), Some("application/json"));
    let env = env.json();
    for (name, value) in [
        ("REQUEST_METHOD", "GET"),
        ("PATH_INFO", "/a/b%20c"),
        ("QUERY_STRING", "case=env&x=1"),
        ("HTTP_X_ONE", "a"),
        ("GREETING", "hi"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
    ] {
        assert_eq!(env[name], value, "{name}: {env}");
    }
    let told = env.as_object().expect("an object");
    assert!(!told.contains_key("HTTP_PROXY") && !told.contains_key("HTTP_AUTHORIZATION"), "{env}");

    let body = vec![b'q'; 300_000];
    let call = dev.post("/fn/dev/nn-p1?case=body", body.clone()).header("content-type", "a/b");
    let answer = call.send().await.expect(203);
    assert_eq!(
        (answer.header("content-type"), answer.header("x-length")),
        (Some("text/x-echo"), Some("300000"))
    );
    assert_eq!(answer.body, body);
    let chunked = dev.post("/fn/dev/nn-p1?case=body", body.clone()).chunked().send().await.expect(203);
    assert_eq!(chunked.body, body);

    let plain = dev.get("/fn/dev/nn-p1?case=plain").send().await.expect(200);
    assert_eq!(
        (plain.text(), plain.header("content-type")),
        ("hello from a command\n", Some("text/plain; charset=utf-8"))
    );
    assert!(plain.header("x-wasmeter-fuel").is_some_and(|f| f.parse::<u64>().is_ok_and(|f| f > 0)));
    let silent = dev.get("/fn/dev/nn-p1?case=silent").send().await.expect(200);
    assert!(silent.body.is_empty());
    assert_eq!(
        dev.get("/fn/dev/nn-p1?case=big&bytes=1000000").send().await.expect(200).body.len(),
        1_000_000
    );

    fails(&dev.get("/fn/dev/nn-p1?case=exit").send().await, 502, "guest_failed", "exited with status 3");
    fails(&dev.get("/fn/dev/nn-p1?case=trap").send().await, 502, "guest_failed", "trapped");
    let large = dev.get("/fn/dev/nn-p1?case=big&bytes=3000000").try_stream().await.expect("a head");
    assert!(
        large.status() == 502 || large.rest().await.is_err(),
        "an answer over the limit does not end well"
    );

    // Standard error is the function's log.
    let log = host.dev().get("/api/v1/tenants/dev/functions/nn-p1/logs").send().await.expect(200);
    assert!(log.text().contains("case plain"), "{}", log.text());
}

#[tokio::test]
async fn limits_of_core_modules_hold() {
    let host = host(&[]).await;
    let short = manifest("nn-p1").public().limits("fuel = 20000\nrequest-body = \"1KiB\"");
    host.deploy("nn-p1", &short).await;
    let answer = host.anonymous().get("/fn/dev/nn-p1?case=env").send().await;
    fails(&answer, 502, "guest_failed", "limits.fuel");
    host.deploy("nn-p1", &manifest("nn-p1").public().limits("request-body = \"1KiB\"")).await;
    let answer = host.anonymous().post("/fn/dev/nn-p1?case=body", vec![0; 5000]).chunked().send().await;
    assert_eq!(answer.status, 413, "{}", answer.text());
}

#[tokio::test]
async fn a_module_that_is_no_command_is_refused() {
    let host = host(&[]).await;
    let library =
        std::fs::read(repository().join("functions/_fixtures/bad/core-module.wasm")).expect("the fixture");
    let answer = host.try_deploy("dev", library, &manifest("library")).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(answer.message().contains("core module"), "{}", answer.message());
    // A command whose imports nobody has: the name of one is spoilt.
    let mut wasm = component("nn-p1");
    let name = b"wasi_ephemeral_nn";
    let at = wasm.windows(name.len()).position(|w| w == name).expect("the import's module");
    wasm[at] = b'x';
    let answer = host.try_deploy("dev", wasm, &manifest("alien")).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(answer.message().contains("imports something that nobody provides"), "{}", answer.message());
}

#[tokio::test]
async fn several_computes_of_one_guest_are_under_way() {
    let host = host(&["nn-inflight"]).await;
    let ok = case(&host, "nn-inflight", "ok&n=8").await;
    assert_eq!(ok["value"]["values"], json!([7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]), "{ok}");
    assert_eq!(case(&host, "nn-inflight", "drop").await["value"]["values"], json!([2.0]));
    let many = case(&host, "nn-inflight", "many&size=64&rounds=1").await;
    assert_eq!(
        (&many["value"]["started"], &many["value"]["code"]),
        (&json!(32), &json!("too-large")),
        "{many}"
    );
    let bad = case(&host, "nn-inflight", "bad").await;
    assert_eq!((&bad["ok"], &bad["code"]), (&json!(false), &json!("invalid-argument")), "{bad}");
    let first = case(&host, "nn-inflight", "first&size=1024&rounds=2").await;
    assert_eq!((&first["value"]["at-once"], &first["ok"]), (&json!(false), &json!(true)), "{first}");
    // A guest that does not wait is answered at once; what ran is charged, and the device goes on.
    let left = case(&host, "nn-inflight", "leave&n=4&size=512").await;
    assert_eq!(left["value"]["started"], 4, "{left}");
    assert_eq!(case(&host, "nn-inflight", "ok").await["ok"], true);
}
