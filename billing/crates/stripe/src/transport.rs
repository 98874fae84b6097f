use std::error::Error;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use stripe_client_core::{RequestBuilder, StripeMethod};

use crate::{Endpoint, Secret};

/// No answer is longer; Stripe's pages of a hundred objects stay far below.
const MAX_ANSWER: usize = 8 << 20;

/// Connections that are kept for the next request.
const KEPT: usize = 32;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");

/// The version of Stripe's interface that the parameter types were generated from.
const VERSION: HeaderValue = HeaderValue::from_static("2026-09-30.endive");

/// One attempt at one request over pooled connections.
pub(crate) struct Transport {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    endpoint: Endpoint,
    authorization: HeaderValue,
    timeout: Duration,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    /// Seconds that the server asks to wait.
    pub(crate) retry_after: Option<Duration>,
}

/// Nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// No connection: the request never left this machine.
    #[error("cannot connect to {address}: {reason}")]
    NotSent {
        /// Where to.
        address: String,
        /// Why.
        reason: String,
    },
    /// Sent, or perhaps sent, and not answered in full: the other side may have acted on it.
    #[error("no answer from {address}: {reason}")]
    Unknown {
        /// Where to.
        address: String,
        /// Why.
        reason: String,
    },
}

impl Transport {
    pub(crate) fn new(endpoint: Endpoint, key: &Secret, timeout: Duration) -> Option<Self> {
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", key.expose())).ok()?;
        authorization.set_sensitive(true);
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(timeout.min(Duration::from_secs(10))));
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::aws_lc_rs::default_provider())
            .ok()?
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        // A pooled connection that the server closed meanwhile fails before anything is written on it; hyper then
        // takes another. Anything later is reported as unknown: whether to send again is the caller's to know.
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(KEPT)
            .retry_canceled_requests(true)
            .build(https);
        Some(Self { pool, endpoint, authorization, timeout })
    }

    /// Sends once. `key` is the HTTP idempotency key.
    pub(crate) async fn send(
        &self,
        request: &RequestBuilder,
        key: Option<&str>,
    ) -> Result<Answer, TransportError> {
        let address = self.endpoint.to_string();
        let not_sent = |reason: String| TransportError::NotSent { address: address.clone(), reason };
        let unknown = |reason: String| TransportError::Unknown { address: address.clone(), reason };
        let request = self.request(request, key).map_err(|e| not_sent(e.to_string()))?;
        let exchange = async {
            let response = self.pool.request(request).await.map_err(|error| {
                let reason = chain(&error);
                if error.is_connect() { not_sent(reason) } else { unknown(reason) }
            })?;
            let status = response.status();
            let retry_after = retry_after(response.headers());
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| unknown(error.to_string()))?
                .to_bytes();
            Ok(Answer { status, body, retry_after })
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(unknown(format!("nothing within {} s", self.timeout.as_secs_f32()))),
        }
    }

    fn request(
        &self,
        request: &RequestBuilder,
        key: Option<&str>,
    ) -> Result<hyper::Request<Full<Bytes>>, hyper::http::Error> {
        // Thin events are objects of the second version of the interface; all else that we use is of the first.
        let mut path = if request.path.starts_with("/v2/") {
            request.path.clone()
        } else {
            format!("/v1{}", request.path)
        };
        if let Some(query) = request.query.as_deref().filter(|q| !q.is_empty()) {
            path.push('?');
            path.push_str(query);
        }
        let method = match request.method {
            StripeMethod::Get => Method::GET,
            StripeMethod::Post => Method::POST,
            StripeMethod::Delete => Method::DELETE,
        };
        let mut builder = hyper::Request::builder()
            .method(method)
            .uri(self.endpoint.uri(&path)?)
            .header(AUTHORIZATION, self.authorization.clone())
            .header(STRIPE_VERSION, VERSION);
        if let Some(key) = key {
            builder = builder.header(IDEMPOTENCY_KEY, key);
        }
        let body = match &request.body {
            Some(body) => {
                builder = builder.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
                Bytes::copy_from_slice(body.as_bytes())
            }
            None => Bytes::new(),
        };
        builder.body(Full::new(body))
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse::<u32>().ok()?;
    Some(Duration::from_secs(seconds.into()))
}

/// An error with what caused it: the outermost of hyper's says little.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
