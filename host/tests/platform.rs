//! What a function can know of its invocation and configuration, and what becomes of its messages.

use serde_json::Value;
use wasmeter_testkit::{Host, manifest};

async fn lines(host: &Host) -> Vec<Value> {
    let answer = host.dev().get("/api/v1/tenants/dev/functions/platform/logs").send().await.expect(200);
    answer.text().lines().map(|l| serde_json::from_str(l).expect("a line of JSON")).collect()
}

#[tokio::test]
async fn a_function_knows_its_invocation() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    let limits = "fuel = 1_000_000_000\ndeadline = \"20s\"";
    let manifest =
        manifest("platform").public().limits(limits).section("config", "greeting = \"hello\"\nb = \"2\"");
    host.deploy("platform", &manifest).await;
    let answer = host.dev().get("/fn/dev/platform").send().await.expect(200);
    let json = answer.json();
    let (first, then) = (&json["first"], &json["then"]);
    assert_eq!(first["id"], answer.invocation());
    let number = |v: &Value, key: &str| v[key].as_u64().unwrap_or_else(|| panic!("{key} in {json}"));
    for seen in [first, then] {
        assert!((1..=20_000_000_000).contains(&number(seen, "time_left_ns")));
        // Reading it costs fuel itself.
        let sum = number(seen, "fuel") + number(seen, "fuel_left");
        assert!((999_000_000..=1_000_000_000).contains(&sum), "{sum}");
        assert_eq!((number(seen, "device_ns"), number(seen, "sent_bytes")), (0, 0));
        assert_eq!(seen["cost"][1], "USD");
    }
    assert!(number(then, "fuel") > number(first, "fuel") + 100_000);
    assert!(number(then, "time_left_ns") < number(first, "time_left_ns"));
    let record = host.receipt("dev", &answer.invocation()).await["record"].clone();
    let fuel = record["fuel"].as_u64().expect("fuel");
    assert!(number(then, "fuel") < fuel && fuel < 2 * number(then, "fuel"), "{fuel}: {json}");
    let cost = |seen: &Value| seen["cost"][0].as_u64().expect("a cost");
    assert!(
        cost(first) <= cost(then) && u128::from(cost(then)) <= answer.cost_pico().expect("a cost"),
        "{json}"
    );

    assert_eq!(json["greeting"], "hello");
    assert_eq!((&json["missing"], &json["env"]), (&Value::Null, &Value::Null));
    assert_eq!(json["all"], serde_json::json!([["b", "2"], ["greeting", "hello"]]));
}

#[tokio::test]
async fn messages_have_levels_and_a_budget() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.deploy("platform", &manifest("platform").public()).await;
    let answer = host.dev().get("/fn/dev/platform/log").send().await.expect(200);
    let log = lines(&host).await;
    let levels: Vec<_> = log.iter().map(|l| l["level"].as_str().unwrap_or_default()).collect();
    assert_eq!(levels, ["trace", "debug", "info", "warn", "error", "critical", "info"]);
    assert!(log.iter().all(|l| l["stream"] == "log" && l["invocation"] == answer.invocation()));
    assert_eq!((&log[0]["text"], &log[6]["text"]), (&"fixture: two lines".into(), &"without context".into()));

    host.dev().get("/fn/dev/platform/flood?lines=5000").send().await.expect(200);
    let log = lines(&host).await[7..].to_vec();
    let full =
        |l: &Value| l["stream"] == "platform" && l["text"].as_str().is_some_and(|t| t.contains("64KiB"));
    assert_eq!(log.iter().filter(|l| full(l)).count(), 1);
    let bytes: usize = log.iter().filter(|l| !full(l)).map(|l| l["text"].as_str().map_or(0, str::len)).sum();
    assert!((60 << 10..=66 << 10).contains(&bytes), "{bytes}");
    assert!(!log.iter().any(|l| l["stream"] == "stdout"), "one budget for all ways to log");
}
