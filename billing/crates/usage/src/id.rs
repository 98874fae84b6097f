use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A 128-bit, time-ordered invocation id (UUID version 7, RFC 9562), written in the hyphenated form.
///
/// It is the idempotency key of everything that is derived from the invocation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InvocationId(Uuid);

/// The text is not a UUID.
#[derive(Debug, Clone, thiserror::Error)]
#[error("invocation id {0:?} is not a UUID; take it from the x-wasmeter-invocation header")]
pub struct ParseInvocationIdError(String);

impl InvocationId {
    /// A new id; later calls of one process sort after earlier ones.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "every call gives another id")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// A number that ids spread evenly over 64 bits. It is made of their last 32 bits: those before them count within
    /// a millisecond (RFC 9562, section 6.2, method 1), so they would send all calls of a burst the same way.
    #[must_use]
    pub fn draw(self) -> u64 {
        self.0.as_u64_pair().1 << 32
    }
}

impl fmt::Display for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for InvocationId {
    type Err = ParseInvocationIdError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(s).map(Self).map_err(|_| ParseInvocationIdError(s.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_sorts() {
        let (a, b) = (InvocationId::new(), InvocationId::new());
        assert!(a < b);
        assert_eq!(a.to_string().parse::<InvocationId>().unwrap(), a);
        assert!("x".parse::<InvocationId>().is_err());
    }
}
