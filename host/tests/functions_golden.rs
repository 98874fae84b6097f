//! The shipped functions against the answers of the Python references, and the bill for asking.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use wasmeter_testkit::{Answer, Host, cache, manifest, model, repository};

const NAMES: [(&str, &str); 3] =
    [("classify", "efficientnet-lite0"), ("filetype", "magika"), ("similar", "minilm")];

fn folder(name: &str) -> PathBuf {
    repository().join("functions").join(name).join("tests/golden")
}

fn golden(name: &str) -> Value {
    let text = std::fs::read(folder(name).join(format!("{name}.json"))).expect("the golden file");
    serde_json::from_slice(&text).expect("the golden file is JSON")
}

/// The request of a case, as `functions/reference/post.py` makes it.
fn request(name: &str, case: &Value) -> Vec<u8> {
    if let Some(text) = case["base64"].as_str() {
        return BASE64_STANDARD.decode(text).expect("base64");
    }
    if case.get("request").is_some() {
        return case["request"].to_string().into_bytes();
    }
    let path = match case["file"].as_str() {
        Some(file) => folder(name).join(file),
        None => cache().join("samples").join(case["sample"].as_str().expect("file or sample")),
    };
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn close(got: &Value, want: &Value, tolerance: &Value) -> bool {
    match (got.as_f64(), want.as_f64(), tolerance.as_f64()) {
        (Some(got), Some(want), Some(tolerance)) => (got - want).abs() <= tolerance,
        _ => false,
    }
}

/// Whether the answer is the golden one within its tolerance, as `post.py` decides it.
fn agrees(name: &str, file: &Value, case: &Value, got: &Value) -> bool {
    let want = &case["answer"];
    match name {
        "filetype" => {
            ["label", "description", "mime"].iter().all(|key| got[key] == want[key])
                && close(&got["score"], &want["score"], &file["tolerance"]["score"])
        }
        "similar" => close(&got["similarity"], &want["similarity"], &file["tolerance"]["similarity"]),
        _ => top_agrees(&want["top"], &got["top"], &case["tolerance"]["score"]),
    }
}

fn top_agrees(want: &Value, got: &Value, tolerance: &Value) -> bool {
    let (Some(want), Some(got)) = (want.as_array(), got.as_array()) else { return false };
    let scores: Vec<_> = got.iter().filter_map(|hit| hit["score"].as_f64()).collect();
    let ranked = scores.len() == 5 && scores.is_sorted_by(|a, b| a >= b);
    ranked
        && want.iter().all(|want| {
            let hit = got.iter().find(|hit| hit["index"] == want["index"]);
            // Two of about the same small score may change places, so the last ones may be others.
            let must = want["score"].as_f64().is_some_and(|s| s > 0.1);
            hit.map_or(!must, |hit| {
                hit["label"] == want["label"] && close(&hit["score"], &want["score"], tolerance)
            })
        })
}

async fn shipped(host: &Host) {
    for (name, of) in NAMES {
        host.push_model(&model(of)).await;
        let text = std::fs::read_to_string(repository().join("functions").join(name).join("wasmeter.toml"));
        let toml = text.expect("the manifest");
        let sections = toml.split("[limits]").nth(1).expect("limits");
        let manifest = manifest(name).public().section("limits", sections);
        host.deploy(name, &manifest).await;
    }
}

async fn ask(host: &Host, name: &str, case: &Value) -> Answer {
    host.dev().post(&format!("/fn/dev/{name}"), request(name, case)).send().await
}

#[tokio::test]
async fn golden_answers_and_their_bill() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    shipped(&host).await;
    let mut costs = BTreeMap::new();
    let mut wrong = Vec::new();
    for (name, _) in NAMES {
        let file = golden(name);
        for case in file["cases"].as_array().expect("cases") {
            let answer = ask(&host, name, case).await;
            if answer.status != 200 || !agrees(name, &file, case, &answer.json()) {
                wrong.push(format!("{name} {}: {} {}", case["name"], answer.status, answer.text()));
            }
            costs.insert(answer.invocation(), answer.cost_pico().expect("a cost"));
        }
        for case in file["refused"].as_array().into_iter().flatten() {
            let answer = ask(&host, name, case).await;
            if case["status"] != answer.status || answer.json()["error"].as_str().is_none_or(str::is_empty) {
                wrong.push(format!("{name} {}: {} {}", case["name"], answer.status, answer.text()));
            }
            assert!(
                answer.header("x-wasmeter-error-source").is_none(),
                "the guest's own 400 is no error of ours"
            );
            costs.insert(answer.invocation(), answer.cost_pico().expect("a cost"));
        }
    }
    assert!(wrong.is_empty(), "{} answers differ:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(costs.len(), 78, "the golden files have shrunk");
    the_books_agree(&host, &costs).await;
}

/// Headers, receipts, usage by anything, and bill tell the same, exactly.
async fn the_books_agree(host: &Host, costs: &BTreeMap<String, u128>) {
    let total: u128 = costs.values().sum();
    let receipts = host.receipts_after("dev", costs.len()).await;
    for receipt in &receipts {
        let invocation = receipt["invocation"].as_str().expect("a text");
        assert_eq!(pico(&receipt["cost_pico"]), costs[invocation], "{receipt}");
        assert_eq!(receipt["record"]["outcome"], "ok", "{receipt}");
        assert_eq!(receipt["record"]["v"], 1);
    }
    assert_eq!(host.list_total_pico("dev").await, total);
    let bill = host.bill("dev").await;
    // Each call's price is cut to whole units of 10^-12, a line's is computed once for its whole quantity: a line is
    // at most one such unit a call above its calls.
    let lines = bill["lines"].as_array().expect("lines");
    let is_total =
        |sum: u128| sum.checked_sub(total).is_some_and(|a| a <= (lines.len() * costs.len()) as u128);
    assert!(is_total(lines.iter().map(|l| pico(&l["amount_pico"])).sum()), "{total} in {bill}");
    assert_eq!(bill["invocations"], costs.len());

    let keys = |rows: &[Value]| -> Vec<String> {
        rows.iter().map(|r| r["key"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let sum = |rows: &[Value]| rows.iter().map(|r| pico(&r["cost_pico"])).sum::<u128>();
    let by_function = host.usage("dev", "function").await;
    assert_eq!(keys(&by_function), ["classify", "filetype", "similar"]);
    assert_eq!(sum(&by_function), total);
    let requests: u64 = by_function.iter().filter_map(|r| r["requests"].as_u64()).sum();
    assert_eq!(requests, costs.len() as u64);
    let by_meter = host.usage("dev", "meter").await;
    assert!(keys(&by_meter).contains(&"fuel".to_owned()), "{by_meter:?}");
    assert!(keys(&by_meter).contains(&"cpu_time".to_owned()), "{by_meter:?}");
    assert!(is_total(sum(&by_meter)), "{total} in {by_meter:?}");
    let by_hour = host.usage("dev", "hour").await;
    assert!((1..=2).contains(&by_hour.len()), "{by_hour:?}");
    assert_eq!(sum(&by_hour), total);
    let by_model = host.usage("dev", "model").await;
    assert_eq!(keys(&by_model), ["efficientnet-lite0@1", "magika@1", "minilm@1"]);
    let device = |rows: &[Value]| rows.iter().filter_map(|r| r["cpu_ns"].as_u64()).sum::<u64>();
    assert_eq!(device(&by_model), device(&by_function), "device time by model is that by function");
    assert!(by_model.iter().all(|r| r["cpu_ns"].as_u64().is_some_and(|ns| ns > 0)), "{by_model:?}");

    let one = &receipts[0];
    let alone = host.receipt("dev", one["invocation"].as_str().expect("a text")).await;
    // Alone it carries its own proof; what it says is the same.
    for key in ["chain", "cost", "cost_pico", "currency", "entry", "invocation", "record"] {
        assert_eq!(alone[key], one[key], "{key}");
    }
    assert!(alone["proved"].is_object(), "{alone}");
}

fn pico(value: &Value) -> u128 {
    value.as_str().and_then(|t| t.parse().ok()).unwrap_or_else(|| panic!("{value} is no number in a string"))
}

#[tokio::test]
async fn figures_are_for_the_tenant_alone_and_fuel_repeats() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.deploy("burn", &manifest("burn").public()).await;
    host.put_tenant("other").await;
    let stranger = host.anonymous().with_token(&host.mint("other", &["invoke", "read"], 60).await);
    let path = "/fn/dev/burn?n=20000";
    let shown = ["x-wasmeter-fuel", "x-wasmeter-device-ns", "x-wasmeter-cost", "server-timing"];
    for client in [host.dev(), host.operator()] {
        let answer = client.get(path).send().await.expect(200);
        shown.iter().for_each(|name| assert!(answer.header(name).is_some(), "{name}"));
    }
    for client in [host.anonymous(), &stranger, &host.anonymous().with_token("nonsense")] {
        let answer = client.get(path).send().await.expect(200);
        shown.iter().for_each(|name| assert_eq!(answer.header(name), None, "{name}"));
        assert!(!answer.invocation().is_empty());
    }
    let fuel = |answer: Answer| answer.header("x-wasmeter-fuel").and_then(|f| f.parse::<u64>().ok());
    let first = fuel(host.dev().get(path).send().await).expect("fuel");
    for _ in 0..5 {
        assert_eq!(fuel(host.dev().get(path).send().await), Some(first));
    }
    let twice = fuel(host.dev().get("/fn/dev/burn?n=40000").send().await).expect("fuel");
    assert!(twice > first + 20_000, "{twice} for twice the work of {first}");
    // Everyone's calls are the tenant's, with the same fuel in the books.
    let receipts = host.receipts_after("dev", 12).await;
    let same = receipts.iter().filter(|r| r["record"]["fuel"] == first).count();
    assert!(same >= 6, "{receipts:?}");
}

#[tokio::test]
async fn a_restart_keeps_functions_models_and_ledger() {
    let mut host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.push_model(&model("magika")).await;
    host.deploy("filetype", &manifest("filetype").public().models(&["magika"])).await;
    host.deploy("echo", &manifest("echo")).await;
    let case = &golden("filetype")["cases"][0];
    let before = ask(&host, "filetype", case).await.expect(200);
    let functions = host.dev().get("/api/v1/tenants/dev/functions").send().await.expect(200).json();
    let receipts = host.receipts_after("dev", 1).await;
    let bill = host.bill("dev").await;

    host.restart().await;
    // Artifacts are a cache: without them, components compile again.
    let artifacts = host.data().join("artifacts");
    assert!(std::fs::read_dir(&artifacts).expect("artifacts").count() > 0);
    assert!(host.term().await.success());
    std::fs::remove_dir_all(&artifacts).expect("artifacts can be deleted");
    host.start().await;

    assert_eq!(host.receipts("dev").await, receipts);
    assert_eq!(host.bill("dev").await["list_total_pico"], bill["list_total_pico"]);
    let mut after = host.dev().get("/api/v1/tenants/dev/functions").send().await.expect(200).json();
    // The port is another one.
    let mut functions = functions;
    for list in [&mut after, &mut functions] {
        for function in list["functions"].as_array_mut().expect("functions") {
            function["url"] = json!(null);
        }
    }
    assert_eq!(after, functions);
    let again = ask(&host, "filetype", case).await.expect(200);
    assert_eq!(again.body, before.body);
    assert_eq!(again.header("x-wasmeter-fuel"), before.header("x-wasmeter-fuel"));
    assert_eq!(host.dev().get("/fn/dev/echo/hello").send().await.expect(200).text(), "hello\n");
    assert_eq!(host.anonymous().get("/fn/dev/echo/hello").send().await.status, 401);
    let total = before.cost_pico().expect("a cost") + again.cost_pico().expect("a cost");
    let receipts = host.receipts_after("dev", 3).await;
    let hello = receipts.iter().find(|r| r["record"]["function"] == "echo").expect("echo's receipt");
    assert_eq!(host.list_total_pico("dev").await, total + pico(&hello["cost_pico"]));
}
