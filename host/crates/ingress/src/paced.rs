use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};
use wasmeter_runtime::BodyError;

/// A request's body that must not fall silent: a guest that waits for it holds a permit.
pub(crate) struct Paced {
    body: Incoming,
    silence: Duration,
    /// Made when the body is first waited for; most never are.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Paced {
    pub(crate) fn new(body: Incoming, silence: Duration) -> Self {
        Self { body, silence, timer: None, waiting: false }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.waiting = false;
            return Poll::Ready(frame.map(|f| f.map_err(|e| BodyError::Broken(e.to_string()))));
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(this.silence)));
        if !this.waiting {
            this.waiting = true;
            timer.as_mut().reset(Instant::now() + this.silence);
        }
        timer.as_mut().poll(cx).map(|()| Some(Err(BodyError::Slow)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
