//! MiniLM's texts a second over the size of the batch, on the device that the argument names. Started by
//! `deploy/bench/gpu.sh`.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a bench ends where something is wrong")]

#[path = "bench_parts/device.rs"]
mod device;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use device::{Device, text};
use wasmeter_device::worker_main;
use wasmeter_inference::BatchEntry;

const TOKENS: u32 = 128;
const BATCHES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
const ROUNDS: usize = 3;
const TIME: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next().expect("the name of a device, such as cuda:0");
    if first == "device-worker" {
        return worker_main(arguments);
    }
    let name = first.to_str().expect("a device's name is text");
    let mut device = Device::with(name, "minilm");
    let mut rounds = vec![Vec::new(); BATCHES.len()];
    for _ in 0..ROUNDS {
        for (batch, rates) in BATCHES.iter().zip(&mut rounds) {
            rates.push(rate(&mut device, &vec![text(TOKENS); *batch]));
        }
    }
    println!(
        "minilm on {name}, {TOKENS} tokens a text; median (smallest to largest) of {ROUNDS} rounds in turn"
    );
    println!("batch  texts a second                    over batch 1  device busy");
    for (batch, seen) in BATCHES.iter().zip(&rounds) {
        let figure = |of: &dyn Fn(usize) -> f64| {
            let mut all: Vec<f64> = (0..ROUNDS).map(of).collect();
            all.sort_by(f64::total_cmp);
            (all[ROUNDS / 2], all[0], all[ROUNDS - 1])
        };
        let (median, least, most) = figure(&|round| seen[round].0);
        let over = figure(&|round| seen[round].0 / rounds[0][round].0).0;
        let busy = figure(&|round| seen[round].1).0;
        let range = format!("{median:.1} ({least:.1} to {most:.1})");
        println!("{batch:5}  {range:<32}  {over:12.2}  {busy:11.3}");
    }
    ExitCode::SUCCESS
}

/// Texts a second, and the device's busy time over the time that passed.
fn rate(device: &mut Device, entries: &[BatchEntry]) -> (f64, f64) {
    device.run(entries);
    let began = Instant::now();
    let (mut texts, mut busy_ns) = (0, 0);
    while began.elapsed() < TIME {
        busy_ns += device.run(entries);
        texts += entries.len();
    }
    let took = began.elapsed().as_secs_f64();
    (texts as f64 / took, busy_ns as f64 / 1e9 / took)
}
