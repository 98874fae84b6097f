//! Components with `wasi:cli/run` as CGI programs (`nn_complete.rs` has the same of core modules), and components that
//! handle HTTP with WASI 0.3.

use std::time::{Duration, Instant};

use wasmeter_testkit::{Answer, Host, component, manifest};

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

/// A host where `dev` may use WASI 0.3, with the fixture deployed.
async fn wasi3(limits: &str) -> Host {
    let config = "[outbound]\nallow-private = [\"127.0.0.1/32\"]\n";
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).config(config).start().await;
    let settings = host.operator().put("/api/v1/tenants/dev/settings", "{\"wasi3\": true}");
    let set = settings.header("content-type", "application/json").send().await.expect(200);
    assert_eq!(set.json()["wasi3"], true);
    host.deploy("service", &manifest("service").limits(limits)).await;
    host
}

async fn outcome(host: &Host, answer: &Answer) -> String {
    let receipt = host.receipt("dev", &answer.invocation()).await;
    receipt["record"]["outcome"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn wasi_3_is_the_operators_to_switch_on() {
    let mut host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    let refused = host.try_deploy("dev", component("service"), &manifest("service")).await;
    fails(&refused, 422, "invalid", "WASI 0.3, which is switched off for this tenant");
    let settings = |client: &wasmeter_testkit::Client, on: bool| {
        let call = client.put("/api/v1/tenants/dev/settings", format!("{{\"wasi3\": {on}}}"));
        call.header("content-type", "application/json").send()
    };
    settings(host.dev(), true).await.expect(403);
    settings(host.operator(), true).await.expect(200);
    host.deploy("service", &manifest("service")).await;
    assert_eq!(host.dev().get("/fn/dev/service/hello").send().await.expect(200).text(), "hello\n");
    // What is there stays; what comes is refused, also while its artifact is there; another tenant never could.
    settings(host.operator(), false).await.expect(200);
    host.restart().await;
    assert_eq!(host.dev().get("/fn/dev/service/hello").send().await.expect(200).text(), "hello\n");
    let again = host.try_deploy("dev", component("service"), &manifest("service").public()).await;
    fails(&again, 422, "invalid", "switched off");
}

#[tokio::test]
async fn a_component_of_wasi_3_is_served_and_metered() {
    let host = wasi3("memory = \"16MiB\"").await;
    let dev = host.dev();
    let plain = dev.get("/fn/dev/service/hello").send().await.expect(200);
    assert_eq!((plain.text(), plain.header("content-type")), ("hello\n", Some("text/plain")));
    let fuel = |a: &Answer| a.header("x-wasmeter-fuel").and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    let again = dev.get("/fn/dev/service/hello").send().await.expect(200);
    assert!(fuel(&plain) > 1000, "{}", fuel(&plain));
    assert_eq!(fuel(&plain), fuel(&again), "the same request costs the same");
    assert_eq!(outcome(&host, &plain).await, "ok");

    // Bodies both ways, by the guest's hands and past them.
    let body: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    for path in ["echo", "pass"] {
        for chunked in [false, true] {
            let call = dev.post(&format!("/fn/dev/service/{path}"), body.clone());
            let call = if chunked { call.chunked() } else { call };
            assert!(call.send().await.expect(200).body == body, "{path}, chunked {chunked}");
        }
    }
    let slow = dev.get("/fn/dev/service/slow?chunks=100&delay_ms=10").header("te", "trailers");
    let mut slow = slow.stream().await;
    let began = Instant::now();
    slow.chunk().await.expect("the first piece");
    assert!(began.elapsed() < Duration::from_millis(800), "it is not held to its end");
    let rest = slow.rest().await.expect("the rest");
    assert!(rest.body.len() < 100 << 10, "the first piece came alone");
    assert!(rest.trailers.contains_key("x-wasmeter-fuel"), "{:?}", rest.trailers);

    // Interfaces of the platform, the log, and the way out by the manifest's list alone.
    let me = dev.get("/fn/dev/service/me").send().await.expect(200);
    assert!(me.text().starts_with(&me.invocation()), "{}", me.text());
    let log = dev.get("/api/v1/tenants/dev/functions/service/logs").send().await.expect(200);
    assert!(log.text().contains("to stderr") && log.text().contains("to the log"), "{}", log.text());
    let own = host.url();
    let out = format!("/fn/dev/service/out?{own}/healthz");
    let denied = dev.get(&out).send().await.expect(200);
    assert!(denied.text().contains("HttpRequestDenied"), "{}", denied.text());
    let listed = manifest("service").section("http", &format!("allow = [\"{own}\"]"));
    host.deploy("service", &listed).await;
    let allowed = dev.get(&out).send().await.expect(200);
    assert!(allowed.text().starts_with("200 "), "{}", allowed.text());
    assert_eq!(dev.get("/fn/dev/service/nothing").send().await.status, 404);
}

#[tokio::test]
async fn failures_of_a_component_of_wasi_3_are_its_own() {
    let host =
        wasi3("deadline = \"1s\"\nfuel = 1_000_000_000_000\nrequest-body = \"1MiB\"\nhandles = 1000").await;
    let dev = host.dev();
    let get = |path: &str| dev.get(&format!("/fn/dev/service/{path}")).send();
    for (path, status, code, part, recorded) in [
        ("error", 502, "guest_failed", "without an answer", "trap"),
        ("trap", 502, "guest_failed", "trapped", "trap"),
        ("short", 502, "guest_failed", "without finishing its response body", "trap"),
        ("spin", 504, "deadline", "limits.deadline", "deadline"),
        ("after", 504, "deadline", "limits.deadline", "deadline"),
        ("sleep", 504, "deadline", "limits.deadline", "deadline"),
        ("tasks", 502, "guest_failed", "", "trap"),
    ] {
        let began = Instant::now();
        let answer = get(path).await;
        println!("{path}: {} {}", answer.status, answer.text());
        assert!(began.elapsed() < Duration::from_secs(5), "{path}: {:?}", began.elapsed());
        if path == "tasks" && answer.status == 504 {
            // A slow machine meets the deadline before the limit of handles.
            continue;
        }
        fails(&answer, status, code, part);
        assert_eq!(outcome(&host, &answer).await, recorded, "{path}");
        assert!(host.charged_pico("dev", &answer).await > 0, "{path}: its work is paid");
    }
    let late = dev.get("/fn/dev/service/late").try_stream().await;
    if let Ok(late) = late {
        assert!(late.rest().await.is_err(), "an answer that its guest did not end must break off");
    }
    // No more of a body comes through than may; this guest does not look at how it ended.
    let large = dev.post("/fn/dev/service/echo", vec![7; 2 << 20]).chunked().send().await;
    assert!(large.status == 413 || large.body.len() <= 1 << 20, "{} {}", large.status, large.body.len());
    // A caller who leaves stops the guest.
    drop(dev.get("/fn/dev/service/slow?chunks=50&delay_ms=15").stream().await);
    let end = Instant::now() + Duration::from_secs(10);
    while !host.receipts("dev").await.iter().any(|r| r["record"]["outcome"] == "disconnect") {
        assert!(Instant::now() < end, "no receipt says that its caller left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Sixty-four at once leave the host as it was.
    let crowd = (0..64).map(|n| tokio::spawn(get(if n % 2 == 0 { "spin" } else { "sleep" })));
    for call in crowd.collect::<Vec<_>>() {
        assert_eq!(call.await.expect("the call").status, 504);
    }
    assert_eq!(get("hello").await.expect(200).text(), "hello\n");
}
