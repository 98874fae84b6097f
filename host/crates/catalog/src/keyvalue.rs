use async_trait::async_trait;
use wasmeter_types::{BucketName, FunctionName, KeyValueLimits, TenantName};

/// Where pairs are: a bucket of a function. All revisions of the function share it; nothing else reaches it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Space {
    /// Whose.
    pub tenant: TenantName,
    /// Which function's.
    pub function: FunctionName,
    /// Which bucket.
    pub bucket: BucketName,
}

/// A change of pairs, which happens wholly or not at all.
#[derive(Clone, Debug)]
pub enum Change {
    /// Keys with their new values.
    Set(Vec<(String, Vec<u8>)>),
    /// Keys that go; one that is not there is no error.
    Delete(Vec<String>),
    /// Adds to a number, decimal digits; what is not there counts as 0.
    Increment(String, u64),
}

/// Who changes: for how much, and from when it is.
#[derive(Clone, Copy, Debug)]
pub struct Author {
    /// Quotas of its revision.
    pub limits: KeyValueLimits,
    /// When its revision was made: of a deleted function, nothing is kept that comes later.
    pub revision_ns: u64,
}

/// Some of the keys of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// In no order that means anything.
    pub keys: Vec<String>,
    /// Where the next page begins, if there is one.
    pub next: Option<u64>,
}

/// A pair that cannot be had or kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyValueError {
    /// Quota of the function.
    #[error("the function may have {0} keys ([keyvalue] keys)")]
    Keys(u64),
    /// Quota of the function.
    #[error("the function may have {0} bytes of keys and values ([keyvalue] total)")]
    Bytes(u64),
    /// Quota of the tenant, of all its functions.
    #[error("the tenant may have {0} bytes of keys and values")]
    TenantBytes(u64),
    /// More than one answer may hold.
    #[error("the values have more than {0} bytes together: ask for fewer")]
    Answer(u64),
    /// An increment of something else.
    #[error("the value is not a decimal number of 64 bits")]
    NotANumber,
    /// An increment beyond 64 bits.
    #[error("the number would be greater than 64 bits hold")]
    Overflow,
    /// The function was deleted while it ran.
    #[error("the function was deleted")]
    Gone,
    /// The medium failed; the log says how.
    #[error("the platform's store failed")]
    Failed,
}

/// Pairs that functions keep.
#[async_trait]
pub trait KeyValueStore: Send + Sync + 'static {
    /// The values of the keys, as they were together at one time; `most` bytes at most.
    async fn get(
        &self,
        space: &Space,
        keys: Vec<String>,
        most: u64,
    ) -> Result<Vec<Option<Vec<u8>>>, KeyValueError>;
    /// Whether there is such a key.
    async fn exists(&self, space: &Space, key: String) -> Result<bool, KeyValueError>;
    /// The keys from a place on; the first place is 0.
    async fn keys(&self, space: &Space, from: u64) -> Result<KeyPage, KeyValueError>;
    /// Changes pairs, as durably as the host is configured; the new number of an increment.
    async fn change(
        &self,
        space: &Space,
        author: Author,
        change: Change,
    ) -> Result<Option<u64>, KeyValueError>;
    /// Removes all that the revisions made up to then have kept, and takes no more from them.
    async fn forget(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        until_ns: u64,
    ) -> Result<(), KeyValueError>;
}
