use serde::{Deserialize, Serialize};
use wasmeter_types::{AliasName, FunctionName, LabelName, ModelName, TenantName};

use crate::alias::Weights;
use crate::model::{Granted, ModelVersion};
use crate::snapshot::Revision;

/// One change of the catalog. Events are kept for ever: variants and fields are only ever added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A tenant exists from now on.
    TenantPut {
        /// Name.
        tenant: TenantName,
        /// Nanoseconds since the Unix epoch.
        at_ns: u64,
    },
    /// The tenant and all that it has is gone from the catalog; the ledger keeps its entries.
    TenantDeleted {
        /// Name.
        tenant: TenantName,
    },
    /// Whether the tenant may deploy components that handle HTTP with WASI 0.3.
    TenantWasi3Set {
        /// Name.
        tenant: TenantName,
        /// Whether it may.
        on: bool,
    },
    /// Whether the tenant's calls are recorded, so that they can be replayed.
    TenantRecordingSet {
        /// Name.
        tenant: TenantName,
        /// Whether they are.
        on: bool,
    },
    /// A revision was added if it is new, and the alias points to it.
    Deployed {
        /// Tenant.
        tenant: TenantName,
        /// Function; it exists from its first deployment on.
        function: FunctionName,
        /// The revision.
        revision: Box<Revision>,
        /// The alias that was moved.
        alias: AliasName,
    },
    /// The alias points to these revisions from now on.
    AliasSet {
        /// Tenant.
        tenant: TenantName,
        /// Function.
        function: FunctionName,
        /// Alias.
        alias: AliasName,
        /// By revision id.
        weights: Weights,
    },
    /// The alias is gone.
    AliasRemoved {
        /// Tenant.
        tenant: TenantName,
        /// Function.
        function: FunctionName,
        /// Alias.
        alias: AliasName,
    },
    /// The function with its revisions and aliases is gone.
    FunctionDeleted {
        /// Tenant.
        tenant: TenantName,
        /// Function.
        function: FunctionName,
    },
    /// A version of an operator model exists from now on; it is immutable.
    ModelPut {
        /// The version.
        version: Box<ModelVersion>,
    },
    /// The version is gone, and the labels that pointed to it.
    ModelDeleted {
        /// Model.
        model: ModelName,
        /// Version.
        version: u32,
    },
    /// As `ModelPut`, but the model is a tenant's own. A variant and not a field, so that an older wasmeter refuses
    /// the log instead of taking the model for the operator's.
    TenantModelPut {
        /// Whose.
        tenant: TenantName,
        /// The version.
        version: Box<ModelVersion>,
    },
    /// The version of the tenant's model is gone, and the labels that pointed to it.
    TenantModelDeleted {
        /// Whose.
        tenant: TenantName,
        /// Model.
        model: ModelName,
        /// Version.
        version: u32,
    },
    /// The label points to the version from now on.
    ModelLabelSet {
        /// Whose model; the operator's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tenant: Option<TenantName>,
        /// Model.
        model: ModelName,
        /// Label.
        label: LabelName,
        /// Version.
        version: u32,
    },
    /// The label is gone.
    ModelLabelRemoved {
        /// Whose model; the operator's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tenant: Option<TenantName>,
        /// Model.
        model: ModelName,
        /// Label.
        label: LabelName,
    },
    /// Who may use the operator's model from now on. It holds for the name, whatever versions come and go.
    ModelGranted {
        /// Model.
        model: ModelName,
        /// To whom.
        granted: Granted,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events as builds have written them, oldest first. Add lines; never change one: such logs are out there.
    const WRITTEN: &str = include_str!("events.ndjson");

    #[test]
    fn every_event_ever_written_is_read_and_written_the_same() {
        let mut kinds = std::collections::BTreeSet::new();
        for line in WRITTEN.lines() {
            let event: Event = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            let again = serde_json::to_value(&event).unwrap();
            assert_eq!(again, serde_json::from_str::<serde_json::Value>(line).unwrap());
            kinds.insert(again["event"].as_str().unwrap().to_owned());
        }
        assert_eq!(kinds.len(), 14, "a kind of event has no line in events.ndjson: {kinds:?}");
    }
}
