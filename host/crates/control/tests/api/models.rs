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
