//! One call from deployment to receipt.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use wasmeter_testkit::{Host, manifest};

fn wasmeter(host: &Host, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasmeter"));
    command.env("WASMETER_URL", host.dev().url()).env("WASMETER_TOKEN", host.dev().token().unwrap());
    command.args(args).output().unwrap()
}

/// Runs `wasmeter verify`: whether it is content, and what it says.
fn verify(host: &Host, receipts: &Path, keys: &Path) -> (bool, Value) {
    let (receipts, keys) = (receipts.to_str().unwrap(), keys.to_str().unwrap());
    let output = wasmeter(host, &["verify", receipts, "--key", keys, "--format", "json"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let said = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text} {output:?}"));
    (output.status.success(), said)
}

#[tokio::test]
async fn a_call_from_deployment_to_receipt() {
    let mut host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.deploy("echo", &manifest("echo").public()).await;
    let answer = host.dev().get("/fn/dev/echo/hello").send().await.expect(200);
    assert_eq!(answer.text(), "hello\n");
    let cost = answer.cost_pico().expect("figures for the tenant's token");
    // Asked for at once, it may not be there yet: the command waits for it.
    let shown = wasmeter(&host, &["receipts", &answer.invocation(), "--format", "json"]);
    assert!(shown.status.success(), "{shown:?}");
    let receipts = host.receipts_after("dev", 1).await;
    assert_eq!(receipts[0]["invocation"], answer.invocation());
    assert_eq!(host.list_total_pico("dev").await, cost);
    assert!(host.term().await.success());
}

/// What a customer takes home can be checked there, and what was edited on the way is refused, with the line.
#[tokio::test]
async fn receipts_of_real_calls_verify_offline() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.deploy("echo", &manifest("echo")).await;
    host.put_tenant("other").await;
    let mut cost = 0;
    for _ in 0..20 {
        cost += host.dev().get("/fn/dev/echo/hello").send().await.expect(200).cost_pico().unwrap();
    }
    let receipts = host.receipts_after("dev", 20).await;
    let folder = tempfile::tempdir().unwrap();
    let save = |name: &str, args: &[&str]| {
        let output = wasmeter(&host, args);
        assert!(output.status.success(), "{output:?}");
        let path = folder.path().join(name);
        std::fs::write(&path, output.stdout).unwrap();
        path
    };
    let all = save("receipts.ndjson", &["receipts", "--format", "json"]);
    let keys = save("keys.json", &["receipts", "--keys", "--format", "json"]);
    let (ok, said) = verify(&host, &all, &keys);
    assert!(ok, "{said}");
    assert_eq!((&said["receipts"], &said["tenant"]), (&20.into(), &"dev".into()));
    assert_eq!(said["cost_pico"], cost.to_string());
    let unknown = said["unknown"].as_array().unwrap();
    assert!(unknown.iter().all(|what| !what.as_str().unwrap().contains("came with the file")), "{said}");

    let id = receipts[7]["invocation"].as_str().unwrap();
    let one = save("one.json", &["receipts", id, "--format", "json"]);
    let (ok, said) = verify(&host, &one, &keys);
    assert!(ok && said["receipts"] == 1, "{said}");

    let text = std::fs::read_to_string(&all).unwrap();
    let line = text.lines().position(|line| line.contains(id)).unwrap();
    let edited: Vec<String> = text
        .lines()
        .enumerate()
        .map(|(at, l)| if at == line { l.replace("\"status\":200", "\"status\":500") } else { l.into() })
        .collect();
    std::fs::write(&all, edited.join("\n") + "\n").unwrap();
    let (ok, said) = verify(&host, &all, &keys);
    assert!(!ok);
    assert_eq!(
        (&said["line"], &said["invocation"], &said["wrong"]),
        (&(line + 1).into(), &id.into(), &"chain".into())
    );
    std::fs::write(&all, &text[..text.len() - 9]).unwrap();
    assert_eq!(verify(&host, &all, &keys).1["wrong"], "shape");

    // Another tenant's token reaches none of it; the keys are everybody's.
    let path = format!("/api/v1/tenants/other/receipts/{id}");
    host.dev().get(&path).send().await.expect(404);
    host.dev().get("/api/v1/receipt-keys").send().await.expect(200);
    host.anonymous().get("/api/v1/receipt-keys").send().await.expect(401);
}

/// A component as text, in a file.
fn component(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What a function makes at its start is made once, where it is deployed from, and every call begins with it.
#[tokio::test]
async fn a_pre_initialised_function_begins_where_its_initialisation_ended() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    let folder = tempfile::tempdir().unwrap();
    let built = wasmeter_testkit::component_path("primes");
    let primes = folder.path().join("primes.wasm");
    std::fs::copy(built, &primes).unwrap();
    let primes = primes.to_str().unwrap();
    let deployed = |args: &[&str]| {
        let output = wasmeter(&host, &[&["deploy", "--format", "json"], args].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let asked = async |name: &str| {
        let answer = host.dev().get(&format!("/fn/dev/{name}?n=1048573")).send().await.expect(200);
        (answer.json(), answer.header("x-wasmeter-fuel").unwrap().parse::<u64>().unwrap())
    };
    deployed(&["--name", "slow", primes]);
    let before = deployed(&["--name", "fast", "--pre-init", primes]);
    let (slow, made) = asked("slow").await;
    assert_eq!(slow, serde_json::json!({ "prime": true, "ready": false }));
    for _ in 0..2 {
        let (fast, fuel) = asked("fast").await;
        assert_eq!(fast, serde_json::json!({ "prime": true, "ready": true }));
        assert!(fuel * 20 < made, "{fuel} of {made}");
    }
    // The same bytes each time: nothing random is in it.
    assert_eq!(deployed(&["--name", "fast", "--pre-init", primes])["revision"], before["revision"]);

    // A project says so in its manifest, with a command or, as a cargo project, without.
    let project = folder.path().to_str().unwrap();
    for (command, built) in [("command = \"true\"\n", vec![project]), ("", vec!["--no-build", project])] {
        let manifest = format!(
            "[function]\nname = \"fast\"\ncomponent = \"primes.wasm\"\n[build]\n{command}pre-init = true\n"
        );
        std::fs::write(folder.path().join("wasmeter.toml"), manifest).unwrap();
        assert_eq!(deployed(&built)["size"], before["size"]);
    }

    let refused = |path: &str| {
        let output = wasmeter(&host, &["deploy", "--name", "refused", "--pre-init", path]);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let lift = r#"(func (export "wizer-initialize") (canon lift (core func $i "init"))))"#;
    let endless = format!(
        r#"(component (core module $m (func (export "init") (loop br 0))) (core instance $i (instantiate $m)) {lift}"#
    );
    let asking = format!(
        r#"(component (import "now" (func $now (result u64))) (core func $n (canon lower (func $now)))
            (core module $m (import "h" "now" (func $now (result i64))) (func (export "init") (drop (call $now))))
            (core instance $i (instantiate $m (with "h" (instance (export "now" (func $n)))))) {lift}"#
    );
    for (text, part) in [
        ("(module)", "only a component can be pre-initialised"),
        ("(component)", "#[wasmeter_guest::initialize]"),
        (&endless, "burned more than 5000000000 units of fuel"),
        (&asking, "It may call nothing outside the component"),
    ] {
        let said = refused(&component(folder.path(), "bad.wasm", text));
        assert!(said.contains(part), "{said}");
    }
    host.dev().get("/fn/dev/refused").send().await.expect(404);
}
