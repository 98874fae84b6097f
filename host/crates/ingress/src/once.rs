use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Request, Response, header};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use wasmeter_admission::{Claimed, KeptAnswer, OnceError, OnceKey, OnceStore};
use wasmeter_types::{Error, ErrorKind, InvocationId};

use crate::answer::{self, Body};

/// The largest body of a request with a key: it is read whole before the guest starts, since its hash decides.
const MAX_BODY: u64 = 1 << 20;
/// Such bodies in memory at one time.
const BODIES: usize = 128;
/// Time for such a body to arrive.
const ARRIVE: Duration = Duration::from_secs(30);
/// The largest answer that is kept.
const MAX_ANSWER: u64 = 64 << 10;

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Requests that shall have their effect once.
#[derive(Clone)]
pub struct Once {
    store: Arc<dyn OnceStore>,
    bodies: Arc<Semaphore>,
}

/// A key that this request holds.
pub(crate) struct Claim {
    store: Arc<dyn OnceStore>,
    key: OnceKey,
    keep: Option<Duration>,
}

/// What becomes of a request with a key.
pub(crate) enum Entered {
    /// It is the first: it runs.
    First(Claim, Whole),
    /// It is not.
    Answered(Response<Body>),
}

/// A body that was read whole, with its place in memory.
pub(crate) struct Whole {
    bytes: Bytes,
    place: OwnedSemaphorePermit,
}

impl Whole {
    /// As a body again; the place is free when it is gone.
    pub(crate) fn into_body<E>(self) -> impl http_body::Body<Data = Bytes, Error = E> + Send + 'static
    where
        E: Send + 'static,
    {
        let Self { bytes, place } = self;
        Full::new(bytes).map_err(move |never| {
            let _ = &place;
            match never {}
        })
    }
}

impl Once {
    /// On a store.
    #[must_use]
    pub fn new(store: Arc<dyn OnceStore>) -> Self {
        Self { store, bodies: Arc::new(Semaphore::new(BODIES)) }
    }

    /// Reads the body and claims the key. `keep`: how long the answer shall be kept.
    pub(crate) async fn enter(
        &self,
        key: OnceKey,
        keep: Option<Duration>,
        id: InvocationId,
        request: Request<Incoming>,
    ) -> Result<Entered, Error> {
        let (parts, body) = request.into_parts();
        let body = self.whole(body).await?;
        let mut hash = blake3::Hasher::new();
        let content_type = parts.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let target = parts.uri.path_and_query().map_or("", |p| p.as_str());
        // None of them has a zero byte, so that no two requests give the same text.
        for part in [parts.method.as_str().as_bytes(), target.as_bytes(), content_type] {
            hash.update(part).update(&[0]);
        }
        let fingerprint = *hash.update(&body.bytes).finalize().as_bytes();
        let refused = match self.store.claim(&key, fingerprint, id).await.map_err(broken)? {
            Claimed::First => {
                let claim = Claim { store: self.store.clone(), key, keep };
                return Ok(Entered::First(claim, body));
            }
            Claimed::Repeated { first, answer: Some(kept) } => replay(kept, first),
            Claimed::Repeated { first, answer: None } => {
                let message = "this idempotency-key was used before by the same request: what that one did is in the receipt of its invocation";
                let mut response = answer::error(&Error::new(ErrorKind::Conflict, message), Some(first));
                answer::set_invocation(&mut response, first);
                response
            }
            Claimed::Other => {
                let message =
                    "this idempotency-key was used before by a request with other content: take a new key";
                return Err(Error::new(ErrorKind::Invalid, message));
            }
            Claimed::Full => {
                let message = "the tenant has used more idempotency keys within a day than are kept: send fewer, or none";
                return Err(Error::new(ErrorKind::Quota, message));
            }
        };
        Ok(Entered::Answered(refused))
    }

    async fn whole(&self, mut body: Incoming) -> Result<Whole, Error> {
        let too_large = || {
            let message = format!("a request with an idempotency-key has at most {MAX_BODY} bytes of body");
            Error::new(ErrorKind::TooLarge, message)
        };
        let place = self.bodies.clone().try_acquire_owned().map_err(|_| {
            let message = "the host is at its limit of requests with an idempotency-key: retry later";
            Error::new(ErrorKind::Overloaded, message)
        })?;
        if body.size_hint().lower() > MAX_BODY {
            return Err(too_large());
        }
        let end = Instant::now() + ARRIVE;
        let mut bytes = BytesMut::new();
        loop {
            let frame = match timeout_at(end, body.frame()).await {
                Err(_) => {
                    let message = format!("the body took longer than {}s to arrive", ARRIVE.as_secs());
                    return Err(Error::new(ErrorKind::SlowRequest, message));
                }
                Ok(None) => return Ok(Whole { bytes: bytes.freeze(), place }),
                Ok(Some(Err(_))) => return Err(Error::new(ErrorKind::Malformed, "the body broke off")),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            if (bytes.len() + data.len()) as u64 > MAX_BODY {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
    }
}

impl Claim {
    /// The request was answered. `charged`: whether it had its effect, as far as the platform knows.
    pub(crate) async fn leave(
        self,
        charged: bool,
        response: Response<Body>,
    ) -> Result<Response<Body>, Error> {
        if !charged {
            self.store.release(&self.key).await.map_err(broken)?;
            return Ok(response);
        }
        // A streamed answer has left in part already and is of unknown length: it is not kept.
        let short = response.body().size_hint().exact().is_some_and(|n| n <= MAX_ANSWER);
        let Some(time) = self.keep.filter(|_| short) else { return Ok(response) };
        let (parts, body) = response.into_parts();
        let Ok(body) = body.collect().await else { return Err(Error::internal()) };
        let body = body.to_bytes();
        let kept = KeptAnswer { status: parts.status, headers: parts.headers.clone(), body: body.to_vec() };
        self.store.keep(&self.key, kept, time).await.map_err(broken)?;
        Ok(Response::from_parts(parts, answer::boxed(Full::new(body))))
    }
}

fn replay(kept: KeptAnswer, first: InvocationId) -> Response<Body> {
    let mut response = Response::new(answer::boxed(Full::new(Bytes::from(kept.body))));
    *response.status_mut() = kept.status;
    *response.headers_mut() = kept.headers;
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    answer::set_invocation(&mut response, first);
    response
}

fn broken(error: OnceError) -> Error {
    tracing::error!(%error, "the store of idempotency keys failed");
    Error::internal()
}
