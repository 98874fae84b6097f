//! Input that is wrong, too large or hostile: refused with a message that helps, nothing stored, the host goes on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wasmeter_testkit::{Answer, Host, component, manifest, model_card, raw, repository, tiny_model};

async fn host() -> Host {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.deploy("echo", &manifest("echo").public()).await;
    host
}

/// After every refusal.
async fn still_serves(host: &Host) {
    assert_eq!(host.anonymous().get("/fn/dev/echo/hello").send().await.expect(200).text(), "hello\n");
}

fn is(answer: &Answer, status: u16, code: &str, parts: &[&str]) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text());
    assert_eq!(answer.header("x-wasmeter-error-source"), Some("platform"), "{}", answer.text());
    for part in parts {
        assert!(answer.message().contains(part), "{part:?} in {:?}", answer.message());
    }
}

async fn functions(host: &Host) -> Vec<Value> {
    let list = host.dev().get("/api/v1/tenants/dev/functions").send().await.expect(200).json();
    list["functions"].as_array().expect("functions").clone()
}

/// Files below the data directory that hold content of users.
fn stored(host: &Host) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![host.data().join("blobs"), host.data().join("artifacts")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => found.push(path.display().to_string()),
            }
        }
    }
    found.sort();
    found
}

fn bad(name: &str) -> Vec<u8> {
    let path = repository().join("functions/_fixtures/bad").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[tokio::test]
async fn uploads_that_are_no_function() {
    let host = host().await;
    let before = stored(&host);
    let mut cut = component("echo");
    cut.truncate(cut.len() / 2);
    let mut bent = component("echo");
    let middle = bent.len() / 2;
    bent[middle..middle + 64].fill(0xff);
    let uploads = [
        ("not Wasm", b"#!/bin/sh\necho hello\n".to_vec(), "not Wasm"),
        ("a megabyte of zeros", vec![0; 1 << 20], "not Wasm"),
        ("a compiled artifact", b"\x7fELF\x02\x01\x01".to_vec(), "upload the component"),
        ("a core module", bad("core-module.wasm"), "core module"),
        ("no export", bad("no-export.wasm"), "wasi:http/incoming-handler"),
        ("an import that nobody provides", component("alien"), "acme:rocket/launch"),
        ("half a component", cut, ""),
        ("a bent component", bent, ""),
        ("nothing", Vec::new(), "empty"),
    ];
    for (what, bytes, part) in uploads {
        let answer = host.try_deploy("dev", bytes, &manifest("bad")).await;
        assert_eq!(answer.status, 422, "{what}: {}", answer.text());
        is(&answer, 422, "invalid", &[part]);
        assert!(!answer.message().contains("/root") && !answer.message().contains("panicked"), "{what}");
        still_serves(&host).await;
    }
    let manifests = [
        ("[function]\nname = \"bad\"\ncolour = 1\n".to_owned(), "colour"),
        (manifest("worse").text(), "worse"),
        (manifest("bad").limits("memory = \"-1\"").text(), "memory"),
        (manifest("bad").models(&["../../etc/passwd"]).text(), "passwd"),
        (manifest("bad").models(&["no-such-model"]).text(), "no-such-model"),
        ("[[[".to_owned(), ""),
    ];
    for (text, part) in manifests {
        let body = format!(
            "--b\r\ncontent-disposition: form-data; name=\"manifest\"\r\n\r\n{text}\r\n--b\r\n\
             content-disposition: form-data; name=\"component\"\r\n\r\nx\r\n--b--\r\n"
        );
        let call = host.dev().put("/api/v1/tenants/dev/functions/bad", body);
        let answer = call.header("content-type", "multipart/form-data; boundary=b").send().await;
        is(&answer, 422, "invalid", &[part]);
    }
    for (content_type, body) in [
        ("multipart/form-data", "x"),
        ("multipart/form-data; boundary=b", "--b\r\nno headers"),
        ("multipart/form-data; boundary=b", "--b--\r\n"),
        ("text/html", "<html>"),
    ] {
        let call = host.dev().put("/api/v1/tenants/dev/functions/bad", body);
        let answer = call.header("content-type", content_type).send().await;
        is(&answer, 400, "malformed", &[]);
    }
    assert_eq!(functions(&host).await.len(), 1, "something was stored");
    assert_eq!(stored(&host), before, "something was stored");
    assert_eq!(host.dev().get("/fn/dev/bad").send().await.status, 404);
    still_serves(&host).await;
}

/// Sends a head, then zeros until the host answers or closes: the answer, and how much it took.
async fn flood(address: SocketAddr, head: String, most: usize) -> (String, usize) {
    let stream = TcpStream::connect(address).await.expect("the host accepts connections");
    let (mut reading, mut writing) = stream.into_split();
    writing.write_all(head.as_bytes()).await.expect("the head is taken");
    let writer = tokio::spawn(async move {
        let piece = vec![0; 1 << 20];
        let mut sent = 0;
        while sent < most {
            let count = piece.len().min(most - sent);
            if writing.write_all(&piece[..count]).await.is_err() {
                break;
            }
            sent += count;
        }
        sent
    });
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), reading.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the host did not close");
    drop(reading);
    (String::from_utf8_lossy(&answer).into_owned(), writer.await.expect("the writer"))
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let host = host().await;
    host.deploy("big-body", &manifest("big-body").public().limits("request-body = \"64KiB\"")).await;
    let token = host.dev().token().expect("a token").to_owned();
    let before = stored(&host);
    // 200 MB of zeros: refused by their announced length, and not read to their end.
    let size = 200_000_000;
    let head = |framing: &str| {
        format!(
            "PUT /api/v1/tenants/dev/functions/zeros HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/wasm\r\n{framing}\r\n\r\n",
            host.address()
        )
    };
    let began = Instant::now();
    let (answer, sent) = flood(host.address(), head(&format!("content-length: {size}")), size).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("\"too_large\"") && answer.contains("64MiB"), "{answer}");
    assert!(sent < size / 2, "{sent} bytes were taken");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // In one chunk that says less than it should at first: counted on its way.
    let (answer, sent) =
        flood(host.address(), head("transfer-encoding: chunked") + "bebc200\r\n", size).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(sent < size / 2, "{sent} bytes were taken");

    // A function's own limit, by length and in chunks.
    let long = vec![b'x'; (64 << 10) + 1];
    let answer = host.dev().post("/fn/dev/big-body", long.clone()).send().await;
    is(&answer, 413, "too_large", &["limits.request-body", "65536"]);
    host.deploy("echo", &manifest("echo").public().limits("request-body = \"64KiB\"")).await;
    let answer = host.dev().post("/fn/dev/echo", long.clone()).chunked().send().await;
    is(&answer, 413, "too_large", &["limits.request-body"]);
    assert_eq!(
        host.receipt("dev", &answer.invocation()).await["cost_pico"],
        "0",
        "a refused request is free"
    );
    let fits = host.dev().post("/fn/dev/echo", long[1..].to_vec()).chunked().send().await.expect(200);
    assert_eq!(fits.json()["body_bytes"], 64 << 10);
    let answer = host.dev().call(Method::POST, "/api/v1/token").body(vec![b' '; 100_000]);
    is(&answer.header("content-type", "application/json").send().await, 413, "too_large", &[]);
    assert_eq!(functions(&host).await.len(), 2);
    assert!(stored(&host).len() <= before.len() + 1, "something was stored");
    still_serves(&host).await;
}

#[tokio::test]
async fn names_paths_and_methods() {
    let host = host().await;
    for path in [
        "/api/v1/tenants/dev/functions/..%2F..%2Fetc",
        "/api/v1/tenants/dev/functions/%2e%2e",
        "/api/v1/tenants/dev/functions/a--b",
        "/api/v1/tenants/dev/functions/UPPER",
        "/api/v1/tenants/dev/functions/-a",
        "/api/v1/tenants/dev/functions/a%00b",
    ] {
        let answer = host.dev().put(path, component("echo")).send().await;
        is(&answer, 400, "malformed", &["a-z"]);
    }
    let long = format!("/api/v1/tenants/dev/functions/{}", "a".repeat(41));
    is(&host.dev().put(&long, component("echo")).send().await, 400, "malformed", &["40"]);
    for path in
        ["/fn/dev/..%2f..%2fetc", "/fn/dev/../../etc/passwd", "/fn/..%2f/echo", "/fn/dev/echo@..", "/fn/dev"]
    {
        let answer = host.dev().get(path).send().await;
        is(&answer, 400, "malformed", &[]);
    }
    // Raw, as no client would send it: the router takes names, never paths.
    let token = host.dev().token().expect("a token").to_owned();
    let line = "PUT /api/v1/tenants/dev/functions/../../../../etc/cron.d/x HTTP/1.1";
    let request = format!("{line}\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: 1\r\n\r\nx");
    let answer = raw(host.address(), request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 404 ") || answer.starts_with("HTTP/1.1 400 "), "{answer}");

    is(&host.anonymous().get("/").send().await, 404, "not_found", &["/fn/{tenant}/{function}"]);
    is(&host.anonymous().get("/nothing").send().await, 404, "not_found", &[]);
    is(&host.dev().get("/api/v1/nothing").send().await, 404, "not_found", &["openapi.json"]);
    let answer = host.dev().call(Method::PATCH, "/api/v1/tenants/dev/functions").send().await;
    is(&answer, 405, "method_not_allowed", &["openapi.json"]);
    is(&host.dev().get("/api/v1/tenants/dev/usage?by=colour").send().await, 400, "malformed", &["colour"]);
    is(&host.dev().get("/api/v1/tenants/dev/usage?from=now").send().await, 400, "malformed", &["from"]);
    is(&host.dev().get("/api/v1/tenants/dev/receipts/xyz").send().await, 400, "malformed", &[]);
    let json = host.dev().call(Method::POST, "/api/v1/token").header("content-type", "application/json");
    is(&json.body("{\"scopes\": 1}").send().await, 400, "malformed", &[]);
    assert_eq!(functions(&host).await.len(), 1, "something was stored");
    still_serves(&host).await;
}

#[tokio::test]
async fn broken_http() {
    let host = host().await;
    let own = host.address();
    let lines = |lines: &[&str]| lines.join("\r\n") + "\r\n\r\n";
    let hello = "GET /fn/dev/echo/hello HTTP/1.1";
    let post = "POST /fn/dev/echo HTTP/1.1";
    let smuggled = "GET /fn/dev/echo/hello HTTP/1.1\r\nhost: x\r\n\r\n";
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let cases = [
        ("no Host", lines(&[hello]), 400),
        ("two Hosts", lines(&[hello, "host: a", "host: b"]), 400),
        ("a Host that is none", lines(&[hello, "host: a b/c"]), 400),
        ("no HTTP", "hello\r\n\r\n".to_owned(), 400),
        ("another version", lines(&["GET / HTTP/3.7", "host: x"]), 400),
        ("a line without a colon", lines(&[hello, "host: x", "nonsense"]), 400),
        ("a name with a space", lines(&[hello, "host: x", "a b: c"]), 400),
        ("two lengths", lines(&[post, "host: x", "content-length: 5", "content-length: 6"]) + "123456", 400),
        ("a length that is none", lines(&[post, "host: x", "content-length: +5"]) + "12345", 400),
        ("a negative length", lines(&[post, "host: x", "content-length: -1"]), 400),
        (
            "an unknown coding",
            lines(&[post, "host: x", "transfer-encoding: chunked, identity"]) + "0\r\n\r\n",
            400,
        ),
        ("a broken chunk", lines(&[post, "host: x", "transfer-encoding: chunked"]) + "zz\r\nx\r\n", 400),
        ("a huge header", lines(&[hello, "host: x", &format!("x: {}", "y".repeat(100_000))]), 431),
        ("many headers", lines(&[hello, "host: x", many.trim_end()]), 431),
        ("a long path", lines(&[&format!("GET /fn/dev/echo/{} HTTP/1.1", "y".repeat(9000)), "host: x"]), 400),
    ];
    for (what, request, status) in &cases {
        let answer = raw(own, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: more than one answer: {answer}");
    }
    // Length and coding together are how requests are smuggled. The coding counts, and the connection ends with the
    // one answer (RFC 9112, section 6.3).
    for head in [
        ["content-length: 6", "transfer-encoding: chunked"],
        ["transfer-encoding: chunked", "content-length: 4"],
    ] {
        let request = lines(&[post, "host: x", head[0], head[1]]) + "0\r\n\r\n" + smuggled;
        let answer = raw(own, request.as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{head:?}: {answer}");
        assert!(
            answer.contains("connection: close") && answer.contains("\"body_bytes\":0"),
            "{head:?}: {answer}"
        );
        assert!(!answer.contains("hello\n"), "{head:?}: the second request was answered");
    }
    // A client that says nothing, and one that leaves in its head.
    let mut silent = TcpStream::connect(own).await.expect("a connection");
    silent.write_all(b"GET / HT").await.expect("a piece of a head");
    drop(TcpStream::connect(own).await.expect("a connection"));
    still_serves(&host).await;
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_millis(100), silent.read(&mut byte)).await;
    assert!(read.is_err() || matches!(read, Ok(Ok(0))), "an answer to half a head");
}

#[tokio::test]
async fn models_that_are_none() {
    let host = host().await;
    let before = stored(&host);
    let files = |bytes: Vec<u8>| [("model.onnx".to_owned(), bytes)];
    let random: Vec<u8> = (0u32..100_000).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut cut = tiny_model("mlp");
    cut.truncate(cut.len() / 2);
    for (what, bytes) in [("random bytes", random), ("nothing", Vec::new()), ("half a model", cut)] {
        let answer = host.try_push("bad", 1, &model_card("bad"), &files(bytes)).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "invalid"), "{what}: {}", answer.text());
        assert!(!answer.message().is_empty());
        still_serves(&host).await;
    }
    let good = || files(tiny_model("mlp"));
    let cards = [
        (model_card("other"), "other"),
        (model_card("bad").replace("onnx\"\nfiles", "magic\"\nfiles"), "magic"),
        (model_card("bad").replace("[model]", "[model]\ncolour = 1"), "colour"),
        (model_card("bad").replace("\"model.onnx\"", "\"../../etc/passwd\""), "passwd"),
        (model_card("bad").replace("\"model.onnx\"", "\"model.onnx\", \"labels.txt\""), "labels.txt"),
        (model_card("bad") + "devices = [\"cuda:7\"]\n", "cuda:7"),
        ("nonsense".to_owned(), "model.toml"),
    ];
    for (card, part) in cards {
        let answer = host.try_push("bad", 1, &card, &good()).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "invalid"), "{card}: {}", answer.text());
        assert!(answer.message().contains(part), "{part:?} in {:?}", answer.message());
    }
    for version in ["0", "x", "-1", "4294967296", "01"] {
        let path = format!("/api/v1/models/bad/versions/{version}");
        is(&host.operator().put(&path, "x").send().await, 400, "malformed", &["version"]);
    }
    assert_eq!(stored(&host), before, "something was stored");
    assert_eq!(host.operator().get("/api/v1/models/bad").send().await.status, 404);

    // The same version again: the same content changes nothing, other content is refused and changes nothing.
    host.push_tiny("mlp").await;
    let card = model_card("mlp");
    host.try_push("mlp", 1, &card, &good()).await.expect(200);
    let answer = host.try_push("mlp", 1, &card, &files(tiny_model("identity-f32"))).await;
    is(&answer, 409, "conflict", &["version 1", "next number"]);
    host.try_push("mlp", 2, &card, &good()).await.expect(201);
    host.deploy("nn-raw", &manifest("nn-raw").public().models(&["mlp"])).await;
    let right = host.anonymous().get("/fn/dev/nn-raw?case=ok").send().await.expect(200).json();
    assert_eq!(right["ok"], true, "{right}");
    still_serves(&host).await;
}
