use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use wasmeter_types::{ByteSize, Error, ErrorKind, TenantName};

/// Memory of the uploads under way, which they hold from their first byte until they are stored or refused. One tenant
/// gets half of it, so that others can always upload too.
pub(crate) struct Room {
    most: u64,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    all: u64,
    tenants: HashMap<TenantName, u64>,
}

/// What the smallest upload counts for: its connection and its place in queues.
const LEAST: u64 = 1 << 20;

/// The memory of one upload.
pub(crate) struct Taken {
    room: Arc<Room>,
    tenant: TenantName,
    bytes: u64,
}

impl Room {
    pub(crate) fn new(most: u64) -> Self {
        Self { most, held: Mutex::default() }
    }

    /// Room for an upload of so many bytes.
    ///
    /// # Errors
    /// 503 if the host has none, 429 if the tenant has its share.
    pub(crate) fn take(self: &Arc<Self>, tenant: &TenantName, bytes: u64) -> Result<Taken, Error> {
        let bytes = bytes.max(LEAST);
        let mut held = self.held.lock();
        let own = held.tenants.get(tenant).copied().unwrap_or(0);
        let share = self.most / 2;
        if own + bytes > share {
            return Err(Error::new(
                ErrorKind::Quota,
                format!(
                    "uploads of tenant {tenant} under way take its share of {}: retry later",
                    ByteSize(share)
                ),
            ));
        }
        if held.all + bytes > self.most {
            let message = format!("the uploads under way take all of {}: retry later", ByteSize(self.most));
            return Err(Error::new(ErrorKind::Overloaded, message));
        }
        held.all += bytes;
        held.tenants.insert(tenant.clone(), own + bytes);
        Ok(Taken { room: self.clone(), tenant: tenant.clone(), bytes })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut held = self.room.held.lock();
        held.all -= self.bytes;
        if let Some(own) = held.tenants.get_mut(&self.tenant) {
            *own -= self.bytes;
            if *own == 0 {
                held.tenants.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_takes_half_and_all_comes_back() {
        let room = Arc::new(Room::new(100 << 20));
        let [a, b, c]: [TenantName; 3] = ["a", "b", "c"].map(|t| t.parse().unwrap());
        let large = room.take(&a, 40 << 20).unwrap();
        assert_eq!(room.take(&a, 11 << 20).err().unwrap().kind, ErrorKind::Quota);
        let small: Vec<_> = (0..10).map(|_| room.take(&a, 1).unwrap()).collect();
        assert_eq!(room.take(&a, 1).err().unwrap().kind, ErrorKind::Quota, "the smallest count too");
        let other = room.take(&b, 45 << 20).unwrap();
        let full = room.take(&c, 6 << 20).err().unwrap();
        assert_eq!(full.kind, ErrorKind::Overloaded);
        assert!(full.retry_after.is_some() && full.message.contains("100MiB"), "{full}");
        drop((large, small, other));
        assert!(room.held.lock().tenants.is_empty() && room.held.lock().all == 0);
    }
}
