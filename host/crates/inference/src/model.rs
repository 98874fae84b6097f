use std::{fmt, fs::File, io, time::Duration};

use crate::DType;

/// Whose model it is. Models of different owners never share a worker process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// The platform's own models.
    Operator,
    /// A tenant's models, by tenant name.
    Tenant(String),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Operator => f.write_str("operator"),
            Owner::Tenant(name) => f.write_str(name),
        }
    }
}

/// One model version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelKey {
    /// Whose model.
    pub owner: Owner,
    /// Model name.
    pub name: String,
    /// Version number.
    pub version: u32,
}

impl ModelKey {
    /// A model of the operator.
    pub fn operator(name: impl Into<String>, version: u32) -> Self {
        Self { owner: Owner::Operator, name: name.into(), version }
    }
}

impl fmt::Display for ModelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Owner::Operator => write!(f, "{} version {}", self.name, self.version),
            Owner::Tenant(tenant) => write!(f, "{tenant}/{} version {}", self.name, self.version),
        }
    }
}

/// Which engine runs a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    /// ONNX Runtime.
    Onnx,
    /// OpenVINO, computing in this precision.
    OpenVino(Precision),
}

/// What OpenVINO computes in. On processors with bf16 instructions its own choice is bf16, which changes answers
/// in the third digit, so that a card has to ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// As the model says.
    #[default]
    F32,
    /// bf16 where the device has it.
    Bf16,
    /// f16 where the device has it.
    F16,
}

impl Engine {
    /// The name in model cards.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Engine::Onnx => "onnx",
            Engine::OpenVino(_) => "openvino",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What to load, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// Which version.
    pub key: ModelKey,
    /// Device name, such as `cpu:0`.
    pub device: String,
    /// The engine.
    pub engine: Engine,
    /// SHA-256 of the model file, or of the head of an OpenVINO IR's [`IrBundle`](crate::IrBundle). The bytes that the
    /// worker sees are checked against it.
    pub sha256: [u8; 32],
    /// How its entries are batched, where the gate allows it.
    pub batching: BatchingOptions,
}

/// How the entries of a model are batched; off by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchingOptions {
    /// The most entries, and the most rows, of a batch. 1 is off. A single entry may have more rows: it runs
    /// alone then.
    pub max_batch: u32,
    /// How long a free device waits for a fuller batch.
    pub max_queue_delay: Duration,
    /// A dimension that is filled up, so that entries of unlike sizes fit into one batch.
    pub pad: Option<Pad>,
}

impl Default for BatchingOptions {
    fn default() -> Self {
        Self { max_batch: 1, max_queue_delay: Duration::ZERO, pad: None }
    }
}

/// Filling up of one dimension with zeros, at its end. Outputs that have the dimension are cut back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pad {
    /// The dimension's name in the model, such as `sequence`.
    pub dimension: String,
    /// Sizes, rising. What is larger than the last stays as it is.
    pub to: Vec<u32>,
}

/// One dimension of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Exactly this.
    Fixed(u32),
    /// Any size; the model gives it a name, such as `batch`.
    Named(String),
    /// Any size.
    Any,
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(size) => size.fmt(f),
            Dim::Named(name) => f.write_str(name),
            Dim::Any => f.write_str("?"),
        }
    }
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name in the model.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions; `None` where the model does not say how many.
    pub dims: Option<Vec<Dim>>,
}

impl Port {
    /// The shape as text, such as `[batch, 3, 224, 224]`.
    #[must_use]
    pub fn shape(&self) -> String {
        match &self.dims {
            None => "[...]".to_owned(),
            Some(dims) => {
                let dims: Vec<_> = dims.iter().map(ToString::to_string).collect();
                format!("[{}]", dims.join(", "))
            }
        }
    }
}

/// Inputs and outputs of a model, in the model's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Inputs.
    pub inputs: Vec<Port>,
    /// Outputs.
    pub outputs: Vec<Port>,
}

/// Where model files are. Implemented by the store; called on a lane thread, so it may block.
pub trait ModelSource: Send + Sync {
    /// Opens the model file read-only.
    ///
    /// # Errors
    /// Where there is no such file, or it cannot be read.
    fn open(&self, key: &ModelKey) -> io::Result<File>;

    /// Bytes of what the engine loads, from which the memory that the model will take is forecast; `None` where that is
    /// not known. Must not block.
    fn size(&self, key: &ModelKey) -> Option<u64> {
        let _ = key;
        None
    }
}

/// Why a model is not ready.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// No lane has this name.
    #[error("model {key} asks for device {device:?}, which this host does not have")]
    UnknownDevice {
        /// The model.
        key: ModelKey,
        /// The device it names.
        device: String,
    },
    /// The file cannot be read.
    #[error("cannot read the file of model {key}: {message}")]
    Source {
        /// The model.
        key: ModelKey,
        /// The system's reason.
        message: String,
    },
    /// The gate or the engine refuses the file.
    #[error("model {key} is refused: {message}")]
    Invalid {
        /// The model.
        key: ModelKey,
        /// Why.
        message: String,
    },
    /// The engine's library is not there. Names the library and what to do.
    #[error("{0}")]
    EngineMissing(String),
    /// The device's worker died too often under this model.
    #[error(
        "model {key} is quarantined: the device worker died {deaths} times under it; lift the quarantine to try it again"
    )]
    Quarantined {
        /// The model.
        key: ModelKey,
        /// Deaths counted.
        deaths: u32,
    },
    /// The device's worker did not start, or may not start yet.
    #[error("device {device} is away: {message}; try again later")]
    DeviceAway {
        /// The device.
        device: String,
        /// Why.
        message: String,
    },
    /// The device's worker died over the load.
    #[error("device {device} was lost: {message}")]
    DeviceLost {
        /// The device.
        device: String,
        /// How.
        message: String,
    },
    /// It does not fit onto its device, whatever else leaves.
    #[error(
        "model {key} takes {bytes} bytes of memory, and device {device} has {budget} for models: raise [engines] model-memory"
    )]
    TooLarge {
        /// The model.
        key: ModelKey,
        /// Its device.
        device: String,
        /// The size of its file, or what its load was seen to take.
        bytes: u64,
        /// The device's budget.
        budget: u64,
    },
    /// The models beside which it does not fit are all in use.
    #[error(
        "no room for model {key} on device {device}: the models on it are in use and fill its {budget} bytes; try again later, or raise [engines] model-memory"
    )]
    NoRoom {
        /// The model.
        key: ModelKey,
        /// Its device.
        device: String,
        /// The device's budget.
        budget: u64,
    },
    /// Its number was another model's, which was removed and is still in use.
    #[error("model {0} was removed, and invocations still use it: push the next number, or wait for them")]
    InUse(ModelKey),
    /// Too many models wait for this device.
    #[error("device {device} has too many models waiting to be loaded")]
    Overloaded {
        /// The device.
        device: String,
    },
    /// The host is shutting down.
    #[error("the host is draining")]
    Draining,
}
