//! Several entries in one run: the same answers as alone, bit for bit or within a named tolerance.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod common;

use common::{as_f32, backend, f32s, i64s, key, load, load_openvino, openvino};
use wasmeter_device::WorkerBackend;
use wasmeter_inference::{Backend, Batch, BatchEntry, Batching, DType, Tensor};

fn batch(backend: &mut WorkerBackend, name: &str, entries: &[Vec<Tensor>]) -> Vec<Vec<Tensor>> {
    let entry = |(index, inputs): (usize, &Vec<Tensor>)| BatchEntry {
        tenant: format!("tenant-{}", index % 3),
        inputs: inputs.clone(),
    };
    let entries: Vec<_> = entries.iter().enumerate().map(entry).collect();
    backend.run(Batch { run: 1, model: &key(name), entries: &entries }).unwrap().entries
}

/// The largest difference of an answer in any batch from the answer alone, relative to the largest value of the answer.
/// An engine may choose other matrix kernels for other numbers of rows, and these add in another order; 0 is bit for bit.
struct Tolerance {
    onnx: f32,
    openvino: f32,
}

/// Answers alone against answers in batches of all sizes up to `most`, by both engines.
fn alike(name: &str, most: usize, tolerance: &Tolerance, entry: impl Fn(usize) -> Vec<Tensor>) {
    let (mut onnx, mut vino) = (backend(), openvino());
    assert_eq!(load(&mut onnx, name).unwrap().batching, Batching::Rows, "{name}");
    assert_eq!(load_openvino(&mut vino, name).unwrap().batching, Batching::Rows, "{name}");
    let entries: Vec<Vec<Tensor>> = (0..most).map(entry).collect();
    for (engine, mut backend, tolerance) in
        [("onnx", onnx, tolerance.onnx), ("openvino", vino, tolerance.openvino)]
    {
        let worst = difference(&mut backend, name, &entries);
        println!("{name} on {engine}: worst relative difference {worst:e} in batches up to {most}");
        assert!(worst <= tolerance, "{name} on {engine}: {worst:e}, {tolerance:e} is allowed");
    }
}

fn difference(backend: &mut WorkerBackend, name: &str, entries: &[Vec<Tensor>]) -> f32 {
    let alone: Vec<_> =
        entries.iter().map(|own| batch(backend, name, std::slice::from_ref(own)).remove(0)).collect();
    let mut worst = 0f32;
    for size in 2..=entries.len() {
        for from in (0..=entries.len() - size).step_by(size.max(3)) {
            let together = batch(backend, name, &entries[from..from + size]);
            for (outputs, expected) in together.iter().zip(&alone[from..]) {
                assert_eq!(outputs.len(), expected.len());
                for (output, expected) in outputs.iter().zip(expected) {
                    worst = worst.max(apart(output, expected));
                }
            }
        }
    }
    worst
}

fn apart(output: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(output.dims(), expected.dims());
    let (a, b) = (as_f32(output), as_f32(expected));
    let scale = b.iter().fold(0f32, |most, value| most.max(value.abs()));
    let apart = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    apart / scale.max(f32::MIN_POSITIVE)
}

fn noise(seed: usize, len: usize) -> impl Iterator<Item = f32> {
    let mut state = (seed as u32).wrapping_mul(2_654_435_761) | 1;
    (0..len).map(move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    })
}

// `ocr-rec` and `silero-vad` are not among these: the gate finds that their rows cannot be batched.

#[test]
fn efficientnet_answers_alike_in_every_batch() {
    let tolerance = Tolerance { onnx: 0., openvino: 0. };
    let image = |seed| vec![f32s(&[1, 3, 224, 224], noise(seed, 3 * 224 * 224))];
    alike("efficientnet-lite0", 5, &tolerance, image);
}

#[test]
fn mlp_answers_alike_in_every_batch() {
    // Entries of several rows too.
    alike("mlp", 20, &Tolerance { onnx: 0., openvino: 0. }, |seed| {
        let rows = u32::try_from(seed % 3 + 1).unwrap();
        vec![f32s(&[rows, 784], noise(seed, 784 * rows as usize))]
    });
}

#[test]
fn magika_answers_alike_in_every_batch() {
    // Seen on x86-64 with AVX-512: 2.6e-7.
    alike("magika", 8, &Tolerance { onnx: 1e-6, openvino: 0. }, |seed| {
        let bytes: Vec<u8> = (0..2048usize)
            .flat_map(|i| u32::try_from((i * (seed + 3) * 7) % 257).unwrap().to_le_bytes())
            .collect();
        vec![Tensor::new(DType::I32, vec![1, 2048], bytes).unwrap()]
    });
}

#[test]
fn minilm_answers_alike_in_every_batch() {
    // Seen on AMD EPYC: 4.9e-7; on Intel with AVX-512 nothing.
    alike("minilm", 6, &Tolerance { onnx: 0., openvino: 1e-6 }, |seed| {
        let seed = i64::try_from(seed).unwrap();
        let ids = (0..16).map(|i| 1000 + (i * 37 + seed * 101) % 20_000);
        let mask = (0..16).map(|i| i64::from(i < 16 - seed));
        vec![i64s(&[1, 16], ids), i64s(&[1, 16], mask), i64s(&[1, 16], [0; 16])]
    });
}

#[test]
fn a_scale_over_the_batch_would_couple_rows() {
    let mut backend = backend();
    let Batching::Off(reason) = load(&mut backend, "quantised").unwrap().batching else { panic!("batched") };
    assert!(reason.contains("DynamicQuantizeLinear") && reason.contains("whole batch"), "{reason}");
    // Such entries run one after the other and get the answers that they get alone.
    let entries = [vec![f32s(&[1, 4], [0.1, 0.2, 0.3, 0.4])], vec![f32s(&[1, 4], [100., 2., -3., 40.])]];
    let alone = entries.clone().map(|entry| batch(&mut backend, "quantised", &[entry]).remove(0));
    assert_eq!(batch(&mut backend, "quantised", &entries), alone);
    // The gate is right: laid together by hand, the first row's answer changes.
    let both = f32s(&[2, 4], [0.1, 0.2, 0.3, 0.4, 100., 2., -3., 40.]);
    let together = batch(&mut backend, "quantised", &[vec![both]]).remove(0);
    assert_ne!(as_f32(&together[0])[..2], as_f32(&alone[0][0])[..]);
}

#[test]
fn entries_that_do_not_fit_together_run_apart() {
    let mut backend = backend();
    load(&mut backend, "identity-f32").unwrap();
    let entries = [
        vec![f32s(&[2, 2], [1., 2., 3., 4.])],
        vec![f32s(&[0, 2], [])],
        vec![f32s(&[1, 2], [f32::NAN, f32::INFINITY])],
    ];
    let answers = batch(&mut backend, "identity-f32", &entries);
    assert_eq!(answers[0], entries[0]);
    assert_eq!(answers[1][0].dims(), [0, 2]);
    // NaN passes through.
    assert_eq!(answers[2][0].data(), entries[2][0].data());
}
