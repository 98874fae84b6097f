//! A WebSocket in front of a function: messages, limits, close codes, bills.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use wasmeter_testkit::{Client, Host, manifest, raw};

type Socket = WebSocketStream<TcpStream>;

async fn try_open(client: &Client, path: &str) -> Result<(Socket, String), Error> {
    let mut request = format!("ws://{}{path}", client.address()).into_client_request().expect("a request");
    if let Some(token) = client.token() {
        let value = format!("Bearer {token}").parse().expect("a header");
        request.headers_mut().insert("authorization", value);
    }
    let stream = TcpStream::connect(client.address()).await.expect("a connection");
    let (socket, response) = client_async(request, stream).await?;
    let id = response.headers().get("x-wasmeter-invocation").expect("an invocation");
    Ok((socket, id.to_str().expect("text").to_owned()))
}

async fn open(client: &Client, path: &str) -> (Socket, String) {
    try_open(client, path).await.expect("a WebSocket")
}

async fn next(socket: &mut Socket) -> Message {
    loop {
        let next = tokio::time::timeout(Duration::from_secs(20), socket.next()).await.expect("in time");
        match next.expect("a message").expect("a whole one") {
            Message::Ping(_) | Message::Pong(_) => {}
            message => return message,
        }
    }
}

async fn ask(socket: &mut Socket, text: &str) -> Message {
    socket.send(Message::text(text)).await.expect("sent");
    next(socket).await
}

/// Code and reason of the close frame that follows.
async fn closed(socket: &mut Socket, text: &str) -> (u16, String) {
    match ask(socket, text).await {
        Message::Close(Some(CloseFrame { code, reason })) => (code.into(), reason.to_string()),
        other => panic!("{text}: {other:?}"),
    }
}

#[tokio::test]
async fn a_connection_is_one_invocation() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.deploy("socket", &manifest("socket").public().section("websocket", "message = \"64KiB\"")).await;
    let (mut socket, id) = open(host.dev(), "/ws/fn/dev/socket/any?x=1").await;
    assert_eq!(ask(&mut socket, "hello").await, Message::text("HELLO"));
    socket.send(Message::binary(vec![1, 2, 3])).await.expect("sent");
    assert_eq!(next(&mut socket).await, Message::binary(vec![1, 2, 3]));
    socket.send(Message::text("many 500")).await.expect("sent");
    for n in 0..500 {
        assert_eq!(next(&mut socket).await, Message::text(n.to_string()));
    }
    let (code, reason) = closed(&mut socket, "bye").await;
    assert_eq!(code, 1000);
    let usage: serde_json::Value = serde_json::from_str(&reason).expect("usage as JSON");
    let receipt = host.receipt("dev", &id).await;
    assert_eq!((&receipt["record"]["outcome"], &receipt["record"]["status"]), (&"ok".into(), &200.into()));
    assert_eq!(usage["fuel"], receipt["record"]["fuel"]);
    assert!(usage["fuel"].as_u64().is_some_and(|f| f > 0) && usage["cost"].is_string(), "{usage}");

    // Failures are close codes: 4000 + the status that an answer would have had.
    for (text, code, part) in [
        ("close 4001 so long", 4001, "so long"),
        ("close 1005 x", 1011, "x"),
        ("fail", 4418, "asked to fail"),
        ("trap", 4502, "trapped"),
        ("large 65535", 0, ""),
    ] {
        let (mut socket, id) = open(host.anonymous(), "/ws/fn/dev/socket").await;
        if code == 0 {
            assert_eq!(ask(&mut socket, text).await.len(), 65535);
            assert_eq!(closed(&mut socket, "bye").await, (1000, String::new()), "no figures for a stranger");
            continue;
        }
        let (got, reason) = closed(&mut socket, text).await;
        assert_eq!(got, code, "{text}: {reason}");
        assert!(reason.contains(part), "{text}: {reason}");
        let outcome = host.receipt("dev", &id).await["record"]["outcome"].clone();
        assert_eq!(outcome, if text == "trap" { "trap" } else { "ok" }, "{text}");
    }
    // Too large a message: 1009, and the guest was told the end.
    let (mut socket, id) = open(host.dev(), "/ws/fn/dev/socket").await;
    let (code, _) = closed(&mut socket, &"x".repeat((64 << 10) + 1)).await;
    assert_eq!(code, 1009);
    assert_eq!(host.receipt("dev", &id).await["record"]["outcome"], "ok");
    // A client that closes, and one that is simply gone, while the guest waits.
    let (mut socket, id) = open(host.dev(), "/ws/fn/dev/socket").await;
    socket.close(None).await.expect("closed");
    assert!(matches!(next(&mut socket).await, Message::Close(_)));
    assert_eq!(host.receipt("dev", &id).await["record"]["outcome"], "ok");
    let (socket, id) = open(host.dev(), "/ws/fn/dev/socket").await;
    drop(socket);
    assert_eq!(host.receipt("dev", &id).await["record"]["outcome"], "ok", "the guest sees the end and ends");
}

#[tokio::test]
async fn limits_and_refusals() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    let limits = "concurrency = 2\nfuel = 1_000_000_000_000";
    let socket = manifest("socket").public().limits(limits);
    host.deploy("socket", &socket.section("websocket", "deadline = \"3s\"\nidle = \"1s\"")).await;
    host.deploy("echo", &manifest("echo").limits("deadline = \"1s\"")).await;
    let status = |opened: Result<(Socket, String), Error>| match opened {
        Err(Error::Http(response)) => response.status().as_u16(),
        other => panic!("{other:?}"),
    };
    // The guest's own refusal, a guest that knows nothing of it, and those of the platform.
    assert_eq!(status(try_open(host.anonymous(), "/ws/fn/dev/socket?refuse=403").await), 403);
    assert_eq!(status(try_open(host.dev(), "/ws/fn/dev/echo").await), 504);
    assert_eq!(status(try_open(host.anonymous(), "/ws/fn/dev/echo").await), 401);
    assert_eq!(status(try_open(host.dev(), "/ws/fn/dev/nothing").await), 404);
    let plain = host.dev().get("/ws/fn/dev/socket").send().await.expect(400);
    assert!(plain.message().contains("upgrade"), "{}", plain.message());
    let plain = host.dev().get("/fn/dev/socket").send().await.expect(400);
    assert!(plain.text().contains("/ws/fn/"), "{}", plain.text());
    for lines in [
        "sec-websocket-version: 8\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version: 13",
        "sec-websocket-version: 13\r\nsec-websocket-key: short",
    ] {
        let head = "GET /ws/fn/dev/socket HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket";
        let answer = raw(host.address(), format!("{head}\r\n{lines}\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{lines}: {answer}");
    }
    // Idle, then a deadline, then the function's concurrency.
    let (mut quiet, id) = open(host.dev(), "/ws/fn/dev/socket").await;
    let Message::Close(Some(frame)) = next(&mut quiet).await else { panic!("not closed") };
    assert_eq!(u16::from(frame.code), 4408, "{}", frame.reason);
    assert_eq!(host.receipt("dev", &id).await["record"]["outcome"], "ok");
    let (mut loops, id) = open(host.dev(), "/ws/fn/dev/socket").await;
    loops.send(Message::text("spin")).await.expect("sent");
    let (mut other, _) = open(host.dev(), "/ws/fn/dev/socket").await;
    assert_eq!(status(try_open(host.dev(), "/ws/fn/dev/socket").await), 429);
    // A guest that does not look up is idle, too; it is stopped and billed.
    let Message::Close(Some(frame)) = next(&mut loops).await else { panic!("not closed") };
    assert!(matches!(u16::from(frame.code), 4408 | 4504), "{frame:?}");
    let receipt = host.receipt("dev", &id).await;
    let outcome = receipt["record"]["outcome"].as_str().expect("an outcome");
    assert!(matches!(outcome, "deadline" | "disconnect"), "{receipt}");
    assert!(receipt["cost_pico"] != "0", "{receipt}");
    assert!(matches!(next(&mut other).await, Message::Close(_)));
}

#[tokio::test]
async fn a_drain_says_going_away() {
    let mut host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.deploy("socket", &manifest("socket").public()).await;
    let (mut socket, id) = open(host.dev(), "/ws/fn/dev/socket").await;
    assert_eq!(ask(&mut socket, "a").await, Message::text("A"));
    let client = tokio::spawn(async move { next(&mut socket).await });
    assert!(host.term().await.success());
    let Message::Close(Some(frame)) = client.await.expect("the client") else { panic!("not closed") };
    assert_eq!(u16::from(frame.code), 1001);
    host.start().await;
    let receipt = host.receipt("dev", &id).await;
    assert_eq!(receipt["record"]["outcome"], "ok", "the guest saw the end and ended: {receipt}");
}
