//! What the invocations of one tenant may hold together, beside what each of them may hold alone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// What all invocations of one tenant may hold on one host at one time.
#[derive(Clone, Copy, Debug)]
pub struct TenantLimits {
    /// Graphs.
    pub graphs: usize,
    /// Execution contexts.
    pub contexts: usize,
    /// Bytes of tensors that live.
    pub tensor_bytes: usize,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self { graphs: 4096, contexts: 4096, tensor_bytes: 1 << 30 }
    }
}

/// The accounts of all tenants.
#[derive(Default)]
pub struct Quotas {
    limits: TenantLimits,
    tenants: Mutex<Tenants>,
}

#[derive(Default)]
struct Tenants {
    held: HashMap<String, Weak<Held>>,
    /// Entries at which those of tenants that hold nothing are dropped.
    sweep_at: usize,
}

#[derive(Default)]
struct Held {
    graphs: AtomicUsize,
    contexts: AtomicUsize,
    tensor_bytes: AtomicUsize,
}

/// Entries of idle tenants are not looked for below this.
const SWEEP: usize = 64;

impl Quotas {
    /// Accounts with one limit for every tenant.
    #[must_use]
    pub fn new(limits: TenantLimits) -> Self {
        Self { limits, tenants: Mutex::default() }
    }

    /// One invocation's part of its tenant's account.
    pub(crate) fn share(&self, tenant: &str) -> Share {
        let mut tenants = self.tenants.lock();
        let known = tenants.held.get(tenant).and_then(Weak::upgrade);
        let held = known.unwrap_or_else(|| {
            if tenants.held.len() >= tenants.sweep_at.max(SWEEP) {
                tenants.held.retain(|_, held| held.strong_count() > 0);
                tenants.sweep_at = tenants.held.len() * 2;
            }
            let held = Arc::new(Held::default());
            tenants.held.insert(tenant.to_owned(), Arc::downgrade(&held));
            held
        });
        Share { held, limits: self.limits, graphs: 0, contexts: 0, tensor_bytes: 0 }
    }
}

/// What one invocation has taken of its tenant's account; its end gives all of it back.
pub(crate) struct Share {
    held: Arc<Held>,
    limits: TenantLimits,
    graphs: usize,
    contexts: usize,
    tensor_bytes: usize,
}

/// What is counted.
#[derive(Clone, Copy)]
pub(crate) enum Of {
    Graphs,
    Contexts,
    TensorBytes,
}

impl Share {
    fn parts(&mut self, of: Of) -> (&AtomicUsize, &mut usize, usize) {
        let (held, limits) = (&*self.held, self.limits);
        match of {
            Of::Graphs => (&held.graphs, &mut self.graphs, limits.graphs),
            Of::Contexts => (&held.contexts, &mut self.contexts, limits.contexts),
            Of::TensorBytes => (&held.tensor_bytes, &mut self.tensor_bytes, limits.tensor_bytes),
        }
    }

    /// Takes so many more, or says what the tenant may hold.
    pub(crate) fn take(&mut self, of: Of, count: usize) -> Result<(), usize> {
        let (held, mine, limit) = self.parts(of);
        let more = |now: usize| now.checked_add(count).filter(|total| *total <= limit);
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| limit)?;
        *mine += count;
        Ok(())
    }

    /// Gives so many back, or all if they are fewer.
    pub(crate) fn give(&mut self, of: Of, count: usize) {
        let (held, mine, _) = self.parts(of);
        let count = count.min(*mine);
        *mine -= count;
        held.fetch_sub(count, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        for of in [Of::Graphs, Of::Contexts, Of::TensorBytes] {
            self.give(of, usize::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_s_invocations_share_and_give_back() {
        let quotas = Quotas::new(TenantLimits { graphs: 3, contexts: 1, tensor_bytes: 10 });
        let (mut one, mut two) = (quotas.share("a"), quotas.share("a"));
        assert_eq!((one.take(Of::Graphs, 2), two.take(Of::Graphs, 2)), (Ok(()), Err(3)));
        assert_eq!((two.take(Of::Graphs, 1), two.take(Of::TensorBytes, usize::MAX)), (Ok(()), Err(10)));
        assert_eq!(quotas.share("b").take(Of::Graphs, 3), Ok(()), "another tenant has its own");
        one.give(Of::Graphs, 1);
        assert_eq!(two.take(Of::Graphs, 1), Ok(()));
        // More than it has is not taken from others.
        one.give(Of::Graphs, 100);
        assert_eq!((two.take(Of::Graphs, 2), two.take(Of::Graphs, 1)), (Err(3), Ok(())));
        drop((one, two));
        assert_eq!(quotas.share("a").take(Of::Graphs, 3), Ok(()));
    }

    #[test]
    fn accounts_of_idle_tenants_go() {
        let quotas = Quotas::default();
        let kept = quotas.share("kept");
        for i in 0..10 * SWEEP {
            quotas.share(&i.to_string());
        }
        let known = quotas.tenants.lock().held.len();
        assert!(known <= SWEEP, "{known} accounts of one tenant");
        assert!(quotas.tenants.lock().held.contains_key("kept"));
        drop(kept);
    }
}
