use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};
use wasmtime_wasi_http::{Error, WasiBody};

use super::super::Caller;

type Next = Poll<Option<Result<Frame<Bytes>, Error>>>;

/// A request body on its way out: counted, and cut at the limit.
pub(super) struct Upload {
    body: WasiBody,
    caller: Arc<Caller>,
    most: u64,
}

impl Upload {
    pub(super) fn new(body: WasiBody, caller: Arc<Caller>, most: u64) -> Self {
        Self { body, caller, most }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Next {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            // What does not go out is not counted.
            let total = self.caller.outbound.sent().saturating_add(data.len() as u64);
            if total > self.most {
                return Poll::Ready(Some(Err(Error::HttpRequestBodySize(Some(total)))));
            }
            self.caller.outbound.send(data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response body on its way in: counted, cut at the limit, and given up if its peer falls silent. Nothing is read
/// that the guest does not ask for.
pub(super) struct Download {
    body: Incoming,
    caller: Arc<Caller>,
    most: u64,
    silence: Option<(Duration, Pin<Box<Sleep>>)>,
    ended: bool,
}

impl Download {
    pub(super) fn new(body: Incoming, caller: Arc<Caller>, most: u64, silence: Option<Duration>) -> Self {
        let silence = silence.map(|time| (time, Box::pin(sleep(time))));
        Self { body, caller, most, silence, ended: false }
    }

    fn end(&mut self, error: Error) -> Next {
        self.ended = true;
        Poll::Ready(Some(Err(error)))
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Next {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(_))) => return self.end(Error::HttpResponseIncomplete),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                if let Some((_, sleep)) = &mut self.silence {
                    ready!(sleep.as_mut().poll(cx));
                    return self.end(Error::ConnectionReadTimeout);
                }
                return Poll::Pending;
            }
        };
        if let Some((time, sleep)) = &mut self.silence {
            sleep.as_mut().reset(Instant::now() + *time);
        }
        if let Some(data) = frame.data_ref() {
            let total = self.caller.outbound.receive(data.len());
            if total > self.most {
                self.caller.note(&format!(
                    "outbound call: the responses of this invocation are larger than its [http] receive of {} bytes",
                    self.most
                ));
                return self.end(Error::HttpResponseBodySize(Some(total)));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
