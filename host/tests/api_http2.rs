//! HTTP/2 with prior knowledge on the same port: many calls on one connection, figures in trailers.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use wasmeter_testkit::{Host, manifest};

type Sender = SendRequest<Full<Bytes>>;

async fn connect(host: &Host) -> Sender {
    let stream = TcpStream::connect(host.address()).await.expect("a connection");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

async fn send(sender: &Sender, host: &Host, path: &str, body: &'static [u8]) -> Response<Incoming> {
    let token = host.dev().token().expect("a token");
    let request =
        Request::post(format!("{}{path}", host.url())).header("authorization", format!("Bearer {token}"));
    let request = request.body(Full::new(Bytes::from_static(body))).expect("a request");
    sender.clone().send_request(request).await.expect("an answer")
}

#[tokio::test]
async fn http2_on_the_same_port() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.deploy("echo", &manifest("echo").limits("request-body = \"1KiB\"")).await;
    host.deploy("slow-body", &manifest("slow-body")).await;
    let sender = connect(&host).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let sender = sender.clone();
        let token = host.dev().token().expect("a token").to_owned();
        let url = format!("{}/fn/dev/slow-body?chunks=10&delay_ms=20", host.url());
        calls.spawn(async move {
            let request = Request::get(url).header("authorization", format!("Bearer {token}"));
            let request = request.body(Full::new(Bytes::new())).expect("a request");
            let answer = sender.clone().send_request(request).await.expect("an answer");
            let body = answer.into_body().collect().await.expect("a body");
            assert!(
                body.trailers().is_some_and(|t| t.contains_key("x-wasmeter-cost")),
                "{:?}",
                body.trailers()
            );
            assert_eq!(body.to_bytes().len(), 10 << 10);
        });
    }
    let echo = send(&sender, &host, "/fn/dev/echo/x", b"hello").await;
    assert_eq!(echo.status(), 200);
    assert!(echo.headers().contains_key("x-wasmeter-cost"));
    let body = echo.into_body().collect().await.expect("a body").to_bytes();
    let json: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((&json["body"], &json["authority"]), (&"hello".into(), &host.address().to_string().into()));
    let refused = send(&sender, &host, "/fn/dev/echo/x", &[b'x'; 1025]).await;
    assert_eq!(refused.status(), 413);
    while let Some(call) = calls.join_next().await {
        call.expect("a call");
    }
    host.receipts_after("dev", 21).await;
}
