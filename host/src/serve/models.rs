use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;
use wasmeter_catalog::{Catalog, ModelVersion};
use wasmeter_control::{Candidate, ModelStatus, Models};
use wasmeter_inference::{
    BatchingOptions, Engine, Handle, ModelError, ModelKey, ModelSource, ModelSpec, ModelState, Pad, Port,
    Precision, Signature,
};
use wasmeter_store::StoredModels;
use wasmeter_types::{
    BatchingSection, Digest, Error, ErrorKind, ModelCard, ModelName, PadSection, TenantName,
};

use super::adapters::model_key;

/// Model files for the devices: those of the catalog, and those of candidates that are being checked.
#[derive(Clone)]
pub(crate) struct Files {
    stored: Arc<StoredModels>,
    candidates: Arc<Mutex<HashMap<ModelKey, Bytes>>>,
}

impl Files {
    pub(crate) fn new(stored: StoredModels) -> Self {
        Self { stored: Arc::new(stored), candidates: Arc::default() }
    }
}

impl ModelSource for Files {
    fn open(&self, key: &ModelKey) -> io::Result<File> {
        let candidate = self.candidates.lock().get(key).cloned();
        let Some(bytes) = candidate else { return self.stored.open(key) };
        let mut file = File::from(memfd_create("candidate", MemfdFlags::CLOEXEC)?);
        file.write_all(&bytes)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }

    fn size(&self, key: &ModelKey) -> Option<u64> {
        let candidate = self.candidates.lock().get(key).map(|bytes| bytes.len() as u64);
        candidate.or_else(|| self.stored.size(key))
    }
}

/// The models of the operator and of the tenants on the devices.
pub(crate) struct DeviceModels {
    pub(crate) catalog: Catalog,
    pub(crate) files: Files,
    pub(crate) handle: Handle,
}

impl DeviceModels {
    /// Loads the operator's models, as far as a device has room for them; all others are loaded when they are first
    /// used. A model that fails keeps its reason and does not stop the others.
    pub(crate) async fn load_all(&self) {
        let snapshot = self.catalog.snapshot();
        for version in snapshot.models.values().flat_map(|m| m.versions.values()) {
            let Some(spec) = self.stored_spec(None, version) else { continue };
            if let Err(error) = self.handle.load_if_room(spec).await {
                tracing::warn!(%error, "model not loaded; its calls answer 503 until it is");
            }
        }
        for (tenant, content) in &snapshot.tenants {
            for version in content.models.values().flat_map(|m| m.versions.values()) {
                let Some(spec) = self.stored_spec(Some(tenant), version) else { continue };
                if let Err(error) = self.handle.register(spec) {
                    tracing::warn!(%error, "model not registered");
                }
            }
        }
    }

    fn stored_spec(&self, tenant: Option<&TenantName>, version: &ModelVersion) -> Option<ModelSpec> {
        let (digest, _) = version.graph()?;
        let key = model_key(tenant, version.model.as_str(), version.version);
        self.spec(key, &version.card, digest)
            .inspect_err(|error| tracing::warn!(model = %version.model, version = version.version, %error, "model not loaded"))
            .ok()
    }

    /// The first device of the card that this host has: none is an error, never another device.
    fn spec(&self, key: ModelKey, card: &ModelCard, digest: Digest) -> Result<ModelSpec, Error> {
        if card.model.is_ir() {
            // A version's hash is that of one file, and an IR is two: the devices can run them, the catalog cannot
            // vouch for them yet.
            let text = "an OpenVINO IR cannot be pushed: push the ONNX file with backend = \"openvino\"";
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let here: Vec<_> = self.handle.status().devices.into_iter().map(|d| d.name).collect();
        let wanted = &card.model.devices;
        let device = wanted.iter().find(|w| here.iter().any(|h| **h == ***w)).ok_or_else(|| {
            let model = &key.name;
            let text = format!(
                "model {model} lists the devices {wanted:?}; this host has {here:?}: name one of them"
            );
            Error::new(ErrorKind::Invalid, text)
        })?;
        let mut sha256 = [0; 32];
        hex::decode_to_slice(digest.to_string(), &mut sha256).map_err(|_| Error::internal())?;
        let BatchingSection { max_batch, max_queue_delay, pad } = card.batching.clone();
        let pad = pad.map(|PadSection { dimension, to }| Pad { dimension, to });
        let batching = BatchingOptions { max_batch, max_queue_delay: max_queue_delay.0, pad };
        Ok(ModelSpec { key, device: device.clone(), engine: engine(card), sha256, batching })
    }

    /// Whether the catalog has this version.
    fn is_stored(&self, candidate: &Candidate) -> Option<Arc<ModelVersion>> {
        let tenant = candidate.tenant.as_ref().map(TenantName::as_str);
        let snapshot = self.catalog.snapshot();
        snapshot.model_version(tenant, candidate.model.as_str(), candidate.version).cloned()
    }
}

/// The engine that the card names.
fn engine(card: &ModelCard) -> Engine {
    match (card.model.backend.as_str(), card.model.precision.as_deref()) {
        ("openvino", Some("bf16")) => Engine::OpenVino(Precision::Bf16),
        ("openvino", Some("f16")) => Engine::OpenVino(Precision::F16),
        ("openvino", _) => Engine::OpenVino(Precision::F32),
        _ => Engine::Onnx,
    }
}

#[async_trait]
impl Models for DeviceModels {
    async fn check(&self, candidate: &Candidate) -> Result<serde_json::Value, Error> {
        let Candidate { tenant, model, version, card, files } = candidate;
        let graph = card.model.files.first().and_then(|name| files.get(name)).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "model.files names no graph file, or it was not uploaded")
        })?;
        if graph.is_empty() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "the model's graph file is empty: send the file itself",
            ));
        }
        let digest = Digest::of(graph);
        let conflict =
            |what: &str| Error::new(ErrorKind::Conflict, format!("model {model} version {version} {what}"));
        // The same version is loaded already or failed already; another one must not take its place.
        let other =
            |known: Arc<ModelVersion>| known.graph().map(|(d, _)| d) != Some(digest) || known.card != *card;
        if self.is_stored(candidate).is_some_and(other) {
            return Err(conflict("exists with other content: push the next number"));
        }
        let key = model_key(tenant.as_ref(), model.as_str(), *version);
        let spec = self.spec(key.clone(), card, digest)?;
        {
            let mut candidates = self.files.candidates.lock();
            if candidates.contains_key(&key) {
                return Err(conflict("is being pushed already: wait for it"));
            }
            candidates.insert(key.clone(), graph.clone());
        }
        // Dropped with this future too, should the pusher leave.
        let staged = Staged { files: &self.files, key: &key };
        let loaded = self.handle.load(spec).await;
        drop(staged);
        match loaded {
            Ok(signature) => Ok(shown(&signature)),
            Err(error) => {
                // A version that is still in use after it was removed is another one.
                if self.is_stored(candidate).is_none() && !matches!(error, ModelError::InUse(_)) {
                    self.handle.unload(&key).await;
                }
                Err(refusal(&error))
            }
        }
    }

    fn status(&self, tenant: Option<&TenantName>, version: &ModelVersion) -> ModelStatus {
        let key = model_key(tenant, version.model.as_str(), version.version);
        let state = match self.handle.state(&key) {
            None | Some(ModelState::Unloaded) => match version.graph() {
                Some((digest, _)) => match self.spec(key.clone(), &version.card, digest) {
                    Ok(_) => "not loaded".to_owned(),
                    Err(error) => format!("failed: {}", error.message),
                },
                None => "failed: the card names no graph file".to_owned(),
            },
            Some(ModelState::Loading) => "loading".to_owned(),
            Some(ModelState::Ready(_)) => "ready".to_owned(),
            Some(ModelState::Evicted) => "evicted".to_owned(),
            Some(ModelState::Failed(ModelError::Quarantined { .. })) => "quarantined".to_owned(),
            Some(ModelState::Failed(error)) => format!("failed: {error}"),
        };
        let signature = self.handle.signature(&key).map(|s| shown(&s));
        ModelStatus { state, signature, memory: self.handle.memory(&key) }
    }

    async fn unload(&self, tenant: Option<&TenantName>, model: &ModelName, version: u32) {
        self.handle.unload(&model_key(tenant, model.as_str(), version)).await;
    }
}

struct Staged<'a> {
    files: &'a Files,
    key: &'a ModelKey,
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        self.files.candidates.lock().remove(self.key);
    }
}

fn refusal(error: &ModelError) -> Error {
    let kind = match error {
        ModelError::Invalid { .. } | ModelError::UnknownDevice { .. } | ModelError::Quarantined { .. } => {
            ErrorKind::Invalid
        }
        ModelError::EngineMissing(_) => ErrorKind::Unavailable,
        ModelError::Overloaded { .. } | ModelError::NoRoom { .. } | ModelError::Draining => {
            ErrorKind::Overloaded
        }
        ModelError::DeviceLost { .. } | ModelError::TooLarge { .. } => ErrorKind::Invalid,
        ModelError::InUse(_) => ErrorKind::Conflict,
        ModelError::Source { .. } => {
            tracing::error!(%error, "a model file cannot be read");
            return Error::internal();
        }
    };
    Error::new(kind, error.to_string())
}

fn shown(signature: &Signature) -> serde_json::Value {
    let port = |p: &Port| {
        let dims = p.dims.as_ref().map(|dims| dims.iter().map(ToString::to_string).collect::<Vec<_>>());
        json!({ "name": p.name, "type": p.dtype.as_str(), "dims": dims })
    };
    let ports = |ports: &[Port]| ports.iter().map(port).collect::<Vec<_>>();
    json!({ "inputs": ports(&signature.inputs), "outputs": ports(&signature.outputs) })
}
