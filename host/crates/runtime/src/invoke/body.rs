use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;
use wasmeter_types::ErrorKind;

/// Why a body broke off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is larger than the function's limit.
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    /// The sender fell silent.
    #[error("no byte of the body within the time for one")]
    Slow,
    /// The invocation failed after its head had left.
    #[error("{message}")]
    Failed {
        /// What an answer would have said.
        kind: ErrorKind,
        /// For the caller.
        message: String,
    },
    /// The other side failed.
    #[error("{0}")]
    Broken(String),
}

/// The body of a reply: whole, or streamed with its last chunk held until the usage is recorded.
pub struct ReplyBody {
    kind: Kind,
    /// Dropped with the body: a caller that leaves stops the guest.
    guard: Option<DropGuard>,
}

pub(super) type Chunk = Result<Frame<Bytes>, BodyError>;

enum Kind {
    Whole(Option<Bytes>),
    Stream(mpsc::Receiver<Chunk>),
    /// It breaks off; what came before is on its way.
    Breaks(Option<BodyError>),
}

impl ReplyBody {
    pub(super) fn whole(bytes: Bytes) -> Self {
        let bytes = (!bytes.is_empty()).then_some(bytes);
        Self { kind: Kind::Whole(bytes), guard: None }
    }

    pub(super) fn stream(chunks: mpsc::Receiver<Chunk>) -> Self {
        Self { kind: Kind::Stream(chunks), guard: None }
    }

    pub(super) fn guarded(mut self, guard: DropGuard) -> Self {
        match self.kind {
            // A whole body exists only after the end of the guest.
            Kind::Whole(_) => drop(guard.disarm()),
            Kind::Stream(_) | Kind::Breaks(_) => self.guard = Some(guard),
        }
        self
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Chunk>> {
        match &mut self.kind {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Kind::Stream(chunks) => match ready!(chunks.poll_recv(cx)) {
                Some(Err(error)) => {
                    // A connection that meets an error drops what it has not written, perhaps the head: it flushes
                    // when it is told to wait.
                    self.kind = Kind::Breaks(Some(error));
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                chunk => Poll::Ready(chunk),
            },
            Kind::Breaks(error) => Poll::Ready(error.take().map(Err)),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.kind, Kind::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Stream(_) | Kind::Breaks(_) => SizeHint::default(),
        }
    }
}
