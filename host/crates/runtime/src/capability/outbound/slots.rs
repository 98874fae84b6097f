use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use wasmeter_types::TenantName;

/// Connections of the host and of each tenant at one time. Nobody waits for one: the guest is told.
#[derive(Clone)]
pub(super) struct Slots {
    open: Arc<Mutex<Open>>,
    most: usize,
    tenant_most: usize,
}

#[derive(Default)]
struct Open {
    all: usize,
    tenants: HashMap<TenantName, usize>,
}

/// One connection, from the look-up of its name to its end.
pub(super) struct Slot {
    open: Arc<Mutex<Open>>,
    tenant: TenantName,
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Host,
    Tenant(usize),
}

impl Slots {
    pub(super) fn new(most: usize, tenant_most: usize) -> Self {
        Self { open: Arc::default(), most, tenant_most }
    }

    pub(super) fn take(&self, tenant: &TenantName) -> Result<Slot, Full> {
        let mut open = self.open.lock();
        if open.all >= self.most {
            return Err(Full::Host);
        }
        let of_tenant = open.tenants.get(tenant).copied().unwrap_or(0);
        if of_tenant >= self.tenant_most {
            return Err(Full::Tenant(self.tenant_most));
        }
        open.all += 1;
        open.tenants.insert(tenant.clone(), of_tenant + 1);
        Ok(Slot { open: self.open.clone(), tenant: tenant.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        open.all = open.all.saturating_sub(1);
        if let Some(count) = open.tenants.get_mut(&self.tenant) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.tenants.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_does_not_take_all() {
        let slots = Slots::new(3, 2);
        let (a, b): (TenantName, TenantName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let held: Vec<_> = (0..2).map(|_| slots.take(&a).ok().unwrap()).collect();
        assert_eq!(slots.take(&a).err(), Some(Full::Tenant(2)));
        let other = slots.take(&b).ok().unwrap();
        assert_eq!(slots.take(&b).err(), Some(Full::Host));
        drop((held, other));
        assert!(slots.open.lock().tenants.is_empty() && slots.take(&a).is_ok());
    }
}
