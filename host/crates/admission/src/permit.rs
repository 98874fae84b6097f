use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
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

/// What a function may run at one time, as its revision and the catalog say.
#[derive(Clone, Copy, Debug)]
pub struct Concurrency {
    /// The most: beyond what is provisioned they take what the host and the tenant's share have left.
    pub most: u32,
    /// For so many there is always room.
    pub provisioned: u32,
    /// What all functions of the host have provisioned: no other invocation takes that room.
    pub provisioned_of_all: u64,
}

/// Admits invocations or refuses them at once; nobody queues here. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

struct Inner {
    host: u64,
    tenant_limit: u32,
    held: Mutex<Held>,
}

/// Permits in use; entries go when their last permit does, so that the maps stay as small as what is in flight.
#[derive(Default)]
struct Held {
    closed: bool,
    /// All of the host.
    all: u64,
    /// Those that run on nobody's provision, and how many of them each tenant has.
    burst: u64,
    tenants: HashMap<TenantName, u32>,
    functions: HashMap<(TenantName, FunctionName), Running>,
}

#[derive(Clone, Copy, Default)]
struct Running {
    all: u32,
    /// On what the function has provisioned.
    provisioned: u32,
}

/// The right to run one invocation. It travels with the work and ends after its usage is in the spool.
pub struct Permit {
    gate: Arc<Inner>,
    key: (TenantName, FunctionName),
    provisioned: bool,
}

impl Gate {
    /// A gate with these limits.
    #[must_use]
    pub fn new(options: GateOptions) -> Self {
        let tenant_limit =
            u32::try_from((options.host * options.tenant_percent / 100).max(1)).unwrap_or(u32::MAX);
        let host = u64::try_from(options.host).unwrap_or(u64::MAX);
        Self { inner: Arc::new(Inner { host, tenant_limit, held: Mutex::default() }) }
    }

    /// A permit, or a refusal that says which limit it met. What the function has provisioned is taken first, and does
    /// not count for its tenant's share.
    ///
    /// # Errors
    /// 503 for the host's limit, 429 for the tenant's share or the function's concurrency.
    pub fn admit(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        concurrency: Concurrency,
    ) -> Result<Permit, Error> {
        let gate = &self.inner;
        let mut guard = gate.held.lock();
        let held = &mut *guard;
        let key = (tenant.clone(), function.clone());
        let running = held.functions.get(&key).copied().unwrap_or_default();
        let provisioned = running.provisioned < concurrency.provisioned;
        let full = if provisioned {
            held.all >= gate.host
        } else {
            held.all >= gate.host || held.burst >= gate.host.saturating_sub(concurrency.provisioned_of_all)
        };
        if full || held.closed {
            let message = "the host is at its limit of invocations in flight: retry later";
            return Err(Error::new(ErrorKind::Overloaded, message));
        }
        let by_tenant = held.tenants.get(tenant).copied().unwrap_or(0);
        if !provisioned && by_tenant >= gate.tenant_limit {
            let limit = gate.tenant_limit;
            return Err(Error::new(
                ErrorKind::Quota,
                format!(
                    "tenant {tenant} has {limit} invocations in flight, its share of this host: retry later"
                ),
            ));
        }
        if running.all >= concurrency.most {
            return Err(Error::new(
                ErrorKind::Quota,
                format!(
                    "function {function} has {} invocations in flight, its limits.concurrency: retry later",
                    concurrency.most
                ),
            ));
        }
        held.all += 1;
        if !provisioned {
            held.burst += 1;
            match held.tenants.get_mut(tenant) {
                Some(n) => *n += 1,
                None => drop(held.tenants.insert(tenant.clone(), 1)),
            }
        }
        let now = Running { all: running.all + 1, provisioned: running.provisioned + u32::from(provisioned) };
        match held.functions.get_mut(&key) {
            Some(running) => *running = now,
            None => drop(held.functions.insert(key.clone(), now)),
        }
        Ok(Permit { gate: gate.clone(), key, provisioned })
    }

    /// Refuses everything from now on.
    pub fn close(&self) {
        self.inner.held.lock().closed = true;
    }

    /// Invocations in flight.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.inner.held.lock().all
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.gate.held.lock();
        held.all -= 1;
        if !self.provisioned {
            held.burst -= 1;
            if let Some(n) = held.tenants.get_mut(&self.key.0) {
                *n -= 1;
                if *n == 0 {
                    held.tenants.remove(&self.key.0);
                }
            }
        }
        if let Some(running) = held.functions.get_mut(&self.key) {
            running.all -= 1;
            running.provisioned -= u32::from(self.provisioned);
            if running.all == 0 {
                held.functions.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(most: u32) -> Concurrency {
        Concurrency { most, provisioned: 0, provisioned_of_all: 0 }
    }

    #[test]
    fn one_tenant_cannot_take_the_host_and_permits_come_back() {
        let gate = Gate::new(GateOptions { host: 4, tenant_percent: 75 });
        let (a, b): (TenantName, TenantName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let f: FunctionName = "f".parse().unwrap();
        let permits: Vec<_> = (0..3).map(|_| gate.admit(&a, &f, plain(64)).unwrap()).collect();
        assert_eq!(gate.admit(&a, &f, plain(64)).err().unwrap().kind, ErrorKind::Quota);
        let other = gate.admit(&b, &f, plain(1)).unwrap();
        assert_eq!(gate.admit(&b, &f, plain(1)).err().unwrap().kind, ErrorKind::Overloaded);
        drop(permits);
        assert_eq!(gate.admit(&b, &f, plain(1)).err().unwrap().kind, ErrorKind::Quota);
        drop(other);
        assert_eq!(gate.in_flight(), 0);
        assert!(gate.inner.held.lock().functions.is_empty());
        gate.close();
        assert_eq!(gate.admit(&b, &f, plain(1)).err().unwrap().kind, ErrorKind::Overloaded);
    }

    #[test]
    fn what_is_provisioned_is_nobody_elses() {
        let gate = Gate::new(GateOptions { host: 6, tenant_percent: 50 });
        let tenants: [TenantName; 2] = ["a", "b"].map(|t| t.parse().unwrap());
        let functions: [FunctionName; 2] = ["f", "g"].map(|f| f.parse().unwrap());
        let share = |provisioned| Concurrency { most: 4, provisioned, provisioned_of_all: 2 };
        let admit = |t: usize, f: usize, provisioned| {
            gate.admit(&tenants[t], &functions[f], share(provisioned)).map_err(|e| e.kind)
        };
        // a/g fills its tenant's share, b takes what the host has left beside the two of a/f.
        let own: Vec<_> = (0..3).map(|_| admit(0, 1, 0).unwrap()).collect();
        assert_eq!(admit(0, 1, 0).err(), Some(ErrorKind::Quota));
        let others = admit(1, 0, 0).unwrap();
        assert_eq!(admit(1, 0, 0).err(), Some(ErrorKind::Overloaded), "the room of a/f is kept");
        // The host is full but for what a/f has, and so is the share of its tenant.
        let kept = [admit(0, 0, 2).unwrap(), admit(0, 0, 2).unwrap()];
        assert_eq!(admit(0, 0, 2).err(), Some(ErrorKind::Overloaded), "beyond it, it is as all others");
        drop(others);
        assert_eq!(admit(0, 0, 2).err(), Some(ErrorKind::Quota), "its tenant's share is still full");
        drop(own);
        let burst = [admit(0, 0, 2).unwrap(), admit(0, 0, 2).unwrap()];
        assert_eq!(admit(0, 0, 2).err(), Some(ErrorKind::Quota), "limits.concurrency");
        // A place of its own that comes free is taken before any other.
        let [one, two] = kept;
        drop(one);
        let again = admit(0, 0, 2).unwrap();
        assert!(again.provisioned && two.provisioned && !burst[0].provisioned);
        drop((again, two, burst));
        let held = gate.inner.held.lock();
        assert_eq!((held.all, held.burst, held.tenants.len(), held.functions.len()), (0, 0, 0, 0));
    }

    #[test]
    fn a_provision_that_comes_later_never_takes_the_host_past_its_limit() {
        let gate = Gate::new(GateOptions { host: 2, tenant_percent: 100 });
        let (a, f): (TenantName, FunctionName) = ("a".parse().unwrap(), "f".parse().unwrap());
        let held = [gate.admit(&a, &f, plain(9)).unwrap(), gate.admit(&a, &f, plain(9)).unwrap()];
        let later = Concurrency { most: 9, provisioned: 1, provisioned_of_all: 1 };
        assert_eq!(gate.admit(&a, &f, later).err().unwrap().kind, ErrorKind::Overloaded);
        drop(held);
        assert!(gate.admit(&a, &f, later).is_ok());
    }
}
