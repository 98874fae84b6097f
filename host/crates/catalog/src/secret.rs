use std::fmt;

use async_trait::async_trait;
use wasmeter_types::{SecretName, TenantName};

/// The content of a secret. It does not show itself in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Vec<u8>);

impl SecretValue {
    /// These bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes: for the guest, and for the cipher.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(..)")
    }
}

/// What anybody may know of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretEntry {
    /// Name.
    pub name: SecretName,
    /// When it was last set, in nanoseconds since the Unix epoch.
    pub updated_ns: u64,
}

/// A secret that cannot be kept or had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The tenant has as many as it may.
    #[error("the tenant has {0} secrets, which is the most: remove one first")]
    Full(usize),
    /// What is stored was not sealed by this host for this name.
    #[error("secret {name} of {tenant} cannot be opened: it was changed, or sealed with another key")]
    Damaged {
        /// Whose.
        tenant: TenantName,
        /// Which.
        name: SecretName,
    },
    /// The medium failed.
    #[error("secrets: {0}")]
    Io(String),
}

/// Secrets of tenants, sealed at rest. A change holds for every call that asks after it.
#[async_trait]
pub trait SecretStore: Send + Sync + 'static {
    /// Keeps the value durably; whether the name is new.
    async fn put(
        &self,
        tenant: &TenantName,
        name: &SecretName,
        value: SecretValue,
    ) -> Result<bool, SecretError>;
    /// Removes it; whether it was there.
    async fn delete(&self, tenant: &TenantName, name: &SecretName) -> Result<bool, SecretError>;
    /// Removes all of a tenant's.
    async fn forget(&self, tenant: &TenantName) -> Result<(), SecretError>;
    /// The tenant's, in order of the names. No I/O.
    fn list(&self, tenant: &TenantName) -> Vec<SecretEntry>;
    /// The value, if there is one. No I/O: guests ask for it.
    fn get(&self, tenant: &TenantName, name: &str) -> Result<Option<SecretValue>, SecretError>;
}
