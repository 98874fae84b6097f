use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, OwnedMutexGuard};
use wasmeter_types::{FunctionName, ModelName, TenantName, unix_ns};

use crate::{Event, EventLog, LogError, Provisionable, Snapshot};

/// A change that the catalog refuses; nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The tenant, function or model is not there.
    #[error("{0} is not there")]
    NotFound(String),
    /// What is there does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// What is asked for cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The catalog: one writer at a time, readers without locks. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
}

struct Inner {
    log: Box<dyn EventLog>,
    snapshot: ArcSwap<Snapshot>,
    room: Provisionable,
    /// Held over validate, append and publish, so that events are validated against what they follow.
    writer: Arc<Mutex<()>>,
}

/// The right to write the next event.
pub(crate) struct Writer {
    inner: Arc<Inner>,
    _guard: OwnedMutexGuard<()>,
}

impl Catalog {
    /// Reads all events.
    ///
    /// # Errors
    /// The log's.
    pub async fn open(log: Box<dyn EventLog>) -> Result<Self, CatalogError> {
        Self::open_within(log, Provisionable::ANY).await
    }

    /// Reads all events; new ones provision no more than there is room for.
    ///
    /// # Errors
    /// The log's.
    pub async fn open_within(log: Box<dyn EventLog>, room: Provisionable) -> Result<Self, CatalogError> {
        let mut snapshot = Snapshot::default();
        for (seq, event) in log.read_after(0).await? {
            snapshot.apply(seq, event);
        }
        let inner = Inner { log, snapshot: ArcSwap::from_pointee(snapshot), room, writer: Arc::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The state now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.snapshot.load_full()
    }

    /// Creates a tenant; true if it is new.
    ///
    /// # Errors
    /// The log's.
    pub async fn put_tenant(&self, tenant: TenantName) -> Result<bool, CatalogError> {
        let writer = self.writer().await;
        if writer.now().tenants.contains_key(&tenant) {
            return Ok(false);
        }
        writer.commit(Event::TenantPut { tenant, at_ns: unix_ns() }).await?;
        Ok(true)
    }

    /// Switches WASI 0.3 on or off for what a tenant deploys from now on.
    ///
    /// # Errors
    /// `NotFound`, or the log's.
    pub async fn set_wasi3(&self, tenant: TenantName, on: bool) -> Result<(), CatalogError> {
        let writer = self.writer().await;
        let now = writer.now();
        let Some(known) = now.tenants.get(&tenant) else {
            return Err(CatalogError::NotFound(format!("tenant {tenant}")));
        };
        if known.wasi3 == on {
            return Ok(());
        }
        writer.commit(Event::TenantWasi3Set { tenant, on }).await
    }

    /// Switches the recording of a tenant's calls on or off, for calls from now on.
    ///
    /// # Errors
    /// `NotFound`, or the log's.
    pub async fn set_recording(&self, tenant: TenantName, on: bool) -> Result<(), CatalogError> {
        let writer = self.writer().await;
        let now = writer.now();
        if !now.tenants.contains_key(&tenant) {
            return Err(CatalogError::NotFound(format!("tenant {tenant}")));
        }
        if now.recorded.contains(&tenant) == on {
            return Ok(());
        }
        writer.commit(Event::TenantRecordingSet { tenant, on }).await
    }

    /// Deletes a tenant and its functions.
    ///
    /// # Errors
    /// `NotFound`, or the log's.
    pub async fn delete_tenant(&self, tenant: TenantName) -> Result<(), CatalogError> {
        let writer = self.writer().await;
        if !writer.now().tenants.contains_key(&tenant) {
            return Err(CatalogError::NotFound(format!("tenant {tenant}")));
        }
        writer.commit(Event::TenantDeleted { tenant }).await
    }

    /// Deletes a function.
    ///
    /// # Errors
    /// `NotFound`, or the log's.
    pub async fn delete_function(
        &self,
        tenant: TenantName,
        function: FunctionName,
    ) -> Result<(), CatalogError> {
        let writer = self.writer().await;
        if writer.now().function(tenant.as_str(), function.as_str()).is_none() {
            return Err(CatalogError::NotFound(format!("function {function}")));
        }
        writer.commit(Event::FunctionDeleted { tenant, function }).await
    }

    /// Deletes a version of the operator's model, or of a tenant's own.
    ///
    /// # Errors
    /// `NotFound`, or the log's.
    pub async fn delete_model(
        &self,
        tenant: Option<TenantName>,
        model: ModelName,
        version: u32,
    ) -> Result<(), CatalogError> {
        let writer = self.writer().await;
        let owner = tenant.as_ref().map(TenantName::as_str);
        if writer.now().model_version(owner, model.as_str(), version).is_none() {
            return Err(CatalogError::NotFound(format!("model {model} version {version}")));
        }
        let event = match tenant {
            None => Event::ModelDeleted { model, version },
            Some(tenant) => Event::TenantModelDeleted { tenant, model, version },
        };
        writer.commit(event).await
    }

    pub(crate) async fn writer(&self) -> Writer {
        Writer { inner: self.inner.clone(), _guard: self.inner.writer.clone().lock_owned().await }
    }
}

impl Writer {
    pub(crate) fn now(&self) -> Arc<Snapshot> {
        self.inner.snapshot.load_full()
    }

    /// Durable first, visible after. A caller that goes away in between stops neither.
    pub(crate) async fn commit(self, event: Event) -> Result<(), CatalogError> {
        let done = tokio::spawn(async move {
            let now = self.now();
            let (mut next, seq) = (Snapshot::clone(&now), now.seq + 1);
            next.apply(seq, event.clone());
            self.inner.room.check(&now, &next)?;
            self.inner.log.append(seq, &event).await?;
            self.inner.snapshot.store(Arc::new(next));
            Ok(())
        });
        done.await.map_err(|e| LogError::Io(e.to_string()))?
    }
}
