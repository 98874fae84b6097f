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
    Engine, Handle, ModelError, ModelKey, ModelSource, ModelSpec, ModelState, Port, Signature,
};
use wasmeter_store::OperatorModels;
use wasmeter_types::{Digest, Error, ErrorKind, ModelCard, ModelName};

/// Model files for the devices: those of the catalog, and those of candidates that are being checked.
#[derive(Clone)]
pub(crate) struct Files {
    stored: Arc<OperatorModels>,
    candidates: Arc<Mutex<HashMap<ModelKey, Bytes>>>,
}

impl Files {
    pub(crate) fn new(stored: OperatorModels) -> Self {
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
}

/// Operator models on the devices.
pub(crate) struct DeviceModels {
    pub(crate) catalog: Catalog,
    pub(crate) files: Files,
    pub(crate) handle: Handle,
}

impl DeviceModels {
    /// Loads every version of the catalog. A model that fails keeps its reason and does not stop the others.
    pub(crate) async fn load_all(&self) {
        let snapshot = self.catalog.snapshot();
        for version in snapshot.models.values().flat_map(|m| m.versions.values()) {
            let Some((digest, _)) = version.graph() else { continue };
            let spec = match self.spec(&version.model, version.version, &version.card, digest) {
                Ok(spec) => spec,
                Err(error) => {
                    tracing::warn!(model = %version.model, version = version.version, %error, "model not loaded");
                    continue;
                }
            };
            if let Err(error) = self.handle.load(spec).await {
                tracing::warn!(%error, "model not loaded; its calls answer 503 until it is");
            }
        }
    }

    /// The first device of the card that this host has: none is an error, never another device.
    fn spec(
        &self,
        model: &ModelName,
        version: u32,
        card: &ModelCard,
        digest: Digest,
    ) -> Result<ModelSpec, Error> {
        let here: Vec<_> = self.handle.status().devices.into_iter().map(|d| d.name).collect();
        let wanted = &card.model.devices;
        let device = wanted.iter().find(|w| here.iter().any(|h| **h == ***w)).ok_or_else(|| {
            let text = format!(
                "model {model} lists the devices {wanted:?}; this host has {here:?}: name one of them"
            );
            Error::new(ErrorKind::Invalid, text)
        })?;
        let mut sha256 = [0; 32];
        hex::decode_to_slice(digest.to_string(), &mut sha256).map_err(|_| Error::internal())?;
        let key = ModelKey::operator(model.as_str(), version);
        Ok(ModelSpec { key, device: device.clone(), engine: Engine::Onnx, sha256 })
    }
}

#[async_trait]
impl Models for DeviceModels {
    async fn check(&self, candidate: &Candidate) -> Result<serde_json::Value, Error> {
        let Candidate { model, version, card, files } = candidate;
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
        let conflict = || {
            let text =
                format!("model {model} version {version} exists with other content: push the next number");
            Error::new(ErrorKind::Conflict, text)
        };
        if let Some(known) = self.catalog.snapshot().model(model.as_str(), Some(*version)) {
            // The same graph is loaded already or failed already; other content must not take its place.
            if known.graph().map(|(d, _)| d) != Some(digest) {
                return Err(conflict());
            }
        }
        let spec = self.spec(model, *version, card, digest)?;
        let key = spec.key.clone();
        {
            let mut candidates = self.files.candidates.lock();
            if candidates.contains_key(&key) {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("model {model} version {version} is being pushed already: wait for it"),
                ));
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
                if self.catalog.snapshot().model(model.as_str(), Some(*version)).is_none() {
                    self.handle.unload(&key).await;
                }
                Err(refusal(&error))
            }
        }
    }

    fn status(&self, version: &ModelVersion) -> ModelStatus {
        let key = ModelKey::operator(version.model.as_str(), version.version);
        let found = self.handle.status().models.into_iter().find(|m| m.key == key);
        let found = found.map(|m| m.state);
        let failed = matches!(found, Some(ModelState::Failed(_)));
        let state = match found {
            None | Some(ModelState::Unloaded) => "not loaded".to_owned(),
            Some(ModelState::Loading) => "loading".to_owned(),
            Some(ModelState::Ready(_)) => "ready".to_owned(),
            Some(ModelState::Failed(error)) => format!("failed: {error}"),
        };
        ModelStatus { state, failed, signature: self.handle.signature(&key).map(|s| shown(&s)) }
    }

    async fn unload(&self, model: &ModelName, version: u32) {
        self.handle.unload(&ModelKey::operator(model.as_str(), version)).await;
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
        ModelError::Overloaded { .. } | ModelError::Draining => ErrorKind::Overloaded,
        ModelError::DeviceLost { .. } => ErrorKind::Invalid,
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
