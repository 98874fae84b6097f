use std::sync::Arc;

use wasmeter_types::{AliasName, Digest, FunctionManifest, TenantName, unix_ns};

use crate::Event;
use crate::catalog::{Catalog, CatalogError};
use crate::model::{ModelPut, ModelVersion};
use crate::snapshot::Revision;

/// A validated and compiled component that is to be deployed. Its blob is stored already.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// Tenant.
    pub tenant: TenantName,
    /// Manifest; names the function.
    pub manifest: FunctionManifest,
    /// Digest of the component.
    pub digest: Digest,
    /// Bytes of the component.
    pub size: u64,
    /// Interfaces it imports.
    pub imports: Vec<String>,
    /// Interfaces it exports.
    pub exports: Vec<String>,
    /// The alias that moves to the revision.
    pub alias: AliasName,
}

/// What a deployment did.
#[derive(Clone, Debug)]
pub struct Deployed {
    /// The revision.
    pub revision: Arc<Revision>,
    /// False if the same bytes and manifest were deployed before.
    pub created: bool,
}

impl Deployment {
    /// The id of the revision.
    ///
    /// # Errors
    /// As [`revision_id`].
    pub fn revision_id(&self) -> Result<String, serde_json::Error> {
        revision_id(&self.digest, &self.manifest)
    }
}

/// The id of a revision: the same bytes and manifest have the same.
///
/// # Errors
/// If the manifest cannot be written as JSON, which its types rule out.
pub fn revision_id(component: &Digest, manifest: &FunctionManifest) -> Result<String, serde_json::Error> {
    let manifest = serde_json::to_vec(&manifest.for_host())?;
    Ok(Digest::of_parts(&[component.to_string().as_bytes(), &manifest]).short())
}

impl Catalog {
    /// Adds the revision and moves the alias to it, all of its traffic.
    ///
    /// # Errors
    /// `NotFound` if the tenant is not there; the log's.
    pub async fn deploy(&self, deployment: Deployment) -> Result<Deployed, CatalogError> {
        let id = deployment.revision_id().map_err(|e| CatalogError::Conflict(format!("manifest: {e}")))?;
        let writer = self.writer().await;
        let now = writer.now();
        let Deployment { tenant, manifest, digest, size, imports, exports, alias } = deployment;
        if !now.tenants.contains_key(&tenant) {
            return Err(CatalogError::NotFound(format!("tenant {tenant}")));
        }
        let function = manifest.function.name.clone();
        let known = now.function(tenant.as_str(), function.as_str());
        let same = known.and_then(|f| f.revisions.iter().find(|r| r.id == id)).cloned();
        let created = same.is_none();
        let revision = same.unwrap_or_else(|| {
            let manifest = manifest.for_host();
            Arc::new(Revision { id, digest, manifest, imports, exports, size, created_ns: unix_ns() })
        });
        let there = known.and_then(|f| f.aliases.get(&alias));
        let moved = there.is_none_or(|a| !matches!(a.parts(), [part] if part.revision.id == revision.id));
        if created || moved {
            let revision = Box::new(Revision::clone(&revision));
            writer.commit(Event::Deployed { tenant, function, revision, alias }).await?;
        }
        Ok(Deployed { revision, created })
    }

    /// Adds a version of the operator's model, or of a tenant's own. Its blobs are stored already.
    ///
    /// # Errors
    /// `NotFound` if the tenant is not there; `Conflict` if the version exists with other content; the log's.
    pub async fn put_model(
        &self,
        tenant: Option<TenantName>,
        version: ModelVersion,
    ) -> Result<ModelPut, CatalogError> {
        let writer = self.writer().await;
        let now = writer.now();
        let owner = tenant.as_ref().map(TenantName::as_str);
        if let Some(tenant) = &tenant
            && !now.tenants.contains_key(tenant)
        {
            return Err(CatalogError::NotFound(format!("tenant {tenant}")));
        }
        if let Some(known) = now.model_version(owner, version.model.as_str(), version.version) {
            if known.files == version.files && known.card == version.card {
                return Ok(ModelPut { version: known.clone(), created: false });
            }
            return Err(CatalogError::Conflict(format!(
                "model {} version {} exists with other content: versions are immutable, push the next number",
                version.model, version.version
            )));
        }
        let boxed = Box::new(version.clone());
        let event = match tenant {
            None => Event::ModelPut { version: boxed },
            Some(tenant) => Event::TenantModelPut { tenant, version: boxed },
        };
        writer.commit(event).await?;
        Ok(ModelPut { version: Arc::new(version), created: true })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::{EventLog, LogError};

    /// A log in memory; the SQLite one is tested in the store.
    #[derive(Clone, Default)]
    pub(crate) struct Memory(Arc<Mutex<Vec<String>>>);

    #[async_trait]
    impl EventLog for Memory {
        async fn read_after(&self, seq: u64) -> Result<Vec<(u64, Event)>, LogError> {
            let events = self.0.lock().unwrap();
            let read = |(i, e): (usize, &String)| (i as u64 + 1, serde_json::from_str(e).unwrap());
            Ok(events.iter().enumerate().map(read).filter(|(s, _)| *s > seq).collect())
        }

        async fn append(&self, seq: u64, event: &Event) -> Result<(), LogError> {
            let mut events = self.0.lock().unwrap();
            if seq != events.len() as u64 + 1 {
                return Err(LogError::Conflict(seq));
            }
            events.push(serde_json::to_string(event).unwrap());
            Ok(())
        }
    }

    fn deployment(bytes: &[u8], public: bool) -> Deployment {
        let mut manifest = FunctionManifest::new("f".parse().unwrap());
        manifest.function.public = public;
        Deployment {
            tenant: "dev".parse().unwrap(),
            manifest,
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            imports: vec![],
            exports: vec![],
            alias: AliasName::live(),
        }
    }

    #[tokio::test]
    async fn same_content_is_the_same_revision_and_survives_a_restart() {
        let log = Memory::default();
        let catalog = Catalog::open(Box::new(log.clone())).await.unwrap();
        assert!(matches!(catalog.deploy(deployment(b"a", true)).await, Err(CatalogError::NotFound(_))));
        assert!(catalog.put_tenant("dev".parse().unwrap()).await.unwrap());
        assert!(!catalog.put_tenant("dev".parse().unwrap()).await.unwrap());
        let a = catalog.deploy(deployment(b"a", true)).await.unwrap();
        let again = catalog.deploy(deployment(b"a", true)).await.unwrap();
        let b = catalog.deploy(deployment(b"a", false)).await.unwrap();
        assert!(a.created && !again.created && b.created);
        assert_eq!(a.revision.id, again.revision.id);
        assert_ne!(a.revision.id, b.revision.id);
        // Going back to old content moves the alias and adds no revision.
        catalog.deploy(deployment(b"a", true)).await.unwrap();
        let catalog = Catalog::open(Box::new(log)).await.unwrap();
        let snapshot = catalog.snapshot();
        assert_eq!(snapshot.resolve("dev", "f", "live", 0).unwrap().id, a.revision.id);
        assert_eq!(snapshot.function("dev", "f").unwrap().revisions.len(), 2);
        assert!(snapshot.resolve("other", "f", "live", 0).is_none());
    }

    #[tokio::test]
    async fn deleting_removes_what_resolve_sees() {
        let catalog = Catalog::open(Box::new(Memory::default())).await.unwrap();
        let (tenant, function): (TenantName, _) = ("dev".parse().unwrap(), "f".parse().unwrap());
        catalog.put_tenant(tenant.clone()).await.unwrap();
        catalog.deploy(deployment(b"a", true)).await.unwrap();
        assert!(catalog.snapshot().uses_component("dev", &Digest::of(b"a")));
        catalog.delete_function(tenant.clone(), function).await.unwrap();
        assert!(catalog.snapshot().resolve("dev", "f", "live", 0).is_none());
        assert!(!catalog.snapshot().uses_component("dev", &Digest::of(b"a")));
        catalog.delete_tenant(tenant.clone()).await.unwrap();
        assert!(matches!(catalog.delete_tenant(tenant).await, Err(CatalogError::NotFound(_))));
    }
}
