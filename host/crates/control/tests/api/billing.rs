use axum::body::Body;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;
use wasmeter_types::InvocationId;
use wasmeter_usage::wire::{
    Adjustment, Bill, BillAdjustments, BillLine, BillMinimum, BillPart, Call, ExportCursor, ReceiptKey,
    Reply, UsageBy, UsageRow,
};
use wasmeter_usage::{Meter, Pico, Standing, StandingState};

use crate::host::{Host, request};

fn page(text: &str, after: Option<u64>) -> Reply {
    let next = after.map(|after| ExportCursor {
        first: 1,
        last: 9,
        after,
        keys: vec![1],
        sheets: vec![],
        adjusted: 0,
        adjusted_last: 0,
    });
    Reply::Export { text: text.into(), next }
}

fn reply(host: &Host, replies: impl IntoIterator<Item = Reply>) {
    host.seen.replies.lock().unwrap().extend(replies);
}

#[tokio::test]
async fn usage_of_this_month_by_default() {
    let host = Host::new().await;
    let row = UsageRow {
        key: "f".into(),
        requests: 2,
        fuel: 7,
        cpu_ns: 3,
        gpu_ns: 0,
        tokens_in: 0,
        tokens_out: 0,
        egress_bytes: 5,
        cost_pico: Pico(2200),
    };
    reply(&host, [Reply::Usage { rows: vec![row] }, Reply::Usage { rows: vec![] }]);
    let json = host.get(&host.dev(), "/api/v1/tenants/dev/usage").await.json();
    assert_eq!(json["rows"][0]["cost_pico"], "2200");
    assert_eq!(json["rows"][0]["cost"], "0.000000002200");
    assert_eq!((&json["by"], &json["currency"]), (&"function".into(), &"USD".into()));
    assert!(json["from"].as_str().unwrap().ends_with("-01T00:00:00Z"));
    let path = "/api/v1/tenants/dev/usage?by=hour&from=2026-11-01&to=2026-11-02T00:00:00%2B01:00";
    assert_eq!(host.get(&host.dev(), path).await.json()["to"], "2026-11-01T23:00:00Z");
    let asked = host.seen.asked.lock().unwrap();
    assert!(matches!(&asked[0], Call::Usage { tenant, by: UsageBy::Function, .. } if tenant == "dev"));
    assert!(
        matches!(&asked[1], Call::Usage { by: UsageBy::Hour, from_ns, to_ns, .. } if to_ns - from_ns == 23 * 3_600_000_000_000)
    );
}

/// Programs read this: names and forms stay as they are.
const GOLDEN_BILL: &str = r#"{"tenant":"dev","from":"1970-01-01T00:00:00Z","to":"1970-01-01T00:00:01Z","currency":"USD","invocations":2,"lines":[{"meter":"fuel","quantity":9000000,"rate_pico":"100","price_unit":"million fuel","list_pico":"900","amount_pico":"700","amount":"0.000000000700 USD","parts":[{"quantity":2000000,"up_to":2000000,"included":true,"rate_pico":"0","amount_pico":"0","amount":"0.000000000000 USD","due_minor":0},{"quantity":7000000,"included":false,"rate_pico":"100","amount_pico":"700","amount":"0.000000000700 USD","due_minor":0}],"due_minor":0}],"list_total_pico":"2000000000000000001","list_total":"2000000.000000000001 USD","minimum":{"minimum_minor":500,"due_minor":500},"adjustments":{"count":1,"amount_pico":"-5","amount":"-0.000000000005 USD","due_minor":0,"entries":[{"id":"a1","amount_pico":"-5","amount":"-0.000000000005 USD","reason":"kindness","made":"1970-01-01T00:00:00Z"}]},"due_minor":500}"#;

#[tokio::test]
async fn a_bill_shows_tiers_and_amounts_exactly() {
    let host = Host::new().await;
    let free = BillPart {
        quantity: 2_000_000,
        up_to: Some(2_000_000),
        included: true,
        rate_pico: Pico(0),
        amount_pico: Pico(0),
        due_minor: 0,
    };
    let paid = BillPart {
        quantity: 7_000_000,
        up_to: None,
        included: false,
        rate_pico: Pico(100),
        amount_pico: Pico(700),
        due_minor: 0,
    };
    let line = BillLine {
        meter: Meter::Fuel,
        quantity: 9_000_000,
        rate_pico: Pico(100),
        price_unit: "million fuel".into(),
        list_pico: Pico(900),
        parts: vec![free, paid],
        amount_pico: Pico(700),
        due_minor: 0,
    };
    let adjustment = Adjustment {
        id: "a1".into(),
        invocation: None,
        amount_pico: Pico(-5),
        reason: "kindness".into(),
        made_ns: 0,
    };
    let bill = Bill {
        tenant: "dev".into(),
        from_ns: 0,
        to_ns: 1_000_000_000,
        currency: "USD".into(),
        invocations: 2,
        lines: vec![line],
        list_total_pico: Pico(2_000_000_000_000_000_001),
        minimum: Some(BillMinimum { minimum_minor: 500, due_minor: 500 }),
        adjustments: Some(BillAdjustments {
            count: 1,
            amount_pico: Pico(-5),
            due_minor: 0,
            entries: vec![adjustment],
        }),
        due_minor: 500,
    };
    reply(&host, [Reply::Bill(bill)]);
    let answer = host.get(&host.dev(), "/api/v1/tenants/dev/bill").await;
    assert_eq!(std::str::from_utf8(&answer.body).unwrap(), GOLDEN_BILL);
}

/// To the byte, since what is hashed is among them.
#[tokio::test]
async fn receipts_are_all_pages_in_one_stream_as_billing_wrote_them() {
    let host = Host::new().await;
    let pages = ["{\"statement\":{}}\n{\"a\": 1.50}\n", "{\"b\":\"\\u00e9\"}\n", "{\"c\":3}\n"];
    reply(&host, [page(pages[0], Some(2)), page(pages[1], Some(4)), page(pages[2], None)]);
    let answer = host.get(&host.dev(), "/api/v1/tenants/dev/receipts").await;
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    assert_eq!(std::str::from_utf8(&answer.body).unwrap(), pages.concat());
    let asked = host.seen.asked.lock().unwrap();
    let after = |c: &Call| match c {
        Call::Export { tenant, cursor, from_ns: 0, .. } if tenant == "dev" => {
            cursor.as_ref().map(|c| c.after)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(asked.iter().map(after).collect::<Vec<_>>(), [None, Some(2), Some(4)]);
}

#[tokio::test]
async fn a_list_that_cannot_be_finished_breaks_off() {
    let host = Host::new().await;
    reply(&host, [page("{}\n", Some(1))]);
    let request =
        request(&host.dev(), Method::GET, "/api/v1/tenants/dev/receipts").body(Body::empty()).unwrap();
    let response = host.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test]
async fn one_receipt() {
    let host = Host::new().await;
    let dev = host.dev();
    let path = format!("/api/v1/tenants/dev/receipts/{}", InvocationId::new());
    let text = "{\"entry\":9, \"record\":{}}".to_owned();
    reply(&host, [Reply::ReceiptAlone { text: Some(text) }, Reply::ReceiptAlone { text: None }]);
    let found = host.get(&dev, &path).await;
    assert_eq!(found.headers["content-type"], "application/json");
    assert_eq!(&found.body[..], b"{\"entry\":9, \"record\":{}}\n");
    assert_eq!(host.get(&dev, &path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(host.get(&dev, "/api/v1/tenants/dev/receipts/x").await.code(), "malformed");
}

#[tokio::test]
async fn keys_of_receipts() {
    let host = Host::new().await;
    let key = ReceiptKey { id: "i".into(), public: "p".into(), added_ns: 1_000_000_000, current: true };
    reply(&host, [Reply::ReceiptKeys { keys: vec![key] }]);
    let json = host.get(&host.dev(), "/api/v1/receipt-keys").await.json();
    assert_eq!(json["keys"][0]["public"], "p");
    assert_eq!(json["keys"][0]["since"], "1970-01-01T00:00:01Z");
}

#[tokio::test]
async fn adjustments_are_the_operators() {
    let host = Host::new().await;
    let id = InvocationId::new();
    let path = "/api/v1/tenants/dev/adjustments";
    let post = |token: String, body: String| {
        let request = request(&token, Method::POST, path).header("content-type", "application/json");
        let router = host.router.clone();
        async move { router.oneshot(request.body(Body::from(body)).unwrap()).await.unwrap() }
    };
    let body = format!(r#"{{"invocation":"{id}","amount":"-0.5","reason":"an outage","id":"a1"}}"#);
    assert_eq!(post(host.dev(), body.clone()).await.status(), StatusCode::FORBIDDEN);
    let made = Adjustment {
        id: "a1".into(),
        invocation: Some(id),
        amount_pico: Pico(-500_000_000_000),
        reason: "an outage".into(),
        made_ns: 0,
    };
    reply(&host, [Reply::Adjustment(made)]);
    let answer = post(host.operator(), body).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(json["amount"], "-0.500000000000 USD");
    let asked = host.seen.asked.lock().unwrap().pop();
    let half = Some(Pico(-500_000_000_000));
    assert!(
        matches!(&asked, Some(Call::Adjust { invocation, amount, .. }) if *invocation == Some(id) && *amount == half),
        "{asked:?}"
    );
    for bad in [r#"{"amount":"--1","reason":"r"}"#, r#"{"invocation":"x","reason":"r"}"#, r#"{"amount":"1"}"#]
    {
        assert_eq!(post(host.operator(), bad.to_owned()).await.status(), StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test]
async fn refusals() {
    let host = Host::new().await;
    let dev = host.dev();
    for what in ["usage", "bill", "receipts"] {
        let path = format!("/api/v1/tenants/dev/{what}");
        let away = host.get(&dev, &path).await;
        assert_eq!((away.status, away.code()), (StatusCode::SERVICE_UNAVAILABLE, "unavailable".into()));
        assert_eq!(away.headers["retry-after"], "1");
        for query in ["from=x", "from=2026-02-01&to=2026-01-01", "colour=1"] {
            assert_eq!(host.get(&dev, &format!("{path}?{query}")).await.status, 400, "{what} {query}");
        }
        let refused = |code: &str| Reply::Refused { code: code.into(), message: "secret path /x".into() };
        reply(&host, [refused("internal"), Reply::Acked { acked_seq: 1 }, refused("malformed")]);
        for status in [500, 500, 400] {
            let answer = host.get(&dev, &path).await;
            assert_eq!(answer.status, status);
            assert!(status == 400 || !answer.message().contains("secret"));
        }
    }
    assert_eq!(host.get(&dev, "/api/v1/tenants/dev/usage?by=colour").await.code(), "malformed");
}

#[tokio::test]
async fn pages_of_stripe() {
    let host = Host::new().await;
    let dev = host.dev();
    let page = |n: u32| Reply::Page { url: format!("https://pay.example/{n}") };
    reply(&host, [page(1), page(2), page(3)]);
    let (portal, checkout) = ("/api/v1/tenants/dev/billing/portal", "/api/v1/tenants/dev/billing/checkout");
    // Without a body, as `curl -X POST` sends it.
    let answer = host.call(&dev, Method::POST, portal).await;
    assert_eq!(answer.json(), serde_json::json!({ "url": "https://pay.example/1" }));
    let urls = serde_json::json!({ "success_url": "https://shop.example/ok", "cancel_url": "http://127.0.0.1:1/no" });
    assert_eq!(host.post(&dev, checkout, &urls).await.json()["url"], "https://pay.example/2");
    assert_eq!(host.call(&host.operator(), Method::POST, checkout).await.status, StatusCode::OK);
    let done = "http://127.0.0.1:8080/billing/done";
    {
        let asked = host.seen.asked.lock().unwrap();
        assert!(
            matches!(&asked[0], Call::Portal { tenant, return_url } if tenant == "dev" && return_url == done)
        );
        assert!(matches!(&asked[1], Call::Checkout { success_url, cancel_url, .. }
            if success_url == "https://shop.example/ok" && cancel_url == "http://127.0.0.1:1/no"));
        assert_eq!(asked.len(), 3);
    }
    // Who may only read or call does not arrange payment; other tenants are not there.
    for scopes in ["read", "invoke", "read invoke"] {
        let answer = host.call(&host.token("dev", scopes), Method::POST, portal).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "forbidden".into()), "{scopes}");
    }
    for path in ["/api/v1/tenants/other/billing/portal", "/api/v1/tenants/none/billing/checkout"] {
        assert_eq!(host.call(&dev, Method::POST, path).await.code(), "not_found");
    }
    assert_eq!(
        host.call(&host.operator(), Method::POST, "/api/v1/tenants/none/billing/portal").await.status,
        404
    );
    assert_eq!(host.call("", Method::POST, portal).await.status, 401);
    for bad in [
        serde_json::json!({ "return_url": "javascript:alert(1)" }),
        serde_json::json!({ "return_url": "http://shop.example/" }),
        serde_json::json!({ "return_url": 7 }),
        serde_json::json!({ "colour": "red" }),
    ] {
        assert_eq!(host.post(&dev, portal, &bad).await.code(), "malformed", "{bad}");
    }
    assert_eq!(host.seen.asked.lock().unwrap().len(), 3, "a refused question reached billing");
}

#[tokio::test]
async fn stripe_that_is_off_or_away() {
    let host = Host::new().await;
    let dev = host.dev();
    let refused = |code: &str| Reply::Refused { code: code.into(), message: "secret path /x".into() };
    for (code, status, retry, says) in [
        ("stripe_off", 409, false, "--billing twin"),
        ("stripe_away", 503, true, "ask again"),
        ("no_customer", 409, false, "wasmeter checkout"),
    ] {
        for page in ["portal", "checkout"] {
            reply(&host, [refused(code)]);
            let path = format!("/api/v1/tenants/dev/billing/{page}");
            let answer = host.call(&dev, Method::POST, &path).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
            assert_eq!(answer.headers.contains_key("retry-after"), retry, "{code}");
            assert!(
                answer.message().contains(says) && !answer.message().contains("secret path"),
                "{}",
                answer.message()
            );
        }
    }
    let away = host.call(&dev, Method::POST, "/api/v1/tenants/dev/billing/portal").await;
    assert_eq!((away.status.as_u16(), away.code().as_str()), (503, "unavailable"));
}

#[tokio::test]
async fn how_a_tenant_stands() {
    let host = Host::new().await;
    let standing = Standing {
        tenant: "dev".into(),
        state: StandingState::Grace,
        customer: Some("cus_1".into()),
        subscription: None,
        since_ns: 1_000_000_000,
        grace_ends_ns: Some(86_401_000_000_000),
    };
    let none = Standing {
        state: StandingState::None,
        customer: None,
        since_ns: 0,
        grace_ends_ns: None,
        ..standing.clone()
    };
    reply(&host, [Reply::Standing(standing), Reply::Standing(none)]);
    let read = host.token("dev", "read");
    let json = host.get(&read, "/api/v1/tenants/dev/billing").await.json();
    assert_eq!((&json["state"], &json["customer"]), (&"grace".into(), &"cus_1".into()));
    assert_eq!(json["since"], "1970-01-01T00:00:01Z");
    assert_eq!(json["grace_ends"], "1970-01-02T00:00:01Z");
    let json = host.get(&read, "/api/v1/tenants/dev/billing").await.json();
    assert_eq!(json, serde_json::json!({ "tenant": "dev", "state": "none" }));
    assert_eq!(host.get(&host.token("dev", "invoke"), "/api/v1/tenants/dev/billing").await.status, 403);
}
