//! What the batch former makes of a device of 2 ms a batch: mean batch, busy fraction, fair shares.
//! `deploy/bench/batching.sh` runs it and keeps what it prints.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use wasmeter_inference::{
    Account, BatchingOptions, ComputeRequest, DType, DeviceOptions, Engine, Handle, ModelKey, ModelSpec,
    NamedTensor, Options, Service, Tensor,
    mock::{MockBackend, MockOptions, MockSource, outputs},
};

const TENANTS: usize = 8;
const CALLERS: usize = 8;
const REPEATS: usize = 3;
const WARM: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(2);

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "mock device, 2 ms a batch; {TENANTS} tenants, {CALLERS} callers each unless said otherwise"
    )?;
    writeln!(out, "each figure: median (smallest to largest) of {REPEATS} runs of {MEASURED:?}\n")?;
    let calm = [CALLERS; TENANTS];
    let mut flood = calm;
    flood[0] = CALLERS * 50;
    let off = repeat(1, calm)?;
    row(&mut out, "batching off (the baseline)", &off, &off)?;
    let on = repeat(32, calm)?;
    row(&mut out, "max-batch 32", &on, &off)?;
    let flooded = repeat(32, flood)?;
    row(&mut out, "max-batch 32, one tenant with 50 times the callers", &flooded, &off)?;
    let small = repeat(8, flood)?;
    row(&mut out, "max-batch 8, one tenant with 50 times the callers", &small, &off)?;
    let lonely = repeat(1, flood)?;
    row(&mut out, "batching off, one tenant with 50 times the callers", &lonely, &off)
}

/// What one run showed.
#[derive(Clone, Copy)]
struct Seen {
    calls_per_second: f64,
    mean_batch: f64,
    busy: f64,
    /// The smallest tenant's calls over an equal share of all.
    least_share: f64,
    charged: f64,
}

fn repeat(max_batch: u32, callers: [usize; TENANTS]) -> io::Result<Vec<Seen>> {
    (0..REPEATS).map(|_| once(max_batch, callers)).collect()
}

fn row(out: &mut impl Write, name: &str, seen: &[Seen], baseline: &[Seen]) -> io::Result<()> {
    let figure = |of: fn(&Seen) -> f64| {
        let mut all: Vec<f64> = seen.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        (all[all.len() / 2], all[0], all[all.len() - 1])
    };
    writeln!(out, "{name}")?;
    let mut line = |what: &str, (median, least, most): (f64, f64, f64), digits: usize| {
        writeln!(out, "  {what:<34} {median:>9.digits$} ({least:.digits$} to {most:.digits$})")
    };
    line("calls a second", figure(|s| s.calls_per_second), 0)?;
    line("mean batch", figure(|s| s.mean_batch), 2)?;
    line("device busy", figure(|s| s.busy), 4)?;
    line("least share of a tenant (1 is fair)", figure(|s| s.least_share), 3)?;
    line("busy time that callers pay", figure(|s| s.charged), 4)?;
    let mut rates: Vec<f64> = baseline.iter().map(|s| s.calls_per_second).collect();
    rates.sort_by(f64::total_cmp);
    let ratio = figure(|s| s.calls_per_second).0 / rates[rates.len() / 2];
    writeln!(out, "  {:<34} {ratio:>9.2}\n", "calls over the baseline's")
}

fn once(max_batch: u32, callers: [usize; TENANTS]) -> io::Result<Seen> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(max_batch, callers))
}

async fn measure(max_batch: u32, callers: [usize; TENANTS]) -> io::Result<Seen> {
    let backend = MockBackend::new(MockOptions::default());
    let device = backend.device();
    let devices = vec![DeviceOptions { name: "mock:0".into(), backend: Box::new(backend) }];
    let service = Service::new(Options::new(devices, Arc::new(MockSource)));
    let handle = service.handle();
    let (stop, stopped) = oneshot::channel::<()>();
    let service = tokio::spawn(service.run(async {
        let _ = stopped.await;
    }));
    let batching = BatchingOptions { max_batch, ..BatchingOptions::default() };
    let key = ModelKey::operator("mock", 1);
    let spec = ModelSpec {
        key: key.clone(),
        device: "mock:0".into(),
        engine: Engine::Onnx,
        sha256: [0; 32],
        batching,
    };
    handle.load(spec).await.map_err(io::Error::other)?;

    let going = Arc::new(AtomicBool::new(true));
    let counts: [Arc<AtomicU64>; TENANTS] = Default::default();
    let mut tasks = Vec::new();
    for (tenant, (callers, count)) in callers.iter().zip(&counts).enumerate() {
        for caller in 0..*callers {
            let (handle, going, count, key) =
                (handle.clone(), Arc::clone(&going), Arc::clone(count), key.clone());
            tasks.push(tokio::spawn(async move {
                let seed = u8::try_from((tenant * 31 + caller) % 256).unwrap_or(0);
                while going.load(Ordering::Relaxed) {
                    call(&handle, &key, tenant, seed).await;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
    }
    sleep(WARM).await;
    let before = (snapshot(&handle), counts.each_ref().map(|c| c.load(Ordering::Relaxed)));
    let began = Instant::now();
    sleep(MEASURED).await;
    let after = (snapshot(&handle), counts.each_ref().map(|c| c.load(Ordering::Relaxed)));
    let took = began.elapsed().as_secs_f64();
    going.store(false, Ordering::Relaxed);
    for task in tasks {
        task.await?;
    }
    let _ = stop.send(());
    service.await??;
    let account = handle.status().devices[0].account;
    assert_eq!(account.busy_ns(), device.stats().busy_ns, "charged + platform = busy");

    let calls: Vec<f64> =
        after.1.iter().zip(before.1).map(|(after, before)| (after - before) as f64).collect();
    let all: f64 = calls.iter().sum();
    let part = |of: fn(&Account) -> u64| (of(&after.0) - of(&before.0)) as f64;
    Ok(Seen {
        calls_per_second: all / took,
        mean_batch: part(|a| a.computes) / part(|a| a.batches),
        busy: part(Account::busy_ns) / 1e9 / took,
        least_share: calls.iter().copied().fold(f64::INFINITY, f64::min) / (all / TENANTS as f64),
        charged: part(|a| a.charged_ns) / part(Account::busy_ns),
    })
}

fn snapshot(handle: &Handle) -> Account {
    handle.status().devices[0].account
}

/// One call, whose answer must be right.
async fn call(handle: &Handle, key: &ModelKey, tenant: usize, seed: u8) {
    let x: Vec<u8> = (0..64).map(|i: u8| i.wrapping_mul(seed)).collect();
    let tensor = Tensor::new(DType::U8, vec![1, 64], x).expect("64 bytes");
    let right = outputs(&tensor).expect("two dimensions");
    let request = ComputeRequest {
        tenant: format!("tenant-{tenant}"),
        model: key.clone(),
        inputs: vec![NamedTensor { name: "x".into(), tensor }],
        deadline: Instant::now() + Duration::from_secs(60),
        meter: None,
    };
    let computed = handle.compute(request).await.expect("the device does not fail");
    let got: Vec<_> = computed.outputs.into_iter().map(|output| output.tensor).collect();
    assert_eq!(got, right, "wrong answer");
}
