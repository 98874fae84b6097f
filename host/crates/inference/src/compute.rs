use std::sync::Arc;

use tokio::time::Instant;
use wasmeter_usage::DeviceClass;

use crate::{BackendError, ChargeMeter, ModelError, ModelKey, NamedTensor};

/// One compute.
#[derive(Clone, Debug)]
pub struct ComputeRequest {
    /// The account that pays.
    pub tenant: String,
    /// The model version.
    pub model: ModelKey,
    /// Inputs by name, or by index in decimal.
    pub inputs: Vec<NamedTensor>,
    /// When the caller stops waiting. The device is ended shortly after, if it still runs for this caller.
    pub deadline: Instant,
    /// Receives the charge whatever the outcome. The figures in [`Computed`] and
    /// [`ComputeError::Deadline`] are the same charge again, not another one.
    pub meter: Option<Arc<ChargeMeter>>,
}

/// What a compute gave.
#[derive(Clone, Debug)]
pub struct Computed {
    /// Outputs in the model's order.
    pub outputs: Vec<NamedTensor>,
    /// The device that ran it.
    pub device: Arc<str>,
    /// Which meter its time belongs to.
    pub class: DeviceClass,
    /// Busy time charged to the caller; never includes queueing or loading.
    pub charged_ns: u64,
    /// Time from the call to the start of the run; free.
    pub queue_ns: u64,
}

/// Why a compute gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComputeError {
    /// The inputs do not fit the model. Says which input and what is expected.
    #[error("{0}")]
    InvalidArgument(String),
    /// No such model is registered.
    #[error("model {0} is not loaded")]
    NotFound(ModelKey),
    /// The device's queue is full.
    #[error("device {0} has too many computes waiting; try again later")]
    Overloaded(Arc<str>),
    /// The model is not on its device, and there is no room for it now.
    #[error("{0}")]
    NoRoom(ModelError),
    /// The host is shutting down.
    #[error("the host is draining")]
    Draining,
    /// The deadline passed, in the queue or in the run.
    #[error("the deadline passed before the model answered")]
    Deadline {
        /// Busy time charged until the deadline; 0 where it passed in the queue.
        charged_ns: u64,
    },
    /// The engine's library is missing. Names the library and what to do.
    #[error("{0}")]
    EngineMissing(String),
    /// The device died during this compute; nothing is charged.
    #[error("device {device} was lost: {message}")]
    DeviceLost {
        /// The device.
        device: Arc<str>,
        /// How.
        message: String,
    },
    /// The device did not come back from a death, or may not yet; the compute never ran.
    #[error("device {device} is away: {message}; try again later")]
    DeviceAway {
        /// The device.
        device: Arc<str>,
        /// Why.
        message: String,
    },
    /// The device died too often under this model version.
    #[error("{0}")]
    Quarantined(ModelError),
    /// The engine failed, or the model cannot be loaded (any more).
    #[error("{0}")]
    Engine(String),
    /// Inputs or outputs exceed the device's shared memory.
    #[error("{0}")]
    TooLarge(String),
}

impl ComputeError {
    /// A stable word for the kind of failure.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            ComputeError::InvalidArgument(_) => "invalid-argument",
            ComputeError::NotFound(_) => "not-found",
            ComputeError::Overloaded(_) => "overloaded",
            ComputeError::NoRoom(_) => "no-room",
            ComputeError::Draining => "draining",
            ComputeError::Deadline { .. } => "deadline",
            ComputeError::EngineMissing(_) => "engine-missing",
            ComputeError::DeviceLost { .. } => "device-lost",
            ComputeError::DeviceAway { .. } => "device-away",
            ComputeError::Quarantined(_) => "quarantined",
            ComputeError::Engine(_) => "engine",
            ComputeError::TooLarge(_) => "too-large",
        }
    }

    pub(crate) fn from_backend(device: &Arc<str>, model: &ModelKey, error: BackendError) -> Self {
        match error {
            BackendError::InvalidInput { message, .. } => ComputeError::InvalidArgument(message),
            BackendError::TooLarge { message, .. } => ComputeError::TooLarge(message),
            BackendError::EngineMissing(message) => ComputeError::EngineMissing(message),
            BackendError::Lost { message, .. } => {
                ComputeError::DeviceLost { device: Arc::clone(device), message }
            }
            BackendError::Away { message, .. } => {
                ComputeError::DeviceAway { device: Arc::clone(device), message }
            }
            BackendError::Engine { message, .. } => ComputeError::Engine(message),
            BackendError::InvalidModel { message, .. } | BackendError::Source(message) => {
                ComputeError::Engine(format!("model {model} could not be loaded again: {message}"))
            }
            BackendError::NotLoaded => {
                ComputeError::Engine(format!("device {device} does not keep model {model}"))
            }
        }
    }
}

impl From<ModelError> for ComputeError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::EngineMissing(message) => ComputeError::EngineMissing(message),
            ModelError::Quarantined { .. } => ComputeError::Quarantined(error),
            ModelError::DeviceLost { device, message } => {
                ComputeError::DeviceLost { device: device.into(), message }
            }
            ModelError::DeviceAway { device, message } => {
                ComputeError::DeviceAway { device: device.into(), message }
            }
            ModelError::Overloaded { device } => ComputeError::Overloaded(device.into()),
            ModelError::NoRoom { .. } => ComputeError::NoRoom(error),
            ModelError::Draining => ComputeError::Draining,
            other => ComputeError::Engine(other.to_string()),
        }
    }
}
