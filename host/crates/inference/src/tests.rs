//! Lane, queue and account with a scripted device. Time is paused and moves only where a test moves it.

mod batching;

use std::{
    collections::VecDeque,
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::{
    sync::oneshot,
    task::{JoinHandle, yield_now},
    time::{Instant, advance},
};
use wasmeter_usage::DeviceClass;

use crate::{
    Account, Backend, BackendError, Batch, BatchOutput, Batching, BatchingOptions, ChargeMeter, ComputeError,
    ComputeRequest, Computed, DType, DeviceControl, DeviceOptions, Dim, Engine, Handle, Loaded, ModelError,
    ModelKey, ModelSource, ModelSpec, ModelState, NamedTensor, Options, Port, Service, Signature, Tensor,
};

const LOAD_NS: u64 = 1_000;

/// What a scripted run does.
enum Step {
    Ok(u64),
    Fail(u64),
    Lost(u64),
    Away(u64),
    NotLoaded,
    /// Waits for the test, then does what it says.
    Wait(mpsc::Receiver<Step>),
}

struct Script {
    runs: Mutex<VecDeque<Step>>,
    loads: Mutex<VecDeque<BackendError>>,
    /// Every nanosecond that the device says it was busy.
    busy_ns: AtomicU64,
    /// What the control shows for the current run.
    shown_ns: AtomicU64,
    current: AtomicU64,
    interrupted: AtomicU64,
    batching: Mutex<Batching>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            runs: Mutex::default(),
            loads: Mutex::default(),
            busy_ns: AtomicU64::new(0),
            shown_ns: AtomicU64::new(0),
            current: AtomicU64::new(0),
            interrupted: AtomicU64::new(0),
            batching: Mutex::new(Batching::Off("scripted".into())),
        }
    }
}

impl DeviceControl for Script {
    fn interrupt(&self, run: u64) {
        self.interrupted.store(run, Ordering::SeqCst);
    }

    fn busy_ns(&self, run: u64) -> u64 {
        if self.current.load(Ordering::SeqCst) == run { self.shown_ns.load(Ordering::SeqCst) } else { 0 }
    }

    fn shut_down(&self) {}
}

struct Scripted(Arc<Script>);

impl Backend for Scripted {
    fn class(&self) -> DeviceClass {
        DeviceClass::Cpu
    }

    fn control(&self) -> Arc<dyn DeviceControl> {
        Arc::clone(&self.0) as Arc<dyn DeviceControl>
    }

    fn load(&mut self, _: &ModelSpec, _: File) -> Result<Loaded, BackendError> {
        if let Some(error) = self.0.loads.lock().pop_front() {
            self.0.busy_ns.fetch_add(error.busy_ns(), Ordering::SeqCst);
            return Err(error);
        }
        self.0.busy_ns.fetch_add(LOAD_NS, Ordering::SeqCst);
        let port = |name: &str| Port { name: name.into(), dtype: DType::U8, dims: Some(vec![Dim::Any]) };
        let signature = Signature { inputs: vec![port("x")], outputs: vec![port("y")] };
        Ok(Loaded { signature, batching: self.0.batching.lock().clone(), busy_ns: LOAD_NS })
    }

    fn unload(&mut self, _: &ModelKey) {}

    fn run(&mut self, batch: Batch<'_>) -> Result<BatchOutput, BackendError> {
        self.0.current.store(batch.run, Ordering::SeqCst);
        let mut step = self.0.runs.lock().pop_front().unwrap_or(Step::Ok(1));
        while let Step::Wait(wait) = step {
            step = wait.recv().unwrap();
        }
        let message = "scripted".to_owned();
        let result = match step {
            Step::Ok(busy_ns) => Ok(BatchOutput {
                entries: batch.entries.iter().map(|entry| entry.inputs.clone()).collect(),
                busy_ns,
            }),
            Step::Fail(busy_ns) => Err(BackendError::Engine { message, busy_ns }),
            Step::Lost(busy_ns) => Err(BackendError::Lost { message, busy_ns }),
            Step::Away(busy_ns) => Err(BackendError::Away { message, busy_ns }),
            Step::NotLoaded => Err(BackendError::NotLoaded),
            Step::Wait(_) => unreachable!(),
        };
        let busy_ns = match &result {
            Ok(output) => output.busy_ns,
            Err(error) => error.busy_ns(),
        };
        self.0.busy_ns.fetch_add(busy_ns, Ordering::SeqCst);
        result
    }
}

struct AnyFile;

impl ModelSource for AnyFile {
    fn open(&self, key: &ModelKey) -> io::Result<File> {
        if key.name == "absent" { Err(io::ErrorKind::NotFound.into()) } else { tempfile::tempfile() }
    }
}

struct Bench {
    script: Arc<Script>,
    handle: Handle,
    stop: oneshot::Sender<()>,
    service: JoinHandle<io::Result<()>>,
    /// Paused time jumps ahead when everything waits; a blocking task in flight prevents that.
    _hold: mpsc::Sender<()>,
}

fn key() -> ModelKey {
    ModelKey::operator("m", 1)
}

fn spec(name: &str) -> ModelSpec {
    let key = ModelKey::operator(name, 1);
    ModelSpec {
        key,
        device: "cpu:0".into(),
        engine: Engine::Onnx,
        sha256: [0; 32],
        batching: BatchingOptions::default(),
    }
}

impl Bench {
    async fn start(change: impl FnOnce(&mut Options)) -> Self {
        let script = Arc::new(Script::default());
        let backend = Box::new(Scripted(Arc::clone(&script)));
        let devices = vec![DeviceOptions { name: "cpu:0".into(), backend }];
        let mut options = Options::new(devices, Arc::new(AnyFile));
        change(&mut options);
        let service = Service::new(options);
        let handle = service.handle();
        let (stop, stopped) = oneshot::channel();
        let service = tokio::spawn(service.run(async {
            let _ = stopped.await;
        }));
        let (hold, held) = mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || held.recv());
        let bench = Self { script, handle, stop, service, _hold: hold };
        bench.handle.load(spec("m")).await.unwrap();
        bench
    }

    fn next(&self, step: Step) {
        self.script.runs.lock().push_back(step);
    }

    /// The next run waits for what the sender says.
    fn block(&self) -> mpsc::Sender<Step> {
        let (sender, wait) = mpsc::channel();
        self.next(Step::Wait(wait));
        sender
    }

    fn request(&self) -> ComputeRequest {
        let tensor = Tensor::new(DType::U8, vec![1], vec![7]).unwrap();
        ComputeRequest {
            tenant: "dev".into(),
            model: key(),
            inputs: vec![NamedTensor { name: "x".into(), tensor }],
            deadline: Instant::now() + Duration::from_secs(60),
            meter: None,
        }
    }

    fn spawn(&self, request: ComputeRequest) -> JoinHandle<Result<Computed, ComputeError>> {
        let handle = self.handle.clone();
        tokio::spawn(async move { handle.compute(request).await })
    }

    /// Starts a compute and waits until it runs.
    async fn spawn_running(&self, request: ComputeRequest) -> JoinHandle<Result<Computed, ComputeError>> {
        let before = self.script.current.load(Ordering::SeqCst);
        let task = self.spawn(request);
        until(|| self.script.current.load(Ordering::SeqCst) > before).await;
        task
    }

    fn account(&self) -> Account {
        self.handle.status().devices[0].account
    }

    fn queued(&self) -> usize {
        self.handle.status().devices[0].queued
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        self.service.await.unwrap().unwrap();
    }
}

/// Lets other threads and tasks work until something has happened; no paused time passes.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn queueing_is_free_and_the_queue_is_bounded() {
    let bench = Bench::start(|options| options.queue_capacity = 1).await;
    let free = bench.block();
    let first = bench.spawn_running(bench.request()).await;
    bench.next(Step::Ok(5));
    let second = bench.spawn(bench.request());
    until(|| bench.queued() == 1).await;
    let refused = bench.handle.compute(bench.request()).await.unwrap_err();
    assert_eq!(refused, ComputeError::Overloaded("cpu:0".into()));
    advance(Duration::from_secs(5)).await;
    free.send(Step::Ok(3)).unwrap();
    assert_eq!(first.await.unwrap().unwrap().charged_ns, 3);
    let second = second.await.unwrap().unwrap();
    assert_eq!(second.charged_ns, 5);
    assert!(second.queue_ns >= 5_000_000_000);
    assert_eq!(second.outputs[0].name, "y");
    let account = bench.account();
    assert_eq!((account.charged_ns, account.platform_ns, account.computes), (8, LOAD_NS, 2));
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_the_queue_frees_the_place_at_once() {
    let bench = Bench::start(|options| options.queue_capacity = 1).await;
    let free = bench.block();
    let first = bench.spawn_running(bench.request()).await;
    let deadline = Instant::now() + Duration::from_millis(100);
    let waiting = bench.spawn(ComputeRequest { deadline, ..bench.request() });
    until(|| bench.queued() == 1).await;
    advance(Duration::from_millis(101)).await;
    assert_eq!(waiting.await.unwrap().unwrap_err(), ComputeError::Deadline { charged_ns: 0 });
    assert_eq!(bench.queued(), 0);
    // A caller that gives up by itself does the same.
    let waiting = bench.spawn(bench.request());
    until(|| bench.queued() == 1).await;
    waiting.abort();
    until(|| bench.queued() == 0).await;
    free.send(Step::Ok(1)).unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(bench.account().computes, 1);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_the_run_answers_at_once_and_interrupts_after_the_grace() {
    let bench = Bench::start(|_| ()).await;
    for round in 1..=3 {
        let free = bench.block();
        let meter = Arc::new(ChargeMeter::default());
        let deadline = Instant::now() + Duration::from_millis(50);
        let request = ComputeRequest { deadline, meter: Some(Arc::clone(&meter)), ..bench.request() };
        let task = bench.spawn_running(request).await;
        let run = bench.script.current.load(Ordering::SeqCst);
        bench.script.shown_ns.store(777, Ordering::SeqCst);
        advance(Duration::from_millis(51)).await;
        assert_eq!(task.await.unwrap().unwrap_err(), ComputeError::Deadline { charged_ns: 777 });
        assert_eq!(meter.charged_ns(), 777);
        assert_ne!(bench.script.interrupted.load(Ordering::SeqCst), run, "before the grace is over");
        advance(Duration::from_millis(10)).await;
        until(|| bench.script.interrupted.load(Ordering::SeqCst) == run).await;
        free.send(Step::Lost(1_000)).unwrap();
        until(|| bench.account().losses == round).await;
    }
    // The model is not at fault: it goes on after three such deaths, and the rest is the platform's.
    bench.next(Step::Ok(5));
    bench.handle.compute(bench.request()).await.unwrap();
    let account = bench.account();
    assert_eq!(account.charged_ns, 3 * 777 + 5);
    assert_eq!(account.platform_ns, 3 * 223 + 4 * LOAD_NS);
    assert_eq!(account.reloads, 3);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_left_has_fixed_its_charge() {
    let bench = Bench::start(|_| ()).await;
    for (shown, busy) in [(100, 500), (500, 100)] {
        let before = bench.account();
        let free = bench.block();
        let meter = Arc::new(ChargeMeter::default());
        let request = ComputeRequest { meter: Some(Arc::clone(&meter)), ..bench.request() };
        let task = bench.spawn_running(request).await;
        bench.script.shown_ns.store(shown, Ordering::SeqCst);
        task.abort();
        until(|| meter.computes() == 1).await;
        free.send(Step::Ok(busy)).unwrap();
        until(|| bench.account().busy_ns() > before.busy_ns()).await;
        let after = bench.account();
        assert_eq!(meter.charged_ns(), shown);
        assert_eq!(after.charged_ns - before.charged_ns, shown);
        assert_eq!(after.busy_ns() - before.busy_ns(), shown.max(busy));
    }
    assert_eq!(bench.script.interrupted.load(Ordering::SeqCst), 0, "the deadline has not passed");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_death_in_between_is_repaired_in_silence() {
    let bench = Bench::start(|_| ()).await;
    bench.next(Step::NotLoaded);
    bench.next(Step::Ok(9));
    assert_eq!(bench.handle.compute(bench.request()).await.unwrap().charged_ns, 9);
    assert_eq!(bench.account().reloads, 1);
    for _ in 0..3 {
        bench.next(Step::NotLoaded);
    }
    let error = bench.handle.compute(bench.request()).await.unwrap_err();
    assert_eq!(error.code(), "engine");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn deaths_within_the_window_quarantine() {
    let bench = Bench::start(|_| ()).await;
    bench.next(Step::Lost(10));
    let error = bench.handle.compute(bench.request()).await.unwrap_err();
    assert_eq!(error.to_string(), "device cpu:0 was lost: scripted");
    advance(Duration::from_secs(601)).await;
    for code in ["device-lost", "device-lost", "quarantined"] {
        bench.next(Step::Lost(10));
        let error = bench.handle.compute(bench.request()).await.unwrap_err();
        assert_eq!(error.code(), code);
    }
    assert!(matches!(
        &bench.handle.status().models[0].state,
        ModelState::Failed(ModelError::Quarantined { deaths: 2, .. })
    ));
    assert_eq!(bench.account().charged_ns, 0);
    bench.script.runs.lock().clear();
    bench.handle.load(spec("m")).await.unwrap();
    bench.handle.compute(bench.request()).await.unwrap();
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_away_is_nobodys_fault() {
    let bench = Bench::start(|options| options.quarantine_deaths = 1).await;
    bench.next(Step::Away(30));
    bench.next(Step::Away(40));
    bench.next(Step::Ok(9));
    assert_eq!(bench.handle.compute(bench.request()).await.unwrap().charged_ns, 9);
    let account = bench.account();
    assert_eq!((account.losses, account.reloads), (0, 2));
    assert_eq!((account.charged_ns, account.platform_ns), (9, 30 + 40 + 3 * LOAD_NS));
    // One that stays away is no reason to wait for ever, and a later call finds it back.
    for _ in 0..3 {
        bench.next(Step::Away(0));
    }
    let error = bench.handle.compute(bench.request()).await.unwrap_err();
    assert_eq!(error, ComputeError::DeviceAway { device: "cpu:0".into(), message: "scripted".into() });
    for away in [2, 3] {
        bench.next(Step::NotLoaded);
        let errors = (0..away).map(|_| BackendError::Away { message: "no start".into(), busy_ns: 5 });
        bench.script.loads.lock().extend(errors);
        let computed = bench.handle.compute(bench.request()).await;
        assert_eq!(
            computed.map(|c| c.charged_ns).map_err(|e| e.code()),
            [Ok(1), Err("device-away")][away - 2]
        );
    }
    bench.script.runs.lock().clear();
    bench.handle.compute(bench.request()).await.unwrap();
    assert_eq!(bench.account().busy_ns(), bench.account().measured_ns);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_load_that_kills_the_device_is_tried_once_more_for_those_who_wait() {
    let lost = || BackendError::Lost { message: "scripted".into(), busy_ns: 5 };
    let bench = Bench::start(|options| options.quarantine_deaths = 3).await;
    bench.next(Step::NotLoaded);
    bench.script.loads.lock().push_back(lost());
    bench.handle.compute(bench.request()).await.unwrap();
    assert_eq!(bench.account().losses, 1);
    // The same where the model was not on the device at all; and its deaths still count.
    bench.handle.register(spec("late")).unwrap();
    let late = || ComputeRequest { model: ModelKey::operator("late", 1), ..bench.request() };
    bench.script.loads.lock().push_back(lost());
    bench.handle.compute(late()).await.unwrap();
    bench.next(Step::NotLoaded);
    bench.script.loads.lock().extend([lost(), lost()]);
    assert_eq!(bench.handle.compute(late()).await.unwrap_err().code(), "device-lost");
    assert_eq!(bench.handle.compute(late()).await.unwrap_err().code(), "quarantined");
    assert!(matches!(
        bench.handle.state(&ModelKey::operator("late", 1)),
        Some(ModelState::Failed(ModelError::Quarantined { deaths: 3, .. }))
    ));
    bench.handle.compute(bench.request()).await.unwrap();
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_evicted_model_keeps_its_deaths() {
    let bench = Bench::start(|_| ()).await;
    bench.next(Step::Lost(10));
    assert_eq!(bench.handle.compute(bench.request()).await.unwrap_err().code(), "device-lost");
    let model = bench.handle.inner.registry.get(&key()).unwrap();
    assert!(model.evict());
    bench.handle.compute(bench.request()).await.unwrap();
    // A load that was lost leaves it evicted, not failed: one death is none too many.
    assert!(model.evict());
    bench.script.loads.lock().push_back(BackendError::Lost { message: "scripted".into(), busy_ns: 5 });
    let error = bench.handle.compute(bench.request()).await.unwrap_err();
    assert_eq!(error.code(), "device-lost");
    assert_eq!(bench.handle.compute(bench.request()).await.unwrap_err().code(), "quarantined");
    bench.handle.load(spec("m")).await.unwrap();
    bench.next(Step::Lost(10));
    assert_eq!(bench.handle.compute(bench.request()).await.unwrap_err().code(), "device-lost");
    bench.handle.compute(bench.request()).await.unwrap();
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn models_come_and_go() {
    let bench = Bench::start(|_| ()).await;
    assert!(bench.handle.signature(&key()).is_some());
    assert_eq!(bench.handle.placement(&key()).unwrap().1, DeviceClass::Cpu);
    let error = bench.handle.load(ModelSpec { device: "gpu:7".into(), ..spec("x") }).await.unwrap_err();
    assert!(error.to_string().contains(r#""gpu:7""#), "{error}");
    let error = bench.handle.load(spec("absent")).await.unwrap_err();
    assert!(matches!(error, ModelError::Source { .. }));

    let missing = BackendError::EngineMissing("no library".into());
    bench.script.loads.lock().push_back(missing);
    bench.handle.load(spec("late")).await.unwrap_err();
    let late = || ComputeRequest { model: ModelKey::operator("late", 1), ..bench.request() };
    let error = bench.handle.compute(late()).await.unwrap_err();
    assert_eq!(error, ComputeError::EngineMissing("no library".into()));
    bench.handle.load(spec("late")).await.unwrap();
    bench.handle.compute(late()).await.unwrap();

    // What waits for a model that goes is served, and then it goes.
    let free = bench.block();
    let running = bench.spawn_running(bench.request()).await;
    let waiting = bench.spawn(late());
    until(|| bench.queued() == 1).await;
    bench.handle.unload(&ModelKey::operator("late", 1)).await;
    free.send(Step::Ok(1)).unwrap();
    running.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    until(|| bench.handle.placement(&ModelKey::operator("late", 1)).is_none()).await;
    assert_eq!(bench.handle.compute(late()).await.unwrap_err().code(), "not-found");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_refuses_what_waits_and_finishes_what_runs() {
    let bench = Bench::start(|_| ()).await;
    let free = bench.block();
    let running = bench.spawn_running(bench.request()).await;
    let waiting = bench.spawn(bench.request());
    until(|| bench.queued() == 1).await;
    let Bench { handle, stop, service, script: _script, _hold } = bench;
    stop.send(()).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err(), ComputeError::Draining);
    free.send(Step::Ok(4)).unwrap();
    assert_eq!(running.await.unwrap().unwrap().charged_ns, 4);
    service.await.unwrap().unwrap();
    assert_eq!(handle.load(spec("other")).await.unwrap_err(), ModelError::Draining);
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Ok,
    Fail,
    Lost,
    Away,
    NotLoaded,
    Left,
    /// The caller leaves a run that the device then turns out not to have taken up.
    LeftAway,
}

fn kinds() -> impl Strategy<Value = Vec<(Kind, u64, u64)>> {
    let kind = prop_oneof![
        4 => Just(Kind::Ok),
        1 => Just(Kind::Fail),
        1 => Just(Kind::Lost),
        1 => Just(Kind::Away),
        1 => Just(Kind::NotLoaded),
        2 => Just(Kind::Left),
        1 => Just(Kind::LeftAway),
    ];
    proptest::collection::vec((kind, 0..1_000_000_000u64, 0..1_000_000_000u64), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens: charged + platform = busy, callers hold exactly what is charged, and nobody pays
    /// for a failure or a death.
    #[test]
    fn time_is_conserved(script in kinds()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let bench = Bench::start(|options| options.quarantine_deaths = u32::MAX).await;
            let meter = Arc::new(ChargeMeter::default());
            let mut owed = 0;
            let mut underestimated = 0;
            for (kind, busy, shown) in script {
                let request = ComputeRequest { meter: Some(Arc::clone(&meter)), ..bench.request() };
                match kind {
                    Kind::Ok => { bench.next(Step::Ok(busy)); owed += busy }
                    Kind::Fail => bench.next(Step::Fail(busy)),
                    Kind::Lost => bench.next(Step::Lost(busy)),
                    Kind::Away => { bench.next(Step::Away(shown)); bench.next(Step::Ok(busy)); owed += busy }
                    Kind::NotLoaded => { bench.next(Step::NotLoaded); bench.next(Step::Ok(busy)); owed += busy }
                    Kind::Left | Kind::LeftAway => {
                        let free = bench.block();
                        bench.script.shown_ns.store(shown, Ordering::SeqCst);
                        let task = bench.spawn_running(request).await;
                        task.abort();
                        let before = meter.computes();
                        until(|| meter.computes() > before || task.is_finished()).await;
                        let away = matches!(kind, Kind::LeftAway);
                        free.send(if away { Step::Away(busy) } else { Step::Ok(busy) }).unwrap();
                        owed += shown;
                        underestimated += shown.saturating_sub(busy);
                        continue;
                    }
                }
                let result = bench.handle.compute(request).await;
                assert_eq!(result.is_ok(), matches!(kind, Kind::Ok | Kind::Away | Kind::NotLoaded));
            }
            // One more, so that the lane is through with all others; its aide may still be booking the last one.
            bench.next(Step::Ok(0));
            bench.handle.compute(bench.request()).await.unwrap();
            until(|| bench.account().busy_ns() == bench.account().measured_ns).await;
            let account = bench.account();
            assert_eq!(account.charged_ns, owed);
            assert_eq!(meter.charged_ns(), owed);
            assert_eq!(account.busy_ns(), bench.script.busy_ns.load(Ordering::SeqCst) + underestimated);
            bench.stop().await;
        });
    }
}
