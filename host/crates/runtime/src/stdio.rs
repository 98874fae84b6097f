use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmeter_types::InvocationId;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::logs::{FunctionLog, LogStream};

/// Bytes that one invocation may write to its log; what is more is counted and dropped.
const LOG_BYTES: usize = 64 << 10;
/// A line that never ends is cut into lines of this size.
const PARTIAL: usize = 4 << 10;

/// Standard output or error of one invocation, line by line into the function's log.
pub(crate) struct GuestOutput {
    log: Arc<FunctionLog>,
    invocation: InvocationId,
    stream: LogStream,
    left: LogBudget,
}

/// Bytes that an invocation may still log, by whatever way.
#[derive(Clone)]
pub(crate) struct LogBudget(Arc<AtomicUsize>);

impl Default for LogBudget {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(LOG_BYTES)))
    }
}

impl LogBudget {
    /// Said once, when it is used up.
    pub(crate) const FULL: &str = "the invocation's log is full (64KiB); the rest is dropped";

    /// How many of the bytes may be logged, and whether they are the last ones.
    pub(crate) fn take(&self, bytes: usize) -> (usize, bool) {
        // One guest, one thread at a time.
        let before = self.0.load(Ordering::Relaxed);
        let granted = bytes.min(before);
        self.0.store(before - granted, Ordering::Relaxed);
        (granted, before > 0 && granted == before)
    }
}

impl GuestOutput {
    pub(crate) fn new(
        log: Arc<FunctionLog>,
        invocation: InvocationId,
        stream: LogStream,
        left: LogBudget,
    ) -> Self {
        Self { log, invocation, stream, left }
    }

    fn writer(&self) -> LineWriter {
        LineWriter {
            log: self.log.clone(),
            invocation: self.invocation,
            stream: self.stream,
            left: self.left.clone(),
            partial: Vec::new(),
        }
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.writer())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.writer())
    }
}

struct LineWriter {
    log: Arc<FunctionLog>,
    invocation: InvocationId,
    stream: LogStream,
    left: LogBudget,
    partial: Vec<u8>,
}

impl LineWriter {
    fn take(&mut self, bytes: &[u8]) {
        let (granted, last) = self.left.take(bytes.len());
        let bytes = &bytes[..granted];
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            self.partial.extend_from_slice(part);
            if part.ends_with(b"\n") || self.partial.len() >= PARTIAL {
                self.end_line();
            }
        }
        if last {
            self.end_line();
            self.log.push(self.invocation, LogStream::Platform, LogBudget::FULL);
        }
    }

    fn end_line(&mut self) {
        if self.partial.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(&self.partial);
        self.log.push(self.invocation, self.stream, text.trim_end_matches(['\n', '\r']));
        self.partial.clear();
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        self.end_line();
    }
}

#[async_trait]
impl Pollable for LineWriter {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for LineWriter {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(16 << 10)
    }
}

impl AsyncWrite for LineWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.end_line();
        Poll::Ready(Ok(()))
    }
}
