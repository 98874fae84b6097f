use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, ReadBuf};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdinStream};
use wasmtime_wasi::p2::{InputStream, Pollable, StreamError, StreamResult};

use crate::invoke::guest_body::GuestBody;

/// The request's body as a standard input: read as the guest reads, never ahead of it by more than a frame.
pub(crate) struct Input {
    body: Arc<Mutex<Incoming>>,
}

struct Incoming {
    body: Option<GuestBody>,
    ready: Bytes,
    failed: Option<String>,
}

impl Input {
    pub(crate) fn new(body: GuestBody) -> Self {
        let incoming = Incoming { body: Some(body), ready: Bytes::new(), failed: None };
        Self { body: Arc::new(Mutex::new(incoming)) }
    }
}

impl Incoming {
    /// Ready when there are bytes, the end, or a failure.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.ready.is_empty()
            && let Some(body) = &mut self.body
        {
            match ready!(Pin::new(body).poll_frame(cx)) {
                // Trailers are dropped: a standard input has none.
                Some(Ok(frame)) => self.ready = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => {
                    self.failed = Some(error.to_string());
                    self.body = None;
                }
                None => self.body = None,
            }
        }
        Poll::Ready(())
    }

    /// Bytes; none at the end.
    fn take(&mut self, most: usize) -> io::Result<Bytes> {
        match &self.failed {
            Some(reason) if self.ready.is_empty() => Err(io::Error::other(reason.clone())),
            _ => Ok(self.ready.split_to(most.min(self.ready.len()))),
        }
    }
}

impl IsTerminal for Input {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for Input {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(Reader { body: self.body.clone() })
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(Reader { body: self.body.clone() })
    }
}

struct Reader {
    body: Arc<Mutex<Incoming>>,
}

#[async_trait]
impl Pollable for Reader {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.body.lock().poll(cx)).await;
    }
}

impl InputStream for Reader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let mut body = self.body.lock();
        let bytes = body.take(size).map_err(|e| StreamError::LastOperationFailed(e.into()))?;
        if bytes.is_empty() && body.body.is_none() && size > 0 {
            return Err(StreamError::Closed);
        }
        Ok(bytes)
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut body = self.body.lock();
        ready!(body.poll(cx));
        buffer.put_slice(&body.take(buffer.remaining())?);
        Poll::Ready(Ok(()))
    }
}
