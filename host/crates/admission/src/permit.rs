use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmeter_types::{Error, ErrorKind, FunctionName, TenantName};

/// How much runs at one time.
#[derive(Clone, Copy, Debug)]
pub struct GateOptions {
    /// Invocations in flight on this host.
    pub host: usize,
    /// The part of `host` that one tenant may hold, in percent; the rest stays free for others.
    pub tenant_percent: usize,
}

impl Default for GateOptions {
    fn default() -> Self {
        Self { host: 1024, tenant_percent: 75 }
    }
}

/// Admits invocations or refuses them at once; nobody queues here. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

struct Inner {
    host: Arc<Semaphore>,
    tenant_limit: u32,
    held: Mutex<Held>,
}

/// Permits in use; entries go when their last permit does, so that the maps stay as small as what is in flight.
#[derive(Default)]
struct Held {
    tenants: HashMap<TenantName, u32>,
    functions: HashMap<(TenantName, FunctionName), u32>,
}

/// The right to run one invocation. It travels with the work and ends after its usage is in the spool.
pub struct Permit {
    gate: Arc<Inner>,
    tenant: TenantName,
    function: FunctionName,
    _host: OwnedSemaphorePermit,
}

impl Gate {
    /// A gate with these limits.
    #[must_use]
    pub fn new(options: GateOptions) -> Self {
        let tenant_limit =
            u32::try_from((options.host * options.tenant_percent / 100).max(1)).unwrap_or(u32::MAX);
        let host = Arc::new(Semaphore::new(options.host));
        Self { inner: Arc::new(Inner { host, tenant_limit, held: Mutex::default() }) }
    }

    /// A permit, or a refusal that says which limit it met.
    ///
    /// # Errors
    /// 503 for the host's limit, 429 for the tenant's share or the function's concurrency.
    pub fn admit(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        concurrency: u32,
    ) -> Result<Permit, Error> {
        let host = self.inner.host.clone().try_acquire_owned().map_err(|_| {
            Error::new(
                ErrorKind::Overloaded,
                "the host is at its limit of invocations in flight: retry later",
            )
        })?;
        let mut held = self.inner.held.lock();
        let Held { tenants, functions } = &mut *held;
        let by_tenant = tenants.get_mut(tenant);
        if by_tenant.as_ref().map_or(0, |n| **n) >= self.inner.tenant_limit {
            let limit = self.inner.tenant_limit;
            return Err(Error::new(
                ErrorKind::Quota,
                format!(
                    "tenant {tenant} has {limit} invocations in flight, its share of this host: retry later"
                ),
            ));
        }
        let by_function = match functions.entry((tenant.clone(), function.clone())) {
            Entry::Occupied(n) => Some(n.into_mut()),
            Entry::Vacant(none) if concurrency > 0 => Some(none.insert(0)),
            Entry::Vacant(_) => None,
        };
        let Some(by_function) = by_function.filter(|n| **n < concurrency) else {
            return Err(Error::new(
                ErrorKind::Quota,
                format!(
                    "function {function} has {concurrency} invocations in flight, its limits.concurrency: retry later"
                ),
            ));
        };
        *by_function += 1;
        match by_tenant {
            Some(n) => *n += 1,
            None => {
                tenants.insert(tenant.clone(), 1);
            }
        }
        let (tenant, function) = (tenant.clone(), function.clone());
        Ok(Permit { gate: self.inner.clone(), tenant, function, _host: host })
    }

    /// Refuses everything from now on.
    pub fn close(&self) {
        self.inner.host.close();
    }

    /// Invocations in flight.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.inner.held.lock().tenants.values().map(|n| u64::from(*n)).sum()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.gate.held.lock();
        if let Entry::Occupied(mut n) = held.tenants.entry(self.tenant.clone()) {
            *n.get_mut() -= 1;
            if *n.get() == 0 {
                n.remove();
            }
        }
        if let Entry::Occupied(mut n) = held.functions.entry((self.tenant.clone(), self.function.clone())) {
            *n.get_mut() -= 1;
            if *n.get() == 0 {
                n.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_cannot_take_the_host_and_permits_come_back() {
        let gate = Gate::new(GateOptions { host: 4, tenant_percent: 75 });
        let (a, b): (TenantName, TenantName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let f: FunctionName = "f".parse().unwrap();
        let permits: Vec<_> = (0..3).map(|_| gate.admit(&a, &f, 64).unwrap()).collect();
        assert_eq!(gate.admit(&a, &f, 64).err().unwrap().kind, ErrorKind::Quota);
        let other = gate.admit(&b, &f, 1).unwrap();
        assert_eq!(gate.admit(&b, &f, 1).err().unwrap().kind, ErrorKind::Overloaded);
        drop(permits);
        assert_eq!(gate.admit(&b, &f, 1).err().unwrap().kind, ErrorKind::Quota);
        drop(other);
        assert_eq!(gate.in_flight(), 0);
        assert!(gate.inner.held.lock().functions.is_empty());
        gate.close();
        assert_eq!(gate.admit(&b, &f, 1).err().unwrap().kind, ErrorKind::Overloaded);
    }
}
