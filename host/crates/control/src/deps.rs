use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Serialize, Serializer};
use tokio::sync::{broadcast, watch};
use wasmeter_admission::TokenKeys;
use wasmeter_catalog::{BlobStore, Catalog, ModelVersion, RecordingStore, Revision, SecretStore};
use wasmeter_types::{Error, FunctionName, InvocationId, ModelCard, ModelName, TenantName};
use wasmeter_usage::PriceSheet;
use wasmeter_usage::wire::{Call, Reply};

use crate::clock::rfc3339;
use crate::models::{Bench, BenchReport};

/// What the control API works with.
#[derive(Clone)]
pub struct Deps {
    /// What is deployed.
    pub catalog: Catalog,
    /// Where components and model files rest.
    pub blobs: Arc<dyn BlobStore>,
    /// Verifies and mints tokens.
    pub keys: TokenKeys,
    /// Validates and compiles components.
    pub deployer: Arc<dyn Deployer>,
    /// Loads models.
    pub models: Arc<dyn Models>,
    /// Secrets of tenants.
    pub secrets: Arc<dyn SecretStore>,
    /// What calls got from outside, of tenants who have them recorded.
    pub recordings: Arc<dyn RecordingStore>,
    /// The way to billing.
    pub ledger: Arc<dyn Ledger>,
    /// What guests wrote.
    pub logs: Arc<dyn Logs>,
    /// Where clients reach the public listener, such as `http://127.0.0.1:8080`; no slash at the end.
    pub base_url: String,
}

/// What a component turned out to be.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Interfaces it imports.
    pub imports: Vec<String>,
    /// Interfaces it exports.
    pub exports: Vec<String>,
}

/// How far a deployment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeployStage {
    /// It is read.
    Checking,
    /// It waits for a compiler.
    Queued {
        /// Turns until its own; 1 is the next.
        place: usize,
    },
    /// It is compiled.
    Compiling,
}

/// Validates and compiles uploads.
#[async_trait]
pub trait Deployer: Send + Sync + 'static {
    /// Validates the component, compiles it in the confined child and keeps the artifact; tells how far it is.
    ///
    /// # Errors
    /// 422 with the reason for what is not acceptable; 503 if too many wait for a compiler, 429 if they are the
    /// tenant's own; 500 for our own faults.
    async fn check(
        &self,
        tenant: &TenantName,
        component: Bytes,
        told: &watch::Sender<DeployStage>,
    ) -> Result<Checked, Error>;

    /// Takes away what a function kept (`wasi:keyvalue`), before the function is deleted: the next one of its name shall
    /// never see it. Its revisions can keep nothing from now on.
    ///
    /// # Errors
    /// 500 if it cannot be taken away; the function must stay then.
    async fn forget_kept(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        revisions: &[Arc<Revision>],
    ) -> Result<(), Error>;

    /// These revisions of a function are gone from the catalog: what is kept for them can go. Another function may
    /// still use the same component ([`wasmeter_catalog::Snapshot::uses_component`]).
    async fn forget(&self, tenant: &TenantName, function: &FunctionName, revisions: &[Arc<Revision>]);
}

/// A model version that is not stored yet.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Whose; the operator's if absent.
    pub tenant: Option<TenantName>,
    /// Model.
    pub model: ModelName,
    /// Version.
    pub version: u32,
    /// Its card.
    pub card: ModelCard,
    /// Exactly the card's files.
    pub files: BTreeMap<String, Bytes>,
}

/// Inputs and outputs of a model, as JSON for people and tools.
pub type Signature = serde_json::Value;

/// What the devices make of a model version.
#[derive(Clone, Debug)]
pub struct ModelStatus {
    /// `loading`, `ready`, `evicted`, `quarantined`, or `failed: why`.
    pub state: String,
    /// Why it is quarantined.
    pub reason: Option<String>,
    /// Known once it has been loaded.
    pub signature: Option<Signature>,
    /// Bytes that it takes of its device's memory, while it is there.
    pub memory: Option<u64>,
}

impl ModelStatus {
    /// Whether computes of the version fail until somebody loads it again.
    pub(crate) fn is_down(&self) -> bool {
        self.state == "quarantined" || self.state.starts_with("failed")
    }
}

/// The models on the devices.
#[async_trait]
pub trait Models: Send + Sync + 'static {
    /// Loads the candidate in a device worker, before anything of it is stored.
    ///
    /// # Errors
    /// 422 with the reason for a model that is not acceptable, 503 if the engine is missing.
    async fn check(&self, candidate: &Candidate) -> Result<Signature, Error>;

    /// How a version of the operator, or of a tenant, is doing.
    fn status(&self, tenant: Option<&TenantName>, version: &ModelVersion) -> ModelStatus;

    /// Lifts the quarantine of a version: its deaths are forgotten, and it is loaded.
    ///
    /// # Errors
    /// 409 for a version that is not quarantined; as [`check`](Self::check) where it cannot be loaded.
    async fn lift(&self, tenant: Option<&TenantName>, version: &ModelVersion) -> Result<(), Error>;
    /// Measures what batches of a version cost on its device; nobody is charged. Ends when the future is dropped.
    ///
    /// # Errors
    /// 422 where the model does not take what was made up for it, 503 where its device has no time or no engine.
    async fn bench(
        &self,
        tenant: Option<&TenantName>,
        version: &ModelVersion,
        asked: &Bench,
    ) -> Result<BenchReport, Error>;

    /// The version is gone from the catalog. Invocations that hold it may go on using it until they end.
    async fn unload(&self, tenant: Option<&TenantName>, model: &ModelName, version: u32);
}

/// The way to billing.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Asks billing.
    ///
    /// # Errors
    /// 503 `unavailable` when billing is away.
    async fn call(&self, call: Call) -> Result<Reply, Error>;

    /// Current list prices; `None` until billing was reached once.
    fn prices(&self) -> Option<PriceSheet>;
}

/// Where a line of the log came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// The guest's standard output.
    Stdout,
    /// The guest's standard error.
    Stderr,
    /// A message with a level.
    Log,
    /// The platform: traps with their backtrace, limits.
    Platform,
}

/// One line of a function's log; as JSON, one line of NDJSON.
#[derive(Clone, Debug, Serialize)]
pub struct LogLine {
    /// Nanoseconds since the Unix epoch; RFC 3339 in JSON.
    #[serde(rename = "time", serialize_with = "time")]
    pub time_ns: u64,
    /// The invocation that wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invocation: Option<InvocationId>,
    /// Where it came from.
    pub stream: LogStream,
    /// `trace` to `critical`, of a message with a level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<&'static str>,
    /// Without the line end.
    pub text: String,
}

fn time<S: Serializer>(ns: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&rfc3339(*ns))
}

/// What guests wrote lately.
pub trait Logs: Send + Sync + 'static {
    /// The lines that are kept, oldest first.
    fn tail(&self, tenant: &TenantName, function: &FunctionName) -> Vec<LogLine>;

    /// The lines that are kept and every line after them: none is lost or doubled between the two. The receiver
    /// ends when the function is forgotten.
    fn follow(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
    ) -> (Vec<LogLine>, broadcast::Receiver<LogLine>);
}
