use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wasmeter_types::{AliasName, Digest, FunctionManifest, FunctionName, ModelName, TenantName};

use crate::Event;
use crate::model::{ModelEntry, ModelVersion};

/// An immutable content of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Made of the component's digest and the manifest: the same content has the same id.
    pub id: String,
    /// Digest of the component.
    pub digest: Digest,
    /// The manifest as the host uses it.
    pub manifest: FunctionManifest,
    /// Interfaces that the component imports.
    pub imports: Vec<String>,
    /// Interfaces that it exports.
    pub exports: Vec<String>,
    /// Bytes of the component.
    pub size: u64,
    /// Nanoseconds since the Unix epoch.
    pub created_ns: u64,
}

/// A function of a tenant.
#[derive(Clone, Debug, Default)]
pub struct Function {
    /// Revisions, oldest first.
    pub revisions: Vec<Arc<Revision>>,
    /// Aliases.
    pub aliases: BTreeMap<AliasName, Arc<Revision>>,
}

/// A tenant.
#[derive(Clone, Debug, Default)]
pub struct Tenant {
    /// Nanoseconds since the Unix epoch.
    pub created_ns: u64,
    /// Its functions.
    pub functions: BTreeMap<FunctionName, Arc<Function>>,
}

/// Everything that is deployed, at one event.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Sequence number of the last event.
    pub seq: u64,
    /// Tenants.
    pub tenants: BTreeMap<TenantName, Arc<Tenant>>,
    /// Operator models.
    pub models: BTreeMap<ModelName, Arc<ModelEntry>>,
}

impl Snapshot {
    /// The revision behind an alias. No lock, no I/O.
    #[must_use]
    pub fn resolve(&self, tenant: &str, function: &str, alias: &str) -> Option<&Arc<Revision>> {
        self.function(tenant, function)?.aliases.get(alias)
    }

    /// A function.
    #[must_use]
    pub fn function(&self, tenant: &str, function: &str) -> Option<&Arc<Function>> {
        self.tenants.get(tenant)?.functions.get(function)
    }

    /// A version of an operator model; the highest if none is named.
    #[must_use]
    pub fn model(&self, name: &str, version: Option<u32>) -> Option<&Arc<ModelVersion>> {
        let versions = &self.models.get(name)?.versions;
        match version {
            Some(version) => versions.get(&version),
            None => versions.last_key_value().map(|(_, v)| v),
        }
    }

    /// Whether any revision of the tenant uses the component.
    #[must_use]
    pub fn uses_component(&self, tenant: &str, digest: &Digest) -> bool {
        let Some(tenant) = self.tenants.get(tenant) else { return false };
        tenant.functions.values().any(|f| f.revisions.iter().any(|r| r.digest == *digest))
    }

    /// The state after one more event.
    pub(crate) fn apply(&mut self, seq: u64, event: Event) {
        self.seq = seq;
        match event {
            Event::TenantPut { tenant, at_ns } => {
                self.tenants
                    .entry(tenant)
                    .or_insert_with(|| Arc::new(Tenant { created_ns: at_ns, functions: BTreeMap::new() }));
            }
            Event::TenantDeleted { tenant } => {
                self.tenants.remove(&tenant);
            }
            Event::Deployed { tenant, function, revision, alias } => {
                let Some(tenant) = self.tenants.get_mut(&tenant) else { return };
                let function = Arc::make_mut(tenant).functions.entry(function).or_default();
                let function = Arc::make_mut(function);
                let revision = match function.revisions.iter().find(|r| r.id == revision.id) {
                    Some(known) => known.clone(),
                    None => {
                        let revision = Arc::new(*revision);
                        function.revisions.push(revision.clone());
                        revision
                    }
                };
                function.aliases.insert(alias, revision);
            }
            Event::FunctionDeleted { tenant, function } => {
                if let Some(tenant) = self.tenants.get_mut(&tenant) {
                    Arc::make_mut(tenant).functions.remove(&function);
                }
            }
            Event::ModelPut { version } => {
                let entry = self.models.entry(version.model.clone()).or_default();
                Arc::make_mut(entry).versions.insert(version.version, Arc::new(*version));
            }
            Event::ModelDeleted { model, version } => {
                if let Some(entry) = self.models.get_mut(&model) {
                    Arc::make_mut(entry).versions.remove(&version);
                    if entry.versions.is_empty() {
                        self.models.remove(&model);
                    }
                }
            }
        }
    }
}
