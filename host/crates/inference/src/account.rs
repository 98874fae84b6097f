use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use metrics::Counter;
use parking_lot::Mutex;

/// What became of a device's busy time since the host started, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Paid by callers.
    pub charged_ns: u64,
    /// Paid by the platform: loads, reloads, lost and failed runs, padding, what a batch cost beyond its entries
    /// alone, work for callers who had left.
    pub platform_ns: u64,
    /// What the device itself said of its runs and loads. Always equal to [`Account::busy_ns`] while nothing is
    /// under way; a lane checks that when it ends.
    pub measured_ns: u64,
    /// Computes that gave outputs.
    pub computes: u64,
    /// Batches that gave outputs: `computes / batches` is the mean batch.
    pub batches: u64,
    /// Batches that failed and whose entries ran again, each alone.
    pub retries: u64,
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
    /// What is paid for; none is no bound.
    paid_ns: Option<AtomicU64>,
}

impl ChargeMeter {
    /// A meter that charges no more than what [`ChargeMeter::pay`] was told; the rest is the platform's.
    #[must_use]
    pub fn bounded() -> Self {
        Self { paid_ns: Some(AtomicU64::new(0)), ..Self::default() }
    }

    /// There is money for so many nanoseconds more.
    pub fn pay(&self, ns: u64) {
        if let Some(paid) = &self.paid_ns {
            // Closures of this shape never fail.
            let _ = paid.fetch_update(Ordering::AcqRel, Ordering::Acquire, |p| Some(p.saturating_add(ns)));
        }
    }

    /// Nanoseconds that are paid for and not charged yet.
    #[must_use]
    pub fn room_ns(&self) -> u64 {
        let paid = self.paid_ns.as_ref().map_or(u64::MAX, |paid| paid.load(Ordering::Acquire));
        paid.saturating_sub(self.charged_ns())
    }

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

    /// Charges as much of it as is paid for, and tells how much that is.
    pub(crate) fn add(&self, ns: u64) -> u64 {
        let most = self.paid_ns.as_ref().map_or(u64::MAX, |paid| paid.load(Ordering::Acquire));
        let mut charged = ns;
        let _ = self.charged_ns.fetch_update(Ordering::AcqRel, Ordering::Acquire, |before| {
            charged = ns.min(most.saturating_sub(before));
            Some(before + charged)
        });
        self.computes.fetch_add(1, Ordering::AcqRel);
        charged
    }
}

/// The account of one device, with its metrics.
pub(crate) struct Ledger {
    account: Mutex<Account>,
    busy: Counter,
    charged: Counter,
    platform: Counter,
    computes: Counter,
    batches: Counter,
    retries: Counter,
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
            batches: counter("wasmeter_device_batches_total"),
            retries: counter("wasmeter_device_batch_retries_total"),
            losses: counter("wasmeter_device_losses_total"),
            reloads: counter("wasmeter_device_reloads_total"),
        }
    }

    pub(crate) fn snapshot(&self) -> Account {
        *self.account.lock()
    }

    /// The device was busy for so long; somebody settles it.
    pub(crate) fn measured(&self, busy_ns: u64) {
        let mut account = self.account.lock();
        account.measured_ns = account.measured_ns.saturating_add(busy_ns);
    }

    /// Books busy time of which `charged` is paid by callers; the rest is the platform's.
    ///
    /// A caller who leaves fixes its charge by the same clock, read earlier; should that figure be ahead all
    /// the same, the device was busy for at least what was charged.
    pub(crate) fn settle(&self, busy_ns: u64, charged_ns: u64) {
        let ahead_ns = charged_ns.saturating_sub(busy_ns);
        let busy_ns = busy_ns + ahead_ns;
        let platform_ns = busy_ns - charged_ns;
        {
            let mut account = self.account.lock();
            account.measured_ns = account.measured_ns.saturating_add(ahead_ns);
            account.charged_ns = account.charged_ns.saturating_add(charged_ns);
            account.platform_ns = account.platform_ns.saturating_add(platform_ns);
        }
        self.busy.increment(busy_ns);
        self.charged.increment(charged_ns);
        self.platform.increment(platform_ns);
    }

    pub(crate) fn computed(&self, entries: usize) {
        let entries = u64::try_from(entries).unwrap_or(u64::MAX);
        {
            let mut account = self.account.lock();
            account.computes += entries;
            account.batches += 1;
        }
        self.computes.increment(entries);
        self.batches.increment(1);
    }

    pub(crate) fn retried(&self) {
        self.account.lock().retries += 1;
        self.retries.increment(1);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_meter_charges_what_is_paid() {
        let meter = ChargeMeter::bounded();
        meter.pay(10);
        assert_eq!((meter.add(7), meter.room_ns(), meter.add(7), meter.add(7)), (7, 3, 3, 0));
        meter.pay(5);
        assert_eq!((meter.add(2), meter.charged_ns(), meter.computes()), (2, 12, 4));
        assert_eq!(ChargeMeter::default().add(u64::MAX), u64::MAX);
    }

    #[test]
    fn busy_time_is_at_least_what_was_charged() {
        let ledger = Ledger::new("cpu:0");
        ledger.measured(15);
        ledger.settle(10, 7);
        ledger.settle(5, 9);
        let account = ledger.snapshot();
        assert_eq!((account.charged_ns, account.platform_ns, account.busy_ns()), (16, 3, 19));
        assert_eq!(account.measured_ns, 19);
    }
}
