//! Worker and lane together: deaths, deadlines, and who pays.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod common;

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{Files, as_f32, device, f32s, i64s, key, long, options, spec};
use tokio::{sync::oneshot, task::JoinHandle};
use wasmeter_device::WorkerBackend;
use wasmeter_inference::{
    ChargeMeter, ComputeError, ComputeRequest, Computed, DeviceOptions, Handle, ModelError, NamedTensor,
    Options, Service, Tensor,
};

struct Host {
    handle: Handle,
    stop: oneshot::Sender<()>,
    service: JoinHandle<std::io::Result<()>>,
}

impl Host {
    async fn start(models: &[&str]) -> Self {
        let backend = Box::new(WorkerBackend::new(device(), options()));
        let devices = vec![DeviceOptions { name: device(), backend }];
        let service = Service::new(Options::new(devices, Arc::new(Files)));
        let handle = service.handle();
        let (stop, stopped) = oneshot::channel();
        let service = tokio::spawn(service.run(async {
            let _ = stopped.await;
        }));
        for model in models {
            handle.load(spec(model)).await.unwrap();
        }
        Self { handle, stop, service }
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        self.service.await.unwrap().unwrap();
    }

    async fn compute(&self, model: &str, inputs: Vec<(&str, Tensor)>) -> Result<Computed, ComputeError> {
        self.handle.compute(request(model, inputs, 30_000)).await
    }

    fn account(&self) -> wasmeter_inference::Account {
        self.handle.status().devices[0].account
    }
}

fn request(model: &str, inputs: Vec<(&str, Tensor)>, deadline_ms: u64) -> ComputeRequest {
    ComputeRequest {
        tenant: "dev".into(),
        model: key(model),
        inputs: inputs.into_iter().map(|(name, tensor)| NamedTensor { name: name.into(), tensor }).collect(),
        deadline: tokio::time::Instant::now() + Duration::from_millis(deadline_ms),
        meter: None,
    }
}

/// The only worker of this test process; nextest runs each test in a process of its own, and these tests
/// take turns otherwise.
fn worker_pid() -> Option<u32> {
    let own = std::process::id();
    let children = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit(')').next()?.split_whitespace();
        let (state, parent) = (fields.next()?, fields.next()?);
        (parent == own.to_string() && state != "Z").then_some(pid)
    });
    children.last()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test]
async fn a_compute_is_charged_its_busy_time() {
    let _turn = TURN.lock().await;
    let host = Host::start(&["sum", "slow"]).await;
    let inputs = vec![("b", f32s(&[1], [10.])), ("a", f32s(&[1, 3], [1., 2., 3.]))];
    let computed = host.compute("sum", inputs).await.unwrap();
    assert_eq!(computed.outputs[0].name, "sum");
    assert_eq!(as_f32(&computed.outputs[0].tensor), [11., 12., 13.]);
    assert_eq!(*computed.device, device());
    let error = host.compute("sum", vec![("a", f32s(&[1, 2], [1., 2.]))]).await.unwrap_err();
    assert_eq!(error.to_string(), r#"input "a" expects f32 [n, 3], got f32 [1, 2]"#);

    let before = host.account();
    let slow = host.compute("slow", vec![("n", i64s(&[1], [50]))]).await.unwrap();
    assert!(slow.charged_ns > 100_000);
    let after = host.account();
    assert_eq!(after.charged_ns - before.charged_ns, slow.charged_ns);
    assert_eq!(after.busy_ns(), after.charged_ns + after.platform_ns);
    assert_eq!(after.computes, 2);
    host.stop().await;
}

#[tokio::test]
async fn a_killed_worker_costs_the_caller_nothing_and_the_next_call_works() {
    let _turn = TURN.lock().await;
    let host = Host::start(&["slow", "sum"]).await;
    let meter = Arc::new(ChargeMeter::default());
    let doomed = tokio::spawn({
        let (handle, meter) = (host.handle.clone(), Arc::clone(&meter));
        async move {
            let request =
                ComputeRequest { meter: Some(meter), ..request("slow", vec![("n", long())], 60_000) };
            handle.compute(request).await
        }
    });
    let pid = worker_pid().unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    kill(pid);
    let error = doomed.await.unwrap().unwrap_err();
    assert!(matches!(&error, ComputeError::DeviceLost { .. }), "{error:?}");
    assert!(error.to_string().contains("killed by signal 9"), "{error}");
    assert_eq!((meter.charged_ns(), meter.computes()), (0, 0));
    let account = host.account();
    assert_eq!((account.losses, account.charged_ns), (1, 0));
    assert!(account.platform_ns > 150_000_000, "the lost run is the platform's: {account:?}");

    let next = host.compute("slow", vec![("n", i64s(&[1], [5]))]).await.unwrap();
    assert!(next.charged_ns > 0);
    let other = host.compute("sum", vec![("a", f32s(&[1, 3], [0.; 3])), ("b", f32s(&[1], [1.]))]).await;
    other.unwrap();
    assert_eq!(host.account().reloads, 2);
    host.stop().await;
}

#[tokio::test]
async fn an_idle_death_is_not_noticed_by_callers() {
    let _turn = TURN.lock().await;
    let host = Host::start(&["slow"]).await;
    let pid = worker_pid().unwrap();
    kill(pid);
    while fs::exists(format!("/proc/{pid}")).unwrap() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    host.compute("slow", vec![("n", i64s(&[1], [1]))]).await.unwrap();
    assert_eq!(host.account().losses, 0);
    host.stop().await;
}

#[tokio::test]
async fn the_second_death_quarantines_until_the_model_is_loaded_again() {
    let _turn = TURN.lock().await;
    let host = Host::start(&["slow", "sum"]).await;
    for _ in 0..2 {
        let doomed = tokio::spawn({
            let handle = host.handle.clone();
            async move { handle.compute(request("slow", vec![("n", long())], 60_000)).await }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        kill(worker_pid().unwrap());
        doomed.await.unwrap().unwrap_err();
    }
    let error = host.compute("slow", vec![("n", i64s(&[1], [1]))]).await.unwrap_err();
    assert!(
        matches!(&error, ComputeError::Quarantined(ModelError::Quarantined { deaths: 2, .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("slow version 1 is quarantined"), "{error}");
    let other = host.compute("sum", vec![("a", f32s(&[1, 3], [0.; 3])), ("b", f32s(&[1], [1.]))]).await;
    other.unwrap();
    host.handle.load(spec("slow")).await.unwrap();
    host.compute("slow", vec![("n", i64s(&[1], [1]))]).await.unwrap();
    host.stop().await;
}

#[tokio::test]
async fn a_deadline_ends_the_run_and_is_charged_until_then() {
    let _turn = TURN.lock().await;
    let host = Host::start(&["slow"]).await;
    let pid = worker_pid().unwrap();
    let meter = Arc::new(ChargeMeter::default());
    let request =
        ComputeRequest { meter: Some(Arc::clone(&meter)), ..request("slow", vec![("n", long())], 200) };
    let began = Instant::now();
    let error = host.handle.compute(request).await.unwrap_err();
    let took = began.elapsed();
    let ComputeError::Deadline { charged_ns } = error else { panic!("{error:?}") };
    assert!(took < Duration::from_secs(3), "answered after {took:?}");
    // Certainly something, and no more than two threads could do.
    let most = 2 * u64::try_from(took.as_nanos()).unwrap();
    assert!(charged_ns > 1_000_000 && charged_ns < most, "{charged_ns} of {most}");
    assert_eq!(meter.charged_ns(), charged_ns);
    let until = Instant::now() + Duration::from_secs(5);
    while fs::exists(format!("/proc/{pid}")).unwrap() {
        assert!(Instant::now() < until, "the run goes on after its deadline");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // A fast caller with a short patience does not quarantine the model.
    for _ in 0..2 {
        host.compute("slow", vec![("n", i64s(&[1], [1]))]).await.unwrap();
        let request = self::request("slow", vec![("n", long())], 100);
        assert!(matches!(host.handle.compute(request).await, Err(ComputeError::Deadline { .. })));
    }
    host.compute("slow", vec![("n", i64s(&[1], [1]))]).await.unwrap();
    assert_eq!(host.account().losses, 3);
    host.stop().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_is_charged_until_it_went() {
    let _turn = TURN.lock().await;
    let host = Host::start(&["slow"]).await;
    let meter = Arc::new(ChargeMeter::default());
    let request = ComputeRequest {
        meter: Some(Arc::clone(&meter)),
        ..request("slow", vec![("n", i64s(&[], [2_000]))], 30_000)
    };
    let gone = tokio::time::timeout(Duration::from_millis(150), host.handle.compute(request)).await;
    assert!(gone.is_err());
    let charged = meter.charged_ns();
    assert!(charged > 0);
    // The next one waits for the first to end.
    let next = host.compute("slow", vec![("n", i64s(&[], [1]))]).await.unwrap();
    let account = host.account();
    assert_eq!(account.charged_ns, charged + next.charged_ns);
    assert_eq!(account.losses, 0);
    host.stop().await;
}

#[tokio::test]
async fn shutdown_ends_a_run_that_does_not_end() {
    let _turn = TURN.lock().await;
    let backend = Box::new(WorkerBackend::new(device(), options()));
    let mut options = Options::new(vec![DeviceOptions { name: device(), backend }], Arc::new(Files));
    options.drain_timeout = Duration::from_millis(100);
    let service = Service::new(options);
    let handle = service.handle();
    let (stop, stopped) = oneshot::channel::<()>();
    let service = tokio::spawn(service.run(async {
        let _ = stopped.await;
    }));
    handle.load(spec("slow")).await.unwrap();
    let run = tokio::spawn({
        let handle = handle.clone();
        async move { handle.compute(request("slow", vec![("n", long())], 60_000)).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    drop(stop);
    service.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(matches!(run.await.unwrap(), Err(ComputeError::DeviceLost { .. })));
    assert_eq!(worker_pid(), None);
    let refused = handle.compute(request("slow", vec![("n", i64s(&[], [1]))], 1000)).await.unwrap_err();
    assert_eq!(refused, ComputeError::Draining);
}
