use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;
use wasmeter_catalog::{Catalog, FileRef, ModelVersion};
use wasmeter_control::{Bench, BenchReport, Candidate, ModelStatus, Models};
use wasmeter_inference::{
    BatchingOptions, Engine, Handle, ModelError, ModelKey, ModelSource, ModelSpec, ModelState, Pad, Port,
    Precision, Signature,
};
use wasmeter_store::{StoredModels, ir_bundle, open_ir};
use wasmeter_types::{
    BatchingSection, Digest, Error, ErrorKind, ModelCard, ModelName, PadSection, TenantName,
};

use super::adapters::model_key;
use super::bench;

/// Model files for the devices: those of the catalog, and those of candidates that are being checked.
#[derive(Clone)]
pub(crate) struct Files {
    stored: Arc<StoredModels>,
    candidates: Arc<Mutex<HashMap<ModelKey, Content>>>,
}

/// What a device loads of a version that is not stored yet.
#[derive(Clone)]
struct Content {
    graph: Bytes,
    /// Of an OpenVINO IR.
    weights: Option<Bytes>,
}

impl Content {
    fn of(card: &ModelCard, files: &BTreeMap<String, Bytes>) -> Result<Self, Error> {
        let file = |index: usize| card.model.files.get(index).and_then(|name| files.get(name)).cloned();
        let refuse = |message: &str| Error::new(ErrorKind::Invalid, message);
        let graph =
            file(0).ok_or_else(|| refuse("model.files names no graph file, or it was not uploaded"))?;
        if graph.is_empty() {
            return Err(refuse("the model's graph file is empty: send the file itself"));
        }
        let weights = match card.model.is_ir() {
            false => None,
            true => Some(file(1).ok_or_else(|| refuse("the weights of the OpenVINO IR were not uploaded"))?),
        };
        Ok(Self { graph, weights })
    }

    fn refs(&self) -> Loadable {
        let file = |bytes: &Bytes| (Digest::of(bytes), bytes.len() as u64);
        Loadable { graph: file(&self.graph), weights: self.weights.as_ref().map(file) }
    }

    fn open(&self) -> io::Result<File> {
        if let (Some(weights), Loadable { graph, weights: Some(stored) }) = (&self.weights, self.refs()) {
            return open_ir(&ir_bundle(graph, stored), &self.graph[..], &weights[..]);
        }
        let mut file = File::from(memfd_create("candidate", MemfdFlags::CLOEXEC)?);
        file.write_all(&self.graph)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }

    fn bytes(&self) -> u64 {
        (self.graph.len() + self.weights.as_ref().map_or(0, Bytes::len)) as u64
    }
}

/// The files that a device loads as one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Loadable {
    graph: FileRef,
    /// Of an OpenVINO IR.
    weights: Option<FileRef>,
}

impl Loadable {
    fn of(version: &ModelVersion) -> Option<Self> {
        let weights = version.weights();
        let whole = weights.is_some() || !version.card.model.is_ir();
        version.graph().filter(|_| whole).map(|graph| Self { graph, weights })
    }

    /// What the device checks the bytes against.
    fn sha256(&self) -> [u8; 32] {
        match self.weights {
            None => self.graph.0.bytes(),
            Some(weights) => Digest::of(&ir_bundle(self.graph, weights).head()).bytes(),
        }
    }
}

impl Files {
    pub(crate) fn new(stored: StoredModels) -> Self {
        Self { stored: Arc::new(stored), candidates: Arc::default() }
    }
}

impl ModelSource for Files {
    fn open(&self, key: &ModelKey) -> io::Result<File> {
        let candidate = self.candidates.lock().get(key).cloned();
        candidate.map_or_else(|| self.stored.open(key), |candidate| candidate.open())
    }

    fn size(&self, key: &ModelKey) -> Option<u64> {
        let candidate = self.candidates.lock().get(key).map(Content::bytes);
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
        let files = Loadable::of(version)?;
        let key = model_key(tenant, version.model.as_str(), version.version);
        self.spec(key, &version.card, &files)
            .inspect_err(|error| tracing::warn!(model = %version.model, version = version.version, %error, "model not loaded"))
            .ok()
    }

    /// The first device of the card that this host has: none is an error, never another device.
    fn spec(&self, key: ModelKey, card: &ModelCard, files: &Loadable) -> Result<ModelSpec, Error> {
        let here: Vec<_> = self.handle.status().devices.into_iter().map(|d| d.name).collect();
        let wanted = &card.model.devices;
        let device = wanted.iter().find(|w| here.iter().any(|h| **h == ***w)).ok_or_else(|| {
            let model = &key.name;
            let text = format!(
                "model {model} lists the devices {wanted:?}; this host has {here:?}: name one of them"
            );
            Error::new(ErrorKind::Invalid, text)
        })?;
        let BatchingSection { max_batch, max_queue_delay, pad } = card.batching.clone();
        let pad = pad.map(|PadSection { dimension, to }| Pad { dimension, to });
        let batching = BatchingOptions { max_batch, max_queue_delay: max_queue_delay.0, pad };
        let (device, engine, sha256) = (device.clone(), engine(card), files.sha256());
        Ok(ModelSpec { key, device, engine, sha256, batching })
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
        let content = Content::of(card, files)?;
        let files = content.refs();
        let conflict =
            |what: &str| Error::new(ErrorKind::Conflict, format!("model {model} version {version} {what}"));
        // The same version is loaded already or failed already; another one must not take its place.
        let other = |known: Arc<ModelVersion>| Loadable::of(&known) != Some(files) || known.card != *card;
        if self.is_stored(candidate).is_some_and(other) {
            return Err(conflict("exists with other content: push the next number"));
        }
        let key = model_key(tenant.as_ref(), model.as_str(), *version);
        let spec = self.spec(key.clone(), card, &files)?;
        {
            let mut candidates = self.files.candidates.lock();
            if candidates.contains_key(&key) {
                return Err(conflict("is being pushed already: wait for it"));
            }
            candidates.insert(key.clone(), content);
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
        let mut reason = None;
        let state = match self.handle.state(&key) {
            None | Some(ModelState::Unloaded) => match Loadable::of(version) {
                Some(files) => match self.spec(key.clone(), &version.card, &files) {
                    Ok(_) => "not loaded".to_owned(),
                    Err(error) => format!("failed: {}", error.message),
                },
                None => "failed: the card names no graph file".to_owned(),
            },
            Some(ModelState::Loading) => "loading".to_owned(),
            Some(ModelState::Ready(_)) => "ready".to_owned(),
            Some(ModelState::Evicted) => "evicted".to_owned(),
            Some(ModelState::Failed(ModelError::Quarantined { deaths, .. })) => {
                reason = Some(format!("the device worker died {deaths} times under it"));
                "quarantined".to_owned()
            }
            Some(ModelState::Failed(error)) => format!("failed: {error}"),
        };
        let signature = self.handle.signature(&key).map(|s| shown(&s));
        ModelStatus { state, reason, signature, memory: self.handle.memory(&key) }
    }

    async fn lift(&self, tenant: Option<&TenantName>, version: &ModelVersion) -> Result<(), Error> {
        let key = model_key(tenant, version.model.as_str(), version.version);
        if !matches!(self.handle.state(&key), Some(ModelState::Failed(ModelError::Quarantined { .. }))) {
            let (ModelVersion { model, version: number, .. }, state) =
                (version, self.status(tenant, version).state);
            let text = format!("model {model} version {number} is not quarantined: it is {state}");
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        let files = Loadable::of(version).ok_or_else(Error::internal)?;
        let spec = self.spec(key, &version.card, &files)?;
        self.handle.load(spec).await.map(drop).map_err(|error| refusal(&error))
    }

    async fn bench(
        &self,
        tenant: Option<&TenantName>,
        version: &ModelVersion,
        asked: &Bench,
    ) -> Result<BenchReport, Error> {
        let key = model_key(tenant, version.model.as_str(), version.version);
        bench::bench(&self.handle, key, asked).await
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
        ModelError::EngineMissing(_) | ModelError::DeviceAway { .. } => ErrorKind::Unavailable,
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
