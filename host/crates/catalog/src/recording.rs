use async_trait::async_trait;
use wasmeter_types::{InvocationId, TenantName};

/// What there is of a tenant's recordings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Calls.
    pub calls: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A recording that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// What is stored was not sealed by this host for this call.
    #[error("the recording of {0} cannot be opened: it was changed, or sealed with another key")]
    Damaged(InvocationId),
    /// The medium failed.
    #[error("recordings: {0}")]
    Io(String),
}

/// Recordings of calls, for a bounded time and in bounded room: no call waits for them, and the oldest go first.
#[async_trait]
pub trait RecordingStore: Send + Sync + 'static {
    /// Takes it to be kept; false if too much waits, and it is lost.
    fn keep(&self, tenant: &TenantName, invocation: InvocationId, recording: Vec<u8>) -> bool;
    /// The recording of a call, if there is one.
    async fn get(
        &self,
        tenant: &TenantName,
        invocation: InvocationId,
    ) -> Result<Option<Vec<u8>>, RecordingError>;
    /// What there is of a tenant's.
    async fn recorded(&self, tenant: &TenantName) -> Result<Recorded, RecordingError>;
    /// Removes all of a tenant's, also those on the way.
    async fn forget(&self, tenant: &TenantName) -> Result<(), RecordingError>;
}
