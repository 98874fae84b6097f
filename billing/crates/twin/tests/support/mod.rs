//! A real twin on a real socket, in this process or in one that can be killed, and our own client.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;
use wasmeter_rating::{DEFAULT_PRICES, PriceBook};
use wasmeter_stripe::{Client, Endpoint, MeterEvent, Money, Patience, Secret};
use wasmeter_twin::{Options, Running};
use wasmeter_usage::{Meter, PriceSheet};

/// Names the data directory of a twin that is a process of its own.
const CHILD: &str = "WASMETER_TWIN_TEST_DATA";

pub struct Home {
    pub dir: TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn data(&self) -> &Path {
        self.dir.path()
    }

    fn line(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.data().join(name)).ok().map(|text| text.trim().to_owned())
    }

    pub fn secret(&self, name: &str) -> Secret {
        Secret::read(&self.data().join(name)).unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        self.line("twin-url").unwrap().strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Starts a twin on threads of this process.
    pub fn start(&self, webhook_url: Option<String>) {
        let options = Options { data: self.data().to_owned(), seed: Some(1), webhook_url };
        let (ready, started) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let running = Running::start(&options, "127.0.0.1:0".parse().unwrap()).await.unwrap();
                ready.send(()).unwrap();
                running.serve().await;
            });
        });
        started.recv_timeout(Duration::from_secs(20)).unwrap();
    }

    /// Starts a twin that is a process of its own: this program again, which then runs `child` alone.
    pub fn spawn(&self) -> Killed {
        let _ = std::fs::remove_file(self.data().join("ready"));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(CHILD, self.data())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let child = Killed(child);
        wait("the twin to start", || self.data().join("ready").exists());
        child
    }

    /// Our client, which makes one attempt unless told otherwise.
    pub fn client(&self, attempts: u32) -> Client {
        let key = self.secret("secret-key");
        let endpoint = Endpoint::new(&format!("http://{}", self.address()), Money::Twin, &key).unwrap();
        let patience = Patience {
            timeout: Duration::from_secs(10),
            attempts,
            first_wait: Duration::from_millis(10),
            longest_wait: Duration::from_millis(100),
        };
        Client::new(endpoint, &key, patience).unwrap()
    }

    /// A call as somebody with the key makes it.
    pub fn stripe(&self, method: &str, path: &str, form: &str) -> (u16, String) {
        let bearer = format!("Bearer {}", self.line("secret-key").unwrap());
        call(self.address(), method, path, form, &format!("authorization: {bearer}\r\n"))
    }

    pub fn control(&self, method: &str, what: &str, body: &Value) -> Value {
        let (status, text) = http(self.address(), method, &format!("/_twin/{what}"), &body.to_string());
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    pub fn faults(&self, faults: &Value) {
        self.control("POST", "faults", faults);
    }

    /// Identifiers and values that the twin counts.
    pub fn counted(&self) -> Vec<(String, u64)> {
        let answer = self.control("GET", "meter-events", &json!({}));
        let events = answer["events"].as_array().unwrap();
        events
            .iter()
            .map(|e| (e["identifier"].as_str().unwrap().to_owned(), e["value"].as_u64().unwrap()))
            .collect()
    }

    pub fn rows(&self, kind: &str) -> Vec<Value> {
        self.control("GET", &format!("state?kind={kind}"), &json!({}))["rows"].as_array().unwrap().clone()
    }
}

/// A twin that dies with this.
pub struct Killed(Child);

impl Killed {
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Is the twin, where this process was started to be one.
pub fn be_the_child() {
    let Some(data) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let options = Options { data: data.clone(), seed: Some(1), webhook_url: None };
        let running = Running::start(&options, "127.0.0.1:0".parse().unwrap()).await.unwrap();
        std::fs::write(data.join("ready"), "").unwrap();
        running.serve().await;
    });
}

/// One request on a connection of its own.
pub fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    call(address, method, path, body, "")
}

fn call(address: SocketAddr, method: &str, path: &str, body: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap();
    (status, body)
}

/// Waits for a condition, not for a time.
pub fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

pub fn sheet() -> PriceSheet {
    PriceBook::parse(DEFAULT_PRICES).unwrap().entries()[0].sheet.clone()
}

pub fn event(customer: &str, identifier: &str, value: u64, timestamp: i64) -> MeterEvent {
    MeterEvent {
        meter: Meter::Requests,
        customer: customer.into(),
        value,
        identifier: identifier.into(),
        timestamp,
    }
}

/// Takes webhooks on a thread: signature and body of each.
pub fn receiver() -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (sender, taken) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some((head, body)) = read(&mut stream) else { continue };
            let signature = head
                .lines()
                .find_map(|line| line.strip_prefix("stripe-signature: "))
                .unwrap_or_default()
                .to_owned();
            if sender.send((signature, body)).is_err() {
                return;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    (url, taken)
}

fn read(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        all.extend_from_slice(&buffer[..count]);
        let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(all[..end].to_vec()).ok()?;
        let length: usize =
            head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
        if all.len() >= end + 4 + length {
            return Some((head, all[end + 4..].to_vec()));
        }
    }
}
