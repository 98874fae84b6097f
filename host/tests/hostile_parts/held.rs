//! What a process holds, as /proc shows it.

use std::time::{Duration, Instant};

use wasmeter_testkit::Host;

/// Resident memory and descriptors.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub kib: u64,
    pub descriptors: usize,
}

impl Held {
    pub fn by(host: &Host) -> Self {
        let folder = format!("/proc/{}", host.pid());
        let status = std::fs::read_to_string(format!("{folder}/status")).expect("the host runs");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS");
        let kib = line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number");
        let descriptors = std::fs::read_dir(format!("{folder}/fd")).expect("the host runs").count();
        Self { kib, descriptors }
    }

    /// Waits until the host holds no more than before, but for so much.
    pub async fn comes_back(host: &Host, before: Self, more_kib: u64) -> Self {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let now = Self::by(host);
            // Connections and the reader of the ledger come and go.
            if now.descriptors <= before.descriptors + 4 && now.kib <= before.kib + more_kib {
                return now;
            }
            assert!(Instant::now() < end, "the host keeps what it took: {before:?}, now {now:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
