//! Models, tensors and the way of one compute: a bounded queue and one lane per device, a [`Backend`]
//! behind the lane, and the account that says who pays for the device's time.
//!
//! [`Options`] -> [`Service::run`] -> [`Handle`]. The device pulls: callers put an entry into the queue of
//! the model's device and wait; the lane thread takes the next live entry, and no tokio worker ever blocks
//! on a model.

mod account;
mod attribution;
mod backend;
mod bench;
mod bundle;
mod calibration;
mod compute;
mod device;
mod done;
mod entry;
mod former;
mod grouping;
mod handle;
mod lane;
mod lease;
mod metered;
pub mod mock;
mod model;
mod queue;
mod registry;
mod room;
mod serve;
mod service;
mod slot;
mod tensor;
mod validate;
mod warmup;

#[cfg(test)]
mod registry_tests;
#[cfg(test)]
mod tests;

pub use account::{Account, ChargeMeter};
pub use backend::{
    Backend, BackendError, Batch, BatchEntry, BatchOutput, Batching, DeviceControl, Loaded, MAX_NAME,
    MAX_PORTS,
};
pub use bench::{Advice, Bench, BenchOptions, BenchStep, Spread};
pub use bundle::{BundlePart, CutOff, IrBundle};
pub use compute::{ComputeError, ComputeRequest, Computed};
pub use handle::{DeviceStatus, Handle, ModelStatus, Status};
pub use lease::Lease;
pub use model::{
    BatchingOptions, Dim, Engine, ModelError, ModelKey, ModelSource, ModelSpec, Owner, Pad, Port, Precision,
    Signature,
};
pub use registry::ModelState;
pub use service::{DeviceOptions, Options, Service};
pub use tensor::{DType, MAX_RANK, NamedTensor, Tensor, TensorError};
