use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use wasmeter_types::{Error, ErrorKind, InvocationId, TenantName};

/// The client's key (draft-ietf-httpapi-idempotency-key-header).
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest key.
const MAX_KEY: usize = 255;

/// The key of a request, checked.
///
/// # Errors
/// 400 for two keys, an empty or overlong one, or characters that are not visible ASCII.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Error> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let visible = |v: &HeaderValue| v.as_bytes().iter().all(|b| (0x21..=0x7e).contains(b));
    if values.next().is_some() || value.is_empty() || value.len() > MAX_KEY || !visible(value) {
        let message = format!("idempotency-key must be one value of 1 to {MAX_KEY} visible ASCII characters");
        return Err(Error::new(ErrorKind::Malformed, message));
    }
    Ok(value.to_str().ok().map(str::to_owned))
}

/// Whose key it is: two callers that choose the same key do not meet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OnceKey {
    /// Who is bounded by the number of keys.
    pub tenant: TenantName,
    /// What is called, and by whom.
    pub scope: String,
    /// The client's key.
    pub key: String,
}

/// What a store says to a claim.
#[derive(Debug)]
pub enum Claimed {
    /// The key was free and is now taken.
    First,
    /// The same request was there before.
    Repeated {
        /// The first request's.
        first: InvocationId,
        /// Its answer, if it was kept.
        answer: Option<KeptAnswer>,
    },
    /// The key is taken by a request with other content.
    Other,
    /// The tenant has too many keys.
    Full,
}

/// An answer that a repeated request is given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
}

/// The store failed.
#[derive(Debug, thiserror::Error)]
#[error("idempotency keys: {0}")]
pub struct OnceError(pub String);

/// Remembers which keys were used. A claim is atomic, and survives what a usage record at `durability = "process"` does.
#[async_trait]
pub trait OnceStore: Send + Sync + 'static {
    /// Takes a key for a day, or says who has it. `fingerprint` is a hash of the request's content.
    async fn claim(
        &self,
        key: &OnceKey,
        fingerprint: [u8; 32],
        id: InvocationId,
    ) -> Result<Claimed, OnceError>;

    /// Keeps the answer of a claimed key for a time, if there is room for it.
    async fn keep(&self, key: &OnceKey, answer: KeptAnswer, time: Duration) -> Result<(), OnceError>;

    /// Gives a claimed key free: the platform failed, nothing was charged, and the client shall try again.
    async fn release(&self, key: &OnceKey) -> Result<(), OnceError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_short_visible_word() {
        let key = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap());
            }
            idempotency_key(&headers)
        };
        assert_eq!(key(&[]).unwrap(), None);
        assert_eq!(key(&[b"8e03978e-40d5"]).unwrap().unwrap(), "8e03978e-40d5");
        for bad in [&[b"" as &[u8]] as &[&[u8]], &[b"a", b"a"], &[b"a b"], &[b"\xff"], &[&[b'x'; 256]]] {
            assert_eq!(key(bad).unwrap_err().kind, ErrorKind::Malformed, "{bad:?}");
        }
    }
}
