//! Components with `wasi:cli/run` as CGI programs; `nn_complete.rs` has the same of core modules.

use wasmeter_testkit::{Answer, Host, manifest};

async fn host(limits: &str) -> Host {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    let told = manifest("command").limits(limits).section("env", "GREETING = \"hi\"");
    host.deploy("command", &told).await;
    host
}

fn fails(answer: &Answer, status: u16, code: &str, part: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text());
    assert!(answer.message().contains(part), "{}", answer.message());
}

#[tokio::test]
async fn a_component_with_a_main_function_is_a_cgi_program() {
    let host = host("response-body = \"2MiB\"").await;
    let dev = host.dev();
    let plain = dev.get("/fn/dev/command/").send().await.expect(200);
    assert_eq!(
        (plain.text(), plain.header("content-type")),
        ("hello from a component\n", Some("text/plain; charset=utf-8"))
    );
    assert!(plain.header("x-wasmeter-fuel").is_some_and(|f| f.parse::<u64>().is_ok_and(|f| f > 0)));

    let body = vec![b'q'; 300_000];
    let answer = dev.post("/fn/dev/command/body", body.clone()).send().await.expect(203);
    assert_eq!(answer.header("content-type"), Some("text/x-echo"));
    assert_eq!(answer.body, body);
    let chunked = dev.post("/fn/dev/command/body", body.clone()).chunked().send().await.expect(203);
    assert_eq!(chunked.body, body);
    // A body that nobody reads is in nobody's way.
    let unread = dev.post("/fn/dev/command/", body).send().await.expect(200);
    assert_eq!(unread.text(), "hello from a component\n");

    let env = dev.get("/fn/dev/command/env?a=b").header("x-one", "1").send().await.expect(200);
    for line in ["[\"command\"]", "GREETING=hi", "QUERY_STRING=a=b", "REQUEST_METHOD=GET", "HTTP_X_ONE=1"] {
        assert!(env.text().lines().any(|l| l == line), "{line}: {}", env.text());
    }
    assert!(!env.text().contains("HTTP_AUTHORIZATION"), "{}", env.text());
    assert!(dev.get("/fn/dev/command/silent").send().await.expect(200).body.is_empty());
    assert_eq!(dev.get("/fn/dev/command/exit-well").send().await.expect(200).text(), "half");

    let log = dev.get("/api/v1/tenants/dev/functions/command/logs").send().await.expect(200);
    assert!(log.text().contains("path /silent"), "{}", log.text());
}

#[tokio::test]
async fn failures_of_a_command_are_its_own() {
    let host = host("response-body = \"2MiB\"\ndeadline = \"1s\"\nrequest-body = \"1KiB\"").await;
    let dev = host.dev();
    // All that wasi:cli/exit of 0.2 can say is that it failed.
    for path in ["err", "exit"] {
        let answer = dev.get(&format!("/fn/dev/command/{path}")).send().await;
        fails(&answer, 502, "guest_failed", "exited with status 1 instead of answering");
    }
    fails(&dev.get("/fn/dev/command/trap").send().await, 502, "guest_failed", "trapped");
    let late = dev.get("/fn/dev/command/loop").try_stream().await.expect("a head");
    assert!(late.status() == 504 || late.rest().await.is_err(), "half an answer does not end well");
    let flood = dev.get("/fn/dev/command/flood").try_stream().await.expect("a head");
    assert!(flood.status() == 502 || flood.rest().await.is_err(), "an endless answer does not end well");
    let large = dev.post("/fn/dev/command/body", vec![0; 5000]).chunked().send().await;
    assert_eq!(large.status, 413, "{}", large.text());

    let little = manifest("command").limits("fuel = 5000");
    host.deploy("command", &little).await;
    fails(&dev.get("/fn/dev/command/").send().await, 502, "guest_failed", "limits.fuel");
}
