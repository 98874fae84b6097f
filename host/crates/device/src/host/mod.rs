//! The host's side of a worker.

mod backend;
mod control;
mod idle;
mod model;
mod process;
mod rows;
mod worker;

use std::{ffi::OsString, path::PathBuf, time::Duration};

pub use backend::WorkerBackend;

/// How workers are started and what they may use.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Program to start; default: the running one.
    pub exe: PathBuf,
    /// Arguments that make the program call [`worker_main`](crate::worker_main).
    pub arguments: Vec<OsString>,
    /// Configured path of the ONNX Runtime library; see [`find_onnxruntime`](crate::find_onnxruntime). It is
    /// looked for at each start of a worker, so that an engine installed later is found.
    pub onnxruntime: Option<PathBuf>,
    /// Configured path of OpenVINO's C library; see [`find_openvino`](crate::find_openvino).
    pub openvino: Option<PathBuf>,
    /// Threads of one run; 0 means one for each processor.
    pub threads: u16,
    /// Whether who waits for a short time looks before it sleeps: host and worker for each other's message, the
    /// engine's threads for each other inside a run. Faster, for some processor time, which inside a run is billed.
    pub spin: bool,
    /// The most private memory of a worker, in bytes: models, and what the engine needs to run them.
    pub memory_limit: u64,
    /// The most memory that ONNX Runtime's arena may take on a CUDA device, in bytes.
    pub device_memory_limit: u64,
    /// Shared memory for the inputs of one run, in bytes. Sparse: only what is used costs memory.
    pub input_bytes: u64,
    /// Shared memory for the outputs of one run, in bytes.
    pub output_bytes: u64,
    /// How long a worker may take to start.
    pub start_timeout: Duration,
    /// How long a model may take to load.
    pub load_timeout: Duration,
    /// First wait after the death of a worker; doubles with each death up to `restart_max`, and a run that
    /// succeeds resets it.
    pub restart_min: Duration,
    /// See `restart_min`.
    pub restart_max: Duration,
    /// How long a worker of a tenant may have nothing to do before it is ended; its models are loaded again when
    /// they are called. The operator's worker stays.
    pub idle_after: Duration,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            exe: PathBuf::from("/proc/self/exe"),
            arguments: vec!["device-worker".into()],
            onnxruntime: None,
            openvino: None,
            threads: 0,
            spin: true,
            memory_limit: 8 << 30,
            device_memory_limit: 4 << 30,
            input_bytes: 256 << 20,
            output_bytes: 256 << 20,
            start_timeout: Duration::from_secs(30),
            load_timeout: Duration::from_secs(300),
            restart_min: Duration::from_millis(10),
            restart_max: Duration::from_secs(5),
            idle_after: Duration::from_secs(300),
        }
    }
}

impl WorkerOptions {
    pub(crate) fn cores(&self) -> u16 {
        if self.threads > 0 {
            return self.threads;
        }
        std::thread::available_parallelism().map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX))
    }
}
