//! The ledger as its tenant sees it, and what must agree in it.

use std::collections::HashMap;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Deserialize;
use wasmeter_testkit::Host;
use wasmeter_usage::{Outcome, Pico, UsageRecord};

use super::load::Done;

/// One line of `GET …/receipts`.
#[derive(Clone, Debug, Deserialize)]
pub struct Receipt {
    pub invocation: String,
    pub cost_pico: Pico,
    pub record: UsageRecord,
}

/// All receipts of the tenant `dev`.
pub struct Books {
    pub receipts: HashMap<String, Receipt>,
}

/// Receipts are visible two seconds after their answers (API.md); a start after a crash has more to do.
const SETTLED: Duration = Duration::from_secs(5);

/// A figure of `/metrics`, summed over its labels; 0 if it is not there.
pub async fn metric(host: &Host, name: &str) -> u64 {
    let answer = host.admin().get("/metrics").send().await;
    let value = |line: &str| {
        let (key, value) = line.rsplit_once(' ')?;
        let same = key == name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
        same.then(|| value.parse::<u64>().expect("a whole figure"))
    };
    answer.text().lines().filter_map(value).sum()
}

/// Busy, charged and platform time of the devices since the host started: the first is the sum of the others.
pub async fn device_account(host: &Host) -> (u64, u64) {
    let [busy, charged, platform] =
        ["busy", "charged", "platform"].map(|what| format!("wasmeter_device_{what}_ns_total"));
    let (busy, charged, platform) =
        (metric(host, &busy).await, metric(host, &charged).await, metric(host, &platform).await);
    assert_eq!(charged + platform, busy, "charged and platform time are not the busy time");
    (busy, charged)
}

impl Books {
    /// Waits until these answers are booked and the spool says that it is empty (its figure is some milliseconds old),
    /// then reads, and compares with the bill. No invocation may be running.
    pub async fn of(host: &Host, answers: impl IntoIterator<Item = &Done>) -> Self {
        Self::within(host, answers, SETTLED).await
    }

    /// The same with another patience.
    pub async fn within(host: &Host, answers: impl IntoIterator<Item = &Done>, time: Duration) -> Self {
        let answers: Vec<_> = answers.into_iter().map(|d| d.invocation.clone()).collect();
        let until = Instant::now() + time;
        // A billing that was killed a moment ago is not back yet, and says so.
        while host.operator().get("/api/v1/tenants/dev/bill").send().await.status == 503 {
            assert!(Instant::now() < until, "billing does not come back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        loop {
            let unshipped = metric(host, "wasmeter_spool_unshipped_records").await;
            let books = Self::read(host).await;
            let total = books.total();
            let charged = books.receipts.values().filter(|r| r.record.outcome.is_charged()).count();
            let bill = host.bill("dev").await;
            let missing = answers.iter().filter(|id| !books.receipts.contains_key(*id)).count();
            let agree = bill["list_total_pico"] == total.0.to_string() && bill["invocations"] == charged;
            if agree && (unshipped, missing) == (0, 0) {
                return books;
            }
            assert!(
                Instant::now() < until,
                "{missing} answers have no receipt, {unshipped} records are not shipped; {charged} receipts of \
                 {total} in all, and the bill says {bill}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn read(host: &Host) -> Self {
        let mut receipts = HashMap::new();
        for line in host.receipts("dev").await {
            let receipt: Receipt = serde_json::from_value(line).expect("a receipt");
            let twice = receipts.insert(receipt.invocation.clone(), receipt);
            assert!(twice.is_none(), "in the ledger twice: {twice:?}");
        }
        Self { receipts }
    }

    /// The receipt of an answer, with the cost that the caller was shown.
    pub fn receipt(&self, done: &Done) -> &Receipt {
        let receipt = self.receipts.get(&done.invocation);
        let receipt = receipt.unwrap_or_else(|| panic!("no receipt of {done:?}"));
        let booked = u128::try_from(receipt.cost_pico.0).ok();
        // A 504 does not wait for a guest that is slow to stop, so it may come before the cost is known.
        let early = done.status == 504 && done.cost_pico.is_none();
        assert!(
            booked.is_some() && (early || booked == done.cost_pico),
            "{done:?} was booked as {receipt:?}"
        );
        assert_eq!(receipt.record.status, done.status, "{done:?}");
        receipt
    }

    /// Every delivered answer is in the ledger with its cost; besides, at most the calls that broke are.
    pub fn hold(&self, delivered: &[Done], broken: usize) {
        for done in delivered {
            assert_eq!(done.error, None, "{done:?}");
            assert_eq!(self.receipt(done).record.outcome, Outcome::Ok, "{done:?}");
        }
        let others = self.receipts.len() - delivered.len();
        assert!(others <= broken, "{others} receipts without an answer, but only {broken} calls broke");
    }

    /// What all receipts cost together.
    pub fn total(&self) -> Pico {
        self.receipts.values().map(|r| r.cost_pico).sum()
    }

    /// Device time of all records.
    pub fn device_ns(&self) -> u64 {
        self.receipts.values().map(|r| r.record.device_ns()).sum()
    }
}

/// Lets `wasmeter-billing check` recompute every entry of the host's ledger from its record.
pub fn check_ledger(host: &Host) -> serde_json::Value {
    let billing = std::path::Path::new(env!("CARGO_BIN_EXE_wasmeter")).with_file_name("wasmeter-billing");
    let mut command = Command::new(billing);
    command.env_clear().args(["check", "--format", "json", "--data"]).arg(host.data().join("ledger"));
    let output = command.output().expect("wasmeter-billing check");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_str(&text).expect("a report");
    assert_eq!(
        (report["faults"].as_u64(), report["rejected"].as_object().map(|r| r.len())),
        (Some(0), Some(0))
    );
    report
}
