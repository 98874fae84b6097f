//! How many records the ledger books in a second, and what of a processor it takes for 5,000 a second: the real
//! `wasmeter-billing serve`, its disk flushed for each commit, over its socket. `deploy/bench/ledger.sh` runs it.
//!
//! Arguments: the program, rounds, records of a round, seconds at 5,000 a second.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a bench ends where something is wrong")]

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wasmeter_usage::wire::{self, Call, MAX_BATCH, PROTOCOL, Reply};
use wasmeter_usage::{InvocationId, Outcome, RECORD_VERSION, UsageRecord};

/// Records a second at which the processor is measured, and how many are in a batch then: what a host sends.
const RATE: u64 = 5000;
const BATCH: u64 = 1000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().expect("the path of wasmeter-billing");
    let mut number = |what: &str| -> u64 { arguments.next().expect(what).parse().expect(what) };
    let (rounds, records, seconds) = (number("rounds"), number("records of a round"), number("seconds"));
    let dir = tempfile::tempdir().unwrap();
    let billing = Billing::start(Path::new(&program), dir.path());
    let mut sender = Sender::connect(&dir.path().join("s"));
    let mut rates = Vec::new();
    let mut costs = Vec::new();
    for _ in 0..rounds {
        let batches = sender.prepare(records, MAX_BATCH as u64, true);
        let (begun, cpu) = (Instant::now(), billing.cpu());
        batches.iter().for_each(|frame| sender.send(frame));
        rates.push(records as f64 / begun.elapsed().as_secs_f64());
        costs.push((billing.cpu() - cpu).as_secs_f64() * 1e6 / records as f64);
    }
    println!(
        "as fast as it can, batches of {MAX_BATCH}, {rounds} rounds of {records} records, one ledger that grows:"
    );
    println!("  records a second          {}", spread(&rates, 0));
    println!("  processor us a record     {}", spread(&costs, 2));
    let mut shares = Vec::new();
    for _ in 0..rounds {
        let batches = sender.prepare(RATE * seconds, BATCH, false);
        let (begun, cpu) = (Instant::now(), billing.cpu());
        let pause = Duration::from_micros(1_000_000 * BATCH / RATE);
        for (n, frame) in (0u32..).zip(&batches) {
            std::thread::sleep((begun + pause * n).saturating_duration_since(Instant::now()));
            sender.send(frame);
        }
        let late = begun.elapsed().as_secs_f64() - seconds as f64;
        if late > 0.5 {
            println!("  # it did not keep up: {late:.1} s late");
        }
        shares.push((billing.cpu() - cpu).as_secs_f64() * 100.0 / begun.elapsed().as_secs_f64());
    }
    println!("at {RATE} records a second in batches of {BATCH}, {rounds} rounds of {seconds} s:");
    println!("  percent of one processor  {}", spread(&shares, 1));
    println!("asked: at least 20000 records a second, at most 10 percent of a processor for {RATE} a second");
}

/// Median, least and most.
fn spread(values: &[f64], digits: usize) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
    format!("{:.digits$} ({least:.digits$}-{most:.digits$})", sorted[sorted.len() / 2])
}

struct Billing(Child);

impl Billing {
    fn start(program: &Path, dir: &Path) -> Self {
        let mut command = Command::new(program);
        command.arg("serve").arg("--data").arg(dir.join("ledger")).arg("--socket").arg(dir.join("s"));
        let child = command.env("WASMETER_LOG", "warn").stdin(Stdio::null()).spawn().unwrap();
        Self(child)
    }

    /// User and system time of the process and all its threads.
    fn cpu(&self) -> Duration {
        // The first number of each thread is its time on a processor, in nanoseconds.
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap();
        let ns = |text: String| text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        let threads =
            tasks.flatten().map(|t| std::fs::read_to_string(t.path().join("schedstat")).map_or(0, ns));
        Duration::from_nanos(threads.sum())
    }
}

impl Drop for Billing {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Sender {
    stream: UnixStream,
    price_book: String,
    next_seq: u64,
}

impl Sender {
    fn connect(socket: &Path) -> Self {
        let until = Instant::now() + Duration::from_secs(10);
        let mut stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(e) => assert!(Instant::now() < until, "billing does not listen: {e}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        wire::write(&mut stream, &Call::Hello { protocol: PROTOCOL, node: "bench".into() }).unwrap();
        match wire::read(&mut stream).unwrap() {
            Some(Reply::Hello { prices, .. }) => Self { stream, price_book: prices.hash, next_seq: 1 },
            other => panic!("no hello: {other:?}"),
        }
    }

    /// Frames of these many records, as a host's shipper makes them.
    fn prepare(&mut self, records: u64, batch: u64, pressing: bool) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut left = records;
        while left > 0 {
            let count = left.min(batch);
            let mut texts = Vec::new();
            for n in 0..count {
                if n > 0 {
                    texts.push(b',');
                }
                serde_json::to_writer(&mut texts, &self.record(n)).unwrap();
            }
            let mut frame = Vec::new();
            wire::encode_append(&mut frame, "bench", 1, self.next_seq, pressing, &texts).unwrap();
            frames.push(frame);
            self.next_seq += count;
            left -= count;
        }
        frames
    }

    /// A short call of one of eight tenants with four functions each.
    fn record(&self, n: u64) -> UsageRecord {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        UsageRecord {
            v: RECORD_VERSION,
            invocation: InvocationId::new(),
            tenant: format!("tenant-{}", n % 8),
            function: Some(format!("function-{}", n / 8 % 4)),
            revision: Some("a1b2c3d4e5f60718".into()),
            outcome: Outcome::Ok,
            status: 200,
            fuel: 10_000 + n,
            fuel_schedule: "wasmtime-48/2".into(),
            models: vec![],
            tokens_in: 0,
            tokens_out: 0,
            ingress_bytes: 0,
            egress_bytes: 6,
            start_ns: now - 50_000,
            end_ns: now,
            price_book: self.price_book.clone(),
            draw: None,
        }
    }

    fn send(&mut self, frame: &[u8]) {
        std::io::Write::write_all(&mut self.stream, frame).unwrap();
        match wire::read(&mut self.stream).unwrap() {
            Some(Reply::Acked { .. }) => {}
            other => panic!("not booked: {other:?}"),
        }
    }
}
