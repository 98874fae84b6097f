use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::super::Caller;

/// What one invocation has used of its outbound limits.
#[derive(Default)]
pub(crate) struct Used {
    calls: AtomicU32,
    connections: AtomicU32,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Used {
    /// Bytes of request bodies that went out.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The number of this call, from 1.
    pub(super) fn call(&self) -> u32 {
        self.calls.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Counts bytes that go out: how many there are now.
    pub(super) fn send(&self, bytes: usize) -> u64 {
        add(&self.sent, bytes)
    }

    /// Counts bytes that came in: how many there are now.
    pub(super) fn receive(&self, bytes: usize) -> u64 {
        add(&self.received, bytes)
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

fn add(counter: &AtomicU64, bytes: usize) -> u64 {
    let bytes = bytes as u64;
    counter.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes)
}

/// One of the invocation's connections.
pub(super) struct Connection(Arc<Caller>);

impl Connection {
    pub(super) fn open(caller: &Arc<Caller>, most: u32) -> Option<Self> {
        let count = &caller.outbound.connections;
        let taken = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < most).then_some(n + 1));
        taken.ok().map(|_| Self(caller.clone()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.outbound.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
