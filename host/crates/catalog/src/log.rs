use async_trait::async_trait;

use crate::Event;

/// The log cannot take or give events.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another writer has this sequence number already.
    #[error("catalog event {0} was written by another node")]
    Conflict(u64),
    /// An event cannot be read by this build.
    #[error(
        "catalog event {seq} is not readable: {reason}; it was written by a newer wasmeter or is damaged"
    )]
    Unreadable {
        /// Its sequence number.
        seq: u64,
        /// Why.
        reason: String,
    },
    /// The medium failed.
    #[error("catalog log: {0}")]
    Io(String),
}

/// Durable, ordered events; sequence numbers start at 1 and have no gaps.
#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    /// All events after `seq`, in order.
    async fn read_after(&self, seq: u64) -> Result<Vec<(u64, Event)>, LogError>;
    /// Writes event `seq` durably, or fails and changes nothing.
    async fn append(&self, seq: u64, event: &Event) -> Result<(), LogError>;
}
