//! What counting fuel costs compiled code, kernel by kernel: the same module and the same engine, with fuel off, with fuel
//! as the host has it (counted, and a yield every million units), and with epochs beside it. `deploy/bench/fuel.sh` runs
//! it. Arguments: the kernels' module, rounds.
#![allow(clippy::unwrap_used, reason = "a bench ends where something is wrong")]

use std::time::{Duration, Instant};

use wasmeter_runtime::InvokerOptions;
use wasmtime::{Config, Engine, Instance, Module, OperatorCost, Store};

/// The kernels, and what one unit of their argument is.
const KERNELS: [(&str, u32, &str); 4] = [
    ("sha256", 40, "64 KiB hashed"),
    ("json", 40, "1000 texts of 150 bytes read"),
    ("copy", 10, "50 MiB copied by memory.copy"),
    ("matmul", 20, "128 x 128 f32 matrices multiplied"),
];

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Off,
    Fuel,
    FuelAndEpochs,
}

fn engine(way: Way) -> Engine {
    let mut config = Config::new();
    if way != Way::Off {
        let mut cost = OperatorCost::default();
        cost.variable.memory_grow_per_page = u8::MAX;
        config.consume_fuel(true).operator_cost(cost);
    }
    config.epoch_interruption(way == Way::FuelAndEpochs);
    config.max_wasm_stack(512 << 10).async_stack_size(1 << 20).concurrency_support(false);
    Engine::new(&config).unwrap()
}

struct Run {
    time: Duration,
    answer: u32,
    fuel: u64,
}

async fn run(module: &Module, way: Way, kernel: &str, n: u32) -> Run {
    let mut store = Store::new(module.engine(), ());
    if way != Way::Off {
        store.set_fuel(u64::MAX).unwrap();
        store.fuel_async_yield_interval(Some(InvokerOptions::default().yield_interval)).unwrap();
    }
    if way == Way::FuelAndEpochs {
        store.set_epoch_deadline(1 << 40);
    }
    let instance = Instance::new_async(&mut store, module, &[]).await.unwrap();
    let function = instance.get_typed_func::<u32, u32>(&mut store, kernel).unwrap();
    // Pages are touched and code is read once before.
    function.call_async(&mut store, 1).await.unwrap();
    let before = store.get_fuel().unwrap_or(0);
    let begun = Instant::now();
    let answer = function.call_async(&mut store, n).await.unwrap();
    Run { time: begun.elapsed(), answer, fuel: before - store.get_fuel().unwrap_or(0) }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let wasm = std::fs::read(arguments.next().expect("the kernels' module")).unwrap();
    let rounds: usize = arguments.next().expect("rounds").parse().unwrap();
    let ways = [Way::Off, Way::Fuel, Way::FuelAndEpochs];
    let modules = ways.map(|way| Module::new(&engine(way), &wasm).unwrap());
    println!(
        "{:<8} {:>9} {:>20} {:>20} {:>10}  one unit",
        "kernel", "off ms", "fuel / off", "with epochs / off", "G fuel/s"
    );
    for (kernel, n, unit) in KERNELS {
        let mut off = Vec::new();
        let (mut fuel, mut both) = (Vec::new(), Vec::new());
        let mut speed = 0.0;
        for _ in 0..rounds {
            let mut runs = Vec::new();
            for (module, way) in modules.iter().zip(ways) {
                runs.push(run(module, way, kernel, n).await);
            }
            assert!(runs.iter().all(|r| r.answer == runs[0].answer), "{kernel}: answers differ");
            let time = |i: usize| runs[i].time.as_secs_f64();
            off.push(time(0) * 1e3 / f64::from(n));
            fuel.push(time(1) / time(0));
            both.push(time(2) / time(0));
            speed = runs[1].fuel as f64 / time(1) / 1e9;
        }
        println!(
            "{kernel:<8} {:>9.3} {:>20} {:>20} {speed:>10.1}  {unit}",
            middle(&off),
            spread(&fuel),
            spread(&both)
        );
    }
}

fn middle(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Median, least and most.
fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    format!("{:.2} ({least:.2}-{most:.2})", middle(values))
}
