use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;
use wasmeter_catalog::ModelVersion;
use wasmeter_types::TenantName;

use crate::clock::rfc3339;
use crate::shared::Shared;
use crate::{ModelStatus, Signature};

/// An immutable version of a model.
#[derive(Serialize, ToSchema)]
#[schema(as = ModelVersion)]
pub(crate) struct VersionView {
    /// Whose; absent for the operator's.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    model: String,
    version: u32,
    /// Engine.
    backend: String,
    /// Devices it may run on, best first.
    devices: Vec<String>,
    /// Entries in one batch at most; 1 is off.
    max_batch: u32,
    files: BTreeMap<String, FileView>,
    /// Bytes of all files.
    size: u64,
    /// SPDX expression.
    licence: String,
    task: String,
    /// Whether the model APIs take it without a token.
    public: bool,
    /// RFC 3339.
    created: String,
    /// How it is doing on the devices: `loading`, `ready`, `evicted` (loaded again when it is next used),
    /// `quarantined`, or `failed: why`.
    state: String,
    /// Why it is quarantined; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Bytes that it takes of its device's memory, while it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u64>,
    /// Inputs and outputs, once it has been loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    signature: Option<Signature>,
}

/// A stored file.
#[derive(Serialize, ToSchema)]
#[schema(as = ModelFile)]
pub(crate) struct FileView {
    /// SHA-256.
    digest: String,
    /// Bytes.
    size: u64,
}

pub(crate) fn version(shared: &Shared, owner: Option<&TenantName>, version: &ModelVersion) -> VersionView {
    let ModelStatus { state, reason, signature, memory } = shared.deps.models.status(owner, version);
    let file =
        |(digest, size): &(wasmeter_types::Digest, u64)| FileView { digest: digest.to_string(), size: *size };
    VersionView {
        tenant: owner.map(ToString::to_string),
        model: version.model.to_string(),
        version: version.version,
        backend: version.card.model.backend.clone(),
        devices: version.card.model.devices.clone(),
        max_batch: version.card.batching.max_batch,
        files: version.files.iter().map(|(name, f)| (name.clone(), file(f))).collect(),
        size: version.files.values().map(|(_, size)| size).sum(),
        licence: version.card.card.licence.clone(),
        task: version.card.card.task.clone(),
        public: version.card.model.public,
        created: rfc3339(version.created_ns),
        state,
        reason,
        memory,
        signature,
    }
}

impl VersionView {
    /// With the signature that an upload's check gave.
    pub(crate) fn with_signature(mut self, signature: Signature) -> Self {
        self.signature = Some(signature);
        self
    }
}
