use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use wasmeter_admission::{Grant, Scope};

use crate::host::Host;

const TOKEN: &str = "/api/v1/token";

#[tokio::test]
async fn a_token_is_narrower_than_its_maker() {
    let host = Host::new().await;
    let dev = host.dev();
    let answer = host.post(&dev, TOKEN, &json!({"scopes": ["invoke"], "ttl_seconds": 60})).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.headers["cache-control"], "no-store");
    let json = answer.json();
    assert_eq!((&json["expires_in"], &json["tenant"]), (&60.into(), &"dev".into()));
    let principal = host.keys.verify(json["token"].as_str().unwrap()).unwrap();
    assert!(principal.scopes.has(Scope::Invoke) && !principal.scopes.has(Scope::Read));

    // No wider, no longer, for nobody else.
    let invoke = json["token"].as_str().unwrap();
    let wider = host.post(invoke, TOKEN, &json!({"scopes": ["read"]})).await;
    assert_eq!(wider.status, StatusCode::FORBIDDEN);
    assert_eq!(host.post(&dev, TOKEN, &json!({"scopes": ["operator"]})).await.status, StatusCode::FORBIDDEN);
    let longer = host.post(invoke, TOKEN, &json!({"scopes": ["invoke"], "ttl_seconds": 86_400})).await;
    assert!(longer.json()["expires_in"].as_u64().unwrap() <= 60);
    for tenant in ["other", "nobody", "../x"] {
        let answer = host.post(&dev, TOKEN, &json!({"scopes": ["read"], "tenant": tenant})).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{tenant}");
    }
    let own = host.post(&dev, TOKEN, &json!({"scopes": ["read"], "tenant": "dev"})).await;
    assert_eq!(own.status, StatusCode::CREATED);
}

#[tokio::test]
async fn an_operator_mints_for_any_tenant() {
    let host = Host::new().await;
    let operator = host.operator();
    let answer = host.post(&operator, TOKEN, &json!({"scopes": ["deploy", "read"], "tenant": "other"})).await;
    let principal = host.keys.verify(answer.json()["token"].as_str().unwrap()).unwrap();
    assert_eq!(principal.tenant.unwrap().as_str(), "other");
    assert!(!principal.scopes.has(Scope::Operator));
    let cases = [
        (json!({"scopes": ["read"]}), 400),
        (json!({"scopes": ["read"], "tenant": "nobody"}), 404),
        (json!({"scopes": ["read"], "tenant": "../x"}), 400),
        (json!({"scopes": ["operator"], "tenant": "dev"}), 400),
        (json!({"scopes": ["operator"]}), 201),
    ];
    for (body, status) in cases {
        assert_eq!(host.post(&operator, TOKEN, &body).await.status, status, "{body}");
    }
}

#[tokio::test]
async fn malformed_requests() {
    let host = Host::new().await;
    let dev = host.dev();
    let bodies = [
        json!({"scopes": []}),
        json!({"scopes": ["root"]}),
        json!({"scopes": ["read"], "ttl_seconds": 0}),
        json!({"scopes": ["read"], "ttl_seconds": 2_592_001}),
        json!({"scopes": ["read"], "colour": 1}),
        json!([]),
    ];
    for body in bodies {
        let answer = host.post(&dev, TOKEN, &body).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "malformed".into()), "{body}");
    }
    let form = host.put(&dev, TOKEN, "application/json", "{}").await;
    assert_eq!(form.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn an_expired_token_is_no_token() {
    let host = Host::new().await;
    let grant = Grant {
        subject: "x".into(),
        tenant: Some("dev".parse().unwrap()),
        scopes: "read".parse().unwrap(),
        ttl: Duration::ZERO,
    };
    let token = host.keys.mint(grant).unwrap();
    // Within the verifier's leeway it may still read, but mint nothing that outlives it.
    assert_eq!(host.post(&token, TOKEN, &json!({"scopes": ["read"]})).await.status, StatusCode::UNAUTHORIZED);
}
