//! Batching, padding and a dying device, through the public API and on the clock.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout},
};
use wasmeter_inference::{
    Account, BatchingOptions, ChargeMeter, ComputeError, ComputeRequest, Computed, DType, DeviceOptions,
    Engine, Handle, ModelKey, ModelSpec, NamedTensor, Options, Pad, Service, Tensor,
    mock::{MockBackend, MockDevice, MockOptions, MockOutcome, MockSource, outputs},
};

struct Host {
    handle: Handle,
    device: Arc<MockDevice>,
    stop: oneshot::Sender<()>,
    service: JoinHandle<std::io::Result<()>>,
}

fn key() -> ModelKey {
    ModelKey::operator("mock", 1)
}

impl Host {
    async fn start(backend: MockBackend, batching: BatchingOptions) -> Self {
        let device = backend.device();
        let devices = vec![DeviceOptions { name: "mock:0".into(), backend: Box::new(backend) }];
        let mut options = Options::new(devices, Arc::new(MockSource));
        options.quarantine_deaths = u32::MAX;
        let service = Service::new(options);
        let handle = service.handle();
        let (stop, stopped) = oneshot::channel::<()>();
        let service = tokio::spawn(service.run(async {
            let _ = stopped.await;
        }));
        let (device_name, sha256) = ("mock:0".to_owned(), [0; 32]);
        let spec = ModelSpec { key: key(), device: device_name, engine: Engine::Onnx, sha256, batching };
        handle.load(spec).await.unwrap();
        Self { handle, device, stop, service }
    }

    /// Ends the service, after which the account must add up to the nanosecond.
    async fn stop(self) -> Account {
        let _ = self.stop.send(());
        self.service.await.unwrap().unwrap();
        let account = self.handle.status().devices[0].account;
        assert_eq!(account.busy_ns(), account.measured_ns);
        account
    }
}

async fn call(
    handle: &Handle,
    tenant: usize,
    dims: [u32; 2],
    seed: u32,
    meter: Option<Arc<ChargeMeter>>,
) -> Result<Computed, ComputeError> {
    let bytes: Vec<u8> = (0..dims[0] * dims[1]).map(|i| (i.wrapping_mul(seed | 1) % 251) as u8).collect();
    let tensor = Tensor::new(DType::U8, dims.to_vec(), bytes).unwrap();
    let right = outputs(&tensor).unwrap();
    let request = ComputeRequest {
        tenant: format!("tenant-{tenant}"),
        model: key(),
        inputs: vec![NamedTensor { name: "x".into(), tensor }],
        deadline: Instant::now() + Duration::from_secs(30),
        meter,
    };
    let computed = handle.compute(request).await?;
    let got: Vec<_> = computed.outputs.iter().map(|output| output.tensor.clone()).collect();
    assert_eq!(got, right, "wrong answer");
    Ok(computed)
}

/// The device dies in one of 20 runs, the engine fails in one of 30, and some callers leave: no wrong answer, no
/// hung call, no nanosecond lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_on_a_device_that_keeps_dying() {
    const CALLERS: u32 = 64;
    const CALLS: u32 = 10_000;
    let mut seed = 1u32;
    let script = move |_: &wasmeter_inference::Batch<'_>| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match seed >> 16 {
            die if die % 20 == 0 => MockOutcome::Lost,
            fail if fail % 30 == 1 => MockOutcome::Engine,
            gone if gone % 30 == 2 => MockOutcome::Died,
            _ => MockOutcome::Outputs,
        }
    };
    let options = MockOptions { batch: Duration::from_micros(500), ..MockOptions::default() };
    let backend = MockBackend::scripted(options, script);
    let host = Host::start(backend, BatchingOptions { max_batch: 16, ..BatchingOptions::default() }).await;
    let mut tasks = Vec::new();
    for caller in 0..CALLERS {
        let handle = host.handle.clone();
        tasks.push(tokio::spawn(async move {
            let meter = Arc::new(ChargeMeter::default());
            let (mut right, mut failed, mut told) = (0u32, 0u32, 0u64);
            for round in 0..CALLS.div_ceil(CALLERS) {
                let own = Some(Arc::clone(&meter));
                let call = call(&handle, caller as usize % 8, [1 + round % 2, 8], caller + round, own);
                if round % 50 == 49 {
                    // Gives up early; what it pays then is fixed in the meter only.
                    let before = meter.charged_ns();
                    let _ = timeout(Duration::from_millis(1), call).await;
                    told += meter.charged_ns() - before;
                    continue;
                }
                match timeout(Duration::from_secs(20), call).await.expect("hung call") {
                    Ok(computed) => {
                        right += 1;
                        told += computed.charged_ns;
                    }
                    Err(ComputeError::DeviceLost { .. } | ComputeError::Engine(_)) => failed += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            assert_eq!(told, meter.charged_ns());
            (right, failed, meter.charged_ns())
        }));
    }
    let (mut right, mut failed, mut charged_ns) = (0, 0, 0);
    for task in tasks {
        let (r, f, ns) = task.await.unwrap();
        (right, failed, charged_ns) = (right + r, failed + f, charged_ns + ns);
    }
    let stats = host.device.stats();
    let account = host.stop().await;
    println!("{right} right, {failed} failed, {account:?}, {stats:?}");
    assert!(right > CALLS * 8 / 10 && stats.deaths > 20 && account.retries > 20);
    assert!(account.computes > 2 * account.batches, "no batches formed");
    assert!(stats.most_rows <= 16);
    assert_eq!(account.charged_ns, charged_ns);
    assert!(account.busy_ns() >= stats.busy_ns);
}

/// Entries of all widths share batches, get what they would get alone, and pay no more than alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn padded_entries_get_their_own_answers() {
    let options = MockOptions { batch: Duration::from_millis(1), real: false, ..MockOptions::default() };
    let alone = u64::try_from(options.batch.as_nanos()).unwrap();
    // Busy time is what the device says, but the clock must run for batches to form.
    let script = |_: &wasmeter_inference::Batch<'_>| {
        std::thread::sleep(Duration::from_micros(500));
        MockOutcome::Outputs
    };
    let pad = Some(Pad { dimension: "sequence".into(), to: vec![8, 16] });
    let batching = BatchingOptions { max_batch: 8, pad, ..BatchingOptions::default() };
    let host = Host::start(MockBackend::scripted(options, script), batching).await;
    let mut tasks = Vec::new();
    for caller in 0..32u32 {
        let handle = host.handle.clone();
        tasks.push(tokio::spawn(async move {
            for round in 0..40 {
                // 17 is beyond the last size and stays as it is.
                let width = 1 + (caller * 7 + round) % 17;
                let computed = call(&handle, caller as usize % 4, [1, width], round, None).await.unwrap();
                assert!(computed.charged_ns <= alone, "{} > {alone}", computed.charged_ns);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let stats = host.device.stats();
    let account = host.stop().await;
    println!("{account:?}, {stats:?}");
    assert_eq!(account.computes, 32 * 40);
    assert_eq!(account.busy_ns(), stats.busy_ns);
    assert!(account.computes > 2 * account.batches, "no batches formed");
    assert!(account.platform_ns > wasmeter_inference::mock::LOAD_NS, "padding is the platform's");
}
