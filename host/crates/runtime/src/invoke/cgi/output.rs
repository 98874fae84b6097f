use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::PollSender;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};
use wasmtime_wasi_http::Error;

use super::head::{Found, Head, MAX_HEAD, find};
use crate::invoke::run::HeadResult;

/// Chunks between the guest and the invocation; a guest that writes faster waits.
const CHUNKS: usize = 8;
/// The largest single write.
const CHUNK: usize = 64 << 10;
/// Enough bytes to see whether a head may begin.
const NAME: usize = 16;

/// The standard output of a command, made into an answer.
#[derive(Clone)]
pub(crate) struct Output {
    state: Arc<Mutex<State>>,
}

enum State {
    /// The first bytes, until they are known to be a head or none.
    Head(BytesMut, Option<oneshot::Sender<HeadResult>>),
    Body(mpsc::Sender<Bytes>),
}

impl Output {
    pub(crate) fn new(head: oneshot::Sender<HeadResult>) -> Self {
        Self { state: Arc::new(Mutex::new(State::Head(BytesMut::new(), Some(head)))) }
    }

    /// The command has ended well: what was not known to be a head is the whole answer.
    pub(crate) fn finish(&self) {
        let mut state = self.state.lock();
        if let State::Head(bytes, _) = &mut *state {
            let all = bytes.split().freeze();
            state.begin(Head::plain(), all);
        }
    }

    fn writer(&self) -> Writer {
        Writer { state: self.state.clone() }
    }
}

impl State {
    fn begin(&mut self, head: Head, first: Bytes) {
        let State::Head(_, sender) = self else { return };
        let Some(sender) = sender.take() else { return };
        let (chunks, body) = mpsc::channel(CHUNKS);
        if !first.is_empty() {
            // Room for more than this is in a new channel.
            let _ = chunks.try_send(first);
        }
        let mut response = Response::new(Chunks(body).boxed_unsync());
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        // Nobody waits for it any more: the next write finds the channel closed.
        let _ = sender.send(Ok(response));
        *self = State::Body(chunks);
    }

    fn write(&mut self, bytes: Bytes) -> Result<(), ()> {
        match self {
            State::Body(chunks) => chunks.try_send(bytes).map_err(drop),
            State::Head(held, _) => {
                held.extend_from_slice(&bytes);
                // A guest that writes byte by byte must not make this look at everything each time.
                let news = held.len() <= NAME || held.len() > MAX_HEAD || bytes.contains(&b'\n');
                if !news {
                    return Ok(());
                }
                match find(held) {
                    Found::More => {}
                    Found::Plain => {
                        let all = held.split().freeze();
                        self.begin(Head::plain(), all);
                    }
                    Found::Head(head, at) => {
                        let rest = held.split().freeze().slice(at..);
                        self.begin(head, rest);
                    }
                }
                Ok(())
            }
        }
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(AsyncWriter { state: self.state.clone(), chunks: None })
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.writer())
    }
}

struct Writer {
    state: Arc<Mutex<State>>,
}

#[async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {
        let chunks = match &*self.state.lock() {
            State::Head(..) => return,
            State::Body(chunks) => chunks.clone(),
        };
        // The guest is the only writer, so the room that is seen here stays.
        let _ = chunks.reserve().await;
    }
}

impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.state.lock().write(bytes).map_err(|()| StreamError::Closed)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        match &*self.state.lock() {
            State::Body(chunks) if chunks.is_closed() => Err(StreamError::Closed),
            State::Body(chunks) if chunks.capacity() == 0 => Ok(0),
            _ => Ok(CHUNK),
        }
    }
}

/// The same for readers of WASI 0.3's kind.
struct AsyncWriter {
    state: Arc<Mutex<State>>,
    chunks: Option<PollSender<Bytes>>,
}

impl AsyncWrite for AsyncWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let bytes = Bytes::copy_from_slice(&bytes[..bytes.len().min(CHUNK)]);
        let (length, closed) = (bytes.len(), |_| io::Error::from(io::ErrorKind::BrokenPipe));
        if self.chunks.is_none() {
            let chunks = match &mut *self.state.lock() {
                State::Body(chunks) => PollSender::new(chunks.clone()),
                head => return Poll::Ready(head.write(bytes).map(|()| length).map_err(closed)),
            };
            self.chunks = Some(chunks);
        }
        let Some(chunks) = &mut self.chunks else { return Poll::Ready(Err(closed(()))) };
        ready!(chunks.poll_reserve(cx)).map_err(|_| closed(()))?;
        Poll::Ready(chunks.send_item(bytes).map(|()| length).map_err(|_| closed(())))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What was written after the head.
struct Chunks(mpsc::Receiver<Bytes>);

impl Body for Chunks {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
    }
}
