//! Budgets are hard: whatever runs at one time, however it ends, no more than the budget is spent.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

use serde_json::{Value, json};
use tempfile::TempDir;
use wasmeter_testkit::{Answer, Client, Host, manifest};

const CENT: u128 = 10_000_000_000;

/// So dear that a cent is spent within moments.
const PRICES: &str = r#"
[[book]]
effective = "2026-01-01T00:00:00Z"
currency = "USD"
[book.list]
fuel_million = "0.0001"
request = "0.00001"
"#;

async fn host() -> (Host, TempDir) {
    host_with("").await
}

async fn host_with(rest: &str) -> (Host, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let book = folder.path().join("prices.toml");
    std::fs::write(&book, PRICES).unwrap();
    let config = format!("[billing]\nprices = {:?}\n{rest}", book.to_str().unwrap());
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).config(&config).start().await;
    host.deploy("spin", &manifest("spin").limits("fuel = 1_000_000_000_000\ndeadline = \"30s\"")).await;
    host.deploy("burn", &manifest("burn").limits("fuel = 20_000_000\ndeadline = \"30s\"")).await;
    (host, folder)
}

async fn set(host: &Host, terms: Value) -> Value {
    host.operator().put("/api/v1/tenants/dev/budget", "").json(&terms).send().await.expect(200).json()
}

async fn budget(host: &Host) -> Value {
    host.operator().get("/api/v1/tenants/dev/budget").send().await.expect(200).json()
}

fn pico(value: &Value) -> u128 {
    value["pico"].as_str().and_then(|t| t.parse().ok()).unwrap()
}

async fn burn(host: &Host) -> Answer {
    host.dev().get("/fn/dev/burn?n=10").send().await
}

/// The costs of all receipts, once all usage is booked: it goes to billing at a pace, and the figure of what waits is some
/// milliseconds old. No invocation may be running.
async fn booked(host: &Host) -> u128 {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let metrics = host.admin().get("/metrics").send().await;
        if metrics.text().lines().any(|line| line == "wasmeter_spool_unshipped_records 0") {
            break;
        }
        assert!(std::time::Instant::now() < until, "usage waits for billing");
    }
    let receipts = host.receipts("dev").await;
    receipts.iter().map(|r| r["cost_pico"].as_str().unwrap().parse::<u128>().unwrap()).sum()
}

async fn run_away(host: &Host, count: usize) -> Vec<Answer> {
    let calls: Vec<_> = (0..count).map(|_| tokio::spawn(host.dev().get("/fn/dev/spin").send())).collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_runaways_spend_no_more_than_a_cent() {
    let (host, _folder) = host().await;
    set(&host, json!({ "monthly": "0.01" })).await;
    let mut stopped = 0;
    for answer in run_away(&host, 64).await {
        assert_eq!((answer.status, answer.code().as_str()), (402, "payment_required"), "{}", answer.text());
        assert!(answer.message().contains("the budget of tenant dev is used up"), "{}", answer.message());
        if answer.header("x-wasmeter-fuel").is_some() {
            stopped += 1;
            let receipt = host.receipt("dev", &answer.invocation()).await;
            assert_eq!(receipt["record"]["outcome"], "budget");
            assert_eq!(receipt["record"]["status"], 402);
        }
    }
    assert!(stopped > 1, "{stopped} were stopped in their loop");
    // Until not even the beginning of a call is paid for.
    while run_away(&host, 1).await.remove(0).header("x-wasmeter-fuel").is_some() {}
    let before = host.receipts("dev").await.len();
    let refused = burn(&host).await.expect(402);
    assert_eq!(refused.header("x-wasmeter-error-source"), Some("platform"));
    let spent = booked(&host).await;
    assert!(spent <= CENT, "{spent} of {CENT}");
    assert!(spent > CENT * 9 / 10, "{spent} of {CENT}: much of the budget cannot be spent");
    let shown = budget(&host).await;
    assert_eq!(pico(&shown["spent"]), spent, "{shown}");
    assert!(spent + pico(&shown["reserved"]) <= CENT, "{shown}");
    assert_eq!(host.receipts("dev").await.len(), before, "a refused call is in the ledger");
    // What it is raised to holds at once, and so does its absence.
    set(&host, json!({ "monthly": "0.02" })).await;
    burn(&host).await.expect(200);
    set(&host, json!({ "monthly": "0" })).await;
    set(&host, json!({})).await;
    burn(&host).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_has_a_bound_of_its_own() {
    let (host, _folder) = host().await;
    let call = |most: &str| host.dev().get("/fn/dev/spin").header("x-wasmeter-max-cost", most).send();
    let answer = call("0.001 USD").await.expect(402);
    assert!(answer.message().contains("x-wasmeter-max-cost"), "{}", answer.message());
    let receipt = host.receipt("dev", &answer.invocation()).await;
    let cost: u128 = receipt["cost_pico"].as_str().unwrap().parse().unwrap();
    assert!(cost > CENT / 11 && cost <= CENT / 10, "{cost}");
    assert_eq!(answer.cost_pico(), Some(cost));
    assert_eq!(receipt["record"]["outcome"], "budget");
    call("0.00001").await.expect(402);
    for bad in ["1 EUR", "much", "-1"] {
        call(bad).await.expect(400);
    }
    assert_eq!(host.receipts("dev").await.len(), 1);
    let enough = host.dev().get("/fn/dev/burn?n=10").header("x-wasmeter-max-cost", "0.01").send().await;
    assert!(enough.expect(200).cost_pico().unwrap() < CENT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_and_keys() {
    let (host, _folder) = host().await;
    set(&host, json!({ "prepaid": true })).await;
    burn(&host).await.expect(402);
    assert!(host.receipts("dev").await.is_empty());
    let grant = |id: &str| {
        let body = json!({ "amount": "0.01", "id": id, "note": "a test" });
        host.operator().post("/api/v1/tenants/dev/credits", "").json(&body).send()
    };
    grant("one").await.expect(200);
    let twice = grant("one").await.expect(200).json();
    assert_eq!(pico(&twice["credits"]), CENT);
    let cost = burn(&host).await.expect(200).cost_pico().unwrap();
    host.receipts_after("dev", 1).await;
    assert_eq!(pico(&budget(&host).await["credits_left"]), CENT - cost);
    // A tenant neither grants credits nor does away with them, and no amount is below nothing.
    let dev = host.dev();
    let body = json!({ "amount": "1" });
    dev.post("/api/v1/tenants/dev/credits", "").json(&body).send().await.expect(403);
    dev.put("/api/v1/tenants/dev/budget", "").json(&json!({ "prepaid": false })).send().await.expect(403);
    dev.put("/api/v1/tenants/dev/budget", "").json(&json!({ "monthly": "-1" })).send().await.expect(400);
    assert_eq!(budget(&host).await["prepaid"], true);

    // The cap of a key holds for what it mints, too, and for nobody else.
    set(&host, json!({ "prepaid": false, "keys": { "operator/ci": "0.001" } })).await;
    let mint = |by: &Client, name: &str| {
        let asked = json!({ "tenant": "dev", "scopes": ["invoke"], "name": name });
        by.post("/api/v1/token", "").json(&asked).send()
    };
    let token = |answer: Answer| host.anonymous().with_token(answer.json()["token"].as_str().unwrap());
    mint(host.operator(), "No Name").await.expect(400);
    let ci = token(mint(host.operator(), "ci").await.expect(201));
    let other = token(mint(host.operator(), "other").await.expect(201));
    let nightly = token(mint(&ci, "nightly").await.expect(201));
    let stopped = ci.get("/fn/dev/spin").send().await.expect(402);
    assert!(stopped.message().contains("the key operator/ci"), "{}", stopped.message());
    while nightly.get("/fn/dev/spin").send().await.expect(402).header("x-wasmeter-fuel").is_some() {}
    for _ in 0..100 {
        if ci.get("/fn/dev/burn?n=10").send().await.status == 402 {
            break;
        }
    }
    nightly.get("/fn/dev/burn?n=10").send().await.expect(402);
    other.get("/fn/dev/burn?n=10").send().await.expect(200);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let spent = pico(&budget(&host).await["keys"]["operator/ci"]["spent"]);
    assert!(spent > CENT / 20 && spent <= CENT / 10, "{spent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_killed_with_a_lease_spends_no_more() {
    let (mut host, _folder) = host().await;
    set(&host, json!({ "monthly": "0.01" })).await;
    for _ in 0..3 {
        burn(&host).await.expect(200);
        let calls: Vec<_> = (0..8).map(|_| tokio::spawn(host.dev().get("/fn/dev/spin").try_send())).collect();
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        host.kill9();
        for call in calls {
            drop(call.await.unwrap());
        }
        host.start().await;
    }
    while run_away(&host, 4).await.iter().any(|a| a.header("x-wasmeter-fuel").is_some()) {}
    let spent = booked(&host).await;
    assert!(spent <= CENT, "{spent} of {CENT}");
    assert!(spent > CENT * 3 / 4, "{spent} of {CENT}: what the dead held was not given back");
}

/// Alerts are kept, shown and told; the order of the words that say so is the API's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passed_threshold_is_told() {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hook = format!("http://{}/hook", listener.local_addr().unwrap());
    let (sender, mut posts) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut id = String::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                match line.trim_end() {
                    "" => break,
                    line => id.push_str(line.strip_prefix("webhook-id: ").unwrap_or_default()),
                }
            }
            let _ = sender.send(id);
            reader.get_mut().write_all(b"HTTP/1.1 204 x\r\nconnection: close\r\n\r\n").unwrap();
        }
    });
    let (host, _folder) = host_with("[billing.alerts]\nprivate = true\n").await;
    let terms =
        |percent: Value| json!({ "monthly": "0.01", "alerts": { "percent": percent, "webhook": hook } });
    let refused = host.dev().put("/api/v1/tenants/dev/budget", "").json(&terms(json!([0]))).send().await;
    assert!(refused.expect(422).message().contains("1 to 1000"));
    let email = json!({ "monthly": "0.01", "alerts": { "percent": [80], "email": "a@example.com" } });
    let refused = host.dev().put("/api/v1/tenants/dev/budget", "").json(&email).send().await;
    assert!(refused.expect(422).message().contains("mail server"));
    assert!(budget(&host).await.get("monthly").is_none());
    let kept = set(&host, terms(json!([10, 90]))).await;
    assert_eq!(kept["alerts"], json!({ "percent": [10, 90], "webhook": hook }), "{kept}");
    run_away(&host, 8).await;
    let id = posts.recv().await.unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let fired = loop {
        let shown = budget(&host).await;
        let fired = shown["fired"].as_array().into_iter().flatten().find(|alert| alert["id"] == id.as_str());
        if let Some(alert) = fired.filter(|alert| alert["deliveries"][0]["state"] == "delivered") {
            break alert.clone();
        }
        assert!(std::time::Instant::now() < deadline, "{shown}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!((&fired["of"], pico(&fired["bound"])), (&json!("monthly"), CENT));
    assert!(pico(&fired["spent"]) >= CENT / 10);
}
