//! `serve --billing twin` as real processes: checkout, usage, portal, webhooks, who has not paid, and a billing that dies.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod crash_parts;
mod twin_parts;

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use crash_parts::process;
use rustix::process::Signal;
use serde_json::json;
use twin_parts::{Twin, lines, open, standing, text};
use wasmeter_testkit::{Answer, Builder, Host, manifest};

fn builder() -> Builder {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let builder = crash_parts::builder().argument("--billing").argument("twin");
    builder.argument("--listen").argument(&format!("127.0.0.1:{port}"))
}

async fn hosted(builder: Builder) -> (Host, Twin) {
    let host = builder.start().await;
    host.deploy("burn", &manifest("burn").limits("fuel = 2_000_000_000\ndeadline = \"30s\"")).await;
    let twin = Twin::of(&host);
    (host, twin)
}

async fn burn(host: &Host) -> Answer {
    host.dev().get("/fn/dev/burn?n=1000000").send().await
}

/// Until a call is answered so.
async fn burns(host: &Host, status: u16) -> Answer {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = burn(host).await;
        if answer.status == status {
            return answer;
        }
        assert!(Instant::now() < until, "still {}: {}", answer.status, answer.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Until billing is there again.
async fn billing_answers(host: &Host) {
    let until = Instant::now() + Duration::from_secs(30);
    while host.dev().get("/api/v1/tenants/dev/billing").send().await.status != 200 {
        assert!(Instant::now() < until, "billing does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn now() -> i64 {
    i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap()
}

async fn webhook(host: &Host, signature: &str, body: &str) -> Answer {
    host.anonymous()
        .post("/stripe/webhook", body.to_owned())
        .header("stripe-signature", signature)
        .send()
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_checkout_to_the_invoice() {
    let (mut host, twin) = hosted(builder().allow_log("billing ended")).await;
    for (file, mode) in [("secret-key", 0o600), ("webhook-secret", 0o600), ("twin-url", 0o600)] {
        let meta = host.data().join("twin").join(file).metadata().unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, mode, "{file}");
    }
    assert_eq!(standing(&host).await["state"], "none");
    let none = host.dev().post("/api/v1/tenants/dev/billing/portal", "").send().await;
    assert!(
        matches!((none.status, none.code().as_str()), (409, "no_customer") | (200, "")),
        "{}",
        none.text()
    );
    twin.subscribe(&host).await;
    let again = standing(&host).await;
    assert!(
        text(&again["customer"]).starts_with("cus_") && text(&again["subscription"]).starts_with("sub_"),
        "{again}"
    );

    // Usage arrives once and whole, though billing dies in between.
    let mut shown = 0;
    for round in 0..3 {
        for _ in 0..40 {
            shown += burn(&host).await.expect(200).cost_pico().unwrap();
        }
        if round < 2 {
            process(&host).wait_for_child("billing").signal(Signal::KILL);
        }
    }
    billing_answers(&host).await;
    host.receipts_after("dev", 120).await;
    let bill = host.bill("dev").await;
    assert_eq!(text(&bill["list_total_pico"]), shown.to_string());
    let counted = twin.counts_the_ledger(&host).await;
    assert_eq!(counted["requests"], 120);
    assert!(twin.events().await > 0);

    // What is on its way is seen in the host's metrics.
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let metrics = host.admin().get("/metrics").send().await.expect(200).text().to_owned();
        let quiet = ["ready", "sending", "parked", "refused"]
            .iter()
            .all(|state| metrics.contains(&format!("wasmeter_outbox_buckets{{state=\"{state}\"}} 0\n")));
        if quiet && metrics.contains("\nwasmeter_outbox_oldest_seconds 0\n") {
            break;
        }
        assert!(Instant::now() < until, "{metrics}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    let page = host.dev().post("/api/v1/tenants/dev/billing/portal", "").send().await.expect(200).json();
    let (client, path) = open(text(&page["url"]));
    let portal = client.get(&path).send().await.expect(200);
    assert!(portal.header("content-type").unwrap().starts_with("text/html"), "{:?}", portal.headers);
    // Who has not the address does not get in.
    let guess = path.rsplit_once('/').unwrap().0.to_owned() + "/bps_guess";
    assert_ne!(client.get(&guess).send().await.status, 200);

    let invoice = twin.invoice_of_the_period(&host).await;
    invoice.is_the_price_book_applied(lines(&bill));
    println!("{invoice}");
    let status = host.term().await;
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_and_replayed_webhooks_change_nothing() {
    let (host, twin) = hosted(builder().allow_log("webhook refused")).await;
    twin.subscribe(&host).await;
    let before = standing(&host).await;
    let subscription = text(&before["subscription"]);
    let lie = |id: &str| {
        json!({ "id": id, "object": "event", "type": "customer.subscription.updated", "created": now(), "livemode": false,
            "data": { "object": { "id": subscription, "object": "subscription", "status": "unpaid",
                "customer": before["customer"] } } })
        .to_string()
    };
    let body = lie("evt_forged");
    let good = twin.sign(&body, now()).await;
    let other: String = good[good.len() - 8..].chars().map(|c| if c == '0' { '1' } else { '0' }).collect();
    let refused = [
        ("".to_owned(), body.clone()),
        ("t=1".to_owned(), body.clone()),
        (good[..good.len() - 8].to_owned() + &other, body.clone()),
        (good.clone(), body.replace("unpaid", "active")),
        (twin.sign(&body, now() - 3600).await, body.clone()),
        (twin.sign(&body, now() + 3600).await, body.clone()),
        (twin.sign("not json", now()).await, "not json".to_owned()),
    ];
    for (signature, body) in refused {
        let answer = webhook(&host, &signature, &body).await;
        assert_eq!((answer.status, answer.text()), (400, "refused\n"), "{signature}");
    }
    let get = host.anonymous().get("/stripe/webhook").send().await;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    let long = host
        .anonymous()
        .post("/stripe/webhook", vec![b' '; (256 << 10) + 1])
        .header("stripe-signature", &good);
    assert_eq!(long.send().await.status, 413);
    // What is signed rightly is a reason to ask Stripe, and no more: it says what is true.
    for _ in 0..3 {
        assert_eq!(webhook(&host, &good, &body).await.status, 200);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = standing(&host).await;
    assert_eq!((&after["state"], &after["subscription"]), (&before["state"], &before["subscription"]));
    burn(&host).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_not_paid_waits_outside() {
    let (mut host, twin) = hosted(builder().env("WASMETER_BILLING__GRACE_DAYS", "0")).await;
    twin.subscribe(&host).await;
    burn(&host).await.expect(200);
    twin.make_unpaid(&host).await;
    let refused = burns(&host, 402).await;
    assert_eq!(
        (refused.code().as_str(), refused.header("x-wasmeter-error-source")),
        ("subscription", Some("platform"))
    );
    assert!(refused.message().contains("wasmeter portal"), "{}", refused.message());
    assert_eq!(standing(&host).await["state"], "unpaid");
    // The next host knows it before billing tells; the portal and the API stay open.
    host.restart().await;
    assert_eq!(burn(&host).await.expect(402).code(), "subscription");
    let booked = host.receipts("dev").await;
    assert!(
        booked.iter().all(|r| r["record"]["status"] == 200),
        "a refused call is in the ledger: {booked:?}"
    );
    twin.pay(&host).await;
    burns(&host, 200).await;
    twin.stands(&host, "active").await;
}
