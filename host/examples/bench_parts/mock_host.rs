//! The host's way of a request over a mock device: the parts that `wasmeter serve` is made of, put together alike, but
//! for the device and for billing, which is not asked (usage goes to a spool that nobody ships).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Empty;
use tempfile::TempDir;
use tokio::net::TcpListener;
use wasmeter_admission::{Budgets, Gate, GateOptions, HopKey, Known, LeaseError, LeaseSource, TokenKeys};
use wasmeter_catalog::{BlobKey, BlobKind, BlobStore, Catalog, Deployment};
use wasmeter_inference::mock::{MockBackend, MockOptions, MockSource};
use wasmeter_inference::{
    Account, BatchingOptions, DeviceOptions, Engine, Handle, ModelKey, ModelSpec, Options, Service,
};
use wasmeter_ingress::{ControlService, Once, Readiness, ServerOptions};
use wasmeter_metering::{Spool, SpoolOptions};
use wasmeter_nn::Resolver;
use wasmeter_runtime::{
    ArtifactCache, Capabilities, CompileOptions, Compiler, Engines, Invoker, InvokerOptions, Loader,
    LoaderOptions, LogHub, Outbound, OutboundOptions, PoolOptions, RecordError, Recorder,
};
use wasmeter_store::{
    DataDir, FsBlobStore, KeyValueOptions, SqliteEventLog, SqliteKeyValueStore, SqliteOnceStore,
    SqliteSecretStore,
};
use wasmeter_types::{AliasName, Digest, FunctionManifest};
use wasmeter_usage::{Lease, Pico, PriceSheet, Rates, UsageRecord};

/// A host that serves until its process ends.
pub(crate) struct MockHost {
    pub(crate) address: SocketAddr,
    handle: Handle,
    _folder: TempDir,
}

impl MockHost {
    /// With the function for each tenant, and the model `mock` at 2 ms a batch.
    pub(crate) async fn start(tenants: &[String], max_batch: u32, component: &[u8]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let data = DataDir::open(folder.path(), Duration::ZERO)?;
        let catalog = Catalog::open(Box::new(SqliteEventLog::open(&data.catalog())?)).await?;
        let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(&data.blobs())?);
        let handle = device(max_batch).await?;

        let engine = Engines::new(PoolOptions::default())?;
        let compiler = Compiler::new(CompileOptions {
            exe: PathBuf::from("/proc/self/exe"),
            wall: Duration::from_secs(120),
            parallel: 1,
            waiting: 1,
        });
        let artifacts = ArtifactCache::open(&data.artifacts(), [7; 32], &engine, u64::MAX)?;
        let loader = Loader::new(&engine, compiler, artifacts, Arc::clone(&blobs), LoaderOptions::default())?;
        let found = loader.inspect("bench", Bytes::copy_from_slice(component), false, &|_| {}).await?;
        for tenant in tenants {
            let tenant = tenant.parse()?;
            catalog.put_tenant(Clone::clone(&tenant)).await?;
            let digest = Digest::of(component);
            let key = BlobKey { owner: tenant.to_string(), kind: BlobKind::Component, id: digest };
            blobs.put(&key, component.to_vec()).await?;
            let manifest = FunctionManifest::from_toml(
                "[function]\nname = \"bench-nn\"\npublic = true\n[limits]\nconcurrency = 512\n[models]\nallow = [\"mock\"]\n",
            )?;
            let (imports, exports) = (found.imports.clone(), found.exports.clone());
            let size = component.len() as u64;
            let alias = AliasName::live();
            catalog.deploy(Deployment { tenant, manifest, digest, size, imports, exports, alias }).await?;
        }
        let tokens = TokenKeys::from_pkcs8(&TokenKeys::generate()?)?;
        let hops = HopKey::new(&[7; 32]);
        let spool = Spool::open(&data.spool(), SpoolOptions::default())?;
        let prices = PriceSheet {
            hash: "bench".into(),
            currency: "USD".into(),
            rates: Rates::default(),
            terms: wasmeter_usage::Terms::default(),
        };
        let keyvalue = SqliteKeyValueStore::open(&data.keyvalue(), KeyValueOptions::default(), |_, _| true)?;
        let capabilities = Capabilities {
            outbound: Outbound::new(OutboundOptions::default(), tokens.clone(), hops.clone())?,
            secrets: Arc::new(SqliteSecretStore::open(&data.secrets(), &[7; 32], |_| true)?),
            keyvalue: Arc::new(keyvalue),
        };
        let invoker = Invoker::new(
            loader,
            handle.clone(),
            Arc::new(Names),
            Arc::new(Spooled { spool, prices: Arc::new(prices) }),
            capabilities,
            LogHub::default(),
            InvokerOptions::default(),
        )?;
        let ready = Readiness::default();
        ready.set(true);
        let control = ControlService::new(tower::service_fn(|_| async {
            Ok(http::Response::new(wasmeter_ingress::boxed(Empty::<Bytes>::new())))
        }));
        let deps = wasmeter_ingress::Deps {
            catalog,
            tokens,
            hops,
            gate: Gate::new(GateOptions { host: 1024, tenant_percent: 75 }),
            budgets: Budgets::new(Arc::new(NoLedger), Known::default()),
            invoker,
            control,
            webhooks: None,
            once: Once::new(Arc::new(SqliteOnceStore::open(&data.idempotency())?)),
            domain: None,
            tls: None,
            silence: Duration::from_secs(10),
            ready,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            let _data = data;
            wasmeter_ingress::serve(listener, deps, ServerOptions::default(), Default::default()).await
        });
        Ok(Self { address, handle, _folder: folder })
    }

    /// The device's account.
    pub(crate) fn account(&self) -> anyhow::Result<Account> {
        Ok(self.handle.status().devices.first().context("a device")?.account)
    }
}

async fn device(max_batch: u32) -> anyhow::Result<Handle> {
    let backend = Box::new(MockBackend::new(MockOptions::default()));
    let devices = vec![DeviceOptions { name: "mock:0".into(), backend }];
    let service = Service::new(Options::new(devices, Arc::new(MockSource)));
    let handle = service.handle();
    tokio::spawn(service.run(std::future::pending()));
    let spec = ModelSpec {
        key: ModelKey::operator("mock", 1),
        device: "mock:0".into(),
        engine: Engine::Onnx,
        sha256: [0; 32],
        batching: BatchingOptions { max_batch, ..BatchingOptions::default() },
    };
    handle.load(spec).await?;
    Ok(handle)
}

struct Names;

impl Resolver for Names {
    fn resolve(&self, _: &str, name: &str) -> Option<ModelKey> {
        (name == "mock").then(|| ModelKey::operator("mock", 1))
    }
}

struct Spooled {
    spool: Spool,
    prices: Arc<PriceSheet>,
}

#[async_trait]
impl Recorder for Spooled {
    fn prices(&self) -> Option<Arc<PriceSheet>> {
        Some(Arc::clone(&self.prices))
    }

    fn accepting(&self) -> bool {
        self.spool.accepting()
    }

    async fn record(&self, record: &UsageRecord) -> Result<(), RecordError> {
        self.spool.append_durably(record).await.map(drop).map_err(|e| RecordError(e.to_string()))
    }
}

/// No tenant of a benchmark has a budget.
struct NoLedger;

#[async_trait]
impl LeaseSource for NoLedger {
    async fn known(&self) -> Result<Known, LeaseError> {
        Ok(Known::default())
    }

    async fn lease(&self, _: &str, _: Option<&str>, _: Pico, _: Pico) -> Result<Lease, LeaseError> {
        Err(LeaseError::Gone)
    }
}
