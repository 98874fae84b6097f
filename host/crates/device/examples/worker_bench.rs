//! What a worker adds to a call: MLP 784-64-10 through a worker against ONNX Runtime in this process, in one run.
//! Started by `deploy/bench/worker.sh`.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a bench ends where something is wrong")]

use std::{
    env,
    fs::File,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ort::{environment::Environment, session::Session, value::TensorRef};
use sha2::{Digest, Sha256};
use wasmeter_device::{WorkerBackend, WorkerOptions, find_onnxruntime, worker_main};
use wasmeter_inference::{
    Backend, BackendError, Batch, BatchEntry, BatchOutput, BatchingOptions, ComputeRequest, DType,
    DeviceControl, DeviceOptions, Engine, Loaded, ModelKey, ModelSource, ModelSpec, NamedTensor, Options,
    Service, Tensor,
};
use wasmeter_usage::DeviceClass;

const CALLERS: usize = 32;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "device-worker") {
        return worker_main(arguments);
    }
    let path = PathBuf::from(env::args_os().nth(1).expect("the path of mlp.onnx"));
    let bytes = std::fs::read(&path).unwrap();
    let spec = ModelSpec {
        key: ModelKey::operator("mlp", 1),
        device: "cpu:0".into(),
        engine: Engine::Onnx,
        sha256: Sha256::digest(&bytes).into(),
        batching: BatchingOptions::default(),
    };
    println!("MLP 784-64-10, one row a call, {} cores; medians", thread::available_parallelism().unwrap());
    let engine = engine();
    for spin in [true, false] {
        println!("\nspin {}", if spin { "on (the default)" } else { "off" });
        compare(&engine, &path, &bytes, &spec, spin);
    }
    ExitCode::SUCCESS
}

fn compare(engine: &Environment, path: &Path, bytes: &[u8], spec: &ModelSpec, spin: bool) {
    let mut session = in_process(engine, bytes);
    let mut backend = WorkerBackend::new("cpu:0", options(spin));
    backend.load(spec, File::open(path).unwrap()).unwrap();
    let pid = backend.worker_pid(&spec.key.owner).unwrap();
    for (name, pause, calls) in [
        ("one after the other", Duration::ZERO, 20_000),
        ("idle, one each 5 ms", Duration::from_millis(5), 400),
    ] {
        let bare = median(calls, pause, || run_bare(&mut session, 1));
        let before = (cpu(None), cpu(Some(pid)));
        let worker = median(calls, pause, || run_worker(&mut backend, &spec.key));
        let used = |pid, before: f64| (cpu(pid) - before) * 1e6 / calls as f64;
        println!(
            "{name:22} in-process {bare:6.1} us  worker {worker:6.1} us  adds {:6.1} us  ratio {:5.2}  CPU a call: host {:5.1} us, worker {:5.1} us",
            worker - bare,
            worker / bare,
            used(None, before.0),
            used(Some(pid), before.1),
        );
    }
    drop(backend);
    drop(session);
    busy(in_process(engine, bytes), path, spec, spin);
}

fn options(spin: bool) -> WorkerOptions {
    WorkerOptions { threads: 1, spin, ..WorkerOptions::default() }
}

fn engine() -> Environment {
    ort::init_from(find_onnxruntime(None).unwrap()).unwrap().with_telemetry(false).build().unwrap()
}

fn in_process(engine: &Environment, bytes: &[u8]) -> Session {
    Session::builder(engine)
        .unwrap()
        .with_intra_threads(1)
        .unwrap()
        .with_intra_op_spinning(false)
        .unwrap()
        .commit_from_memory(bytes)
        .unwrap()
}

fn input() -> Tensor {
    let data: Vec<u8> = (0..784u16).flat_map(|i| (f32::from(i % 255) / 255.).to_le_bytes()).collect();
    Tensor::new(DType::F32, vec![1, 784], data).unwrap()
}

fn run_bare(session: &mut Session, rows: usize) {
    let values = vec![0.5f32; 784 * rows];
    let input = TensorRef::from_array_view(([rows, 784], &values[..])).unwrap();
    let output = session.run(ort::inputs![input]).unwrap();
    assert_eq!(output[0].try_extract_tensor::<f32>().unwrap().1.len(), 10 * rows);
}

fn run_worker(backend: &mut WorkerBackend, key: &ModelKey) {
    let entries = [BatchEntry { tenant: "bench".into(), inputs: vec![input()] }];
    let output = backend.run(Batch { run: 1, model: key, entries: &entries }).unwrap();
    assert_eq!(output.entries[0][0].dims(), [1, 10]);
}

/// Microseconds.
fn median(calls: usize, pause: Duration, mut call: impl FnMut()) -> f64 {
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        if !pause.is_zero() {
            thread::sleep(pause);
        }
        let began = Instant::now();
        call();
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times[calls / 2].as_secs_f64() * 1e6
}

/// Processor seconds of a process, from `/proc`.
fn cpu(pid: Option<u32>) -> f64 {
    let pid = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let schedstat = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.)
    };
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.filter_map(Result::ok).map(schedstat).sum::<f64>() / 1e9
}

struct Files(PathBuf);

impl ModelSource for Files {
    fn open(&self, _: &ModelKey) -> std::io::Result<File> {
        File::open(&self.0)
    }
}

/// A worker whose runs are timed: how many rows, how long.
struct Timed {
    backend: WorkerBackend,
    runs: Arc<Mutex<Vec<(usize, Duration)>>>,
    /// Its process number.
    worker: Arc<Mutex<Option<u32>>>,
}

impl Backend for Timed {
    fn class(&self) -> DeviceClass {
        self.backend.class()
    }
    fn control(&self) -> Arc<dyn DeviceControl> {
        self.backend.control()
    }
    fn load(&mut self, spec: &ModelSpec, file: File) -> Result<Loaded, BackendError> {
        let loaded = self.backend.load(spec, file);
        *self.worker.lock().unwrap() = self.backend.worker_pid(&spec.key.owner);
        loaded
    }
    fn unload(&mut self, key: &ModelKey) {
        self.backend.unload(key);
    }
    fn run(&mut self, batch: Batch<'_>) -> Result<BatchOutput, BackendError> {
        let (rows, began) = (batch.entries.len(), Instant::now());
        let output = self.backend.run(batch);
        self.runs.lock().unwrap().push((rows, began.elapsed()));
        output
    }
}

/// 32 callers through the handle keep the device busy. The lane's own runs are timed, and beside them runs in this
/// process of as many rows.
fn busy(mut session: Session, path: &Path, spec: &ModelSpec, spin: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().unwrap();
    let runs = Arc::default();
    let worker = Arc::default();
    let timed = Timed {
        backend: WorkerBackend::new("cpu:0", options(spin)),
        runs: Arc::clone(&runs),
        worker: Arc::clone(&worker),
    };
    let backend = Box::new(timed);
    let devices = vec![DeviceOptions { name: "cpu:0".into(), backend }];
    let service = Service::new(Options::new(devices, Arc::new(Files(path.to_owned()))));
    let handle = service.handle();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let service = runtime.spawn(service.run(async {
        let _ = stopped.await;
    }));
    runtime.block_on(handle.load(spec.clone())).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (handle, over, key) = (handle.clone(), Arc::clone(&over), spec.key.clone());
            runtime.spawn(async move {
                let mut calls = 0u64;
                while !over.load(Ordering::Relaxed) {
                    let inputs = vec![NamedTensor { name: "x".into(), tensor: input() }];
                    let tenant = format!("tenant-{}", caller % 8);
                    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
                    let request =
                        ComputeRequest { tenant, model: key.clone(), inputs, deadline, meter: None };
                    handle.compute(request).await.unwrap();
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    let rows_of = |runs: &[(usize, Duration)]| {
        let mut rows: Vec<usize> = runs.iter().map(|(rows, _)| *rows).collect();
        rows.sort_unstable();
        rows.get(rows.len() / 2).copied().unwrap_or(1)
    };
    thread::sleep(Duration::from_secs(1));
    // What calls cost, before runs in this process mix in.
    let pid = *worker.lock().unwrap();
    let served = |runs: &[(usize, Duration)]| runs.iter().map(|(rows, _)| rows).sum::<usize>() as f64;
    let before = (cpu(None), cpu(pid), served(&runs.lock().unwrap()));
    thread::sleep(Duration::from_secs(2));
    let answered = served(&runs.lock().unwrap()) - before.2;
    let used = ((cpu(None) - before.0) * 1e6 / answered, (cpu(pid) - before.1) * 1e6 / answered);
    let rows = rows_of(&runs.lock().unwrap());
    runs.lock().unwrap().clear();
    let mut bare = Vec::new();
    while began.elapsed() < Duration::from_secs(7) {
        thread::sleep(Duration::from_millis(1));
        for _ in 0..3 {
            let at = Instant::now();
            run_bare(&mut session, rows);
            bare.push(at.elapsed());
        }
    }
    let timed = std::mem::take(&mut *runs.lock().unwrap());
    over.store(true, Ordering::Relaxed);
    let calls: u64 = callers.into_iter().map(|caller| runtime.block_on(caller).unwrap()).sum();
    let seconds = began.elapsed().as_secs_f64();
    let _ = stop.send(());
    runtime.block_on(service).unwrap().unwrap();
    let middle = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e6
    };
    let mut alike: Vec<Duration> =
        timed.iter().filter(|(own, _)| *own == rows).map(|(_, time)| *time).collect();
    let (bare, worker) = (middle(&mut bare), middle(&mut alike));
    println!(
        "busy, {CALLERS} callers       in-process {bare:6.1} us  worker {worker:6.1} us  adds {:6.1} us  ratio {:5.2}  CPU a call: host {:5.1} us, worker {:5.1} us  runs of {rows} rows; {:.0} calls/s through the handle",
        worker - bare,
        worker / bare,
        used.0,
        used.1,
        calls as f64 / seconds
    );
}
