use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wasmeter_types::{Digest, ModelCard, ModelName};

/// An immutable version of an operator model.
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
        self.card.model.files.first().and_then(|name| self.files.get(name)).copied()
    }
}

/// A model with its versions.
#[derive(Clone, Debug, Default)]
pub struct ModelEntry {
    /// Versions, ascending.
    pub versions: BTreeMap<u32, Arc<ModelVersion>>,
}

/// What `put_model` did.
#[derive(Clone, Debug)]
pub struct ModelPut {
    /// The version.
    pub version: Arc<ModelVersion>,
    /// False if the same version with the same bytes was there already.
    pub created: bool,
}
