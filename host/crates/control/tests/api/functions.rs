use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use crate::host::{FORM, Host, form, log_line, request};

const F: &str = "/api/v1/tenants/dev/functions/f";

#[tokio::test]
async fn a_function_is_deployed_shown_and_deleted() {
    let host = Host::new().await;
    let dev = host.dev();
    let first = host.deploy("f", b"component").await;
    assert_eq!(first.status, StatusCode::CREATED);
    let json = first.json();
    assert_eq!(json["size"], 9);
    assert_eq!(json["url"], "http://127.0.0.1:8080/fn/dev/f");
    assert_eq!(json["imports"][0], "wasi:nn/graph");
    assert_eq!(json["price_preview"]["request_pico"], "200");
    assert_eq!(json["limits"]["memory"], 128 << 20);
    let again = host.deploy("f", b"component").await;
    assert_eq!((again.status, &again.json()["revision"]), (StatusCode::OK, &json["revision"]));

    let manifest = "[function]\nname = \"f\"\npublic = true\n[models]\nallow = [\"minilm\"]\n";
    let body = || form(&[("component", b"component".as_slice()), ("manifest", manifest.as_bytes())]);
    let refused = host.put(&dev, F, FORM, body()).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.json()["message"].as_str().unwrap().contains("minilm"));
    let card = "[model]\nname = \"minilm\"\nbackend = \"onnx\"\nfiles = [\"m.onnx\"]\n";
    let model = form(&[("card", card.as_bytes()), ("m.onnx", b"graph")]);
    let pushed = host.put(&host.operator(), "/api/v1/models/minilm/versions/1", FORM, model).await;
    assert_eq!(pushed.status, StatusCode::CREATED);
    let second = host.put(&dev, F, FORM, body()).await;
    assert_eq!(second.status, StatusCode::CREATED);
    assert_eq!(second.json()["public"], true);

    let list = host.get(&dev, "/api/v1/tenants/dev/functions").await.json();
    assert_eq!(list["functions"][0]["revisions"], 2);
    let one = host.get(&dev, F).await.json();
    assert_eq!(one["live"], second.json()["revision"]);
    assert_eq!(one["revision"]["models"][0], "minilm");
    let revisions = host.get(&dev, &format!("{F}/revisions")).await.json();
    assert_eq!(revisions["revisions"][0]["revision"], json["revision"]);
    let id = json["revision"].as_str().unwrap();
    assert_eq!(host.get(&dev, &format!("{F}/revisions/{id}")).await.json()["public"], false);
    assert_eq!(host.get(&dev, &format!("{F}/revisions/x")).await.status, StatusCode::NOT_FOUND);

    assert_eq!(host.delete(&dev, F).await.status, StatusCode::NO_CONTENT);
    assert_eq!(host.delete(&dev, F).await.status, StatusCode::NOT_FOUND);
    assert_eq!(*host.seen.forgotten.lock().unwrap(), ["dev/f 2"]);
}

#[tokio::test]
async fn bytes_go_with_their_last_user() {
    let host = Host::new().await;
    host.deploy("f", b"component").await;
    host.deploy("g", b"component").await;
    assert_eq!(host.blobs.count(), 1);
    host.delete(&host.dev(), F).await;
    assert!(host.blobs.holds("dev", b"component"));
    host.delete(&host.dev(), "/api/v1/tenants/dev/functions/g").await;
    assert_eq!(host.blobs.count(), 0);
}

#[tokio::test]
async fn a_function_whose_pairs_cannot_be_removed_stays() {
    let host = Host::new().await;
    let (dev, path) = (host.dev(), "/api/v1/tenants/dev/functions/stuck");
    host.deploy("stuck", b"component").await;
    assert_eq!(host.delete(&dev, path).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(host.get(&dev, path).await.status, StatusCode::OK);
    let tenant = host.delete(&host.operator(), "/api/v1/tenants/dev").await;
    assert_eq!(tenant.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(host.get(&dev, path).await.status, StatusCode::OK);
    assert!(host.seen.forgotten.lock().unwrap().is_empty());
}

#[tokio::test]
async fn refused_uploads_leave_nothing() {
    let host = Host::new().await;
    let dev = host.dev();
    let wasm = "application/wasm";
    let named = |name: &str| format!("[function]\nname = \"{name}\"");
    let with = |manifest: &str| form(&[("component", b"c"), ("manifest", manifest.as_bytes())]);
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        (wasm, b"bad".to_vec(), 422, "not a component"),
        (wasm, vec![], 422, "empty"),
        ("text/plain", b"c".to_vec(), 400, "content-type"),
        (FORM, with(&named("g")), 422, "function.name is g"),
        (FORM, with(&named("../f")), 422, "../f"),
        (FORM, with("colour = 1"), 422, "colour"),
        (FORM, form(&[("manifest", named("f").as_bytes())]), 400, "\"component\" is missing"),
        (FORM, form(&[("component", b"c"), ("component", b"c")]), 400, "twice"),
        (FORM, form(&[("other", b"c")]), 400, "\"other\""),
        (FORM, form(&[("component", b"c"), ("manifest", &[b'#'; 70 << 10])]), 413, "64KiB"),
        (FORM, form(&[("component", b"c"), ("manifest", &[0xff])]), 400, "UTF-8"),
        (FORM, b"--XX\r\nbroken".to_vec(), 400, "multipart"),
        ("multipart/form-data", b"--XX--".to_vec(), 400, "boundary"),
    ];
    for (media, body, status, says) in cases {
        let answer = host.put(&dev, F, media, body).await;
        assert_eq!(answer.status.as_u16(), status, "{says}: {}", answer.message());
        assert!(answer.message().contains(says), "{says}: {}", answer.message());
    }
    for name in ["..%2Fx", "A", "a--b", "%00"] {
        let path = format!("/api/v1/tenants/dev/functions/{name}");
        assert_eq!(host.put(&dev, &path, wasm, "c").await.status, StatusCode::BAD_REQUEST, "{name}");
    }
    assert_eq!(host.blobs.count(), 0);
    let list = host.get(&dev, "/api/v1/tenants/dev/functions").await.json();
    assert_eq!(list["functions"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn size_is_refused_by_its_announcement_and_by_counting() {
    let host = Host::new().await;
    let announced = request(&host.dev(), Method::PUT, F).header("content-length", (200 << 20).to_string());
    // The body is never polled.
    let body = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let answer = host.send(announced.body(body).unwrap()).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::PAYLOAD_TOO_LARGE, "too_large".into()));

    let megabyte = Bytes::from(vec![0u8; 1 << 20]);
    for head in ["", "--XX\r\ncontent-disposition: form-data; name=\"component\"\r\n\r\n"] {
        let chunks = std::iter::once(Bytes::from(head)).chain(std::iter::repeat_n(megabyte.clone(), 200));
        let body = Body::from_stream(stream::iter(chunks.map(Ok::<_, std::io::Error>)));
        let media = if head.is_empty() { "application/wasm" } else { FORM };
        let answer = host.put(&host.dev(), F, media, body).await;
        assert_eq!(
            (answer.status, answer.message()),
            (StatusCode::PAYLOAD_TOO_LARGE, "at most 64MiB are taken".into())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_upload_ends() {
    let host = Host::new().await;
    let body = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let answer = host.put(&host.dev(), F, "application/wasm", body).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::REQUEST_TIMEOUT, "slow_request".into()));
}

#[tokio::test]
async fn logs_are_ndjson_and_go_on() {
    let host = Host::new().await;
    let dev = host.dev();
    host.deploy("f", b"component").await;
    let kept = "{\"time\":\"1970-01-01T00:00:01Z\",\"stream\":\"stdout\",\"text\":\"kept\"}\n";
    let tail = host.get(&dev, &format!("{F}/logs")).await;
    assert_eq!(tail.headers["content-type"], "application/x-ndjson");
    assert_eq!(tail.body, kept);

    let follow = request(&dev, Method::GET, &format!("{F}/logs?follow=true")).body(Body::empty()).unwrap();
    let mut body = host.router.clone().oneshot(follow).await.unwrap().into_body();
    let mut next = async || {
        String::from_utf8(body.frame().await.unwrap().unwrap().into_data().unwrap().to_vec()).unwrap()
    };
    assert_eq!(next().await, kept);
    host.logs.lines.send(log_line("new")).unwrap();
    assert!(next().await.contains("\"new\""));
    // The channel holds 4: a slow reader is told what it lost.
    for n in 0..7 {
        host.logs.lines.send(log_line(&format!("line {n}"))).unwrap();
    }
    assert!(next().await.contains("3 lines were skipped"));
    assert!(next().await.contains("line 3"));
    assert_eq!(host.get(&dev, &format!("{F}/logs?follow=maybe")).await.code(), "malformed");
}

#[tokio::test(start_paused = true)]
async fn a_deployment_tells_how_far_it_is() {
    let host = Host::new().await;
    let watched = |body: &'static [u8]| {
        let request = request(&host.dev(), Method::PUT, F).header("content-type", "application/wasm");
        let request = request.header("accept", "application/x-ndjson").body(Body::from(body)).unwrap();
        host.send(request)
    };
    let answer = watched(b"slow").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    let lines: Vec<serde_json::Value> =
        answer.body.split_inclusive(|b| *b == b'\n').map(|l| serde_json::from_slice(l).unwrap()).collect();
    let states: Vec<_> = lines.iter().map(|l| l["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["queued", "queued", "queued", "compiling", "compiling", "done"]);
    assert_eq!((&lines[0]["place"], &lines[4]["seconds"]), (&2.into(), &1.into()));
    let done = &lines[5];
    assert_eq!((&done["status"], &done["revision"]["size"]), (&201.into(), &4.into()));
    assert!(done["revision"]["price_preview"]["currency"].is_string());

    let refused = watched(b"bad").await;
    assert_eq!(refused.status, StatusCode::OK, "it was too late for a status");
    let line: serde_json::Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!((&line["state"], &line["status"]), (&"failed".into(), &422.into()));
    assert_eq!((&line["error"]["code"], &line["error"]["retry"]), (&"invalid".into(), &false.into()));
    // What is wrong before that has a status.
    let early = request(&host.dev(), Method::PUT, F).header("accept", "application/x-ndjson");
    assert_eq!(host.send(early.body(Body::empty()).unwrap()).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}
