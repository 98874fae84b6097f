use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, RwLock, Semaphore};
use wasmeter_types::{Error, ErrorKind, TenantName};

use crate::Deps;
use crate::error::{Answer, Failure, refuse};
use crate::room::{Room, Taken};

/// Memory of all component uploads under way, each up to [`crate::MAX_COMPONENT`].
const COMPONENT_UPLOADS: u64 = 1 << 30;
/// Model uploads at one time, each up to [`crate::MAX_MODEL`] in memory.
const MODEL_UPLOADS: usize = 1;
/// Uploads of tenants' models at one time, of all tenants together; the operator does not wait for them.
const TENANT_MODEL_UPLOADS: usize = 2;
/// Logs that are followed at one time.
const FOLLOWERS: usize = 64;
/// Models that are measured at one time: two would measure each other.
const BENCHES: usize = 1;

/// The state of all handlers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) deps: Deps,
    /// Read: between storing a blob and the event that uses it. Write: between looking that nothing uses a blob
    /// and deleting it. Without it, a deletion could take the bytes of a deployment under way.
    pub(crate) blobs_in_use: RwLock<()>,
    component_uploads: Arc<Room>,
    model_uploads: Arc<Semaphore>,
    tenant_model_uploads: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    benches: Arc<Semaphore>,
}

impl Deref for Shared {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Shared {
    pub(crate) fn new(deps: Deps) -> Self {
        Self(Arc::new(Inner {
            deps,
            blobs_in_use: RwLock::new(()),
            component_uploads: Arc::new(Room::new(COMPONENT_UPLOADS)),
            model_uploads: Arc::new(Semaphore::new(MODEL_UPLOADS)),
            tenant_model_uploads: Arc::new(Semaphore::new(TENANT_MODEL_UPLOADS)),
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
            benches: Arc::new(Semaphore::new(BENCHES)),
        }))
    }

    /// Memory for a tenant's component of so many bytes.
    pub(crate) fn component_upload(&self, tenant: &TenantName, bytes: u64) -> Answer<Taken> {
        Ok(self.component_uploads.take(tenant, bytes)?)
    }

    pub(crate) fn model_upload(&self, owner: Option<&TenantName>) -> Answer<OwnedSemaphorePermit> {
        match owner {
            None => take(&self.model_uploads, "model uploads"),
            Some(_) => take(&self.tenant_model_uploads, "uploads of tenants' models"),
        }
    }

    pub(crate) fn follower(&self) -> Answer<OwnedSemaphorePermit> {
        take(&self.followers, "followed logs")
    }

    pub(crate) fn bench(&self) -> Answer<OwnedSemaphorePermit> {
        take(&self.benches, "models that are measured")
    }
}

fn take(semaphore: &Arc<Semaphore>, what: &str) -> Answer<OwnedSemaphorePermit> {
    let full = |_| refuse(ErrorKind::Overloaded, format!("the host is at its limit of {what}: retry later"));
    semaphore.clone().try_acquire_owned().map_err(full)
}

/// Runs a change to its end, even if the client leaves: half of one must not be left behind.
pub(crate) async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Answer<T>> + Send + 'static,
) -> Answer<T> {
    tokio::spawn(change).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a change of the control API died");
        Err(Failure(Error::internal()))
    })
}
