//! How fast both engines answer, one after the other in one run. No timed test: it prints, and is run by hand:
//! `cargo test --release -p wasmeter-device --test speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod common;

use std::time::{Duration, Instant};

use common::{backend, f32s, i64s, load, load_openvino, openvino, outputs, run};
use wasmeter_device::WorkerBackend;
use wasmeter_inference::Tensor;

/// Median of a call in the worker, and of its processor time.
fn median(backend: &mut WorkerBackend, model: &str, inputs: &[Tensor]) -> (Duration, Duration) {
    outputs(backend, model, inputs.to_vec());
    let until = Instant::now() + Duration::from_secs(3);
    let mut times = Vec::new();
    while Instant::now() < until {
        let before = Instant::now();
        let busy_ns = run(backend, model, "dev", inputs.to_vec()).unwrap().busy_ns;
        times.push((before.elapsed(), Duration::from_nanos(busy_ns)));
    }
    times.sort();
    times[times.len() / 2]
}

#[test]
#[ignore = "prints figures"]
fn both_engines_at_batch_1() {
    let image = f32s(&[1, 3, 224, 224], (0..3 * 224 * 224).map(|i| (i % 255) as f32 / 127. - 1.));
    let tokens = || i64s(&[1, 128], (0..128).map(|i| 1000 + i * 7));
    let ones = i64s(&[1, 128], [1; 128]);
    let zeros = i64s(&[1, 128], [0; 128]);
    for (model, inputs) in
        [("efficientnet-lite0", vec![image]), ("minilm", vec![tokens(), ones.clone(), zeros.clone()])]
    {
        let (mut onnx, mut openvino) = (backend(), openvino());
        load(&mut onnx, model).unwrap();
        load_openvino(&mut openvino, model).unwrap();
        for turn in 1..=2 {
            let (a, a_busy) = median(&mut onnx, model, &inputs);
            let (b, b_busy) = median(&mut openvino, model, &inputs);
            println!(
                "{model}, turn {turn}: ONNX Runtime {a:?} ({a_busy:?} busy), OpenVINO {b:?} ({b_busy:?} busy), ratio {:.2}",
                a.as_secs_f64() / b.as_secs_f64()
            );
        }
    }
}
