//! HTTP as it should not be, and as it seldom is: framing, pauses, floods, and the end of connections.

use std::time::{Duration, Instant};

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wasmeter_testkit::{Host, manifest, raw};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(content.len()).expect("short").to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(content);
    bytes
}

/// The header block of a GET, without a table (RFC 7541, section 6.2.2).
fn get(path: &str) -> Vec<u8> {
    let literal = |index: u8, value: &str| {
        let mut bytes = vec![index, u8::try_from(value.len()).expect("short")];
        bytes.extend(value.as_bytes());
        bytes
    };
    [vec![0x82, 0x86], literal(0x01, "x"), literal(0x04, path)].concat()
}

/// Kinds and contents of the frames that come until the host closes, or `most` have come.
async fn frames(stream: &mut TcpStream, most: usize) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while found.len() < most {
        let mut head = [0; 9];
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut head)).await;
        if read.expect("in time").is_err() {
            break;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut content = vec![0; length as usize];
        if stream.read_exact(&mut content).await.is_err() {
            break;
        }
        if (head[3], head[4] & 1) == (6, 0) {
            // A drain waits for the answer to its PING before the last GOAWAY.
            let _ = stream.write_all(&frame(6, 1, 0, &content)).await;
        }
        found.push((head[3], content));
    }
    found
}

async fn host() -> Host {
    let config = "[server]\nclient-timeout = \"1s\"\n";
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).config(config).start().await;
    host.deploy("echo", &manifest("echo").public()).await;
    host
}

#[tokio::test]
async fn framing_and_request_lines() {
    let host = host().await;
    let hello = "GET /fn/dev/echo/hello HTTP/1.1\r\nhost: x";
    let post = "POST /fn/dev/echo HTTP/1.1\r\nhost: x";
    let second = "GET /fn/dev/echo/hello HTTP/1.1\r\nhost: x\r\n\r\n";
    let chunked = format!("{post}\r\ntransfer-encoding: chunked\r\n\r\n");
    for (what, request, statuses) in [
        ("a folded header", format!("{hello}\r\nx-a: 1\r\n 2\r\n\r\n"), &[400][..]),
        ("a zero in a header", format!("{hello}\r\nx-a: 1\x002\r\n\r\n"), &[400]),
        ("a zero in the path", "GET /fn/dev/echo/\x00 HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), &[400]),
        ("a bare CR in a header", format!("{hello}\r\nx-a: 1\rx-b: 2\r\n\r\n"), &[400]),
        ("a space before the colon", format!("{hello}\r\ncontent-length : 3\r\n\r\nabc"), &[400]),
        ("two equal lengths in one", format!("{post}\r\ncontent-length: 3, 3\r\n\r\nabc"), &[400]),
        (
            "a coding that is not chunked",
            format!("{post}\r\ntransfer-encoding: gzip\r\n\r\n{second}"),
            &[400],
        ),
        (
            "chunked twice",
            format!("{post}\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n{second}"),
            &[400],
        ),
        ("a chunk of 2^64", format!("{chunked}10000000000000000\r\n{second}"), &[400]),
        ("a negative chunk", format!("{chunked}-1\r\n{second}"), &[400]),
        ("a chunk with 0x", format!("{chunked}0x1\r\na\r\n0\r\n\r\n{second}"), &[400]),
        ("a chunk without its end", format!("{chunked}1\r\nab\r\n0\r\n\r\n{second}"), &[400]),
        ("another scheme", "GET ftp://x/fn/dev/echo HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), &[400]),
        (
            "another host in the line",
            "GET http://y/fn/dev/echo HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
            &[400],
        ),
        ("a user in the host", "GET /fn/dev/echo HTTP/1.1\r\nhost: u@x\r\n\r\n".to_owned(), &[400]),
        ("a proxy's method", "CONNECT x:443 HTTP/1.1\r\nhost: x:443\r\n\r\n".to_owned(), &[405]),
        ("no path", "GET * HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), &[400]),
        ("the whole server", "OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), &[204]),
        (
            "the absolute form",
            "GET http://x/fn/dev/echo/hello HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
            &[200],
        ),
        ("HTTP/1.0", "GET /healthz HTTP/1.0\r\n\r\n".to_owned(), &[200]),
        ("a missing host", "GET /healthz HTTP/1.1\r\n\r\n".to_owned(), &[400]),
        ("a line end without CR", hello.replace("\r\n", "\n") + "\n\n", &[200, 400]),
    ] {
        let answer = raw(host.address(), request.as_bytes()).await;
        let status = answer.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
        assert!(statuses.contains(&status), "{what}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{what}: more than one answer: {answer}");
    }
    // OPTIONS and HEAD are the function's to answer.
    let options = host.anonymous().call(Method::OPTIONS, "/fn/dev/echo/x").send().await.expect(200);
    assert_eq!(options.json()["method"], "OPTIONS");
    let head = host.anonymous().call(Method::HEAD, "/fn/dev/echo/x").send().await.expect(200);
    assert!(head.body.is_empty());
}

#[tokio::test]
async fn who_waits_and_who_falls_silent() {
    let host = host().await;
    host.deploy("slow-body", &manifest("slow-body").public()).await;
    // 100 only where the body is wanted (RFC 9110, section 10.1.1).
    let expects = |path: &str, length: usize| {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue");
        format!("{head}\r\ncontent-length: {length}\r\n\r\n")
    };
    let mut stream = TcpStream::connect(host.address()).await.expect("a connection");
    stream.write_all(expects("/fn/dev/echo", 5).as_bytes()).await.expect("a head");
    let mut buffer = [0; 25];
    stream.read_exact(&mut buffer).await.expect("an interim answer");
    assert_eq!(&buffer, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.expect("a body");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"body\":\"hello\""), "{answer}");
    for (path, length, status) in
        [("/fn/dev/echo", 9 << 20, 413), ("/fn/dev/private", 5, 401), ("/fn/dev/slow-body", 5, 200)]
    {
        let answer = raw(host.address(), expects(path, length).as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
    // Half a body: 408, free.
    let half = "POST /fn/dev/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf";
    let mut stream = TcpStream::connect(host.address()).await.expect("a connection");
    stream.write_all(half.as_bytes()).await.expect("half a body");
    let began = Instant::now();
    let mut buffer = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(8), stream.read(&mut buffer)).await;
    let answer = String::from_utf8_lossy(&buffer[..read.expect("in time").expect("an answer")]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"slow_request\""), "{answer}");
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    let id = answer.split("x-wasmeter-invocation: ").nth(1).expect("an id")[..36].to_owned();
    let receipt = host.receipt("dev", &id).await;
    assert_eq!((&receipt["record"]["outcome"], &receipt["cost_pico"]), (&"refused".into(), &"0".into()));
    // Who leaves in the body pays what was used until then.
    let mut stream = TcpStream::connect(host.address()).await.expect("a connection");
    stream.write_all(half.as_bytes()).await.expect("half a body");
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(stream);
    let receipts = host.receipts_after("dev", 4).await;
    let outcomes: Vec<_> = receipts.iter().map(|r| r["record"]["outcome"].as_str().unwrap_or("")).collect();
    assert!(
        outcomes.contains(&"disconnect") || outcomes.iter().filter(|o| **o == "ok").count() == 3,
        "{outcomes:?}"
    );
    // Connections that say nothing, half a head, or half a preface, are closed.
    for said in [&b""[..], b"GET / HT", &PREFACE[..7]] {
        let mut stream = TcpStream::connect(host.address()).await.expect("a connection");
        stream.write_all(said).await.expect("sent");
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(6), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "{said:?}: still open");
    }
}

#[tokio::test]
async fn events_leave_when_they_happen() {
    let host = host().await;
    host.deploy("slow-body", &manifest("slow-body").public()).await;
    let path = "/fn/dev/slow-body?type=text/event-stream&chunks=3&delay_ms=700";
    let began = Instant::now();
    let mut events = host.dev().get(path).header("te", "trailers").stream().await;
    for n in 0..3u64 {
        let mut event = Vec::new();
        while event.len() < 1024 {
            event.extend(events.chunk().await.expect("a body").expect("a piece"));
        }
        assert_eq!(String::from_utf8_lossy(&event).trim(), n.to_string());
        // Each before the one after it was made.
        let next = Duration::from_millis(700) * u32::try_from(n + 2).expect("small");
        assert!(n == 2 || began.elapsed() < next, "event {n} after {:?}", began.elapsed());
    }
    let rest = events.rest().await.expect("the end");
    assert!(rest.trailers.contains_key("x-wasmeter-cost"), "{:?}", rest.trailers);
    assert_eq!(host.receipt("dev", &rest.invocation()).await["record"]["outcome"], "ok");
}

#[tokio::test]
async fn floods_of_streams() {
    let mut host = host().await;
    host.deploy("slow-body", &manifest("slow-body").public()).await;
    // Rapid reset (CVE-2023-44487): streams that are cancelled as soon as they are opened. The library says so.
    host.allow_log("pending-accept streams reached limit");
    let mut stream = TcpStream::connect(host.address()).await.expect("a connection");
    let mut flood = [PREFACE, &frame(4, 0, 0, &[])].concat();
    for n in 0..20_000u32 {
        flood.extend(frame(1, 5, 2 * n + 1, &get("/healthz")));
        flood.extend(frame(3, 0, 2 * n + 1, &8u32.to_be_bytes()));
    }
    let _ = stream.write_all(&flood).await;
    let told = frames(&mut stream, 100_000).await;
    // ENHANCE_YOUR_CALM, unless the connection was reset before it could be read.
    if let Some((_, content)) = told.iter().rev().find(|(kind, _)| *kind == 7) {
        assert_eq!(content.get(4..8), Some(&[0, 0, 0, 11][..]), "{content:?}");
    }
    let limited =
        |line: &wasmeter_testkit::LogLine| line.text.contains("pending-accept streams reached limit");
    // The line is on its way through a pipe.
    for _ in 0..100 {
        if host.log().iter().any(limited) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(host.log().iter().any(limited), "the flood was not stopped");
    // More open streams than are allowed: the rest is refused, not queued.
    let mut stream = TcpStream::connect(host.address()).await.expect("a connection");
    let mut open = [PREFACE, &frame(4, 0, 0, &[])].concat();
    for n in 0..400u32 {
        open.extend(frame(1, 5, 2 * n + 1, &get("/fn/dev/slow-body?chunks=1&delay_ms=2000")));
    }
    stream.write_all(&open).await.expect("sent");
    let told = frames(&mut stream, 150).await;
    let refused = told.iter().filter(|(kind, content)| *kind == 3 && content == &[0, 0, 0, 7]).count();
    assert!(refused >= 100, "{refused} of 400 streams were refused");
    drop(stream);
    host.anonymous().get("/fn/dev/echo/hello").send().await.expect(200);

    // A drain tells the client (GOAWAY), and what runs ends whole.
    let mut stream = TcpStream::connect(host.address()).await.expect("a connection");
    let call =
        [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 5, 1, &get("/fn/dev/slow-body?chunks=3&delay_ms=400"))];
    stream.write_all(&call.concat()).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(400)).await;
    let client = tokio::spawn(async move { frames(&mut stream, 1000).await });
    assert!(host.term().await.success());
    let told = client.await.expect("the client");
    let away = told.iter().find(|(kind, _)| *kind == 7).expect("GOAWAY");
    assert_eq!(away.1.get(4..8), Some(&[0, 0, 0, 0][..]), "without an error");
    let body: usize = told.iter().filter(|(kind, _)| *kind == 0).map(|(_, content)| content.len()).sum();
    assert_eq!(body, 3 << 10, "what ran was cut off");
}
