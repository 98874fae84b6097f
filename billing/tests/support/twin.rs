//! A real twin of Stripe beside a real billing, and a time that both share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wasmeter_usage::wire::{Call, Reply};
use wasmeter_usage::{Standing, StandingState};

use crate::support::{self, Billing, Client, Home};

pub struct Twin {
    child: Child,
    pub address: String,
    pub data: PathBuf,
    /// Where billing listens for webhooks.
    pub webhooks: String,
    clock: PathBuf,
    pub ahead: i64,
}

/// Twin and billing of one test.
pub struct Pair {
    pub home: Home,
    pub twin: Twin,
}

impl Pair {
    pub fn new() -> Self {
        let home = Home::new();
        let data = home.dir.path().join("twin");
        // Free when it is asked for, and nobody else's a moment later.
        let webhooks = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut child = home
            .command()
            .args(["twin", "--seed", "7", "--data"])
            .arg(&data)
            .args(["--webhook-url", &format!("http://{webhooks}/stripe/webhook")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("twin listening on http://").unwrap().to_owned();
        let clock = home.dir.path().join("clock");
        std::fs::write(&clock, "0").unwrap();
        let twin = Twin { child, address, data, webhooks, clock, ahead: 0 };
        Self { home, twin }
    }

    pub fn stripe_args(&self) -> Vec<String> {
        let file = |name: &str| self.twin.data.join(name).to_str().unwrap().to_owned();
        let url = format!("http://{}", self.twin.address);
        ["--stripe", "twin", "--stripe-url", &url, "--stripe-key-file", &file("secret-key")]
            .map(str::to_owned)
            .into()
    }

    /// Starts billing, with usage sent a second after it was seen where `flush` says so.
    pub fn start(&self, more: &[&str]) -> Billing {
        let mut command = self.home.serve_command();
        command
            .args(self.stripe_args())
            .arg("--webhook-secret-file")
            .arg(self.twin.data.join("webhook-secret"));
        command.args(["--webhook-listen", &self.twin.webhooks]).arg("--clock-file").arg(&self.twin.clock);
        command.env("WASMETER_LOG", "info").args(more);
        Billing { child: command.spawn().unwrap() }
    }

    /// Runs a command against the twin; whether it was content, and its JSON.
    pub fn run(&self, command: &str, more: &[&str]) -> (bool, Value) {
        let output = self
            .home
            .command()
            .arg(command)
            .args(self.stripe_args())
            .args(["--format", "json"])
            .args(more)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let json = serde_json::from_str(&text);
        (
            output.status.success(),
            json.unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr))),
        )
    }

    pub fn reconcile(&self) -> (bool, Value) {
        self.reconcile_with(&[])
    }

    pub fn reconcile_with(&self, more: &[&str]) -> (bool, Value) {
        let data = self.home.data();
        let clock = self.twin.clock.to_str().unwrap();
        let mut args = vec!["--settled=-1", "--data", data.to_str().unwrap(), "--clock-file", clock];
        args.extend(more);
        self.run("reconcile", &args)
    }

    pub fn outbox(&self) -> Value {
        let output = self
            .home
            .command()
            .args(["outbox", "list", "--format", "json", "--data"])
            .arg(self.home.data())
            .output();
        serde_json::from_slice(&output.unwrap().stdout).unwrap()
    }

    /// Calls the twin as somebody else with the key would; its answer.
    pub fn stripe(&self, method: &str, path: &str, form: &str) -> Value {
        let key = std::fs::read_to_string(self.twin.data.join("secret-key")).unwrap();
        let bearer = format!("Bearer {}", key.trim());
        let (status, text) = http(&self.twin.address, method, path, form, &[("authorization", &bearer)]);
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Rows of a kind of object at the twin.
    pub fn rows(&self, kind: &str) -> Vec<Value> {
        self.twin.get(&format!("state?kind={kind}"))["rows"].as_array().unwrap().clone()
    }

    /// Waits until nothing is under way any more.
    pub fn delivered(&self, seconds: u64) -> Value {
        until(seconds, || {
            let outbox = self.outbox();
            let under_way =
                ["open", "ready", "sending", "parked"].map(|state| outbox["states"][state].as_u64());
            if outbox["uncounted"] == 0 && under_way.iter().all(Option::is_none) {
                Ok(outbox)
            } else {
                Err(outbox)
            }
        })
    }

    /// Subscribes a tenant with a card on the page that billing names.
    pub fn subscribe(&self, client: &mut Client, tenant: &str, card: &str) {
        let back = "http://127.0.0.1:9/back".to_owned();
        let call = Call::Checkout { tenant: tenant.into(), success_url: back.clone(), cancel_url: back };
        let url = match client.call(&call) {
            Reply::Page { url } => url,
            other => panic!("{other:?}"),
        };
        let path = url.split_once(&self.twin.address).unwrap().1;
        let (status, body) = http(&self.twin.address, "POST", path, &format!("card={card}"), &[]);
        assert_eq!(status, 303, "{body}");
    }

    pub fn standing(&self, client: &mut Client, tenant: &str) -> Standing {
        match client.call(&Call::Standing { tenant: tenant.into() }) {
            Reply::Standing(standing) => standing,
            other => panic!("{other:?}"),
        }
    }

    pub fn await_state(&self, client: &mut Client, tenant: &str, state: StandingState) {
        until(30, || {
            let standing = self.standing(client, tenant);
            if standing.state == state { Ok(()) } else { Err(standing) }
        });
    }
}

impl Twin {
    pub fn post(&self, what: &str, body: &Value) -> Value {
        let kind = [("content-type", "application/json")];
        let (status, text) = http(&self.address, "POST", &format!("/_twin/{what}"), &body.to_string(), &kind);
        assert_eq!(status, 200, "{what}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    pub fn get(&self, what: &str) -> Value {
        let (status, text) = http(&self.address, "GET", &format!("/_twin/{what}"), "", &[]);
        assert_eq!(status, 200, "{what}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Time passes, for both.
    pub fn advance(&mut self, seconds: i64) {
        self.ahead += seconds;
        // Webhooks are signed by the machine's clock.
        self.post("faults", &json!({ "signature_skew_s": self.ahead }));
        self.post("clock", &json!({ "advance": seconds }));
        // Billing reads it whole or not at all.
        let draft = self.clock.with_extension("new");
        std::fs::write(&draft, self.ahead.to_string()).unwrap();
        std::fs::rename(&draft, &self.clock).unwrap();
    }

    pub fn now_ns(&self) -> u64 {
        support::now_ns().checked_add_signed(self.ahead * 1_000_000_000).unwrap()
    }

    /// Events that count: identifiers, and sums by customer and event name.
    pub fn events(&self) -> (Vec<String>, std::collections::BTreeMap<(String, String), u64>) {
        let (mut identifiers, mut sums) = (Vec::new(), std::collections::BTreeMap::new());
        for event in self.get("meter-events")["events"].as_array().unwrap() {
            let text = |name: &str| event[name].as_str().unwrap().to_owned();
            identifiers.push(text("identifier"));
            *sums.entry((text("customer"), text("event_name"))).or_default() +=
                event["value"].as_u64().unwrap();
        }
        identifiers.sort();
        (identifiers, sums)
    }

    pub fn sign(&self, body: &str, time: i64) -> String {
        self.post("sign", &json!({ "body": body, "time": time }))["signature"].as_str().unwrap().to_owned()
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until it is so, and then says what.
pub fn until<T, E: std::fmt::Debug>(seconds: u64, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match ask() {
            Ok(found) => return found,
            Err(last) if Instant::now() > deadline => panic!("still {last:?}"),
            Err(_) => std::thread::sleep(Duration::from_millis(30)),
        }
    }
}

/// One request on a connection of its own.
pub fn http(address: &str, method: &str, path: &str, body: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        head.push_str("content-type: application/x-www-form-urlencoded\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        unchunk(body)
    } else {
        body.to_owned()
    };
    (status, body)
}

fn unchunk(mut text: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole.push_str(&rest[..size]);
        text = &rest[size + 2..];
    }
    whole
}
