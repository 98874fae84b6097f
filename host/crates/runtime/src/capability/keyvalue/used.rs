use std::sync::atomic::{AtomicU64, Ordering};

/// Key-value calls of one invocation.
#[derive(Debug, Default)]
pub(crate) struct Used(AtomicU64);

impl Used {
    /// Counts so many calls, refused ones too; whether they are within the limit.
    pub(super) fn take(&self, calls: u64, most: u64) -> bool {
        // One guest, one thread at a time.
        let sum = self.0.load(Ordering::Relaxed).saturating_add(calls);
        self.0.store(sum, Ordering::Relaxed);
        sum <= most
    }
}
