//! Both engines on real models against what Python's ONNX Runtime answers: `deploy/models/golden.py` makes the files
//! and checks them. Nothing is skipped: a missing library or model is a failure.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod common;

use common::{as_f32, backend, f32s, i64s, load, load_openvino, openvino, outputs};
use serde_json::Value;
use wasmeter_device::WorkerBackend;
use wasmeter_inference::Tensor;

/// The largest difference of an answer from Python's, absolute. ONNX Runtime is the same library, but with other
/// threads; OpenVINO adds in another order. Its own bf16 would be off by 0.04 on `ocr-rec`.
struct Tolerance {
    onnx: f32,
    openvino: f32,
}

/// Both engines with a model loaded, and what they may differ by.
fn engines(model: &str, tolerance: &Tolerance) -> [(&'static str, WorkerBackend, f32); 2] {
    let (mut onnx, mut openvino) = (backend(), openvino());
    let one = load(&mut onnx, model).unwrap();
    let other = load_openvino(&mut openvino, model).unwrap();
    assert_eq!(one.batching, other.batching);
    let inputs = |signature: &wasmeter_inference::Signature| {
        signature.inputs.iter().map(|port| (port.name.clone(), port.dtype, port.shape())).collect::<Vec<_>>()
    };
    assert_eq!(inputs(&one.signature), inputs(&other.signature), "{model}: both engines take the same");
    let names = |signature: &wasmeter_inference::Signature| {
        signature.outputs.iter().map(|port| (port.name.clone(), port.dtype)).collect::<Vec<_>>()
    };
    assert_eq!(names(&one.signature), names(&other.signature), "{model}: both engines give the same");
    [("onnx", onnx, tolerance.onnx), ("openvino", openvino, tolerance.openvino)]
}

fn golden(model: &str) -> Value {
    let path = common::package().join("tests/golden").join(format!("{model}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn integers(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|x| x.as_i64().unwrap()).collect()
}

/// Base 64 as Python writes it.
fn bytes(value: &Value) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = value.as_str().unwrap().trim_end_matches('=');
    let digits: Vec<u32> = text
        .bytes()
        .map(|b| u32::try_from(ALPHABET.iter().position(|a| *a == b).unwrap()).unwrap())
        .collect();
    let group = |group: &[u32]| {
        let word = group.iter().enumerate().fold(0, |word, (i, digit)| word | digit << (18 - 6 * i));
        word.to_be_bytes()[1..group.len()].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}

fn near(what: &str, got: &[f32], right: &[f32], tolerance: f32) {
    assert_eq!(got.len(), right.len(), "{what}");
    let worst = got.iter().zip(right).map(|(a, b)| (a - b).abs()).fold(0., f32::max);
    println!("{what}: differs by at most {worst:e}");
    assert!(worst <= tolerance, "{what} differs by {worst}, {tolerance} is allowed");
}

#[test]
fn efficientnet_sees_the_same_cat() {
    let golden = golden("efficientnet-lite0");
    let (small, logits) = (bytes(&golden["pixels"]), numbers(&golden["logits"]));
    let pixel = |channel: usize, y: usize, x: usize| {
        (f32::from(small[((y / 8) * 28 + x / 8) * 3 + channel]) - 127.) / 128.
    };
    let values = (0..3 * 224 * 224).map(|i| pixel(i / (224 * 224), i / 224 % 224, i % 224));
    let image = f32s(&[1, 3, 224, 224], values);
    for (engine, mut backend, tolerance) in
        engines("efficientnet-lite0", &Tolerance { onnx: 1e-4, openvino: 1e-3 })
    {
        let result = outputs(&mut backend, "efficientnet-lite0", vec![image.clone()]);
        near(engine, &as_f32(&result[0]), &logits, tolerance);
    }
}

#[test]
fn minilm_means_the_same() {
    let golden = golden("minilm");
    let rows = |name: &str| golden[name].as_array().unwrap().iter().map(integers).collect::<Vec<_>>();
    let (ids, mask) = (rows("ids"), rows("mask"));
    let width = ids[0].len();
    let dims = [u32::try_from(ids.len()).unwrap(), u32::try_from(width).unwrap()];
    let tensor = |rows: &[Vec<i64>]| i64s(&dims, rows.concat());
    let zeros = i64s(&dims, vec![0; ids.len() * width]);
    for (engine, mut backend, tolerance) in engines("minilm", &Tolerance { onnx: 1e-4, openvino: 1e-3 }) {
        let result = outputs(&mut backend, "minilm", vec![tensor(&ids), tensor(&mask), zeros.clone()]);
        let hidden = as_f32(&result[0]);
        for (row, right) in golden["mean"].as_array().unwrap().iter().enumerate() {
            let mut mean = vec![0f32; 384];
            let tokens = (0..width).filter(|token| mask[row][*token] == 1);
            for token in tokens {
                let start = (row * width + token) * 384;
                mean.iter_mut().zip(&hidden[start..start + 384]).for_each(|(sum, x)| *sum += x);
            }
            let count = mask[row].iter().sum::<i64>() as f32;
            mean.iter_mut().for_each(|sum| *sum /= count);
            near(&format!("{engine}, sentence {row}"), &mean, &numbers(right), tolerance);
        }
    }
}

#[test]
fn the_recogniser_reads_the_same() {
    let golden = golden("ocr-rec");
    let width = usize::try_from(golden["width"].as_u64().unwrap()).unwrap();
    let packed = bytes(&golden["grey"]);
    let grey: Vec<u8> = packed.iter().flat_map(|byte| [byte >> 4, byte & 15]).take(48 * width).collect();
    let plane = grey.iter().map(|grey| f32::from(*grey) * 17. / 127.5 - 1.);
    let line =
        f32s(&[1, 3, 48, u32::try_from(width).unwrap()], plane.clone().chain(plane.clone()).chain(plane));
    for (engine, mut backend, tolerance) in engines("ocr-rec", &Tolerance { onnx: 1e-3, openvino: 5e-3 }) {
        let result = outputs(&mut backend, "ocr-rec", vec![line.clone()]);
        let steps = as_f32(&result[0]);
        let best: Vec<(usize, f32)> = steps
            .chunks_exact(6625)
            .map(|odds| odds.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap())
            .collect();
        let classes: Vec<i64> = best.iter().map(|(class, _)| i64::try_from(*class).unwrap()).collect();
        assert_eq!(classes, integers(&golden["classes"]), "{engine}");
        let odds: Vec<f32> = best.iter().map(|(_, odds)| *odds).collect();
        near(engine, &odds, &numbers(&golden["odds"]), tolerance);
    }
}

/// As in `golden.py`.
fn sample(i: usize) -> f32 {
    use std::f64::consts::PI;
    let t = i as f64 / 16000.;
    let pitch = 2. * PI * 140. * t + 3. * (2. * PI * 4. * t).sin();
    let voice: f64 = (1..13).map(|k| (f64::from(k) * pitch).sin() / f64::from(k)).sum();
    (0.2 * (0.6 + 0.4 * (2. * PI * 5. * t).sin()) * voice) as f32
}

#[test]
fn silero_hears_the_same_and_remembers() {
    let golden = golden("silero-vad");
    let right = numbers(&golden["odds"]);
    assert!(right[0] < 0.1 && right[6] > 0.9, "silence, then a voice");
    for (engine, mut backend, tolerance) in engines("silero-vad", &Tolerance { onnx: 1e-3, openvino: 2e-3 }) {
        let mut state: Tensor = f32s(&[2, 1, 128], vec![0.; 256]);
        let mut row = vec![0f32; 64];
        let mut odds = Vec::new();
        for window in 0..right.len() {
            row.drain(..row.len() - 64);
            let voiced = (3..9).contains(&window);
            row.extend((0..512).map(|i| if voiced { sample(window * 512 + i) } else { 0. }));
            let input = f32s(&[1, 576], row.iter().copied());
            let mut result = outputs(&mut backend, "silero-vad", vec![input, i64s(&[], [16000]), state]);
            state = result.remove(1);
            odds.push(as_f32(&result[0])[0]);
        }
        near(engine, &odds, &right, tolerance);
        near(&format!("{engine}, state"), &as_f32(&state), &numbers(&golden["state"]), 10. * tolerance);
    }
}
