//! Devices as child processes: an uploaded model can crash, hang or read the memory of the process that
//! runs it, so the engine lives in a worker that holds nothing but models and tensors.
//!
//! [`WorkerBackend`] is the host's side, driven by one lane of `wasmeter-inference`; [`worker_main`] is the
//! child's. Tensors cross in sealed shared memory, messages over a socket pair. The host trusts nothing that
//! the worker says: lengths are checked, results are copied out once, and a worker that lies is killed.
//!
//! Unsafe code is needed here for mapping shared memory, for the short way between fork and exec, for
//! the processor clock of another process, and for OpenVINO's C interface and the parts of ONNX
//! Runtime's that `ort` wraps only for its own element types. Each use says why it is sound.

mod channel;
mod clock;
mod doctor;
mod find;
pub mod gate;
mod host;
mod patience;
mod region;
mod target;
mod wire;
mod worker;

pub use doctor::{Finding, Health, doctor};
pub use find::{EngineMissing, ONNXRUNTIME_FILE, OPENVINO_FILE, find_onnxruntime, find_openvino};
pub use host::{WorkerBackend, WorkerOptions};
pub use target::{UnknownDevice, check_device_name};
pub use wire::{Probe, SandboxReport};
pub use worker::worker_main;
