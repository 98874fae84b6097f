use serde::{Deserialize, Serialize};
use wasmeter_types::{AliasName, FunctionName, ModelName, TenantName};

use crate::model::ModelVersion;
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
    /// The version is gone.
    ModelDeleted {
        /// Model.
        model: ModelName,
        /// Version.
        version: u32,
    },
}
