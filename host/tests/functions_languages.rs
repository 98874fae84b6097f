//! Functions in JavaScript, Python and C on the real host: what they answer, and what it is billed.

use serde_json::json;
use wasmeter_testkit::{Host, manifest};

/// The first four scores that `tiny` gives for this row are the same in any language.
const ROW: [f32; 8] = [0.5, -1.0, 2.0, 0.0, 1.5, -0.5, 3.0, 1.0];

#[tokio::test]
async fn javascript_and_python_greet_and_ask_models() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.push_tiny("tiny").await;
    let mut scores = Vec::new();
    for name in ["hello-js", "hello-py"] {
        let manifest = manifest(name).models(&["tiny"]).limits("memory = \"64MiB\"");
        host.deploy(name, &manifest.section("env", "GREETING = \"welcome\"")).await;
        let path = format!("/fn/dev/{name}");

        let greeting = host.dev().get(&format!("{path}/a?name=you%20two")).send().await.expect(200);
        assert_eq!(greeting.text(), "welcome you two\n");
        let fuel = greeting.header("x-wasmeter-fuel").and_then(|f| f.parse::<u64>().ok());
        assert!(fuel.is_some_and(|fuel| fuel > 10_000), "{name}: {fuel:?}");
        assert!(greeting.cost_pico().is_some_and(|cost| cost > 0));

        let row = json!({ "row": ROW }).to_string().into_bytes();
        let answer = host.dev().post(&path, row).send().await.expect(200);
        let device = answer.header("x-wasmeter-device-ns").and_then(|ns| ns.parse::<u64>().ok());
        assert!(device.is_some_and(|ns| ns > 0), "{name}: the model's time is billed");
        let answer = answer.json();
        let four: Vec<f64> =
            answer["scores"].as_array().expect("scores").iter().filter_map(|s| s.as_f64()).collect();
        assert_eq!(four.len(), 4, "{answer}");
        assert!((four.iter().sum::<f64>() - 1.0).abs() < 1e-5, "a softmax: {answer}");
        scores.push(four);

        for body in ["", "null", "[]", "{\"row\": [1, 2]}", "{\"row\": \"12345678\u{e4}\"}"] {
            let answer = host.dev().post(&path, body).send().await;
            assert_eq!(answer.status, 400, "{name} {body:?}: {}", answer.text());
            assert!(answer.json()["error"].as_str().is_some_and(|e| e.contains("8 numbers")));
        }
    }
    let same = scores[0].iter().zip(&scores[1]).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(same, "{scores:?}");

    // A model that the manifest does not list: the function says so, and it is the function's own answer.
    for name in ["hello-js", "hello-py"] {
        host.deploy(name, &manifest(name)).await;
        let row = json!({ "row": ROW }).to_string().into_bytes();
        let answer = host.dev().post(&format!("/fn/dev/{name}"), row).send().await;
        assert_eq!(answer.status, 500, "{}", answer.text());
        let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(error.starts_with("not-found") || error.starts_with("security"), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_program_in_c_is_a_function() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.deploy("cgi-c", &manifest("cgi-c").limits("memory = \"32MiB\"")).await;
    let body: Vec<u8> = (0..100_000u32).map(|n| (n % 256) as u8).collect();
    let sum: u64 = body.iter().map(|b| u64::from(*b)).sum();
    let answer = host.dev().post("/fn/dev/cgi-c/?a=b%20c", body).send().await.expect(201);
    assert_eq!(answer.text(), format!("POST a=b%20c 100000 {sum} now\n"));
    assert!(answer.header("x-language").is_some_and(|l| l.starts_with("C2")), "{:?}", answer.headers);
    let fuel = answer.header("x-wasmeter-fuel").and_then(|f| f.parse::<u64>().ok());
    assert!(fuel.is_some_and(|fuel| fuel > 100_000), "it looked at each byte: {fuel:?}");
    let file = host.dev().get("/fn/dev/cgi-c/file").send().await.expect(200);
    assert_eq!(file.text(), "refused\n");
    let ended = host.dev().get("/fn/dev/cgi-c/exit").send().await.expect(502);
    assert!(ended.message().contains("exited with status 3"), "{}", ended.message());
    let log = host.dev().get("/api/v1/tenants/dev/functions/cgi-c/logs").send().await.expect(200);
    assert!(log.text().contains("read 100000 bytes"), "{}", log.text());
}
