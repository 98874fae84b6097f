//! Loading, leaving and coming back, on a device that notes what it is told. Time is paused.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    sync::{Arc, mpsc},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    task::{JoinHandle, yield_now},
    time::{Instant, advance},
};
use wasmeter_usage::DeviceClass;

use crate::{
    Backend, BackendError, Batch, BatchOutput, Batching, BatchingOptions, ComputeError, ComputeRequest,
    Computed, DType, DeviceControl, DeviceOptions, Dim, Engine, Handle, Loaded, ModelError, ModelKey,
    ModelSource, ModelSpec, ModelState, NamedTensor, Options, Port, Service, Signature, Tensor,
};

/// What the device was told, and what it holds.
#[derive(Default)]
struct Shelf {
    told: Mutex<Vec<String>>,
    holds: Mutex<HashSet<ModelKey>>,
    /// What models take, if it is not what their names say.
    takes: Mutex<HashMap<&'static str, u64>>,
    /// The next runs wait here.
    gates: Mutex<Vec<mpsc::Receiver<()>>>,
}

impl DeviceControl for Shelf {
    fn interrupt(&self, _: u64) {}

    fn busy_ns(&self, _: u64) -> u64 {
        0
    }

    fn shut_down(&self) {}
}

struct ShelfBackend(Arc<Shelf>);

impl Backend for ShelfBackend {
    fn class(&self) -> DeviceClass {
        DeviceClass::Cpu
    }

    fn control(&self) -> Arc<dyn DeviceControl> {
        Arc::clone(&self.0) as Arc<dyn DeviceControl>
    }

    fn load(&mut self, spec: &ModelSpec, _: File) -> Result<Loaded, BackendError> {
        self.0.told.lock().push(format!("+{}", spec.key.name));
        self.0.holds.lock().insert(spec.key.clone());
        let port = |name: &str| Port { name: name.into(), dtype: DType::U8, dims: Some(vec![Dim::Any]) };
        let signature = Signature { inputs: vec![port("x")], outputs: vec![port("y")] };
        Ok(Loaded { signature, batching: Batching::Off("shelf".into()), busy_ns: 5 })
    }

    fn grown(&self, key: &ModelKey) -> Option<u64> {
        self.0.takes.lock().get(&*key.name).copied().or_else(|| Sized.size(key))
    }

    fn unload(&mut self, key: &ModelKey) {
        self.0.told.lock().push(format!("-{}", key.name));
        self.0.holds.lock().remove(key);
    }

    fn run(&mut self, batch: Batch<'_>) -> Result<BatchOutput, BackendError> {
        self.0.told.lock().push(format!("={}", batch.model.name));
        let gate = self.0.gates.lock().pop();
        if let Some(gate) = gate {
            let _ = gate.recv();
        }
        assert!(self.0.holds.lock().contains(batch.model), "{} runs and is not loaded", batch.model);
        Ok(BatchOutput { entries: vec![batch.entries[0].inputs.clone()], busy_ns: 7 })
    }
}

/// The size of a model is in its name, such as `a-40`.
struct Sized;

impl ModelSource for Sized {
    fn open(&self, _: &ModelKey) -> io::Result<File> {
        tempfile::tempfile()
    }

    fn size(&self, key: &ModelKey) -> Option<u64> {
        key.name.split_once('-')?.1.parse().ok()
    }
}

struct Bench {
    shelf: Arc<Shelf>,
    handle: Handle,
    stop: oneshot::Sender<()>,
    service: JoinHandle<io::Result<()>>,
    /// Paused time jumps ahead when everything waits; a blocking task in flight prevents that.
    _hold: mpsc::Sender<()>,
}

fn key(name: &str) -> ModelKey {
    ModelKey::operator(name, 1)
}

fn spec(name: &str) -> ModelSpec {
    let batching = BatchingOptions::default();
    ModelSpec { key: key(name), device: "cpu:0".into(), engine: Engine::Onnx, sha256: [0; 32], batching }
}

impl Bench {
    fn start(change: impl FnOnce(&mut Options)) -> Self {
        let shelf = Arc::new(Shelf::default());
        let backend = Box::new(ShelfBackend(Arc::clone(&shelf)));
        let devices = vec![DeviceOptions { name: "cpu:0".into(), backend }];
        let mut options = Options::new(devices, Arc::new(Sized));
        options.model_memory = 100;
        change(&mut options);
        let service = Service::new(options);
        let handle = service.handle();
        let (stop, stopped) = oneshot::channel();
        let service = tokio::spawn(service.run(async {
            let _ = stopped.await;
        }));
        let (hold, held) = mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || held.recv());
        Self { shelf, handle, stop, service, _hold: hold }
    }

    fn compute(&self, name: &str) -> JoinHandle<Result<Computed, ComputeError>> {
        let tensor = Tensor::new(DType::U8, vec![1], vec![7]).unwrap();
        let request = ComputeRequest {
            tenant: "dev".into(),
            model: key(name),
            inputs: vec![NamedTensor { name: "x".into(), tensor }],
            deadline: Instant::now() + Duration::from_secs(60),
            meter: None,
        };
        let handle = self.handle.clone();
        tokio::spawn(async move { handle.compute(request).await })
    }

    /// A compute that has begun, and what lets it end.
    async fn blocked(&self, name: &str) -> (JoinHandle<Result<Computed, ComputeError>>, mpsc::Sender<()>) {
        let (end, gate) = mpsc::channel();
        self.shelf.gates.lock().push(gate);
        let task = self.compute(name);
        until(|| self.shelf.gates.lock().is_empty()).await;
        (task, end)
    }

    fn state(&self, name: &str) -> &'static str {
        match self.handle.state(&key(name)) {
            None => "unknown",
            Some(ModelState::Loading) => "loading",
            Some(ModelState::Ready(_)) => "ready",
            Some(ModelState::Evicted) => "evicted",
            Some(ModelState::Failed(_)) => "failed",
            Some(ModelState::Unloaded) => "unloaded",
        }
    }

    fn told(&self) -> String {
        std::mem::take(&mut *self.shelf.told.lock()).join(" ")
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        self.service.await.unwrap().unwrap();
        let Self { handle, .. } = self;
        let account = handle.status().devices[0].account;
        assert_eq!(account.charged_ns + account.platform_ns, account.measured_ns);
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_idle_longest_leaves_and_comes_back_when_asked() {
    let bench = Bench::start(|options| options.model_memory = 120);
    bench.shelf.takes.lock().insert("c-30", 45);
    for name in ["a-40", "b-40"] {
        bench.handle.load(spec(name)).await.unwrap();
        advance(Duration::from_secs(1)).await;
    }
    bench.compute("a-40").await.unwrap().unwrap();
    advance(Duration::from_secs(1)).await;
    bench.handle.load(spec("c-30")).await.unwrap();
    assert_eq!(bench.told(), "+a-40 +b-40 =a-40 -b-40 +c-30");
    assert_eq!(
        [bench.state("a-40"), bench.state("b-40"), bench.state("c-30")],
        ["ready", "evicted", "ready"]
    );
    // Ten callers of an evicted model wait for one load, and are charged for their runs alone.
    let callers: Vec<_> = (0..10).map(|_| bench.compute("b-40")).collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().charged_ns, 7);
    }
    let told = bench.told();
    assert!(told.starts_with("-a-40 +b-40 =b-40"), "{told}");
    assert_eq!(told.matches('+').count(), 1);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_load_counts_for_more_than_idle_time() {
    let bench = Bench::start(|options| options.model_memory = 120);
    for name in ["a-40", "b-40"] {
        bench.handle.load(spec(name)).await.unwrap();
    }
    let registry = &bench.handle.inner.registry;
    registry.get(&key("a-40")).unwrap().took(Duration::from_secs(10));
    advance(Duration::from_secs(9)).await;
    registry.get(&key("b-40")).unwrap().took(Duration::from_millis(10));
    advance(Duration::from_secs(1)).await;
    bench.handle.load(spec("c-30")).await.unwrap();
    assert_eq!([bench.state("a-40"), bench.state("b-40")], ["ready", "evicted"]);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_model_in_use_stays_and_the_new_one_waits() {
    let bench = Bench::start(|_| ());
    bench.handle.load(spec("a-60")).await.unwrap();
    bench.handle.register(spec("b-60")).unwrap();
    assert_eq!(bench.state("b-60"), "evicted");
    let (first, end) = bench.blocked("a-60").await;
    let second = bench.compute("b-60");
    let third = bench.compute("b-60");
    for _ in 0..100 {
        yield_now().await;
    }
    assert_eq!(bench.state("a-60"), "ready");
    end.send(()).unwrap();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    third.await.unwrap().unwrap();
    assert_eq!(bench.told(), "+a-60 =a-60 -a-60 +b-60 =b-60 =b-60");

    // Nobody waits for ever: the error names the budget, and the model may come another time.
    let (first, end) = bench.blocked("b-60").await;
    let second = bench.compute("a-60");
    for _ in 0..100 {
        yield_now().await;
    }
    advance(Duration::from_secs(11)).await;
    let error = second.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "no-room");
    assert!(error.to_string().contains("model-memory"), "{error}");
    end.send(()).unwrap();
    first.await.unwrap().unwrap();
    bench.compute("a-60").await.unwrap().unwrap();
    let error = bench.handle.load(spec("c-101")).await.unwrap_err();
    assert!(matches!(error, ModelError::TooLarge { bytes: 101, budget: 100, .. }), "{error}");
    assert_eq!(bench.state("a-60"), "ready", "nothing leaves for what cannot come");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_removed_model_serves_those_who_hold_it() {
    let bench = Bench::start(|_| ());
    bench.handle.load(spec("a-1")).await.unwrap();
    let lease = bench.handle.lease(&key("a-1")).unwrap();
    let (running, end) = bench.blocked("a-1").await;
    bench.handle.unload(&key("a-1")).await;
    assert!(bench.handle.lease(&key("a-1")).is_none(), "nobody new gets it");
    let other = ModelSpec { sha256: [1; 32], ..spec("a-1") };
    assert!(matches!(bench.handle.load(other.clone()).await, Err(ModelError::InUse(_))));
    end.send(()).unwrap();
    running.await.unwrap().unwrap();
    bench.compute("a-1").await.unwrap().unwrap();
    assert_eq!(bench.told(), "+a-1 =a-1 =a-1");
    drop(lease);
    until(|| bench.told() == "-a-1").await;
    assert_eq!(bench.state("a-1"), "unknown");
    assert_eq!(bench.compute("a-1").await.unwrap().unwrap_err().code(), "not-found");
    // Its number is free again.
    bench.handle.load(other).await.unwrap();
    bench.handle.unload(&key("a-1")).await;
    assert_eq!(bench.told(), "+a-1 -a-1");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_load_that_waits_for_room_is_in_nobodys_way() {
    let bench = Bench::start(|_| ());
    for name in ["a-60", "d-10"] {
        bench.handle.load(spec(name)).await.unwrap();
    }
    bench.handle.register(spec("b-50")).unwrap();
    bench.handle.register(spec("c-10")).unwrap();
    let (running, end) = bench.blocked("a-60").await;
    let waiting = bench.compute("b-50");
    for _ in 0..100 {
        yield_now().await;
    }
    assert_eq!(bench.state("d-10"), "ready", "nothing leaves where that does not suffice");
    // The lane is inside a run; what it is asked for meanwhile it does at its end, though that other load still waits.
    let (again, blocked) = (bench.compute("a-60"), mpsc::channel());
    bench.shelf.gates.lock().push(blocked.1);
    let (small, there) = (bench.compute("c-10"), bench.compute("d-10"));
    end.send(()).unwrap();
    running.await.unwrap().unwrap();
    for _ in 0..100 {
        yield_now().await;
    }
    blocked.0.send(()).unwrap();
    again.await.unwrap().unwrap();
    small.await.unwrap().unwrap();
    there.await.unwrap().unwrap();
    // Its turn comes when the large one is idle.
    waiting.await.unwrap().unwrap();
    assert_eq!(bench.state("a-60"), "evicted");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_new_models_do_not_wait_for_each_other() {
    let bench = Bench::start(|_| ());
    let began = Instant::now();
    let loads = ["a-60", "b-60"].map(|name| {
        let handle = bench.handle.clone();
        tokio::spawn(async move { handle.load(spec(name)).await })
    });
    for load in loads {
        load.await.unwrap().unwrap();
    }
    assert_eq!([bench.state("a-60"), bench.state("b-60")], ["evicted", "ready"]);
    assert_eq!(began.elapsed(), Duration::ZERO);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_load_took_counts() {
    let bench = Bench::start(|_| ());
    let bytes = |name: &str| bench.handle.inner.registry.get(&key(name)).unwrap().bytes();
    bench.handle.register(spec("a-20")).unwrap();
    assert_eq!(bytes("a-20"), 40, "a forecast");
    bench.handle.register(spec("z-70")).unwrap();
    assert_eq!(bytes("z-70"), 100, "it gets its chance");
    bench.handle.load(spec("a-20")).await.unwrap();
    assert_eq!(bytes("a-20"), 20);

    // More than was forecast: others leave for it.
    bench.shelf.takes.lock().insert("b-20", 90);
    bench.handle.load(spec("b-20")).await.unwrap();
    assert_eq!((bytes("b-20"), bench.state("a-20")), (90, "evicted"));
    until(|| !bench.shelf.holds.lock().contains(&key("a-20"))).await;
    assert_eq!(bench.told(), "+a-20 +b-20 -a-20");

    // Where they cannot, it leaves again and comes back in its turn.
    bench.handle.register(spec("c-4")).unwrap();
    bench.shelf.takes.lock().insert("c-4", 30);
    let (running, end) = bench.blocked("b-20").await;
    let waiting = bench.compute("c-4");
    for _ in 0..100 {
        yield_now().await;
    }
    let (again, gate) = mpsc::channel();
    bench.shelf.gates.lock().push(gate);
    let still = bench.compute("b-20");
    end.send(()).unwrap();
    running.await.unwrap().unwrap();
    until(|| bench.shelf.gates.lock().is_empty()).await;
    again.send(()).unwrap();
    still.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!((bytes("c-4"), bench.state("b-20")), (30, "evicted"));

    // More than there is: it cannot stay, and says why.
    bench.shelf.takes.lock().insert("d-1", 101);
    let error = bench.handle.load(spec("d-1")).await.unwrap_err();
    assert!(matches!(error, ModelError::TooLarge { bytes: 101, budget: 100, .. }), "{error}");
    assert_eq!(bench.state("d-1"), "failed");
    until(|| !bench.shelf.holds.lock().contains(&key("d-1"))).await;
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn at_the_start_nothing_leaves_for_another() {
    let bench = Bench::start(|_| ());
    for name in ["a-30", "b-40", "c-20"] {
        bench.handle.load_if_room(spec(name)).await.unwrap();
    }
    assert_eq!(
        [bench.state("a-30"), bench.state("b-40"), bench.state("c-20")],
        ["ready", "evicted", "ready"]
    );
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_warm_up_is_the_platforms() {
    let bench = Bench::start(|options| options.warm_up = true);
    bench.handle.load(spec("a-1")).await.unwrap();
    assert_eq!(bench.told(), "+a-1 =a-1 =a-1 =a-1 =a-1");
    let account = bench.handle.status().devices[0].account;
    assert_eq!((account.charged_ns, account.platform_ns, account.computes), (0, 33, 0));
    // What the shape costs is known before the first call.
    let model = bench.handle.inner.registry.get(&key("a-1")).unwrap();
    let plan = model.grouping.plan(&[Tensor::new(DType::U8, vec![1], vec![7]).unwrap()]);
    let cost = model.grouping.calibration.cost(&plan.shape);
    assert_eq!((cost.ns, cost.calibrated), (7, true));
    bench.stop().await;
}
