//! The real worker is killed again and again under load: no wrong answer, no call that hangs, and an account that adds
//! up. `deploy/bench/kills.sh` does the same through HTTP, with a kill a second.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod common;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{Files, f32s, key, options, spec};
use tokio::{sync::oneshot, task::JoinSet};
use wasmeter_device::WorkerBackend;
use wasmeter_inference::{
    BatchingOptions, ChargeMeter, ComputeError, ComputeRequest, DeviceOptions, Handle, ModelSpec,
    NamedTensor, Options, Service, Tensor,
};

const CALLS: usize = 10_000;
const CALLERS: usize = 32;
/// Inputs that differ, so that answers that are mixed up are seen.
const INPUTS: u16 = 64;
const PATIENCE: Duration = Duration::from_secs(10);

/// Rows of `mlp` like no other input's; one to four of them.
fn input(number: u16) -> Tensor {
    let rows = u32::from(number % 4) + 1;
    let value = |index: u32| (f32::from(number) + 1.0) * ((index % 97) as u16 as f32) / 1024.0;
    f32s(&[rows, 784], (0..rows * 784).map(value))
}

fn request(number: u16, meter: &Arc<ChargeMeter>) -> ComputeRequest {
    ComputeRequest {
        tenant: format!("t{}", number % 3),
        model: key("mlp"),
        inputs: vec![NamedTensor { name: "x".into(), tensor: input(number) }],
        deadline: tokio::time::Instant::now() + PATIENCE,
        meter: Some(Arc::clone(meter)),
    }
}

/// The children of this very process that live.
fn workers() -> Vec<rustix::process::Pid> {
    let own = std::process::id().to_string();
    let child = |entry: fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit(')').next()?.split_whitespace();
        let (state, parent) = (fields.next()?, fields.next()?);
        (parent == own && state != "Z").then_some(rustix::process::Pid::from_raw(pid)?)
    };
    fs::read_dir("/proc").unwrap().flatten().filter_map(child).collect()
}

async fn signal(signal: rustix::process::Signal) {
    for pid in workers() {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Stops the workers and waits until they stand: the signal alone lets one read once more.
async fn halt() {
    signal(rustix::process::Signal::STOP).await;
    for pid in workers() {
        let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
        // The state follows the name, which is in brackets (proc_pid_stat(5)).
        while !fs::read_to_string(&stat).unwrap().rsplit(')').next().unwrap().starts_with(" T") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

struct Host {
    handle: Handle,
    stop: oneshot::Sender<()>,
    service: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn start(change: impl FnOnce(&mut Options)) -> Host {
    let backend = Box::new(WorkerBackend::new("cpu:0", options()));
    let devices = vec![DeviceOptions { name: "cpu:0".into(), backend }];
    let mut options = Options::new(devices, Arc::new(Files));
    change(&mut options);
    let service = Service::new(options);
    let handle = service.handle();
    let (stop, stopped) = oneshot::channel();
    let service = tokio::spawn(service.run(async {
        let _ = stopped.await;
    }));
    let batching = BatchingOptions { max_batch: 8, ..BatchingOptions::default() };
    handle.load(ModelSpec { batching, ..spec("mlp") }).await.unwrap();
    Host { handle, stop, service }
}

static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_under_kills() {
    let _turn = TURN.lock().await;
    let host = start(|options| options.quarantine_deaths = u32::MAX).await;
    let meter = Arc::new(ChargeMeter::default());
    let mut right = Vec::new();
    for number in 0..INPUTS {
        let computed = host.handle.compute(request(number, &meter)).await.unwrap();
        right.push(computed.outputs);
    }
    let (right, next) = (Arc::new(right), Arc::new(AtomicUsize::new(0)));
    let charged = Arc::new(AtomicU64::new(meter.charged_ns()));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (handle, meter) = (host.handle.clone(), Arc::clone(&meter));
        let (right, next, charged) = (Arc::clone(&right), Arc::clone(&next), Arc::clone(&charged));
        callers.spawn(async move {
            let mut failed = 0u32;
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= CALLS {
                    return failed;
                }
                let number = u16::try_from(index % usize::from(INPUTS)).unwrap();
                let began = Instant::now();
                match handle.compute(request(number, &meter)).await {
                    Ok(computed) => {
                        assert_eq!(computed.outputs, right[usize::from(number)], "call {index}");
                        charged.fetch_add(computed.charged_ns, Ordering::Relaxed);
                    }
                    Err(ComputeError::DeviceLost { .. } | ComputeError::DeviceAway { .. }) => failed += 1,
                    Err(error) => panic!("call {index}: {error:?}"),
                }
                assert!(began.elapsed() < PATIENCE, "call {index} hung for {:?}", began.elapsed());
                // A model this small would be through before the first kill.
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        });
    }
    while next.load(Ordering::Relaxed) < CALLS {
        signal(rustix::process::Signal::KILL).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let failed: u32 = callers.join_all().await.into_iter().sum();
    let Host { handle, stop, service } = host;
    let _ = stop.send(());
    service.await.unwrap().unwrap();
    let account = handle.status().devices[0].account;
    println!("{failed} of {CALLS} calls failed; {account:?}");
    assert_eq!(account.charged_ns + account.platform_ns, account.measured_ns);
    assert_eq!(
        (account.charged_ns, meter.charged_ns()),
        (charged.load(Ordering::Relaxed), account.charged_ns)
    );
    assert!(account.reloads >= 20, "only {} restarts", account.reloads);
    // A death may take the entry that ran alone; whoever comes while the worker starts again may be told to come later.
    assert!(failed as usize * 5 <= CALLS, "{failed} failures of {} restarts", account.reloads);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_a_dying_worker_never_read_is_run_by_the_next_one() {
    let _turn = TURN.lock().await;
    let host = start(|options| options.quarantine_deaths = 1).await;
    let meter = Arc::new(ChargeMeter::default());
    let right = host.handle.compute(request(5, &meter)).await.unwrap();
    for _ in 0..3 {
        // It is idle and will read nothing more: the run lies in its socket when it dies.
        halt().await;
        let (handle, request) = (host.handle.clone(), request(5, &meter));
        let call = tokio::spawn(async move { handle.compute(request).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!call.is_finished());
        signal(rustix::process::Signal::KILL).await;
        assert_eq!(call.await.unwrap().unwrap().outputs, right.outputs);
    }
    let account = host.handle.status().devices[0].account;
    assert_eq!((account.losses, account.reloads), (0, 3), "{account:?}");
    assert_eq!(account.charged_ns + account.platform_ns, account.measured_ns);
    assert_eq!(account.charged_ns, meter.charged_ns());
    let _ = host.stop.send(());
    host.service.await.unwrap().unwrap();
}
