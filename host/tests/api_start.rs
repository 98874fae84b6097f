//! Starts that are refused before a port opens, and the one that waits its turn.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use wasmeter_testkit::Host;

const PROGRAM: &str = env!("CARGO_BIN_EXE_wasmeter");

#[tokio::test]
async fn bad_settings_are_named() {
    let cases = [
        (Host::builder(PROGRAM).config("[server]\ncolour = \"red\"\n"), vec!["colour", "unknown field"]),
        (Host::builder(PROGRAM).config("[serve]\n"), vec!["serve"]),
        (Host::builder(PROGRAM).config("not toml"), vec!["configuration"]),
        (Host::builder(PROGRAM).config("[admission]\nin-flight = 0\n"), vec!["admission.in-flight"]),
        (Host::builder(PROGRAM).env("WASMETER_SERVER__NONSENSE", "1"), vec!["nonsense"]),
        (
            Host::builder(PROGRAM).argument("--listen").argument("0.0.0.0:0"),
            vec!["server.listen", "--insecure"],
        ),
        (
            Host::builder(PROGRAM).argument("--admin-listen").argument("0.0.0.0:0"),
            vec!["server.admin-listen", "--insecure"],
        ),
        (Host::builder(PROGRAM).env("STRIPE_API_KEY", "x"), vec!["STRIPE_API_KEY", "unset"]),
        (Host::builder(PROGRAM).env("STRIPE_SECRET_KEY", "x"), vec!["STRIPE_SECRET_KEY", "unset"]),
        (Host::builder(PROGRAM).env("ANYTHING", "sk_live_abc"), vec!["ANYTHING"]),
        (
            Host::builder(PROGRAM).argument("--billing").argument("live"),
            vec!["billing.stripe-key-file", "0600"],
        ),
        (
            Host::builder(PROGRAM).config("[billing]\ngrace-days = 3\n"),
            vec!["billing.grace-days", "billing.mode"],
        ),
    ];
    for (builder, parts) in cases {
        let shown = format!("{builder:?}");
        let (status, said) = builder.refused().await;
        assert_eq!(status.code(), Some(1), "{shown}: {said}");
        for part in parts {
            assert!(said.contains(part), "{part:?} in {said:?}");
        }
        assert!(!said.contains("sk_live_abc"), "a key was printed");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[tokio::test]
async fn without_stripe_it_says_how_to_switch_it_on() {
    let host = Host::builder(PROGRAM).start().await;
    for page in ["portal", "checkout"] {
        let path = format!("/api/v1/tenants/dev/billing/{page}");
        let answer = host.dev().post(&path, "").send().await.expect(409);
        assert!(
            answer.code() == "stripe_off" && answer.message().contains("--billing twin"),
            "{}",
            answer.text()
        );
    }
    let webhook = host.anonymous().post("/stripe/webhook", "{}").header("stripe-signature", "t=1,v1=00");
    assert_eq!(webhook.send().await.status, 404);
    assert!(host.anonymous().get("/billing/done").send().await.expect(200).text().starts_with("Done"));
}

#[tokio::test]
async fn a_taken_address_and_taken_data() {
    let mut first = Host::builder(PROGRAM).start().await;
    let address = first.address().to_string();
    let taken = Host::builder(PROGRAM).argument("--listen").argument(&address).refused().await;
    assert_eq!(taken.0.code(), Some(1));
    assert!(taken.1.contains(&address) && taken.1.contains("--listen"), "{}", taken.1);

    // A successor waits for the data directory, and takes over when it is free.
    let data = first.data();
    let mut second = Command::new(PROGRAM)
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data"])
        .arg(&data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(second.try_wait().expect("a state").is_none(), "the second host did not wait");
    assert_eq!(std::fs::read_to_string(data.join("url")).expect("url"), first.url());
    first.anonymous().get("/readyz").send().await.expect(200);
    assert!(first.term().await.success());
    let end = Instant::now() + Duration::from_secs(20);
    while std::fs::read_to_string(data.join("url")).is_ok_and(|url| url == first.url()) {
        assert!(Instant::now() < end, "the second host did not take over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    second.kill().expect("the second host runs");
    second.wait().expect("it ends");
}
