//! The real engine in a real worker: types, models, bad models, bad inputs.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod common;

use std::{fs::File, path::PathBuf};

use common::{as_f32, backend, device, f32s, i64s, key, load, model_path, options, outputs, run, spec};
use sha2::{Digest, Sha256};
use wasmeter_device::{WorkerBackend, WorkerOptions};
use wasmeter_inference::{Backend, BackendError, DType, Dim, Tensor};

#[test]
fn all_types_come_back_bit_for_bit() {
    let mut backend = backend();
    for dtype in DType::ALL {
        let name = format!("identity-{dtype}");
        let signature = load(&mut backend, &name).unwrap().signature;
        assert_eq!(signature.inputs[0].dtype, dtype);
        assert_eq!(signature.inputs[0].dims, Some(vec![Dim::Named("n".into()), Dim::Fixed(2)]));
        for rows in [1u32, 3, 1000] {
            let len = dtype.bytes(&[rows, 2]).unwrap();
            let mask = if dtype == DType::Bool { 1 } else { 0xff };
            // Every bit pattern, among them NaNs with payloads and denormals.
            let data: Vec<u8> = (0..len).map(|i| u8::try_from(i * 37 % 256).unwrap() & mask).collect();
            let tensor = Tensor::new(dtype, vec![rows, 2], data).unwrap();
            assert_eq!(outputs(&mut backend, &name, vec![tensor.clone()]), [tensor], "{name}");
        }
    }
}

#[test]
fn several_inputs_and_outputs_and_a_scalar() {
    let mut backend = backend();
    let loaded = load(&mut backend, "sum").unwrap();
    let names: Vec<_> = loaded.signature.outputs.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["sum", "product"]);
    assert_eq!(loaded.signature.inputs[1].dims, Some(vec![]));
    let result = outputs(&mut backend, "sum", vec![f32s(&[1, 3], [1., 2., 3.]), f32s(&[], [10.])]);
    assert_eq!(as_f32(&result[0]), [11., 12., 13.]);
    assert_eq!(as_f32(&result[1]), [10., 20., 30.]);
}

#[test]
fn unknown_rank_is_not_a_scalar() {
    let mut backend = backend();
    let signature = load(&mut backend, "unranked").unwrap().signature;
    assert_eq!(signature.inputs[0].dims, None);
    let tensor = f32s(&[2, 1, 2], [1., 2., 3., 4.]);
    assert_eq!(outputs(&mut backend, "unranked", vec![tensor.clone()]), [tensor]);
}

#[test]
fn the_shipped_models_run_confined() {
    let mut backend = backend();
    load(&mut backend, "minilm").unwrap();
    let ids = [101, 7592, 2088, 102];
    let tokens = vec![i64s(&[1, 4], ids), i64s(&[1, 4], [1; 4]), i64s(&[1, 4], [0; 4])];
    let result = outputs(&mut backend, "minilm", tokens);
    assert_eq!(result[0].dims(), [1, 4, 384]);
    assert!(as_f32(&result[0]).iter().all(|value| value.is_finite()));

    load(&mut backend, "efficientnet-lite0").unwrap();
    let image = f32s(&[1, 3, 224, 224], (0..3 * 224 * 224).map(|i| (i % 255) as f32 / 255. - 0.5));
    let result = run(&mut backend, "efficientnet-lite0", "dev", vec![image]).unwrap();
    assert_eq!(result.entries[0][0].dims(), [1, 1000]);
    assert!(result.busy_ns > 100_000, "{} ns", result.busy_ns);

    load(&mut backend, "magika").unwrap();
    let bytes: Vec<u8> = (0..2048i32).flat_map(i32::to_le_bytes).collect();
    let bytes: Vec<u8> = bytes.chunks(4).flat_map(|b| [b[0], 0, 0, 0]).collect();
    let features = Tensor::new(DType::I32, vec![1, 2048], bytes).unwrap();
    let result = outputs(&mut backend, "magika", vec![features]);
    let sum: f32 = as_f32(&result[0]).iter().sum();
    assert!((sum - 1.).abs() < 0.01, "probabilities sum to {sum}");
}

#[test]
fn busy_time_is_processor_time_and_waiting_is_none() {
    let mut backend = backend();
    load(&mut backend, "slow").unwrap();
    let before = std::time::Instant::now();
    let short = run(&mut backend, "slow", "dev", vec![i64s(&[], [20])]).unwrap().busy_ns;
    let long = run(&mut backend, "slow", "dev", vec![i64s(&[], [200])]).unwrap().busy_ns;
    let wall = u64::try_from(before.elapsed().as_nanos()).unwrap();
    assert!(short > 0 && long > 3 * short, "{short} {long}");
    assert!(short + long <= 2 * wall, "two threads cannot be busier than {} ns", 2 * wall);
}

#[test]
fn bad_inputs_are_clean_errors() {
    let mut backend = backend();
    load(&mut backend, "mismatch").unwrap();
    let wrong = vec![f32s(&[1, 2], [1., 2.]), f32s(&[3, 1], [1., 2., 3.])];
    let error = run(&mut backend, "mismatch", "dev", wrong).unwrap_err();
    assert!(matches!(error, BackendError::InvalidInput { .. } | BackendError::Engine { .. }), "{error:?}");
    // The engine also refuses what the lane would have refused before.
    load(&mut backend, "identity-f32").unwrap();
    let error = run(&mut backend, "identity-f32", "dev", vec![f32s(&[1, 3], [1., 2., 3.])]).unwrap_err();
    assert!(matches!(error, BackendError::InvalidInput { .. }), "{error:?}");
    // And goes on.
    let right = vec![f32s(&[1, 2], [1., 2.]), f32s(&[2, 1], [3., 4.])];
    assert_eq!(as_f32(&outputs(&mut backend, "mismatch", right)[0]), [11.]);
}

#[test]
fn what_does_not_fit_is_too_large() {
    let mut backend =
        WorkerBackend::new(device(), WorkerOptions { input_bytes: 4096, output_bytes: 4096, ..options() });
    load(&mut backend, "identity-u8").unwrap();
    let tensor = Tensor::new(DType::U8, vec![4096, 2], vec![0; 8192]).unwrap();
    let error = run(&mut backend, "identity-u8", "dev", vec![tensor]).unwrap_err();
    assert!(matches!(error, BackendError::TooLarge { .. }), "{error:?}");

    load(&mut backend, "expand").unwrap();
    let one = || Tensor::new(DType::U8, vec![1], vec![7]).unwrap();
    let error = run(&mut backend, "expand", "dev", vec![one(), i64s(&[2], [64, 65])]).unwrap_err();
    assert!(matches!(error, BackendError::TooLarge { .. }), "{error:?}");
    let fits = outputs(&mut backend, "expand", vec![one(), i64s(&[2], [64, 64])]);
    assert!(fits[0].data().iter().all(|byte| *byte == 7) && fits[0].data().len() == 4096);
    // More than the worker's memory: an error of the engine, or its death, never of the host.
    let error = run(&mut backend, "expand", "dev", vec![one(), i64s(&[2], [1 << 20, 1 << 20])]).unwrap_err();
    assert!(!matches!(error, BackendError::InvalidInput { .. }), "{error:?}");
}

#[test]
fn bad_models_are_refused_and_the_worker_goes_on() {
    let mut backend = backend();
    let folder = tempfile::tempdir().unwrap();
    let garbage = folder.path().join("model");
    std::fs::write(&garbage, b"not a model at all").unwrap();
    let mut try_file = |path: &PathBuf, sha_of: &PathBuf| {
        let mut spec = spec("sum");
        spec.sha256 = Sha256::digest(std::fs::read(sha_of).unwrap()).into();
        backend.load(&spec, File::open(path).unwrap())
    };
    let error = try_file(&garbage, &garbage).unwrap_err();
    assert!(matches!(&error, BackendError::InvalidModel { .. }), "{error:?}");
    let error = try_file(&model_path("sum"), &garbage).unwrap_err().to_string();
    assert!(error.contains("sha-256"), "{error}");
    // A valid beginning, cut off.
    let whole = std::fs::read(model_path("slow")).unwrap();
    std::fs::write(&garbage, &whole[..whole.len() / 2]).unwrap();
    let error = try_file(&garbage, &garbage).unwrap_err();
    assert!(matches!(&error, BackendError::InvalidModel { .. }), "{error:?}");

    for (name, word) in [("external", "external files"), ("string", "unsupported type")] {
        let error = load(&mut backend, name).unwrap_err();
        assert!(matches!(&error, BackendError::InvalidModel { .. }), "{error:?}");
        assert!(error.to_string().contains(word), "{error}");
    }
    load(&mut backend, "sum").unwrap();
    backend.unload(&key("sum"));
    let error = run(&mut backend, "sum", "dev", vec![]).unwrap_err();
    assert_eq!(error, BackendError::NotLoaded);
}

#[test]
fn a_missing_or_false_library_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = folder.path().join("libonnxruntime.so");
    let try_library = |path: &PathBuf| {
        let mut backend =
            WorkerBackend::new("cpu:0", WorkerOptions { onnxruntime: Some(path.clone()), ..options() });
        let error = load(&mut backend, "sum").unwrap_err();
        assert!(matches!(&error, BackendError::EngineMissing(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("deploy/setup.sh") && text.contains(path.to_str().unwrap()), "{text}");
    };
    try_library(&nothing);
    std::fs::write(&nothing, b"no library").unwrap();
    try_library(&nothing);
}
