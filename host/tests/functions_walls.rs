//! What a function sees of a request, and what of its answer reaches the caller.

use serde_json::Value;
use wasmeter_testkit::{Answer, Host, manifest, raw};

/// The values of a header that the guest saw.
fn seen(answer: &Answer, name: &str) -> Vec<String> {
    let headers = answer.json()["headers"].as_array().cloned().unwrap_or_default();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    headers.iter().filter(|h| h[0] == name).map(|h| text(&h[1])).collect()
}

#[tokio::test]
async fn between_a_function_and_the_platform() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.deploy("echo", &manifest("echo").public()).await;

    // The platform's token is not the guest's; a scheme of its own on a public function is.
    for client in [host.dev(), host.operator()] {
        let answer = client.get("/fn/dev/echo/x").send().await.expect(200);
        assert_eq!(seen(&answer, "authorization"), Vec::<String>::new());
    }
    let own = host.anonymous().get("/fn/dev/echo/x").header("authorization", "Basic Zm9vOmJhcg==");
    assert_eq!(seen(&own.send().await.expect(200), "authorization"), ["Basic Zm9vOmJhcg=="]);
    host.put_tenant("other").await;
    let stranger = host.mint("other", &["invoke"], 60).await;
    let answer = host.anonymous().with_token(&stranger).get("/fn/dev/echo/x").send().await.expect(200);
    assert_eq!(seen(&answer, "authorization"), Vec::<String>::new(), "another tenant's token is no guest's");
    // Not even where it does not count: one of two, in another spelling.
    let token = host.dev().token().expect("a token");
    for value in [format!("Bearer\t{token}"), format!("Token token=\"{token}\""), token.to_owned()] {
        let answer = host.anonymous().get("/fn/dev/echo/x").header("authorization", &value).send().await;
        assert_eq!(seen(&answer.expect(200), "authorization"), Vec::<String>::new(), "{value}");
    }
    let line = "GET /fn/dev/echo/x HTTP/1.1\r\nhost: x\r\nconnection: close";
    let both = format!("{line}\r\nauthorization: Basic eDp5\r\nauthorization: Bearer {token}\r\n\r\n");
    let answer = raw(host.address(), both.as_bytes()).await;
    assert!(answer.contains("Basic eDp5") && !answer.contains(token), "{answer}");

    let answer = host
        .dev()
        .post("/fn/dev/echo/a/b%20c?x=1&y", "body")
        .header("x-wasmeter-cost", "forged")
        .header("x-own", "1")
        .header("x-own", "2")
        .send()
        .await
        .expect(200);
    let json = answer.json();
    assert_eq!(
        (&json["method"], &json["path"], &json["query"], &json["body"]),
        (&Value::from("POST"), &Value::from("/a/b%20c"), &Value::from("x=1&y"), &Value::from("body"),)
    );
    assert_eq!(json["authority"], host.address().to_string());
    assert_eq!(seen(&answer, "x-own"), ["1", "2"]);
    assert_eq!(seen(&answer, "x-wasmeter-cost"), Vec::<String>::new());

    // What reaches beyond the function's own path does not reach the caller.
    let sets = [
        "x-wasmeter-cost:9%20USD",
        "x-wasmeter-invocation:forged",
        "x-wasmeter-anything:1",
        "service-worker-allowed:/",
        "clear-site-data:%22*%22",
        "strict-transport-security:max-age%3D1",
        "content-security-policy:default-src%20*",
        "set-cookie:own%3D1;%20Path%3D%2Ffn%2Fdev%2Fecho",
        "set-cookie:wide%3D1;%20Path%3D%2F",
        "set-cookie:bare%3D1",
        "x-own:kept",
    ];
    let query = sets.map(|s| format!("set={s}")).join("&");
    let answer = host.anonymous().get(&format!("/fn/dev/echo?{query}")).send().await.expect(200);
    for name in ["x-wasmeter-cost", "x-wasmeter-anything", "service-worker-allowed", "clear-site-data"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(answer.header("strict-transport-security"), None);
    assert_ne!(answer.invocation(), "forged");
    assert_eq!(answer.header("x-own"), Some("kept"));
    let all = |name: &str| -> Vec<String> {
        let values = answer.headers.get_all(name).iter();
        values.filter_map(|v| Some(v.to_str().ok()?.to_owned())).collect()
    };
    assert_eq!(all("set-cookie"), ["own=1; Path=/fn/dev/echo"]);
    assert!(all("content-security-policy").contains(&"sandbox allow-scripts allow-forms".to_owned()));
    let hello = host.anonymous().get("/fn/dev/echo/hello").send().await.expect(200);
    assert_eq!(hello.header("content-security-policy"), Some("sandbox allow-scripts allow-forms"));
}
