//! A real `wasmeter-billing` on a real socket, and a client that speaks the contract.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use wasmeter_usage::wire::{self, Call, PROTOCOL, Receipt, Reply};
use wasmeter_usage::{DeviceClass, InvocationId, ModelUse, Outcome, PriceSheet, RECORD_VERSION, UsageRecord};

pub struct Home {
    pub dir: TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("billing.sock")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmeter-billing"));
        command.env_clear().stdin(Stdio::null());
        command
    }

    pub fn serve_command(&self) -> Command {
        let mut command = self.command();
        command.arg("serve").arg("--data").arg(self.data()).arg("--socket").arg(self.socket());
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        command.stderr(log);
        command
    }

    pub fn start(&self) -> Billing {
        self.start_with(&[])
    }

    pub fn start_with(&self, args: &[&str]) -> Billing {
        Billing { child: self.serve_command().args(args).spawn().unwrap() }
    }

    /// Ready = the socket accepts and hello is answered.
    pub fn client(&self) -> Client {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match Client::connect(&self.socket()) {
                Ok(client) => return client,
                Err(error) if Instant::now() > deadline => panic!("not ready: {error}\n{}", self.log()),
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Runs `check` and returns its JSON.
    pub fn check(&self) -> serde_json::Value {
        let output =
            self.command().args(["check", "--format", "json", "--data"]).arg(self.data()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).unwrap()
    }

    /// Fails on any WARN or ERROR line that `expected` does not name.
    pub fn assert_quiet(&self, expected: &[&str]) {
        for line in self.log().lines().filter(|l| l.contains(" WARN ") || l.contains(" ERROR ")) {
            assert!(expected.iter().any(|word| line.contains(word)), "unexpected: {line}");
        }
    }
}

pub struct Billing {
    pub child: Child,
}

impl Billing {
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "billing does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Billing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Client {
    pub stream: UnixStream,
    pub prices: PriceSheet,
    pub stamp: String,
}

impl Client {
    pub fn connect(socket: &std::path::Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        wire::write(&mut stream, &Call::Hello { protocol: PROTOCOL, node: "n1".into() })?;
        match wire::read(&mut stream)? {
            Some(Reply::Hello { protocol: PROTOCOL, stamp, prices }) => Ok(Self { stream, prices, stamp }),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    pub fn try_call(&mut self, call: &Call) -> io::Result<Reply> {
        wire::write(&mut self.stream, call)?;
        wire::read(&mut self.stream)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    pub fn call(&mut self, call: &Call) -> Reply {
        self.try_call(call).unwrap()
    }

    pub fn append(&mut self, first_seq: u64, records: &[UsageRecord]) -> io::Result<Reply> {
        self.try_call(&Call::Append { node: "n1".into(), epoch: 1, first_seq, records: records.to_vec() })
    }

    pub fn high_water(&mut self) -> u64 {
        match self.call(&Call::HighWater { node: "n1".into(), epoch: 1 }) {
            Reply::Acked { acked_seq } => acked_seq,
            other => panic!("{other:?}"),
        }
    }

    pub fn receipts(&mut self, tenant: &str, limit: u32) -> Vec<Receipt> {
        let mut all = Vec::new();
        let mut after = 0;
        loop {
            let call = Call::Receipts { tenant: tenant.into(), from_ns: 0, to_ns: u64::MAX, after, limit };
            let Reply::Receipts { lines, next } = self.call(&call) else { panic!("no receipts") };
            assert!(lines.len() <= limit as usize);
            all.extend(lines);
            match next {
                Some(next) => after = next,
                None => return all,
            }
        }
    }
}

pub fn acked(reply: io::Result<Reply>) -> u64 {
    match reply.unwrap() {
        Reply::Acked { acked_seq } => acked_seq,
        other => panic!("{other:?}"),
    }
}

/// The code of a refusal.
pub fn refusal(reply: Reply) -> (String, String) {
    match reply {
        Reply::Refused { code, message } => (code, message),
        other => panic!("{other:?}"),
    }
}

pub fn now_ns() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

pub fn record(prices: &PriceSheet, tenant: &str, fuel: u64) -> UsageRecord {
    let end_ns = now_ns();
    UsageRecord {
        v: RECORD_VERSION,
        invocation: InvocationId::new(),
        tenant: tenant.into(),
        function: Some("f".into()),
        revision: Some("r1".into()),
        outcome: Outcome::Ok,
        status: 200,
        fuel,
        fuel_schedule: "wasmtime-48/2".into(),
        models: vec![ModelUse {
            model: "minilm".into(),
            version: 1,
            device: "cpu:0".into(),
            class: DeviceClass::Cpu,
            computes: 1,
            device_ns: 1_234_567,
        }],
        tokens_in: 0,
        tokens_out: 0,
        ingress_bytes: 10,
        egress_bytes: 2_000,
        start_ns: end_ns - 1_000,
        end_ns,
        price_book: prices.hash.clone(),
        draw: None,
    }
}
