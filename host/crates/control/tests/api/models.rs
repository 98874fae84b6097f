use http::StatusCode;

use crate::host::{FORM, Host, form};

const V1: &str = "/api/v1/models/m/versions/1";
const CARD: &[u8] = b"[model]\nname = \"m\"\nbackend = \"onnx\"\nfiles = [\"model.onnx\", \"vocab.txt\"]\n";

fn upload(graph: &[u8]) -> Vec<u8> {
    form(&[("card", CARD), ("model.onnx", graph), ("vocab.txt", b"words")])
}

#[tokio::test]
async fn a_version_is_checked_stored_shown_and_deleted() {
    let host = Host::new().await;
    let operator = host.operator();
    let put = host.put(&operator, V1, FORM, upload(b"graph")).await;
    assert_eq!(put.status, StatusCode::CREATED, "{:?}", put.body);
    assert_eq!(put.json()["signature"]["sizes"]["model.onnx"], 5);
    assert_eq!(put.json()["size"], 10);
    assert_eq!(host.put(&operator, V1, FORM, upload(b"graph")).await.status, StatusCode::OK);
    let other = host.put(&operator, V1, FORM, upload(b"graph 2")).await;
    assert_eq!((other.status, other.code()), (StatusCode::CONFLICT, "conflict".into()));
    assert!(!host.blobs.holds("_operator", b"graph 2"));
    assert_eq!(
        host.put(&operator, "/api/v1/models/m/versions/2", FORM, upload(b"graph 2")).await.status,
        201
    );

    let invoke = host.token("dev", "invoke");
    let list = host.get(&invoke, "/api/v1/models").await.json();
    assert_eq!(list["models"][0]["versions"][1]["state"], "ready 2");
    let one = host.get(&invoke, "/api/v1/models/m").await.json();
    assert_eq!(one["versions"][0]["files"]["vocab.txt"]["size"], 5);
    assert_eq!(host.get(&invoke, "/api/v1/models/none").await.status, StatusCode::NOT_FOUND);

    assert_eq!(host.delete(&operator, V1).await.status, StatusCode::NO_CONTENT);
    assert_eq!(host.delete(&operator, V1).await.status, StatusCode::NOT_FOUND);
    assert_eq!(*host.seen.unloaded.lock().unwrap(), ["m@1"]);
    assert!(!host.blobs.holds("_operator", b"graph"));
    // Version 2 still uses it.
    assert!(host.blobs.holds("_operator", b"words"));
}

#[tokio::test]
async fn refused_models_leave_nothing() {
    let host = Host::new().await;
    let card = |text: &str| form(&[("card", text.as_bytes()), ("model.onnx", b"g"), ("vocab.txt", b"w")]);
    let other_name = "[model]\nname = \"n\"\nbackend = \"onnx\"\nfiles = [\"model.onnx\", \"vocab.txt\"]";
    let cases: Vec<(Vec<u8>, u16, &str)> = vec![
        (upload(b"bad"), 422, "engine refused"),
        (card(other_name), 422, "model.name is n"),
        (card("x"), 422, "model.toml"),
        (form(&[("card", CARD), ("model.onnx", b"g")]), 422, "\"vocab.txt\" of the card is missing"),
        (form(&[("card", CARD), ("model.onnx", b"g"), ("../x", b"g")]), 422, "../x"),
        (form(&[("card", CARD), ("model.onnx", b"g"), ("model.onnx", b"g")]), 422, "twice"),
        (form(&[("model.onnx", b"g"), ("card", CARD)]), 400, "first part"),
    ];
    for (body, status, says) in cases {
        let answer = host.put(&host.operator(), V1, FORM, body).await;
        assert_eq!(answer.status.as_u16(), status, "{says}: {}", answer.message());
        assert!(answer.message().contains(says), "{says}: {}", answer.message());
    }
    let plain = host.put(&host.operator(), V1, "application/octet-stream", "g").await;
    assert_eq!(plain.status, StatusCode::BAD_REQUEST);
    for version in ["0", "-1", "x", "99999999999", "01"] {
        let path = format!("/api/v1/models/m/versions/{version}");
        assert_eq!(host.put(&host.operator(), &path, FORM, upload(b"g")).await.status, 400, "{version}");
    }
    assert_eq!(host.blobs.count(), 0);
}

const OWN: &str = "/api/v1/tenants/dev/models/m/versions/1";

#[tokio::test]
async fn a_tenants_model_is_its_own() {
    let host = Host::new().await;
    let (dev, other) = (host.dev(), host.token("other", "deploy invoke read"));
    let put = host.put(&dev, OWN, FORM, upload(b"graph")).await;
    assert_eq!(put.status, StatusCode::CREATED, "{:?}", put.body);
    assert_eq!(put.json()["tenant"], "dev");
    assert!(host.blobs.holds("dev", b"graph") && !host.blobs.holds("_operator", b"graph"));
    assert_eq!(host.put(&dev, OWN, FORM, upload(b"other")).await.code(), "conflict");
    let own = host.get(&dev, "/api/v1/tenants/dev/models").await.json();
    assert_eq!(own["models"][0]["versions"][0]["version"], 1);
    assert_eq!(host.get(&dev, "/api/v1/models").await.json()["models"], serde_json::json!([]));

    // For anyone else it is what a model is that nobody has.
    let nothing = host.get(&other, "/api/v1/tenants/none/models/none").await;
    assert_eq!(nothing.status, StatusCode::NOT_FOUND);
    for path in
        ["/api/v1/tenants/dev/models/m", "/api/v1/tenants/dev/models", "/api/v1/tenants/other/models/m"]
    {
        let answer = host.get(&other, path).await;
        assert_eq!((answer.status, &answer.body), (nothing.status, &nothing.body), "{path}");
    }
    let label = serde_json::json!({ "version": 1 });
    for answer in [
        host.put(&other, OWN, FORM, upload(b"graph")).await,
        host.delete(&other, OWN).await,
        host.post(&other, "/api/v1/tenants/dev/models/m/labels/stable", &label).await,
    ] {
        assert_eq!((answer.status, &answer.body), (nothing.status, &nothing.body));
    }
    // Reading is not deploying.
    let reader = host.token("dev", "read");
    assert_eq!(host.put(&reader, OWN, FORM, upload(b"graph")).await.status, StatusCode::FORBIDDEN);
    assert_eq!(host.get(&reader, "/api/v1/tenants/dev/models/m").await.status, 200);

    // With the tenant goes all that it has.
    let gone = host.delete(&host.operator(), "/api/v1/tenants/dev").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(*host.seen.unloaded.lock().unwrap(), ["dev/m@1"]);
    assert_eq!(host.blobs.count(), 0);
}

#[tokio::test]
async fn labels_point_to_versions_that_are_there() {
    let host = Host::new().await;
    let operator = host.operator();
    host.put(&operator, V1, FORM, upload(b"graph")).await;
    let set = |path: &'static str, version: u32| {
        let body = serde_json::json!({ "version": version });
        let (host, operator) = (&host, &operator);
        async move { host.post(operator, path, &body).await }
    };
    let stable = set("/api/v1/models/m/labels/stable", 1).await;
    assert_eq!(stable.json()["labels"], serde_json::json!({ "stable": 1 }));
    assert_eq!(set("/api/v1/models/m/labels/stable", 2).await.status, StatusCode::NOT_FOUND);
    assert_eq!(set("/api/v1/models/n/labels/stable", 1).await.status, StatusCode::NOT_FOUND);
    assert_eq!(set("/api/v1/models/m/labels/17", 1).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(set("/api/v1/models/m/labels/A", 1).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(set("/api/v1/models/m/labels/canary", 1).await.status, StatusCode::OK);
    let (dev, body) = (host.dev(), serde_json::json!({ "version": 1 }));
    let refused = host.post(&dev, "/api/v1/models/m/labels/stable", &body).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(host.delete(&operator, "/api/v1/models/m/labels/canary").await.status, 204);
    assert_eq!(host.delete(&operator, "/api/v1/models/m/labels/canary").await.status, 404);
    let model = host.get(&operator, "/api/v1/models/m").await.json();
    assert_eq!(model["labels"], serde_json::json!({ "stable": 1 }));
    assert_eq!(model["granted"], serde_json::json!({ "all": true }));
}

#[tokio::test]
async fn a_model_that_was_not_granted_is_not_there() {
    let host = Host::new().await;
    let (operator, dev) = (host.operator(), host.dev());
    host.put(&operator, V1, FORM, upload(b"graph")).await;
    let grant = |body: serde_json::Value| {
        let request = crate::host::request(&operator, http::Method::PUT, "/api/v1/models/m/grants");
        let request = request.header("content-type", "application/json");
        host.send(request.body(body.to_string().into()).unwrap())
    };
    assert_eq!(host.get(&dev, "/api/v1/models/m").await.status, 200);
    let granted = grant(serde_json::json!({ "tenants": ["other"] })).await;
    assert_eq!(granted.json(), serde_json::json!({ "tenants": ["other"] }));
    let unknown = host.get(&dev, "/api/v1/models/none").await;
    let hidden = host.get(&dev, "/api/v1/models/m").await;
    assert_eq!((hidden.status, &hidden.body), (unknown.status, &unknown.body));
    assert_eq!(host.get(&dev, "/api/v1/models").await.json()["models"], serde_json::json!([]));
    assert_eq!(host.get(&host.token("other", "read"), "/api/v1/models/m").await.status, 200);
    let manifest = b"[function]\nname = \"f\"\n[models]\nallow = [\"m\"]";
    let deploy = || form(&[("component", b"wasm"), ("manifest", manifest)]);
    let path = "/api/v1/tenants/dev/functions/f";
    assert_eq!(host.put(&dev, path, FORM, deploy()).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(host.put(&dev, OWN, FORM, upload(b"graph")).await.status, 201);
    assert_eq!(host.put(&dev, path, FORM, deploy()).await.status, 201, "a model of its own is there");
    for bad in [r#"{}"#, r#"{"all":false}"#, r#"{"all":true,"tenants":[]}"#, r#"{"tenants":["A"]}"#] {
        assert_eq!(grant(bad.parse().unwrap()).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    assert_eq!(grant(serde_json::json!({ "tenants": ["none"] })).await.status, StatusCode::NOT_FOUND);
    assert_eq!(grant(serde_json::json!({ "all": true })).await.status, StatusCode::OK);
    assert_eq!(host.get(&dev, "/api/v1/models/m").await.status, 200);
}
