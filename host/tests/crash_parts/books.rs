//! The ledger as its tenant sees it, and what must agree in it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Deserialize;
use wasmeter_usage::{Outcome, UsageRecord};

use super::http::call;
use super::load::Done;

/// One line of `GET …/receipts`.
#[derive(Clone, Debug, Deserialize)]
pub struct Receipt {
    pub invocation: String,
    pub cost_pico: String,
    pub cost: String,
    pub record: UsageRecord,
}

/// All receipts of the tenant `dev`, and its bill.
pub struct Books {
    pub receipts: HashMap<String, Receipt>,
    pub bill: serde_json::Value,
}

/// A figure of `/metrics`, summed over its labels; 0 if it is not there.
pub fn metric(admin: SocketAddr, name: &str) -> u64 {
    let text = call(admin, "GET", "/metrics", "", b"").expect("metrics").text();
    let value = |line: &str| {
        let (key, value) = line.rsplit_once(' ')?;
        let same = key == name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
        // Counters are whole; a gauge may be written as one with a fraction.
        same.then(|| value.split('.').next().unwrap().parse::<u64>().expect("a whole figure"))
    };
    text.lines().filter_map(value).sum()
}

impl Books {
    /// Waits until everything in the spool is booked, then reads. No invocation may be running.
    pub fn read(host: SocketAddr, admin: SocketAddr, token: &str) -> Self {
        let until = Instant::now() + Duration::from_secs(15);
        while metric(admin, "wasmeter_spool_unshipped_records") > 0 {
            assert!(Instant::now() < until, "usage does not reach the ledger");
            std::thread::sleep(Duration::from_millis(10));
        }
        let get = |path: &str| {
            let answer = call(host, "GET", path, token, b"").expect("billing's answer");
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            answer
        };
        let mut receipts = HashMap::new();
        for line in get("/api/v1/tenants/dev/receipts").text().lines() {
            let receipt: Receipt = serde_json::from_str(line).expect(line);
            let twice = receipts.insert(receipt.invocation.clone(), receipt);
            assert!(twice.is_none(), "{} is in the ledger twice", twice.unwrap().invocation);
        }
        let books = Self { receipts, bill: get("/api/v1/tenants/dev/bill").json() };
        books.agree_with_the_bill();
        books
    }

    fn agree_with_the_bill(&self) {
        let pico = |text: &str| text.parse::<i128>().expect("an integer");
        let sum: i128 = self.receipts.values().map(|r| pico(&r.cost_pico)).sum();
        assert_eq!(pico(self.bill["list_total_pico"].as_str().unwrap()), sum, "bill and receipts differ");
        let charged = self.receipts.values().filter(|r| r.record.outcome.is_charged()).count();
        assert_eq!(self.bill["invocations"], charged, "the bill counts other invocations than the receipts");
    }

    /// The receipt of an answer; every answer of an invocation has one, with the cost that the caller was shown.
    pub fn receipt(&self, done: &Done) -> &Receipt {
        let receipt = self.receipts.get(&done.invocation);
        let receipt = receipt.unwrap_or_else(|| panic!("no receipt of {done:?}"));
        assert_eq!(Some(&receipt.cost), done.cost.as_ref(), "{done:?} was booked otherwise: {receipt:?}");
        assert_eq!(receipt.record.status, done.status, "{done:?}");
        receipt
    }

    /// Every delivered answer is in the ledger with its cost; nobody else's call is.
    pub fn hold(&self, delivered: &[Done], most_undelivered: usize) {
        for done in delivered {
            let receipt = self.receipt(done);
            assert_eq!(receipt.record.outcome, Outcome::Ok, "{done:?}");
        }
        let others = self.receipts.len() - delivered.len();
        assert!(others <= most_undelivered, "{others} receipts nobody asked for; {most_undelivered} calls broke");
    }

    /// Device time of all records; what the host's accounts say was charged since it started.
    pub fn device_ns(&self) -> u64 {
        self.receipts.values().map(|r| r.record.device_ns()).sum()
    }
}

/// Every entry recomputed from its record by `wasmeter-billing check`, on the data directory of a host.
pub fn check_ledger(billing: &Path, data: &Path) {
    let output = Command::new(billing)
        .env_clear()
        .args(["check", "--format", "json", "--data"])
        .arg(data.join("ledger"))
        .output()
        .expect("wasmeter-billing check");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_str(&text).expect("a report");
    assert_eq!((&report["faults"], &report["rejected"]), (&0.into(), &serde_json::json!({})), "{report}");
}
