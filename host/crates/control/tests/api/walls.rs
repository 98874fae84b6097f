use axum::body::Body;
use http::{Method, StatusCode};

use crate::host::{Host, request};

const TENANT_PATHS: &[(&str, &str)] = &[
    ("GET", ""),
    ("GET", "/functions"),
    ("PUT", "/functions/f"),
    ("GET", "/functions/f"),
    ("DELETE", "/functions/f"),
    ("GET", "/functions/f/revisions"),
    ("GET", "/functions/f/revisions/x"),
    ("GET", "/functions/f/logs?follow=true"),
    ("GET", "/usage"),
    ("GET", "/bill"),
    ("GET", "/receipts"),
    ("GET", "/receipts/0190a000-0000-7000-8000-000000000000"),
];

#[tokio::test]
async fn without_a_token_everything_is_the_same_401() {
    let host = Host::new().await;
    let mut bodies = std::collections::BTreeSet::new();
    let paths = ["/api/v1", "/api/v1/tenants", "/api/v1/nothing", "/api/v1/models/x", "/api/v1/tenants/%ff"];
    for path in paths {
        for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH] {
            for token in ["", "a.b.c"] {
                let answer = host.call(token, method.clone(), path).await;
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}");
                assert_eq!(answer.headers["www-authenticate"], "Bearer");
                bodies.insert(answer.body);
            }
        }
    }
    assert_eq!(bodies.len(), 1);
}

#[tokio::test]
async fn another_tenants_things_and_unknown_ones_are_the_same_404() {
    let host = Host::new().await;
    host.deploy("f", b"component").await;
    let other = host.token("other", "deploy invoke read");
    let mut bodies = std::collections::BTreeSet::new();
    for (method, path) in TENANT_PATHS {
        let method: Method = method.parse().unwrap();
        for tenant in ["dev", "nobody", "No..Name", "a%2F..%2Fb"] {
            let answer = host.call(&other, method.clone(), &format!("/api/v1/tenants/{tenant}{path}")).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {tenant}{path}");
            bodies.insert(answer.body);
        }
    }
    let own = host.get(&host.dev(), "/api/v1/tenants/dev/functions/unknown").await;
    assert_eq!(own.status, StatusCode::NOT_FOUND);
    bodies.insert(own.body);
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert_eq!(host.seen.asked.lock().unwrap().len(), 0);
    assert_eq!(host.get(&host.dev(), "/api/v1/tenants/dev/functions/f").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_missing_scope_is_403() {
    let host = Host::new().await;
    host.deploy("f", b"component").await;
    let (read, invoke) = (host.token("dev", "read"), host.token("dev", "invoke"));
    let f = "/api/v1/tenants/dev/functions/f";
    assert_eq!(host.put(&read, f, "application/wasm", "x").await.code(), "forbidden");
    assert_eq!(host.delete(&read, f).await.code(), "forbidden");
    for (_, path) in TENANT_PATHS.iter().filter(|(m, _)| *m == "GET") {
        let answer = host.get(&invoke, &format!("/api/v1/tenants/dev{path}")).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
    }
    let operators = [
        (Method::GET, "/api/v1/tenants"),
        (Method::PUT, "/api/v1/tenants/new"),
        (Method::DELETE, "/api/v1/tenants/dev"),
        (Method::PUT, "/api/v1/models/m/versions/1"),
        (Method::DELETE, "/api/v1/models/m/versions/1"),
    ];
    for (method, path) in operators {
        let answer = host.call(&host.dev(), method.clone(), path).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {path}");
    }
}

#[tokio::test]
async fn unknown_routes_and_methods_are_json() {
    let host = Host::new().await;
    let answer = host.get(&host.dev(), "/api/v1/nothing").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "not_found".into()));
    let answer = host.get("", "/api/nothing").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "not_found".into()));
    let answer = host.call(&host.dev(), Method::PATCH, "/api/v1/tenants").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed".into()));
    assert_eq!(answer.headers["allow"], "GET,HEAD");
    assert_eq!(answer.headers["x-wasmeter-error-source"], "platform");
    let answer = host.get(&host.dev(), "/api/v1/tenants/%ff/functions").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "malformed".into()));
}

#[tokio::test]
async fn tenants_come_and_go() {
    let host = Host::new().await;
    let operator = host.operator();
    let put = || host.call(&operator, Method::PUT, "/api/v1/tenants/acme");
    assert_eq!(put().await.status, StatusCode::CREATED);
    assert_eq!(put().await.status, StatusCode::OK);
    let list = host.get(&operator, "/api/v1/tenants").await.json();
    let names: Vec<_> = list["tenants"].as_array().unwrap().iter().map(|t| t["tenant"].clone()).collect();
    assert_eq!(names, ["acme", "dev", "other"]);
    let own = host.get(&host.dev(), "/api/v1/tenants/dev").await.json();
    assert_eq!(own["functions"], 0);
    let bad = host.call(&operator, Method::PUT, "/api/v1/tenants/..%2Fx").await;
    assert_eq!((bad.status, bad.code()), (StatusCode::BAD_REQUEST, "malformed".into()));
    host.deploy("f", b"component").await;
    assert_eq!(host.delete(&operator, "/api/v1/tenants/dev").await.status, StatusCode::NO_CONTENT);
    assert_eq!(host.delete(&operator, "/api/v1/tenants/dev").await.status, StatusCode::NOT_FOUND);
    assert_eq!(host.get(&host.dev(), "/api/v1/tenants/dev/functions").await.status, StatusCode::NOT_FOUND);
    assert_eq!(host.deploy("f", b"component").await.status, StatusCode::NOT_FOUND);
    assert_eq!(*host.seen.forgotten.lock().unwrap(), ["dev/f 1"]);
    assert_eq!(host.blobs.count(), 0);
}

#[tokio::test]
async fn a_small_body_stays_small() {
    let host = Host::new().await;
    let body = format!("{{\"scopes\":[\"{}\"]}}", "x".repeat(70 << 10));
    let request =
        request(&host.dev(), Method::POST, "/api/v1/token").header("content-type", "application/json");
    let answer = host.send(request.body(Body::from(body)).unwrap()).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::PAYLOAD_TOO_LARGE, "too_large".into()));
}
