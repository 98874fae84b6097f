//! OpenVINO against ONNX Runtime: the same files, one row a run, each through its worker, in turn. Started by
//! `deploy/bench/engines.sh`.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a bench ends where something is wrong")]

#[path = "bench_parts/device.rs"]
mod device;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use device::{Device, text};
use wasmeter_device::worker_main;
use wasmeter_inference::{BatchEntry, DType, Tensor};

const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "device-worker") {
        return worker_main(arguments);
    }
    println!(
        "one row a run, through a worker; ms, the median run of the median (smallest to largest) of {ROUNDS} rounds"
    );
    for (model, entry) in [("efficientnet-lite0", image()), ("minilm", text(128))] {
        let mut onnx = Device::with("cpu:0", model);
        let mut openvino = Device::with("openvino:CPU", model);
        let rounds: Vec<[Run; 2]> =
            (0..ROUNDS).map(|_| [median(&mut onnx, &entry), median(&mut openvino, &entry)]).collect();
        println!("\n{model}");
        let line = |what: &str, of: &dyn Fn(&[Run; 2]) -> f64| {
            let mut all: Vec<f64> = rounds.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            println!("  {what:<32} {:>8.2} ({:.2} to {:.2})", all[ROUNDS / 2], all[0], all[ROUNDS - 1]);
        };
        line("ONNX Runtime (the baseline)", &|r| r[0].wall);
        line("  billed", &|r| r[0].busy);
        line("OpenVINO", &|r| r[1].wall);
        line("  billed", &|r| r[1].busy);
        line("OpenVINO over the baseline", &|r| r[1].wall / r[0].wall);
    }
    ExitCode::SUCCESS
}

fn image() -> BatchEntry {
    let values = (0..3 * 224 * 224u32).flat_map(|i| ((i % 255) as f32 / 127. - 1.).to_le_bytes());
    let tensor = Tensor::new(DType::F32, vec![1, 3, 224, 224], values.collect::<Vec<u8>>()).unwrap();
    BatchEntry { tenant: "bench".into(), inputs: vec![tensor] }
}

/// Milliseconds.
struct Run {
    wall: f64,
    busy: f64,
}

fn median(device: &mut Device, entry: &BatchEntry) -> Run {
    let entries = std::slice::from_ref(entry);
    device.run(entries);
    let until = Instant::now() + TIME;
    let mut runs = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        let busy = device.run(entries) as f64 / 1e6;
        runs.push(Run { wall: began.elapsed().as_secs_f64() * 1e3, busy });
    }
    runs.sort_by(|a, b| a.wall.total_cmp(&b.wall));
    let middle = runs.len() / 2;
    runs.swap_remove(middle)
}
