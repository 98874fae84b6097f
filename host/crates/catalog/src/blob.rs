use std::fs::File;

use async_trait::async_trait;
use wasmeter_types::Digest;

/// Whose bytes, of what kind. Every tenant byte at rest has such a key, so that encryption is one adapter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlobKey {
    /// Tenant name, or `_operator`.
    pub owner: String,
    /// What the bytes are.
    pub kind: BlobKind,
    /// Their digest.
    pub id: Digest,
}

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlobKind {
    /// An uploaded component.
    Component,
    /// A file of a model version.
    Model,
}

impl BlobKind {
    /// Folder name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Model => "model",
        }
    }
}

/// A blob that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is none under the key.
    #[error("no {} blob {} of {}", .0.kind.as_str(), .0.id, .0.owner)]
    Missing(BlobKey),
    /// The bytes are not those that were put.
    #[error("{} blob {} of {} does not match its digest: restore it from a backup", .0.kind.as_str(), .0.id, .0.owner)]
    Damaged(BlobKey),
    /// The medium failed.
    #[error("blob store: {0}")]
    Io(#[from] std::io::Error),
}

/// Bytes at rest.
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// Stores the bytes durably; their digest must be `key.id`. Storing twice is not an error.
    async fn put(&self, key: &BlobKey, bytes: Vec<u8>) -> Result<(), BlobError>;
    /// The bytes, checked against their digest.
    async fn get(&self, key: &BlobKey) -> Result<Vec<u8>, BlobError>;
    /// A read-only file of the bytes, for a process that maps them. Blocking.
    fn open(&self, key: &BlobKey) -> Result<File, BlobError>;
    /// Removes them; removing nothing is not an error.
    async fn delete(&self, key: &BlobKey) -> Result<(), BlobError>;
}
