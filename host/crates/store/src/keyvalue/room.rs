use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmeter_types::TenantName;

/// Bytes of one unit of room.
const UNIT: usize = 1 << 10;
/// Units of all tenants: 64 MiB of changes that wait, or so many commands.
pub(super) const COMMANDS: usize = 64 << 10;
/// Units of one tenant, who waits for itself before it waits for others. More than the largest change.
const TENANT: usize = 8 << 10;

/// Tenants that are remembered without one of their commands being there.
const REMEMBERED: usize = 4096;

/// Room for what waits to be written and read, in memory: of each tenant, and in all.
pub(super) struct Room {
    all: Arc<Semaphore>,
    tenants: Mutex<HashMap<TenantName, Arc<Semaphore>>>,
}

/// A part of the room; given back when it is dropped.
pub(super) struct Taken {
    _permits: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl Default for Room {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(COMMANDS)), tenants: Mutex::default() }
    }
}

impl Room {
    /// Waits for room for a command of so many bytes.
    pub(super) async fn take(&self, tenant: &TenantName, bytes: usize) -> Taken {
        let units = u32::try_from((1 + bytes / UNIT).min(TENANT)).unwrap_or(1);
        let own = {
            let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
            if tenants.len() >= REMEMBERED && !tenants.contains_key(tenant) {
                // A command that waits or has its room holds the semaphore too.
                tenants.retain(|_, room| Arc::strong_count(room) > 1);
            }
            let new = || Arc::new(Semaphore::new(TENANT));
            tenants.entry(tenant.clone()).or_insert_with(new).clone()
        };
        let own = own.acquire_many_owned(units).await;
        let all = self.all.clone().acquire_many_owned(units).await;
        // Neither is ever closed.
        Taken { _permits: own.ok().zip(all.ok()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tenants_without_a_command_are_forgotten() {
        let room = Room::default();
        let tenant = |n: usize| format!("t{n}").parse::<TenantName>().unwrap();
        let held = room.take(&tenant(0), TENANT * UNIT).await;
        for n in 1..3 * REMEMBERED {
            drop(room.take(&tenant(n), 1).await);
        }
        assert!(room.tenants.lock().unwrap().len() <= REMEMBERED + 1);
        // Who has its room was not given another one.
        let own = room.tenants.lock().unwrap()[&tenant(0)].clone();
        assert_eq!(own.available_permits(), 0);
        drop(held);
        assert_eq!(own.available_permits(), TENANT);
    }
}
