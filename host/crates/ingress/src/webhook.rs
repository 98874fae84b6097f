use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CONTENT_LENGTH, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::answer::{self, Body};

/// Stripe's events are a few kilobytes; a longer body is refused before it is read.
const MAX_BODY: usize = 256 << 10;
/// Time for the body to arrive.
const ARRIVE: Duration = Duration::from_secs(10);
/// Webhooks at one time, bodies that arrive and those that wait included. Stripe sends again what is refused.
const PLACES: usize = 32;
/// Of them with billing at one time, so that usage and leases always find a connection.
const WITH_BILLING: usize = 3;
/// How long one waits for its turn.
const TURN: Duration = Duration::from_secs(5);
/// `t=…,v1=…`, with room for as many signatures as there are secrets in rotation.
const MAX_SIGNATURE: usize = 1 << 10;

/// What became of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Billing has judged it: the status for its sender.
    Judged(u16),
    /// Billing does not answer.
    Away,
    /// No Stripe is configured.
    Off,
}

/// Who judges webhooks.
#[async_trait]
pub trait WebhookSink: Send + Sync + 'static {
    /// The signature's header and the body, both as they came.
    async fn take(&self, signature: &str, body: Bytes) -> Taken;
}

/// Webhooks of Stripe, passed on to billing, which alone can tell a true one from a forged one. Cheap to clone.
///
/// Anybody can send them: what is not plainly impossible is bounded in size, time and number.
#[derive(Clone)]
pub struct Webhooks {
    sink: Arc<dyn WebhookSink>,
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

impl Webhooks {
    /// To this sink.
    #[must_use]
    pub fn new(sink: Arc<dyn WebhookSink>) -> Self {
        let (places, turns) = (Arc::new(Semaphore::new(PLACES)), Arc::new(Semaphore::new(WITH_BILLING)));
        Self { sink, places, turns }
    }

    pub(crate) async fn receive(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let answered = match signature(&head.method, &head.headers) {
            Ok(signature) => self.pass(signature, body).await,
            Err(status) => status,
        };
        say(answered)
    }

    async fn pass<B>(&self, signature: &str, body: B) -> StatusCode
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let Ok(_place) = self.places.try_acquire() else { return StatusCode::SERVICE_UNAVAILABLE };
        let body = match timeout(ARRIVE, whole(body)).await {
            Ok(Ok(body)) => body,
            Ok(Err(status)) => return status,
            Err(_) => return StatusCode::REQUEST_TIMEOUT,
        };
        let Ok(Ok(_turn)) = timeout(TURN, self.turns.acquire()).await else {
            return StatusCode::SERVICE_UNAVAILABLE;
        };
        let bytes = body.len();
        let taken = self.sink.take(signature, body).await;
        tracing::debug!(bytes, ?taken, "webhook");
        match taken {
            Taken::Judged(status) => {
                StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Taken::Away => StatusCode::SERVICE_UNAVAILABLE,
            Taken::Off => StatusCode::NOT_FOUND,
        }
    }
}

/// The signature of what may be a webhook; nothing is read of the body.
fn signature<'a>(method: &Method, headers: &'a HeaderMap) -> Result<&'a str, StatusCode> {
    if method != Method::POST {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    if let Some(length) = headers.get(CONTENT_LENGTH) {
        match length.to_str().ok().and_then(|l| l.parse::<usize>().ok()) {
            None => return Err(StatusCode::BAD_REQUEST),
            Some(length) if length > MAX_BODY => return Err(StatusCode::PAYLOAD_TOO_LARGE),
            Some(_) => {}
        }
    }
    let mut given = headers.get_all("stripe-signature").iter();
    let (Some(signature), None) = (given.next(), given.next()) else { return Err(StatusCode::BAD_REQUEST) };
    let text = signature.to_str().map_err(|_| StatusCode::BAD_REQUEST)?;
    if text.is_empty() || text.len() > MAX_SIGNATURE { Err(StatusCode::BAD_REQUEST) } else { Ok(text) }
}

/// The body, which may have no declared length.
async fn whole<B>(mut body: B) -> Result<Bytes, StatusCode>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| StatusCode::BAD_REQUEST)?.into_data() else { continue };
        if bytes.len() + data.len() > MAX_BODY {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Constant bodies: who sends a forged one learns nothing.
fn say(status: StatusCode) -> Response<Body> {
    let text = match status.as_u16() {
        200..=299 => "taken\n",
        404 => "nothing is here\n",
        405 => "POST only\n",
        408 => "too slow\n",
        413 => "too large\n",
        400..=499 => "refused\n",
        _ => "try again later\n",
    };
    let mut response = answer::text(status, "text/plain", text);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;
    use parking_lot::Mutex;
    use tokio::sync::Notify;

    use super::*;

    #[derive(Default)]
    struct Sink {
        seen: Mutex<Vec<(String, Bytes)>>,
        hold: Option<Arc<Notify>>,
    }

    #[async_trait]
    impl WebhookSink for Sink {
        async fn take(&self, signature: &str, body: Bytes) -> Taken {
            self.seen.lock().push((signature.to_owned(), body));
            if let Some(hold) = &self.hold {
                hold.notified().await;
            }
            Taken::Judged(400)
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap())).collect()
    }

    #[test]
    fn what_cannot_be_a_webhook_is_refused_unread() {
        let good = headers(&[("stripe-signature", "t=1,v1=ab"), ("content-length", "262144")]);
        assert_eq!(signature(&Method::POST, &good), Ok("t=1,v1=ab"));
        assert_eq!(signature(&Method::GET, &good), Err(StatusCode::METHOD_NOT_ALLOWED));
        let long = "x".repeat(MAX_SIGNATURE + 1);
        let bad: [(&[_], _); 6] = [
            (&[], 400),
            (&[("stripe-signature", "")], 400),
            (&[("stripe-signature", &long)], 400),
            (&[("stripe-signature", "t=1"), ("stripe-signature", "t=2")], 400),
            (&[("stripe-signature", "t=1"), ("content-length", "262145")], 413),
            (&[("stripe-signature", "t=1"), ("content-length", "-1")], 400),
        ];
        for (pairs, status) in bad {
            let mut map = HeaderMap::new();
            for (name, value) in pairs {
                map.append(*name, value.parse().unwrap());
            }
            assert_eq!(signature(&Method::POST, &map).unwrap_err().as_u16(), status, "{pairs:?}");
        }
    }

    #[tokio::test]
    async fn bytes_pass_unchanged_and_bounded() {
        let sink = Arc::new(Sink::default());
        let webhooks = Webhooks::new(sink.clone());
        let bytes = Bytes::from_static(b"{\"a\": 1,\r\n \"b\":\t\xff}\0");
        assert_eq!(webhooks.pass("t=1,v1=ab", Full::new(bytes.clone())).await, 400);
        assert_eq!(*sink.seen.lock(), [("t=1,v1=ab".to_owned(), bytes)]);
        // Without a declared length it is counted.
        let frames = (0..5).map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![0; MAX_BODY / 4]))));
        let endless = StreamBody::new(futures_util::stream::iter(frames));
        assert_eq!(webhooks.pass("t=1", endless).await, 413);
        assert_eq!(sink.seen.lock().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_turned_away() {
        let hold = Arc::new(Notify::new());
        let sink = Arc::new(Sink { hold: Some(hold.clone()), ..Sink::default() });
        let webhooks = Webhooks::new(sink.clone());
        let mut flood = tokio::task::JoinSet::new();
        for _ in 0..PLACES + 10 {
            let webhooks = webhooks.clone();
            flood.spawn(async move { webhooks.pass("t=1", Full::new(Bytes::new())).await });
        }
        // All but those with billing are answered, at once or when their turn did not come.
        for _ in 0..PLACES + 10 - WITH_BILLING {
            assert_eq!(flood.join_next().await.unwrap().unwrap(), 503);
        }
        assert_eq!(sink.seen.lock().len(), WITH_BILLING);
        hold.notify_waiters();
        while let Some(status) = flood.join_next().await {
            assert_eq!(status.unwrap(), 400);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_loses_its_place() {
        let webhooks = Webhooks::new(Arc::new(Sink::default()));
        let never = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
        assert_eq!(webhooks.pass("t=1", never).await, 408);
        assert_eq!(webhooks.places.available_permits(), PLACES);
    }
}
