use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use metrics::Counter;
use parking_lot::Mutex;

/// What became of a device's busy time since the host started, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Paid by callers.
    pub charged_ns: u64,
    /// Paid by the platform: loads, reloads, lost runs, work for callers who had left.
    pub platform_ns: u64,
    /// Computes that gave outputs.
    pub computes: u64,
    /// Deaths of the device.
    pub losses: u64,
    /// Loads after a death.
    pub reloads: u64,
}

impl Account {
    /// All busy time. It is the sum and not a third counter, so that the three can never disagree.
    #[must_use]
    pub fn busy_ns(&self) -> u64 {
        self.charged_ns.saturating_add(self.platform_ns)
    }
}

/// Collects the charges of one invocation. A compute adds its charge here on every outcome, also when its
/// future is dropped in the middle of a run, where nobody is left to be told.
#[derive(Debug, Default)]
pub struct ChargeMeter {
    charged_ns: AtomicU64,
    computes: AtomicU32,
}

impl ChargeMeter {
    /// Nanoseconds charged so far.
    #[must_use]
    pub fn charged_ns(&self) -> u64 {
        self.charged_ns.load(Ordering::Acquire)
    }

    /// Computes that reached the device and were charged.
    #[must_use]
    pub fn computes(&self) -> u32 {
        self.computes.load(Ordering::Acquire)
    }

    pub(crate) fn add(&self, ns: u64) {
        self.charged_ns.fetch_add(ns, Ordering::AcqRel);
        self.computes.fetch_add(1, Ordering::AcqRel);
    }
}

/// The account of one device, with its metrics.
pub(crate) struct Ledger {
    account: Mutex<Account>,
    busy: Counter,
    charged: Counter,
    platform: Counter,
    computes: Counter,
    losses: Counter,
    reloads: Counter,
}

impl Ledger {
    pub(crate) fn new(device: &str) -> Self {
        let counter = |name: &'static str| metrics::counter!(name, "device" => device.to_owned());
        Self {
            account: Mutex::new(Account::default()),
            busy: counter("wasmeter_device_busy_ns_total"),
            charged: counter("wasmeter_device_charged_ns_total"),
            platform: counter("wasmeter_device_platform_ns_total"),
            computes: counter("wasmeter_device_computes_total"),
            losses: counter("wasmeter_device_losses_total"),
            reloads: counter("wasmeter_device_reloads_total"),
        }
    }

    pub(crate) fn snapshot(&self) -> Account {
        *self.account.lock()
    }

    /// Books busy time of which `charged` is paid by callers; the rest is the platform's.
    pub(crate) fn settle(&self, busy_ns: u64, charged_ns: u64) {
        let charged_ns = charged_ns.min(busy_ns);
        let platform_ns = busy_ns - charged_ns;
        {
            let mut account = self.account.lock();
            account.charged_ns = account.charged_ns.saturating_add(charged_ns);
            account.platform_ns = account.platform_ns.saturating_add(platform_ns);
        }
        self.busy.increment(busy_ns);
        self.charged.increment(charged_ns);
        self.platform.increment(platform_ns);
    }

    pub(crate) fn computed(&self, entries: u64) {
        self.account.lock().computes += entries;
        self.computes.increment(entries);
    }

    pub(crate) fn lost(&self) {
        self.account.lock().losses += 1;
        self.losses.increment(1);
    }

    pub(crate) fn reloaded(&self) {
        self.account.lock().reloads += 1;
        self.reloads.increment(1);
    }
}

/// The equal share of each of `entries` callers in a batch; what does not divide is the platform's.
pub(crate) fn share(busy_ns: u64, entries: usize) -> u64 {
    busy_ns / u64::try_from(entries.max(1)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_never_exceed_busy() {
        let ledger = Ledger::new("cpu:0");
        ledger.settle(10, 7);
        ledger.settle(5, 9);
        let account = ledger.snapshot();
        assert_eq!((account.charged_ns, account.platform_ns, account.busy_ns()), (12, 3, 15));
        assert_eq!(share(10, 3), 3);
    }
}
