use std::time::Duration;

use hyper::StatusCode;
use serde::de::DeserializeOwned;
use stripe_client_core::{RequestBuilder, StripeMethod};

use crate::transport::{Answer, Transport, TransportError};
use crate::{Endpoint, Secret, StripeError};

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Longest time for one attempt, connecting included.
    pub timeout: Duration,
    /// Attempts at one call.
    pub attempts: u32,
    /// Wait before the second attempt; it doubles from one to the next and varies by half.
    pub first_wait: Duration,
    /// Longest wait, also where the server asks for a longer one.
    pub longest_wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            attempts: 4,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(20),
        }
    }
}

/// Talks to Stripe, or to the twin of it, over pooled connections.
pub struct Client {
    transport: Transport,
    patience: Patience,
}

/// The key cannot travel in a header.
#[derive(Debug, thiserror::Error)]
#[error("the stripe client cannot be made; is the key plain text?")]
pub struct ClientError;

impl Client {
    /// A client of an endpoint that was checked against the ledger.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn new(endpoint: Endpoint, key: &Secret, patience: Patience) -> Result<Self, ClientError> {
        let transport = Transport::new(endpoint, key, patience.timeout).ok_or(ClientError)?;
        Ok(Self { transport, patience })
    }

    /// One call, repeated with waits where that is safe. All attempts whose outcome is unknown share one idempotency
    /// key; after an answered 5xx the key is another, because Stripe keeps and repeats such an answer by its key
    /// (documentation, "Idempotent requests"). So only what may exist twice, or names itself, is sent this way.
    pub(crate) async fn call<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, StripeError> {
        self.call_as(request, &fresh_key()).await
    }

    /// As [`Client::call`], with the caller's idempotency key: what was asked before with the same key is not done again.
    pub(crate) async fn call_as<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        key: &str,
    ) -> Result<T, StripeError> {
        let what = describe(&request);
        let is_post = !matches!(request.method, StripeMethod::Get);
        let mut key = is_post.then(|| key.to_owned());
        let mut attempt = 1;
        loop {
            let (error, asked) = match self.transport.send(&request, key.as_deref()).await {
                Ok(answer) if answer.status.is_success() => return parse(&what, &answer.body),
                Ok(Answer { status, body, retry_after }) => {
                    let error = StripeError::refused(status, &what, &body);
                    if !may_pass(status) {
                        return Err(error);
                    }
                    if is_post && status.is_server_error() {
                        key = Some(fresh_key());
                    }
                    (error, retry_after)
                }
                Err(error) => (error.into(), None),
            };
            if attempt >= self.patience.attempts {
                return Err(error);
            }
            let wait = self.patience.wait(attempt, asked);
            tracing::debug!(%error, attempt, wait_ms = wait.as_millis() as u64, "stripe call is repeated");
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    /// One attempt with the caller's idempotency key, for what must not exist twice: after a fault of theirs with the same
    /// key, which is repeated for a day, only a look tells what became of it.
    pub(crate) async fn attempt_as<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        key: &str,
    ) -> Result<T, StripeError> {
        let what = describe(&request);
        let Answer { status, body, .. } = self.transport.send(&request, Some(key)).await?;
        if status.is_success() {
            parse(&what, &body)
        } else {
            Err(StripeError::refused(status, &what, &body))
        }
    }

    /// The wait after an attempt.
    pub(crate) async fn pause(&self, attempt: u32) {
        tokio::time::sleep(self.patience.wait(attempt, None)).await;
    }

    /// One attempt, for calls whose repetition is decided elsewhere.
    pub(crate) async fn once(&self, request: &RequestBuilder) -> Result<Answer, TransportError> {
        let key = (!matches!(request.method, StripeMethod::Get)).then(fresh_key);
        self.transport.send(request, key.as_deref()).await
    }
}

impl Patience {
    fn wait(&self, attempt: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.first_wait.saturating_mul(1 << (attempt - 1).min(16));
        let base = asked.map_or(doubled, |asked| asked.max(doubled)).min(self.longest_wait);
        // Between one half and one and a half.
        let draw = u64::from(getrandom::u32().unwrap_or(u32::MAX / 2));
        base / 2 + base.mul_f64(draw as f64 / f64::from(u32::MAX))
    }
}

/// Statuses that another attempt may change: a lock held by another call, a limit of rate, a fault of theirs.
fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 409 | 424 | 429 | 500..=599)
}

fn fresh_key() -> String {
    let mut bytes = [0u8; 16];
    // Without the system's randomness a key of the clock: a repeated one would only be refused.
    if getrandom::fill(&mut bytes).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        bytes = now.as_nanos().to_le_bytes();
    }
    format!("wasmeter-{}", hex::encode(bytes))
}

pub(crate) fn describe(request: &RequestBuilder) -> String {
    let method = match request.method {
        StripeMethod::Get => "GET",
        StripeMethod::Post => "POST",
        StripeMethod::Delete => "DELETE",
    };
    format!("{method} {}", request.path)
}

pub(crate) fn parse<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, StripeError> {
    serde_json::from_slice(body)
        .map_err(|e| StripeError::Shape { what: what.to_owned(), reason: e.to_string() })
}
