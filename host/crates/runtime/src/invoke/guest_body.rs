use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use wasmtime_wasi_http::Error;

use super::BodyError;

/// The request body on its way to the guest: counted, and cut at the limit.
pub(super) struct GuestBody {
    body: UnsyncBoxBody<Bytes, BodyError>,
    most: u64,
    seen: Arc<Seen>,
}

/// What went through.
#[derive(Default)]
pub(super) struct Seen {
    bytes: AtomicU64,
    over: AtomicBool,
    slow: AtomicBool,
}

impl Seen {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the caller fell silent.
    pub(super) fn slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    pub(super) fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

impl GuestBody {
    pub(super) fn new(body: UnsyncBoxBody<Bytes, BodyError>, most: u64) -> (Self, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        (Self { body, most, seen: seen.clone() }, seen)
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.seen.over() {
            return Poll::Ready(None);
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.seen.slow.store(error == BodyError::Slow, Ordering::Relaxed);
                return Poll::Ready(Some(Err(Error::ConnectionTerminated)));
            }
            None => return Poll::Ready(None),
        };
        if let Some(data) = frame.data_ref() {
            let total = self.seen.bytes().saturating_add(data.len() as u64);
            if total > self.most {
                self.seen.over.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err(Error::HttpRequestBodySize(Some(total)))));
            }
            self.seen.bytes.store(total, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
