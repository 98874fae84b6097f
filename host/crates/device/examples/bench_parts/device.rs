//! A device with a model of `deploy/setup.sh` on it.

use std::{env, fs::File, path::Path, path::PathBuf};

use sha2::{Digest, Sha256};
use wasmeter_device::{WorkerBackend, WorkerOptions};
use wasmeter_inference::{
    Backend, Batch, BatchEntry, BatchingOptions, DType, Engine, ModelKey, ModelSpec, Precision, Tensor,
};

pub(crate) struct Device {
    backend: WorkerBackend,
    key: ModelKey,
}

impl Device {
    /// Ends the program with the reason where the machine has no such device.
    pub(crate) fn with(device: &str, model: &str) -> Self {
        let path = path(model);
        let bytes =
            std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}: run deploy/setup.sh", path.display()));
        let key = ModelKey::operator(model, 1);
        let openvino = device.starts_with("openvino:");
        let spec = ModelSpec {
            key: key.clone(),
            device: device.into(),
            engine: if openvino { Engine::OpenVino(Precision::F32) } else { Engine::Onnx },
            sha256: Sha256::digest(&bytes).into(),
            batching: BatchingOptions::default(),
        };
        // As `wasmeter serve` takes it from the environment.
        let onnxruntime = env::var_os("WASMETER_ENGINES__ONNXRUNTIME").map(PathBuf::from);
        let mut backend =
            WorkerBackend::new(device, WorkerOptions { onnxruntime, ..WorkerOptions::default() });
        let file = File::open(&path).unwrap();
        if let Err(error) = backend.load(&spec, file) {
            eprintln!("{model} on {device}: {error}");
            std::process::exit(1);
        }
        Self { backend, key }
    }

    /// Runs entries as one batch: its busy time in nanoseconds.
    pub(crate) fn run(&mut self, entries: &[BatchEntry]) -> u64 {
        let output = self.backend.run(Batch { run: 1, model: &self.key, entries }).unwrap();
        assert_eq!(output.entries.len(), entries.len());
        output.busy_ns
    }
}

fn path(model: &str) -> PathBuf {
    let cache = env::var_os("WASMETER_CACHE")
        .map_or_else(|| Path::new(&env::var_os("HOME").unwrap()).join(".cache/wasmeter"), PathBuf::from);
    cache.join("models").join(model).join("model.onnx")
}

/// One text of so many tokens for MiniLM.
pub(crate) fn text(tokens: u32) -> BatchEntry {
    let of = |value: fn(i64) -> i64| {
        let data: Vec<u8> = (0..i64::from(tokens)).flat_map(|i| value(i).to_le_bytes()).collect();
        Tensor::new(DType::I64, vec![1, tokens], data).unwrap()
    };
    BatchEntry { tenant: "bench".into(), inputs: vec![of(|i| 2000 + i * 137 % 20_000), of(|_| 1), of(|_| 0)] }
}
