//! Callers that mean it ill, or do not care: what they leave behind is stopped, recorded and billed.

mod hostile_parts;

use std::time::Duration;

use hostile_parts::held::Held;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wasmeter_testkit::{Host, component, manifest};

async fn host(limits: &str) -> Host {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    let manifest = manifest("hostile").public().limits(limits);
    host.try_deploy("dev", component("hostile"), &manifest).await.expect(201);
    host
}

/// A connection with one request on it.
async fn ask(host: &Host, path: &str) -> TcpStream {
    let mut connection = TcpStream::connect(host.address()).await.expect("the host listens");
    let request = format!("GET /fn/dev/{path} HTTP/1.1\r\nhost: {}\r\n\r\n", host.address());
    connection.write_all(request.as_bytes()).await.expect("a request is taken");
    connection
}

fn outcome(receipt: &Value) -> (&str, u64) {
    let record = &receipt["record"];
    (record["outcome"].as_str().expect("an outcome"), record["fuel"].as_u64().expect("fuel"))
}

#[tokio::test]
async fn who_never_reads_is_cut_off_at_the_deadline() {
    let limits = "deadline = \"1s\"\nfuel = 1_000_000_000_000\nresponse-body = \"1GiB\"\nmemory = \"32MiB\"";
    let host = host(limits).await;
    let before = Held::by(&host);
    let mut connections = Vec::new();
    for _ in 0..16 {
        connections.push(ask(&host, "hostile/body").await);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for receipt in host.receipts_after("dev", 16).await {
        let (outcome, fuel) = outcome(&receipt);
        assert!(outcome == "deadline" && fuel > 10_000, "{receipt}");
        // What the kernel and the channels hold, not what the guest could have written.
        assert!(
            receipt["record"]["egress_bytes"].as_u64().is_some_and(|bytes| bytes < 64 << 20),
            "{receipt}"
        );
    }
    // They are still there and still do not read: the guests are gone.
    let after = Held::by(&host);
    assert!(after.kib < before.kib + (64 << 10), "{before:?}, then {after:?}");
    drop(connections);
}

#[tokio::test]
async fn who_leaves_early_stops_the_guest_and_pays() {
    let host = host("deadline = \"60s\"\nfuel = 1_000_000_000_000\nresponse-body = \"1GiB\"").await;
    // Before the head, in the middle of the body, and while the guest waits.
    for (count, path) in ["loop", "loop-in-host", "random", "body", "sleep"].iter().enumerate() {
        let mut connection = ask(&host, &format!("hostile/{path}")).await;
        if *path == "body" {
            let mut some = [0; 4096];
            connection.read_exact(&mut some).await.expect("the beginning of the body");
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        drop(connection);
        let receipts = host.receipts_after("dev", count + 1).await;
        let all: Vec<_> = receipts.iter().map(outcome).collect();
        assert!(all.iter().all(|(outcome, fuel)| *outcome == "disconnect" && *fuel > 0), "{path}: {all:?}");
    }
}

#[tokio::test]
async fn who_connects_and_is_silent_is_in_nobodys_way() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    host.try_deploy("dev", component("echo"), &manifest("echo").public()).await.expect(201);
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(host.address()).await.expect("the host listens"));
    }
    let mut asking = Vec::new();
    for _ in 0..50 {
        asking.push(ask(&host, "echo/").await);
    }
    let answers = async {
        for connection in &mut asking {
            let mut head = [0; 12];
            connection.read_exact(&mut head).await.expect("an answer");
            assert_eq!(&head, b"HTTP/1.1 200");
        }
    };
    tokio::time::timeout(Duration::from_secs(5), answers).await.expect("before the silent ones are given up");
    drop(silent);
}
