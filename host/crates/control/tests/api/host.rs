use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::{broadcast, watch};
use tower::ServiceExt as _;
use wasmeter_admission::{Grant, TokenKeys};
use wasmeter_catalog::{
    BlobError, BlobKey, BlobStore, Catalog, Event, EventLog, LogError, ModelVersion, Recorded,
    RecordingError, RecordingStore, Revision, SecretEntry, SecretError, SecretStore, SecretValue,
};
use wasmeter_control::{
    Bench, BenchReport, Candidate, Checked, DeployStage, Deployer, Deps, Ledger, LogLine, LogStream, Logs,
    ModelStatus, Models, Signature,
};
use wasmeter_types::{Error, ErrorKind, FunctionName, InvocationId, ModelName, SecretName, TenantName};
use wasmeter_usage::wire::{Call, Reply};
use wasmeter_usage::{PriceSheet, Rates};

/// A router with everything around it.
pub(crate) struct Host {
    pub(crate) router: axum::Router,
    pub(crate) openapi: utoipa::openapi::OpenApi,
    pub(crate) keys: TokenKeys,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) recordings: Arc<Recordings>,
    pub(crate) logs: Arc<LogBook>,
}

/// What came back.
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answered {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap().to_owned()
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }
}

impl Host {
    /// Tenants `dev` and `other`.
    pub(crate) async fn new() -> Self {
        let catalog = Catalog::open(Box::new(MemoryLog::default())).await.unwrap();
        for tenant in ["dev", "other"] {
            catalog.put_tenant(tenant.parse().unwrap()).await.unwrap();
        }
        let keys = TokenKeys::from_pkcs8(&TokenKeys::generate().unwrap()).unwrap();
        let (blobs, seen) = (Arc::new(Blobs::default()), Arc::new(Seen::default()));
        let recordings = Arc::new(Recordings::default());
        let logs = Arc::new(LogBook { lines: broadcast::channel(4).0 });
        let deps = Deps {
            catalog,
            blobs: blobs.clone(),
            keys: keys.clone(),
            deployer: seen.clone(),
            models: seen.clone(),
            secrets: Arc::new(Secrets::default()),
            recordings: recordings.clone(),
            ledger: seen.clone(),
            logs: logs.clone(),
            base_url: "http://127.0.0.1:8080".to_owned(),
        };
        let (router, openapi) = wasmeter_control::router(deps);
        Self { router, openapi, keys, blobs, seen, recordings, logs }
    }

    pub(crate) fn token(&self, tenant: &str, scopes: &str) -> String {
        let tenant = (!tenant.is_empty()).then(|| tenant.parse().unwrap());
        let ttl = Duration::from_secs(600);
        let grant = Grant { subject: "test".into(), tenant, scopes: scopes.parse().unwrap(), ttl };
        self.keys.mint(grant).unwrap()
    }

    pub(crate) fn dev(&self) -> String {
        self.token("dev", "deploy invoke read")
    }

    pub(crate) fn operator(&self) -> String {
        self.token("", "operator")
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answered {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answered { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn call(&self, token: &str, method: Method, path: &str) -> Answered {
        self.send(request(token, method, path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Answered {
        self.call(token, Method::GET, path).await
    }

    pub(crate) async fn delete(&self, token: &str, path: &str) -> Answered {
        self.call(token, Method::DELETE, path).await
    }

    pub(crate) async fn put(&self, token: &str, path: &str, media: &str, body: impl Into<Body>) -> Answered {
        let request = request(token, Method::PUT, path).header("content-type", media);
        self.send(request.body(body.into()).unwrap()).await
    }

    pub(crate) async fn post(&self, token: &str, path: &str, body: &Value) -> Answered {
        let request = request(token, Method::POST, path).header("content-type", "application/json");
        self.send(request.body(body.to_string().into()).unwrap()).await
    }

    /// Deploys as a plain body.
    pub(crate) async fn deploy(&self, function: &str, component: &'static [u8]) -> Answered {
        let path = format!("/api/v1/tenants/dev/functions/{function}");
        self.put(&self.dev(), &path, "application/wasm", component).await
    }
}

pub(crate) fn request(token: &str, method: Method, path: &str) -> http::request::Builder {
    let request = Request::builder().method(method).uri(path);
    if token.is_empty() { request } else { request.header("authorization", format!("Bearer {token}")) }
}

pub(crate) const FORM: &str = "multipart/form-data; boundary=XX";

pub(crate) fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, content) in parts {
        let head = format!("--XX\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--XX--\r\n");
    body
}

#[derive(Default)]
struct MemoryLog(Mutex<Vec<Event>>);

#[async_trait]
impl EventLog for MemoryLog {
    async fn read_after(&self, _: u64) -> Result<Vec<(u64, Event)>, LogError> {
        Ok(Vec::new())
    }

    async fn append(&self, seq: u64, event: &Event) -> Result<(), LogError> {
        let mut events = self.0.lock().unwrap();
        if seq != events.len() as u64 + 1 {
            return Err(LogError::Conflict(seq));
        }
        events.push(event.clone());
        Ok(())
    }
}

/// Blobs in memory.
#[derive(Default)]
pub(crate) struct Blobs(Mutex<HashMap<BlobKey, Vec<u8>>>);

impl Blobs {
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) fn holds(&self, owner: &str, bytes: &[u8]) -> bool {
        self.0.lock().unwrap().iter().any(|(k, v)| k.owner == owner && v == bytes)
    }
}

#[async_trait]
impl BlobStore for Blobs {
    async fn put(&self, key: &BlobKey, bytes: Vec<u8>) -> Result<(), BlobError> {
        assert_eq!(wasmeter_types::Digest::of(&bytes), key.id);
        self.0.lock().unwrap().insert(key.clone(), bytes);
        Ok(())
    }

    async fn get(&self, key: &BlobKey) -> Result<Vec<u8>, BlobError> {
        let found = self.0.lock().unwrap().get(key).cloned();
        found.ok_or_else(|| BlobError::Missing(key.clone()))
    }

    fn open(&self, key: &BlobKey) -> Result<std::fs::File, BlobError> {
        Err(BlobError::Missing(key.clone()))
    }

    async fn delete(&self, key: &BlobKey) -> Result<(), BlobError> {
        self.0.lock().unwrap().remove(key);
        Ok(())
    }
}

/// What the rest of the host was told, and what it answers.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) forgotten: Mutex<Vec<String>>,
    pub(crate) unloaded: Mutex<Vec<String>>,
    pub(crate) asked: Mutex<Vec<Call>>,
    pub(crate) replies: Mutex<Vec<Reply>>,
}

#[async_trait]
impl Deployer for Seen {
    async fn check(
        &self,
        _: &TenantName,
        component: Bytes,
        told: &watch::Sender<DeployStage>,
    ) -> Result<Checked, Error> {
        if component.starts_with(b"slow") {
            told.send_replace(DeployStage::Queued { place: 2 });
            tokio::time::sleep(Duration::from_millis(2500)).await;
            told.send_replace(DeployStage::Compiling);
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
        if component.starts_with(b"bad") {
            return Err(Error::new(ErrorKind::Invalid, "not a component"));
        }
        Ok(Checked {
            imports: vec!["wasi:nn/graph".into()],
            exports: vec!["wasi:http/incoming-handler".into()],
        })
    }

    async fn forget_kept(
        &self,
        _: &TenantName,
        function: &FunctionName,
        _: &[Arc<Revision>],
    ) -> Result<(), Error> {
        if function.as_str() == "stuck" { Err(Error::internal()) } else { Ok(()) }
    }

    async fn forget(&self, tenant: &TenantName, function: &FunctionName, revisions: &[Arc<Revision>]) {
        self.forgotten.lock().unwrap().push(format!("{tenant}/{function} {}", revisions.len()));
    }
}

#[async_trait]
impl Models for Seen {
    async fn check(&self, candidate: &Candidate) -> Result<Signature, Error> {
        if candidate.files.values().any(|bytes| bytes.starts_with(b"bad")) {
            return Err(Error::new(ErrorKind::Invalid, "the engine refused the model"));
        }
        let sizes: BTreeMap<_, _> = candidate.files.iter().map(|(n, b)| (n, b.len())).collect();
        Ok(serde_json::json!({ "sizes": sizes }))
    }

    fn status(&self, _: Option<&TenantName>, version: &ModelVersion) -> ModelStatus {
        ModelStatus {
            state: format!("ready {}", version.version),
            reason: None,
            signature: None,
            memory: None,
        }
    }

    async fn lift(&self, tenant: Option<&TenantName>, version: &ModelVersion) -> Result<(), Error> {
        let state = self.status(tenant, version).state;
        Err(Error::new(ErrorKind::Conflict, format!("it is {state}")))
    }

    async fn bench(&self, _: Option<&TenantName>, _: &ModelVersion, _: &Bench) -> Result<BenchReport, Error> {
        Err(Error::new(ErrorKind::Unavailable, "no device is here"))
    }

    async fn unload(&self, tenant: Option<&TenantName>, model: &ModelName, version: u32) {
        let owner = tenant.map(|t| format!("{t}/")).unwrap_or_default();
        self.unloaded.lock().unwrap().push(format!("{owner}{model}@{version}"));
    }
}

#[async_trait]
impl Ledger for Seen {
    async fn call(&self, call: Call) -> Result<Reply, Error> {
        self.asked.lock().unwrap().push(call);
        let mut replies = self.replies.lock().unwrap();
        if replies.is_empty() {
            return Err(Error::new(ErrorKind::Unavailable, "billing is away"));
        }
        Ok(replies.remove(0))
    }

    fn prices(&self) -> Option<PriceSheet> {
        let rates = Rates { request: 200, ..Rates::default() };
        Some(PriceSheet {
            hash: "h".into(),
            currency: "USD".into(),
            rates,
            terms: wasmeter_usage::Terms::default(),
        })
    }
}

/// One kept line, and a channel for new ones.
pub(crate) struct LogBook {
    pub(crate) lines: broadcast::Sender<LogLine>,
}

pub(crate) fn log_line(text: &str) -> LogLine {
    LogLine {
        time_ns: 1_000_000_000,
        invocation: None,
        stream: LogStream::Stdout,
        level: None,
        text: text.into(),
    }
}

impl Logs for LogBook {
    fn tail(&self, _: &TenantName, _: &FunctionName) -> Vec<LogLine> {
        vec![log_line("kept")]
    }

    fn follow(&self, t: &TenantName, f: &FunctionName) -> (Vec<LogLine>, broadcast::Receiver<LogLine>) {
        (self.tail(t, f), self.lines.subscribe())
    }
}

/// Secrets in memory; those of the tenant `stuck` cannot be removed.
#[derive(Default)]
struct Secrets(Mutex<BTreeMap<(TenantName, SecretName), SecretValue>>);

#[async_trait]
impl SecretStore for Secrets {
    async fn put(
        &self,
        tenant: &TenantName,
        name: &SecretName,
        value: SecretValue,
    ) -> Result<bool, SecretError> {
        let mut secrets = self.0.lock().unwrap();
        if secrets.len() == 3 {
            return Err(SecretError::Full(3));
        }
        Ok(secrets.insert((tenant.clone(), name.clone()), value).is_none())
    }

    async fn delete(&self, tenant: &TenantName, name: &SecretName) -> Result<bool, SecretError> {
        Ok(self.0.lock().unwrap().remove(&(tenant.clone(), name.clone())).is_some())
    }

    async fn forget(&self, tenant: &TenantName) -> Result<(), SecretError> {
        if tenant.as_str() == "stuck" {
            return Err(SecretError::Io("the disk is gone".into()));
        }
        self.0.lock().unwrap().retain(|(owner, _), _| owner != tenant);
        Ok(())
    }

    fn list(&self, tenant: &TenantName) -> Vec<SecretEntry> {
        let secrets = self.0.lock().unwrap();
        let own = secrets.keys().filter(|(owner, _)| owner == tenant);
        own.map(|(_, name)| SecretEntry { name: name.clone(), updated_ns: 1_000_000_000 }).collect()
    }

    fn get(&self, tenant: &TenantName, name: &str) -> Result<Option<SecretValue>, SecretError> {
        let secrets = self.0.lock().unwrap();
        Ok(secrets.iter().find(|((t, n), _)| t == tenant && n.as_str() == name).map(|(_, v)| v.clone()))
    }
}

/// Recordings in memory.
#[derive(Default)]
pub(crate) struct Recordings(Mutex<BTreeMap<(TenantName, InvocationId), Vec<u8>>>);

#[async_trait]
impl RecordingStore for Recordings {
    fn keep(&self, tenant: &TenantName, invocation: InvocationId, recording: Vec<u8>) -> bool {
        self.0.lock().unwrap().insert((tenant.clone(), invocation), recording);
        true
    }

    async fn get(
        &self,
        tenant: &TenantName,
        invocation: InvocationId,
    ) -> Result<Option<Vec<u8>>, RecordingError> {
        Ok(self.0.lock().unwrap().get(&(tenant.clone(), invocation)).cloned())
    }

    async fn recorded(&self, tenant: &TenantName) -> Result<Recorded, RecordingError> {
        let kept = self.0.lock().unwrap();
        let own = kept.iter().filter(|((owner, _), _)| owner == tenant);
        let sizes: Vec<_> = own.map(|(_, bytes)| bytes.len() as u64).collect();
        Ok(Recorded { calls: sizes.len() as u64, bytes: sizes.iter().sum() })
    }

    async fn forget(&self, tenant: &TenantName) -> Result<(), RecordingError> {
        self.0.lock().unwrap().retain(|(owner, _), _| owner != tenant);
        Ok(())
    }
}
