use wasmeter_inference::ComputeError;
use wasmeter_types::ErrorKind;
use wasmtime::component::Resource;

use crate::bindings::errors::{ErrorCode, Host, HostError};
use crate::ctx::{Fault, NnCtxView};

/// An error resource of the guest.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated module re-exports it")]
pub struct NnError {
    pub(crate) code: ErrorCode,
    pub(crate) data: String,
    /// Another try may work: WITX has a number for it.
    pub(crate) busy: bool,
}

impl NnError {
    pub(crate) fn new(code: ErrorCode, data: impl Into<String>) -> Self {
        Self { code, data: data.into(), busy: false }
    }

    /// What the guest sees of a compute that failed, and whose fault it is.
    pub(crate) fn of(error: &ComputeError) -> (Self, Option<Fault>) {
        let (code, ours) = match error {
            ComputeError::InvalidArgument(_) => (ErrorCode::InvalidArgument, None),
            ComputeError::NotFound(_) => (ErrorCode::NotFound, None),
            ComputeError::TooLarge(_) => (ErrorCode::TooLarge, None),
            ComputeError::Deadline { .. } => (ErrorCode::Timeout, None),
            ComputeError::Engine(_) => (ErrorCode::RuntimeError, None),
            ComputeError::Overloaded(_) | ComputeError::NoRoom(_) => {
                (ErrorCode::RuntimeError, Some(ErrorKind::Overloaded))
            }
            // Nothing is wrong with the call or the model.
            ComputeError::Draining => (ErrorCode::Unknown, Some(ErrorKind::Overloaded)),
            ComputeError::EngineMissing(_)
            | ComputeError::Quarantined(_)
            | ComputeError::DeviceAway { .. } => (ErrorCode::RuntimeError, Some(ErrorKind::Unavailable)),
            ComputeError::DeviceLost { .. } => (ErrorCode::RuntimeError, Some(ErrorKind::DeviceLost)),
        };
        let fault = ours.map(|kind| Fault { kind, message: error.to_string() });
        let busy =
            matches!(error, ComputeError::Overloaded(_) | ComputeError::NoRoom(_) | ComputeError::Draining);
        (Self { code, data: error.to_string(), busy }, fault)
    }
}

impl Host for NnCtxView<'_> {}

impl HostError for NnCtxView<'_> {
    async fn code(&mut self, error: Resource<NnError>) -> wasmtime::Result<ErrorCode> {
        Ok(self.table.get(&error)?.code)
    }

    async fn data(&mut self, error: Resource<NnError>) -> wasmtime::Result<String> {
        Ok(self.table.get(&error)?.data.clone())
    }

    async fn drop(&mut self, error: Resource<NnError>) -> wasmtime::Result<()> {
        self.table.delete(error)?;
        Ok(())
    }
}
