use std::{fs::File, sync::Arc};

use wasmeter_usage::DeviceClass;

use crate::{ModelKey, ModelSpec, Signature, Tensor};

/// The most inputs, and the most outputs, that a model may have.
pub const MAX_PORTS: usize = 256;
/// The longest name of a port or dimension, in bytes.
pub const MAX_NAME: usize = 256;

/// A device: blocking, and driven by the one lane thread that owns it.
///
/// A backend whose device died answers [`BackendError::Lost`] once and restarts the device on the next call;
/// models have to be loaded again then, which the lane does when they are next needed.
pub trait Backend: Send {
    /// Which meter the device's time belongs to.
    fn class(&self) -> DeviceClass;

    /// What other threads may do to the device while the lane thread is inside a call.
    fn control(&self) -> Arc<dyn DeviceControl>;

    /// Loads a model version. Loading a version twice is allowed and replaces it.
    ///
    /// # Errors
    /// [`BackendError`]; the device stays usable unless it says `Lost`.
    fn load(&mut self, spec: &ModelSpec, file: File) -> Result<Loaded, BackendError>;

    /// By how many bytes the memory of the device has grown since just before this model was loaded; asked after the
    /// load and its warm-up, with nothing else in between. `None` where that cannot be told.
    fn grown(&self, key: &ModelKey) -> Option<u64> {
        let _ = key;
        None
    }

    /// Forgets a model version, and ends when its memory is free; unknown ones are ignored.
    fn unload(&mut self, key: &ModelKey);

    /// Runs a batch.
    ///
    /// # Errors
    /// [`BackendError`]; [`BackendError::NotLoaded`] where the device was restarted in between.
    fn run(&mut self, batch: Batch<'_>) -> Result<BatchOutput, BackendError>;
}

/// The part of a device that other threads may touch while its lane is busy.
pub trait DeviceControl: Send + Sync {
    /// Ends a run by ending the device, if that run is still the current one.
    fn interrupt(&self, run: u64);

    /// Busy time of a run so far, by the same clock that [`BatchOutput::busy_ns`] is measured with;
    /// 0 for a run that was never dispatched.
    fn busy_ns(&self, run: u64) -> u64;

    /// Ends the device for good: later loads and runs fail.
    fn shut_down(&self);
}

/// One call into the engine.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Number of the run, unique and rising on a device.
    pub run: u64,
    /// The model.
    pub model: &'a ModelKey,
    /// The entries; never none.
    pub entries: &'a [BatchEntry],
}

/// One caller's part of a batch.
#[derive(Clone, Debug)]
pub struct BatchEntry {
    /// The account on whose behalf: memory is wiped where it changes.
    pub tenant: String,
    /// Inputs in the order of [`Signature::inputs`], valid for it.
    pub inputs: Vec<Tensor>,
}

/// What a batch gave.
#[derive(Clone, Debug)]
pub struct BatchOutput {
    /// For each entry its outputs, in the order of [`Signature::outputs`].
    pub entries: Vec<Vec<Tensor>>,
    /// Busy time of the device over the batch.
    pub busy_ns: u64,
}

/// A loaded model.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the engine says of it.
    pub signature: Signature,
    /// Whether entries of several callers may share a run.
    pub batching: Batching,
    /// Busy time of the device over the load; the platform's.
    pub busy_ns: u64,
}

/// Whether a model's entries may share a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Batching {
    /// Dimension 0 of every input and output is the same free batch dimension, and no operator couples rows:
    /// a row's answer does not depend on the rows beside it.
    Rows,
    /// They may not; says why.
    Off(String),
}

/// Why a device did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The gate or the engine refuses the model.
    #[error("{message}")]
    InvalidModel {
        /// Why.
        message: String,
        /// Busy time until then.
        busy_ns: u64,
    },
    /// The model's file cannot be read.
    #[error("{0}")]
    Source(String),
    /// The engine refuses the inputs, though they fit the signature.
    #[error("{message}")]
    InvalidInput {
        /// The engine's words.
        message: String,
        /// Busy time until then.
        busy_ns: u64,
    },
    /// The engine failed.
    #[error("{message}")]
    Engine {
        /// The engine's words.
        message: String,
        /// Busy time until then.
        busy_ns: u64,
    },
    /// Inputs or outputs do not fit into the shared memory.
    #[error("{message}")]
    TooLarge {
        /// What, how large, and the limit.
        message: String,
        /// Busy time until then.
        busy_ns: u64,
    },
    /// The device cannot be used on this machine: its library is missing, or its worker cannot be confined. Names what is
    /// missing and what to do.
    #[error("{0}")]
    EngineMissing(String),
    /// The device does not hold this model: it was never loaded, or the device was restarted.
    #[error("model is not loaded")]
    NotLoaded,
    /// No worker took the work up: it did not start, may not start yet, or died before it read what it was sent. Not
    /// the work's fault, which may be tried again.
    #[error("{message}")]
    Away {
        /// Why.
        message: String,
        /// Busy time until then; the platform's.
        busy_ns: u64,
    },
    /// The device died over the work.
    #[error("{message}")]
    Lost {
        /// How.
        message: String,
        /// From dispatch until the death was certain; the platform's.
        busy_ns: u64,
    },
}

impl BackendError {
    /// Busy time that the failed call took.
    #[must_use]
    pub fn busy_ns(&self) -> u64 {
        match self {
            BackendError::InvalidModel { busy_ns, .. }
            | BackendError::InvalidInput { busy_ns, .. }
            | BackendError::Engine { busy_ns, .. }
            | BackendError::TooLarge { busy_ns, .. }
            | BackendError::Away { busy_ns, .. }
            | BackendError::Lost { busy_ns, .. } => *busy_ns,
            BackendError::Source(_) | BackendError::EngineMissing(_) | BackendError::NotLoaded => 0,
        }
    }

    /// Adds busy time of earlier parts of the same call.
    #[must_use]
    pub fn after(mut self, earlier_ns: u64) -> Self {
        match &mut self {
            BackendError::InvalidModel { busy_ns, .. }
            | BackendError::InvalidInput { busy_ns, .. }
            | BackendError::Engine { busy_ns, .. }
            | BackendError::TooLarge { busy_ns, .. }
            | BackendError::Away { busy_ns, .. }
            | BackendError::Lost { busy_ns, .. } => *busy_ns = busy_ns.saturating_add(earlier_ns),
            BackendError::Source(_) | BackendError::EngineMissing(_) | BackendError::NotLoaded => {}
        }
        self
    }
}
