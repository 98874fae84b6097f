use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wasmeter_types::{AliasName, Digest, FunctionManifest, FunctionName, ModelName, TenantName};

use crate::Event;
use crate::alias::{Alias, Weights};
use crate::model::{Granted, ModelEntry, ModelVersion};

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
    pub aliases: BTreeMap<AliasName, Alias>,
    /// Invocations at one time for which the host keeps room: the most that a revision behind an alias asks for.
    pub provisioned: u32,
}

/// A tenant.
#[derive(Clone, Debug, Default)]
pub struct Tenant {
    /// Nanoseconds since the Unix epoch.
    pub created_ns: u64,
    /// Its functions.
    pub functions: BTreeMap<FunctionName, Arc<Function>>,
    /// Its own models.
    pub models: Models,
    /// What all its functions have provisioned.
    pub provisioned: u64,
    /// Whether it may deploy components that handle HTTP with WASI 0.3.
    pub wasi3: bool,
}

/// Models by name.
pub type Models = BTreeMap<ModelName, Arc<ModelEntry>>;

/// Everything that is deployed, at one event.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Sequence number of the last event.
    pub seq: u64,
    /// Tenants.
    pub tenants: BTreeMap<TenantName, Arc<Tenant>>,
    /// Operator models.
    pub models: Models,
    /// Who may use an operator model; everyone where it is not named.
    pub granted: BTreeMap<ModelName, Granted>,
    /// What all functions have provisioned.
    pub provisioned: u64,
    /// Tenants whose calls are recorded.
    pub recorded: BTreeSet<TenantName>,
}

impl Snapshot {
    /// The revision behind an alias, for one invocation with its draw (see [`Alias::choose`]). No lock, no I/O.
    #[must_use]
    pub fn resolve(&self, tenant: &str, function: &str, alias: &str, draw: u64) -> Option<&Arc<Revision>> {
        Some(self.function(tenant, function)?.aliases.get(alias)?.choose(draw))
    }

    /// A function.
    #[must_use]
    pub fn function(&self, tenant: &str, function: &str) -> Option<&Arc<Function>> {
        self.tenants.get(tenant)?.functions.get(function)
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
                    .or_insert_with(|| Arc::new(Tenant { created_ns: at_ns, ..Tenant::default() }));
            }
            Event::TenantDeleted { tenant } => {
                let gone = self.tenants.remove(&tenant);
                self.provisioned = self.provisioned.saturating_sub(gone.map_or(0, |t| t.provisioned));
                // Who gets the name later gets nothing else with it.
                self.recorded.remove(&tenant);
                for granted in self.granted.values_mut() {
                    if let Granted::Tenants(tenants) = granted {
                        tenants.remove(&tenant);
                    }
                }
            }
            Event::TenantWasi3Set { tenant, on } => {
                if let Some(tenant) = self.tenants.get_mut(&tenant) {
                    Arc::make_mut(tenant).wasi3 = on;
                }
            }
            Event::TenantRecordingSet { tenant, on } => {
                if on {
                    self.recorded.insert(tenant);
                } else {
                    self.recorded.remove(&tenant);
                }
            }
            Event::Deployed { tenant, function, revision, alias } => {
                let Some(content) = self.tenants.get_mut(&tenant) else { return };
                let content = Arc::make_mut(content).functions.entry(function.clone()).or_default();
                let content = Arc::make_mut(content);
                let weights = Weights::from([(revision.id.clone(), 1)]);
                if !content.revisions.iter().any(|r| r.id == revision.id) {
                    content.revisions.push(Arc::new(*revision));
                }
                content.point(alias, &weights);
                self.count_provisioned(&tenant, &function);
            }
            Event::AliasSet { tenant, function, alias, weights } => {
                self.change_function(&tenant, &function, |f| f.point(alias, &weights));
            }
            Event::AliasRemoved { tenant, function, alias } => {
                self.change_function(&tenant, &function, |f| {
                    f.aliases.remove(&alias);
                });
            }
            Event::FunctionDeleted { tenant, function } => {
                if let Some(tenant) = self.tenants.get_mut(&tenant) {
                    let tenant = Arc::make_mut(tenant);
                    let gone = tenant.functions.remove(&function).map_or(0, |f| u64::from(f.provisioned));
                    tenant.provisioned = tenant.provisioned.saturating_sub(gone);
                    self.provisioned = self.provisioned.saturating_sub(gone);
                }
            }
            Event::ModelPut { version } => self.change_models(None, |models| put(models, *version)),
            Event::TenantModelPut { tenant, version } => {
                self.change_models(Some(&tenant), |models| put(models, *version));
            }
            Event::ModelDeleted { model, version } => {
                self.change_models(None, |models| delete(models, &model, version));
            }
            Event::TenantModelDeleted { tenant, model, version } => {
                self.change_models(Some(&tenant), |models| delete(models, &model, version));
            }
            Event::ModelLabelSet { tenant, model, label, version } => {
                self.change_models(tenant.as_ref(), |models| {
                    if let Some(entry) = models.get_mut(&model) {
                        Arc::make_mut(entry).labels.insert(label, version);
                    }
                });
            }
            Event::ModelLabelRemoved { tenant, model, label } => {
                self.change_models(tenant.as_ref(), |models| {
                    if let Some(entry) = models.get_mut(&model) {
                        Arc::make_mut(entry).labels.remove(&label);
                    }
                });
            }
            Event::ModelGranted { model, granted } => {
                self.granted.insert(model, granted);
            }
        }
    }

    /// Changes a function that is there.
    fn change_function(
        &mut self,
        tenant: &TenantName,
        function: &FunctionName,
        change: impl FnOnce(&mut Function),
    ) {
        let Some(content) = self.tenants.get_mut(tenant) else { return };
        if let Some(function) = Arc::make_mut(content).functions.get_mut(function) {
            change(Arc::make_mut(function));
        }
        self.count_provisioned(tenant, function);
    }

    /// Changes the operator's or a tenant's models; those of a tenant that is gone are gone with it.
    fn change_models(&mut self, owner: Option<&TenantName>, change: impl FnOnce(&mut Models)) {
        match owner {
            None => change(&mut self.models),
            Some(tenant) => {
                if let Some(tenant) = self.tenants.get_mut(tenant) {
                    change(&mut Arc::make_mut(tenant).models);
                }
            }
        }
    }
}

fn put(models: &mut Models, version: ModelVersion) {
    let entry = models.entry(version.model.clone()).or_default();
    Arc::make_mut(entry).versions.insert(version.version, Arc::new(version));
}

fn delete(models: &mut Models, model: &ModelName, version: u32) {
    let Some(entry) = models.get_mut(model) else { return };
    let content = Arc::make_mut(entry);
    content.versions.remove(&version);
    content.labels.retain(|_, labelled| *labelled != version);
    if content.versions.is_empty() {
        models.remove(model);
    }
}
