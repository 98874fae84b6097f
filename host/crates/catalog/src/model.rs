use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wasmeter_types::{Digest, LabelName, ModelCard, ModelName, TenantName};

/// An immutable version of a model, of the operator or of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelVersion {
    /// Model.
    pub model: ModelName,
    /// Version, from 1.
    pub version: u32,
    /// Its card.
    pub card: ModelCard,
    /// Files by name: digest and bytes.
    pub files: BTreeMap<String, FileRef>,
    /// Nanoseconds since the Unix epoch.
    pub created_ns: u64,
}

/// A stored file.
pub type FileRef = (Digest, u64);

impl ModelVersion {
    /// The file that the engine loads.
    #[must_use]
    pub fn graph(&self) -> Option<FileRef> {
        self.file(0)
    }

    /// The second file of an OpenVINO IR; none of other models.
    #[must_use]
    pub fn weights(&self) -> Option<FileRef> {
        if self.card.model.is_ir() { self.file(1) } else { None }
    }

    /// Bytes of what the engine loads: the graph, and the weights of an OpenVINO IR.
    #[must_use]
    pub fn graph_bytes(&self) -> u64 {
        self.graph().into_iter().chain(self.weights()).map(|(_, size)| size).sum()
    }

    /// The card's file of this number.
    fn file(&self, index: usize) -> Option<FileRef> {
        self.card.model.files.get(index).and_then(|name| self.files.get(name)).copied()
    }
}

/// A model with its versions.
#[derive(Clone, Debug, Default)]
pub struct ModelEntry {
    /// Versions, ascending; never none.
    pub versions: BTreeMap<u32, Arc<ModelVersion>>,
    /// Labels; each points to a version that is there.
    pub labels: BTreeMap<LabelName, u32>,
}

/// Who may use a model of the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granted {
    /// Every tenant.
    #[default]
    All,
    /// These and no others.
    Tenants(BTreeSet<TenantName>),
}

impl Granted {
    /// Whether this tenant is among them.
    #[must_use]
    pub fn to(&self, tenant: &str) -> bool {
        match self {
            Self::All => true,
            Self::Tenants(tenants) => tenants.contains(tenant),
        }
    }
}

/// What `put_model` did.
#[derive(Clone, Debug)]
pub struct ModelPut {
    /// The version.
    pub version: Arc<ModelVersion>,
    /// False if the same version with the same bytes was there already.
    pub created: bool,
}
