//! The batch former under HTTP: functions of 8 tenants call the model of a mock device, 2 ms a batch. The device sleeps,
//! so what is short is the processor, which host and callers share. Started by `deploy/bench/batching.sh`.

#[path = "bench_parts/figures.rs"]
mod figures;
#[path = "bench_parts/load.rs"]
mod load;
#[path = "bench_parts/mock_host.rs"]
mod mock_host;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use figures::Figure;
use load::{Caller, Load};
use mock_host::MockHost;
use wasmeter_inference::Account;

const TENANTS: usize = 8;
const CONNECTIONS: usize = 8;
const FLOOD: usize = 50;
const ROUNDS: usize = 3;
const WARM: Duration = Duration::from_secs(1);
const MEASURE: Duration = Duration::from_secs(3);

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    if std::env::args().nth(1).is_some_and(|first| first == "compile") {
        // Before any thread starts: the child confines itself.
        return Ok(wasmeter_runtime::compile_main());
    }
    let serving = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let calling = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tenants: Vec<String> = (0..TENANTS).map(|tenant| format!("tenant-{tenant}")).collect();
    let component = wasmeter_testkit::component("bench-nn");
    let start = |max_batch| serving.block_on(MockHost::start(&tenants, max_batch, &component));
    let (off, middle, large) = (start(1)?, start(16)?, start(32)?);
    let calm = [CONNECTIONS; TENANTS];
    let mut flood = calm;
    flood[0] *= FLOOD;
    let rows = [
        ("batching off (the baseline)", &off, calm),
        ("max-batch 16", &middle, calm),
        ("max-batch 32", &large, calm),
        ("batching off, one tenant with 50 times the connections", &off, flood),
        ("max-batch 16, one tenant with 50 times the connections", &middle, flood),
        ("max-batch 32, one tenant with 50 times the connections", &large, flood),
    ];
    let mut seen = vec![Vec::new(); rows.len()];
    for _ in 0..ROUNDS {
        for ((_, host, connections), seen) in rows.iter().zip(&mut seen) {
            seen.push(calling.block_on(measure(host, connections))?);
        }
    }
    println!(
        "functions over HTTP, mock device, 2 ms a batch; {TENANTS} tenants, {CONNECTIONS} connections each unless said otherwise"
    );
    println!("each figure: median (smallest to largest) of {ROUNDS} rounds of {MEASURE:?}, the rows in turn");
    for ((name, _, _), own) in rows.iter().zip(&seen) {
        println!("\n{name}");
        let line = |what: &str, digits, of: fn(&Seen) -> f64| {
            println!("  {what:<40} {}", Figure::of(own.iter().map(of), digits));
        };
        line("calls a second", 0, |s| s.rate);
        line("mean batch", 2, |s| s.batch);
        line("device busy", 4, |s| s.busy);
        line("least share of a tenant (1 is fair)", 3, |s| s.least);
        line("busy time that callers pay", 4, |s| s.charged);
        let ratios = own.iter().zip(&seen[0]).map(|(own, base)| own.rate / base.rate);
        println!("  {:<40} {}", "calls over the baseline's", Figure::of(ratios, 2));
    }
    // The hosts hold threads that sleep for ever.
    std::process::exit(0)
}

#[derive(Clone, Copy)]
struct Seen {
    rate: f64,
    batch: f64,
    busy: f64,
    /// The calls of the tenant with the fewest over an equal share of all.
    least: f64,
    charged: f64,
}

async fn measure(host: &MockHost, connections: &[usize; TENANTS]) -> anyhow::Result<Seen> {
    let callers = connections.iter().enumerate();
    let callers = callers.flat_map(|(tenant, n)| (0..*n).map(move |own| caller(tenant, own))).collect();
    let load = Load::start(host.address, callers);
    tokio::time::sleep(WARM).await;
    let (began, before, calls) = (Instant::now(), host.account()?, load.counts());
    tokio::time::sleep(MEASURE).await;
    let (took, after, now) = (began.elapsed().as_secs_f64(), host.account()?, load.counts());
    load.stop().await?;
    let mut counts = now.iter().zip(&calls).map(|(now, before)| now - before);
    let tenants = connections.map(|n| counts.by_ref().take(n).sum::<u64>() as f64);
    let all: f64 = tenants.iter().sum();
    let part = |of: fn(&Account) -> u64| (of(&after) - of(&before)) as f64;
    Ok(Seen {
        rate: all / took,
        batch: part(|a| a.computes) / part(|a| a.batches),
        busy: part(Account::busy_ns) / 1e9 / took,
        least: tenants.iter().copied().fold(f64::INFINITY, f64::min) / (all / TENANTS as f64),
        charged: part(|a| a.charged_ns) / part(Account::busy_ns),
    })
}

/// Sends 64 bytes and knows what the model makes of them.
fn caller(tenant: usize, own: usize) -> Caller {
    let seed = u8::try_from((tenant * 31 + own) % 256).unwrap_or(0);
    let x: Vec<u8> = (0..64u8).map(|i| i.wrapping_mul(seed)).collect();
    let mut right: Vec<u8> = x.iter().map(|byte| byte.wrapping_mul(3).wrapping_add(1)).collect();
    right.extend(x.iter().map(|byte| i64::from(*byte)).sum::<i64>().to_le_bytes());
    Caller {
        path: format!("/fn/tenant-{tenant}/bench-nn/mock"),
        token: None,
        body: x.into(),
        right: Arc::new(move |answer| answer == right),
    }
}
