//! What the tests of this crate share.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    env,
    fs::File,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use wasmeter_device::{WorkerBackend, WorkerOptions, find_onnxruntime, find_openvino};
use wasmeter_inference::{
    Backend, BackendError, Batch, BatchEntry, BatchOutput, BatchingOptions, DType, Engine, Loaded, ModelKey,
    ModelSource, ModelSpec, Precision, Tensor,
};

/// The device of ONNX Runtime that is tested: what `WASMETER_REQUIRE_DEVICES` names, as `deploy/bench/gpu.sh` does, or
/// `cpu:0`. The machine must have it.
pub(crate) fn device() -> String {
    env::var("WASMETER_REQUIRE_DEVICES").unwrap_or_else(|_| "cpu:0".to_owned())
}

/// Options for the worker program of this crate. Fails where the engine is not installed.
pub(crate) fn options() -> WorkerOptions {
    // As `wasmeter serve` takes it from the environment.
    let onnxruntime = env::var_os("WASMETER_ENGINES__ONNXRUNTIME").map(PathBuf::from);
    find_onnxruntime(onnxruntime.as_deref()).expect("the tests need the real engine");
    WorkerOptions {
        exe: PathBuf::from(env!("CARGO_BIN_EXE_wasmeter-device-worker")),
        arguments: Vec::new(),
        onnxruntime,
        threads: 2,
        ..WorkerOptions::default()
    }
}

pub(crate) fn backend() -> WorkerBackend {
    WorkerBackend::new(device(), options())
}

/// The other engine. Fails where it is not installed.
pub(crate) fn openvino() -> WorkerBackend {
    find_openvino(None).expect("the tests need the real engine");
    WorkerBackend::new("openvino:CPU", options())
}

/// The specification of a model for OpenVINO, which gets the same file.
pub(crate) fn for_openvino(name: &str) -> ModelSpec {
    ModelSpec { device: "openvino:CPU".into(), engine: Engine::OpenVino(Precision::F32), ..spec(name) }
}

pub(crate) fn load_openvino(backend: &mut WorkerBackend, name: &str) -> Result<Loaded, BackendError> {
    backend.load(&for_openvino(name), File::open(model_path(name)).unwrap())
}

/// The folder of this crate in the checkout that is tested, which need not be the one that it was built in.
pub(crate) fn package() -> PathBuf {
    env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// A small model of this crate, or one that `deploy/setup.sh` has fetched.
pub(crate) fn model_path(name: &str) -> PathBuf {
    let own = package().join("tests/models").join(format!("{name}.onnx"));
    if own.is_file() {
        return own;
    }
    let cache = env::var_os("WASMETER_CACHE")
        .map_or_else(|| Path::new(&env::var_os("HOME").unwrap()).join(".cache/wasmeter"), PathBuf::from);
    let fetched = cache.join("models").join(name).join("model.onnx");
    assert!(fetched.is_file(), "{} is missing: run deploy/setup.sh", fetched.display());
    fetched
}

pub(crate) fn key(name: &str) -> ModelKey {
    ModelKey::operator(name, 1)
}

pub(crate) fn spec(name: &str) -> ModelSpec {
    let bytes = std::fs::read(model_path(name)).unwrap();
    ModelSpec {
        key: key(name),
        device: device(),
        engine: Engine::Onnx,
        sha256: Sha256::digest(bytes).into(),
        batching: BatchingOptions::default(),
    }
}

/// Model files by name.
pub(crate) struct Files;

impl ModelSource for Files {
    fn open(&self, key: &ModelKey) -> std::io::Result<File> {
        File::open(model_path(&key.name))
    }

    fn size(&self, key: &ModelKey) -> Option<u64> {
        model_path(&key.name).metadata().map(|file| file.len()).ok()
    }
}

pub(crate) fn load(backend: &mut WorkerBackend, name: &str) -> Result<Loaded, BackendError> {
    backend.load(&spec(name), File::open(model_path(name)).unwrap())
}

pub(crate) fn run(
    backend: &mut WorkerBackend,
    name: &str,
    tenant: &str,
    inputs: Vec<Tensor>,
) -> Result<BatchOutput, BackendError> {
    let entries = [BatchEntry { tenant: tenant.into(), inputs }];
    backend.run(Batch { run: 1, model: &key(name), entries: &entries })
}

/// Runs a model that must succeed.
pub(crate) fn outputs(backend: &mut WorkerBackend, name: &str, inputs: Vec<Tensor>) -> Vec<Tensor> {
    run(backend, name, "dev", inputs).unwrap().entries.remove(0)
}

pub(crate) fn f32s(dims: &[u32], values: impl IntoIterator<Item = f32>) -> Tensor {
    let data: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
    Tensor::new(DType::F32, dims.to_vec(), data).unwrap()
}

pub(crate) fn i64s(dims: &[u32], values: impl IntoIterator<Item = i64>) -> Tensor {
    let data: Vec<u8> = values.into_iter().flat_map(i64::to_le_bytes).collect();
    Tensor::new(DType::I64, dims.to_vec(), data).unwrap()
}

pub(crate) fn as_f32(tensor: &Tensor) -> Vec<f32> {
    assert_eq!(tensor.dtype(), DType::F32);
    tensor.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// The model `sum`: two outputs, and a scalar among its inputs.
pub(crate) fn adds_and_multiplies(backend: &mut WorkerBackend, loaded: &Loaded) {
    let names: Vec<_> = loaded.signature.outputs.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["sum", "product"]);
    assert_eq!(loaded.signature.inputs[1].dims, Some(vec![]));
    let result = outputs(backend, "sum", vec![f32s(&[1, 3], [1., 2., 3.]), f32s(&[], [10.])]);
    assert_eq!(as_f32(&result[0]), [11., 12., 13.]);
    assert_eq!(as_f32(&result[1]), [10., 20., 30.]);
}

/// Iterations of the model `slow` that take seconds.
pub(crate) fn long() -> Tensor {
    i64s(&[], [20_000])
}
