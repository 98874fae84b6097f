use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use wasmeter_inference::{
    Backend, BackendError, Batch, BatchOutput, Batching, BatchingOptions, DType, DeviceControl,
    DeviceOptions, Dim, Engine, Handle, Loaded, ModelKey, ModelSource, ModelSpec, Options, Port, Service,
    Signature,
};
use wasmeter_usage::DeviceClass;
use wasmtime::component::{Resource, ResourceTable};

use crate::bindings::errors::ErrorCode;
use crate::errors::NnError;
use crate::{NnCtx, NnCtxView, NnLimits, Quotas, Resolver};

/// Busy time of each run.
pub(super) const BUSY: u64 = 1_000;

/// What a run comes to.
pub(super) enum Step {
    Fail(BackendError),
    /// Waits for the test.
    Wait(mpsc::Receiver<()>),
}

#[derive(Default)]
pub(super) struct Script {
    pub(super) steps: Mutex<VecDeque<Step>>,
    pub(super) runs: Mutex<u64>,
}

impl DeviceControl for Script {
    fn interrupt(&self, _: u64) {}

    fn busy_ns(&self, _: u64) -> u64 {
        BUSY
    }

    fn shut_down(&self) {}
}

/// Its model gives its input `x` back as `y`.
struct Scripted(Arc<Script>);

impl Backend for Scripted {
    fn class(&self) -> DeviceClass {
        DeviceClass::Cpu
    }

    fn control(&self) -> Arc<dyn DeviceControl> {
        self.0.clone()
    }

    fn load(&mut self, _: &ModelSpec, _: File) -> Result<Loaded, BackendError> {
        let port =
            |name: &str| Port { name: name.into(), dtype: DType::F32, dims: Some(vec![Dim::Any, Dim::Any]) };
        let signature = Signature { inputs: vec![port("x")], outputs: vec![port("y")] };
        Ok(Loaded { signature, batching: Batching::Off("scripted".into()), busy_ns: 1 })
    }

    fn unload(&mut self, _: &ModelKey) {}

    fn run(&mut self, batch: Batch<'_>) -> Result<BatchOutput, BackendError> {
        *self.0.runs.lock() += 1;
        let step = self.0.steps.lock().pop_front();
        match step {
            Some(Step::Fail(error)) => return Err(error),
            Some(Step::Wait(go)) => drop(go.recv()),
            None => {}
        }
        Ok(BatchOutput { entries: batch.entries.iter().map(|e| e.inputs.clone()).collect(), busy_ns: BUSY })
    }
}

struct AnyFile;

impl ModelSource for AnyFile {
    fn open(&self, _: &ModelKey) -> io::Result<File> {
        File::open("/dev/null")
    }
}

struct Names;

impl Resolver for Names {
    fn resolve(&self, _: &str, name: &str) -> Option<ModelKey> {
        (name != "gone").then(|| ModelKey::operator(name, 1))
    }
}

/// One invocation on a service with one device.
pub(super) struct Bench {
    pub(super) ctx: NnCtx,
    pub(super) table: ResourceTable,
    pub(super) script: Arc<Script>,
    pub(super) stop: Option<oneshot::Sender<()>>,
}

pub(super) fn spec(name: &str) -> ModelSpec {
    ModelSpec {
        key: ModelKey::operator(name, 1),
        device: "cpu:0".into(),
        engine: Engine::Onnx,
        sha256: [0; 32],
        batching: BatchingOptions::default(),
    }
}

impl Bench {
    pub(super) async fn new() -> Self {
        Self::with(NnLimits::default(), 1024).await
    }

    pub(super) async fn with(limits: NnLimits, queue: usize) -> Self {
        Self::sharing(limits, queue, Arc::default()).await
    }

    /// One whose tenant's account is this.
    pub(super) async fn sharing(limits: NnLimits, queue: usize, quotas: Arc<Quotas>) -> Self {
        let script = Arc::new(Script::default());
        let backend = Box::new(Scripted(script.clone()));
        let devices = vec![DeviceOptions { name: "cpu:0".into(), backend }];
        let mut options = Options::new(devices, Arc::new(AnyFile));
        options.queue_capacity = queue;
        let service = Service::new(options);
        let handle: Handle = service.handle();
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(service.run(async { drop(stopped.await) }));
        handle.load(spec("m")).await.unwrap();
        let allow = ["m", "gone", "unloaded"].iter().map(|n| n.parse().unwrap()).collect();
        let deadline = Instant::now() + Duration::from_secs(30);
        let ctx = NnCtx::new(handle, Arc::new(Names), allow, "dev".into(), deadline, limits, quotas);
        Self { ctx, table: ResourceTable::new(), script, stop: Some(stop) }
    }

    pub(super) fn next(&self, step: Step) {
        self.script.steps.lock().push_back(step);
    }

    /// The next run waits until the sender is dropped.
    pub(super) fn block(&self) -> mpsc::Sender<()> {
        let (go, wait) = mpsc::channel();
        self.next(Step::Wait(wait));
        go
    }

    pub(super) async fn running(&self, runs: u64) {
        while *self.script.runs.lock() < runs {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(super) fn view(&mut self) -> NnCtxView<'_> {
        NnCtxView { ctx: &mut self.ctx, table: &mut self.table }
    }

    /// The code and text of a failure, which is dropped.
    pub(super) fn error(&mut self, error: Resource<NnError>) -> (ErrorCode, String) {
        let error = self.table.delete(error).unwrap();
        (error.code, error.data)
    }

    /// Nothing is counted any more.
    pub(super) fn assert_empty(&self) {
        let ctx = &self.ctx;
        assert_eq!((ctx.graphs, ctx.contexts, ctx.flying, ctx.tensor_bytes), (0, 0, 0, 0));
        assert!(self.table.is_empty());
    }
}

pub(super) fn engine_error() -> BackendError {
    BackendError::Engine { message: "scripted".into(), busy_ns: BUSY }
}
