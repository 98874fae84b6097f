//! Who may do what, and that nothing is told to who may not.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;
use wasmeter_testkit::{Answer, Host, component, manifest};

/// What of an answer could tell a thing from another: all but the invocation's id and the time.
fn told(answer: &Answer) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let shown = |n: &str| !matches!(n, "x-wasmeter-invocation" | "date");
    let headers = answer.headers.iter().filter(|(n, _)| shown(n.as_str()));
    let mut headers: Vec<_> =
        headers.map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned())).collect();
    headers.sort();
    (answer.status, headers, answer.body.to_vec())
}

#[tokio::test]
async fn tokens_open_what_they_say_and_nothing_else() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    let short = host.mint("dev", &["invoke"], 1).await;
    let minted = Instant::now();
    host.deploy("echo", &manifest("echo")).await;
    host.put_tenant("other").await;
    host.try_deploy("other", component("echo"), &manifest("echo")).await.expect(201);
    let anonymous = host.anonymous();
    let with = |token: &str| anonymous.with_token(token);
    let (private, unknown) = ("/fn/dev/echo/hello", "/fn/dev/nothing/hello");
    let invoke = host.mint("dev", &["invoke"], 60).await;
    let read = host.mint("dev", &["read"], 60).await;
    let other = host.mint("other", &["invoke", "read", "deploy"], 60).await;
    with(&invoke).get(private).send().await.expect(200);
    with(&other).get("/fn/other/echo/hello").send().await.expect(200);

    // Without a good token: 401, whether or not there is such a function, tenant or address.
    let refused = told(&anonymous.get(private).send().await);
    assert_eq!(refused.0, 401);
    let mut forged = invoke.clone();
    forged.replace_range(forged.len() - 6.., "AAAAAA");
    let none_alg = format!("eyJhbGciOiJub25lIn0.{}.", invoke.split('.').nth(1).expect("claims"));
    for path in [private, unknown, "/fn/nobody/echo"] {
        for token in [None, Some("garbage"), Some(forged.as_str()), Some(none_alg.as_str())] {
            let client = token.map_or_else(|| anonymous.clone(), with);
            assert_eq!(told(&client.get(path).send().await), refused, "{path} {token:?}");
        }
        let scheme = anonymous.get(path).header("authorization", "Basic Zm9vOmJhcg==").send().await;
        assert_eq!(told(&scheme), refused, "{path}");
    }
    let www = anonymous.get(private).send().await;
    assert!(www.header("www-authenticate").is_some_and(|w| w.starts_with("Bearer")));
    for path in ["/api/v1/tenants", "/api/v1/tenants/dev/bill", "/api/v1/nothing"] {
        let answer = anonymous.get(path).send().await.expect(401);
        assert_eq!(answer.code(), "unauthenticated");
    }

    // With another tenant's: what is theirs and what is not there look the same, byte for byte.
    let unknown_thing = told(&with(&other).get(unknown).send().await);
    assert_eq!(unknown_thing.0, 404);
    assert_eq!(told(&with(&other).get(private).send().await), unknown_thing);
    assert_eq!(told(&with(&other).get("/fn/nobody/echo").send().await), unknown_thing);
    let api = told(&with(&other).get("/api/v1/tenants/other/functions/nothing").send().await);
    assert_eq!(api.0, 404);
    for path in ["functions/echo", "functions", "bill", "usage", "receipts", "functions/echo/logs"] {
        for tenant in ["dev", "nobody"] {
            let answer = with(&other).get(&format!("/api/v1/tenants/{tenant}/{path}")).send().await;
            assert_eq!(told(&answer), api, "{tenant} {path}");
        }
    }
    assert_eq!(with(&other).put("/api/v1/tenants/dev/functions/echo", "x").send().await.status, 404);
    assert_eq!(with(&other).delete("/api/v1/tenants/dev/functions/echo").send().await.status, 404);

    // A token of the tenant without the scope: 403 that names it.
    let answers = [
        ("invoke", with(&read).get(private).send().await),
        ("read", with(&invoke).get("/api/v1/tenants/dev/bill").send().await),
        ("deploy", with(&read).put("/api/v1/tenants/dev/functions/echo", "x").send().await),
        ("operator", host.dev().get("/api/v1/tenants").send().await),
        ("operator", host.dev().put("/api/v1/models/m/versions/1", "x").send().await),
    ];
    for (scope, answer) in answers {
        assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{}", answer.text());
        assert!(answer.message().contains(scope), "{}", answer.message());
    }
    // Nobody mints more than they have.
    let asked = json!({ "scopes": ["deploy"] });
    let answer = with(&invoke).call(Method::POST, "/api/v1/token").json(&asked).send().await.expect(403);
    assert!(answer.message().contains("invoke"), "{}", answer.message());

    // Expired, with the leeway of clocks that differ.
    tokio::time::sleep_until((minted + Duration::from_millis(7200)).into()).await;
    assert_eq!(told(&with(&short).get(private).send().await), refused);
    with(&invoke).get(private).send().await.expect(200);
}
