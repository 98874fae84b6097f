use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::{Response, StatusCode, response};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use wasmeter_types::{Error, Limits};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::body::{BodyError, Chunk, ReplyBody};
use super::figures::Figures;
use super::run::Answer;
use super::verdict::{Stop, is_final};
use super::{Inner, WEBSOCKET};

/// Chunks between the invocation and the connection.
const STREAM_CHUNKS: usize = 4;
/// How long a caller may take over the last chunk, after the guest has ended and the usage is recorded.
const LAST_CHUNK: Duration = Duration::from_secs(30);

/// Carries the guest's answer to the caller: holds it until the guest ends, or streams it with the last chunk held.
pub(super) struct Carrier {
    reply: Option<oneshot::Sender<Answer>>,
    parts: Option<response::Parts>,
    status: Option<StatusCode>,
    body: Option<HyperOutgoingBody>,
    /// Not yet given to the connection.
    held: VecDeque<Bytes>,
    held_bytes: usize,
    trailers: Option<http::HeaderMap>,
    out: Option<mpsc::Sender<Chunk>>,
    /// Body bytes that the guest wrote.
    pub(super) bytes: u64,
    most: u64,
    /// Fields of the head, and how many there may be.
    headers: usize,
    most_headers: usize,
    hold_bytes: usize,
    hold_time: Duration,
    hold_until: Option<Instant>,
    /// HEAD: the head is the last byte, so it is never sent before the end.
    bodiless: bool,
    figures: bool,
    broken: bool,
    /// Whether the body must be as long as its head says, and how long that is.
    checks_length: bool,
    length: Option<u64>,
    /// Each chunk goes when it is there; the end of the body is what waits for the usage.
    live: bool,
}

impl Carrier {
    pub(super) fn new(
        reply: oneshot::Sender<Answer>,
        limits: &Limits,
        host: &Inner,
        bodiless: bool,
        figures: bool,
    ) -> Self {
        Self {
            reply: Some(reply),
            parts: None,
            status: None,
            body: None,
            held: VecDeque::new(),
            held_bytes: 0,
            trailers: None,
            out: None,
            bytes: 0,
            most: limits.response_body.0,
            most_headers: limits.bounds().headers as usize,
            headers: 0,
            hold_bytes: host.options.hold_bytes,
            hold_time: host.options.hold_time,
            hold_until: None,
            bodiless,
            figures,
            broken: false,
            checks_length: false,
            length: None,
            live: false,
        }
    }

    pub(super) fn has_head(&self) -> bool {
        self.status.is_some()
    }

    pub(super) fn status(&self) -> Option<StatusCode> {
        if self.broken { None } else { self.status }
    }

    /// Whether its body broke off, or came to no end.
    pub(super) fn unfinished(&self) -> bool {
        self.broken
    }

    pub(super) fn status_code(&self) -> u16 {
        self.status().map_or(0, |s| s.as_u16())
    }

    /// Header fields of the answer.
    pub(super) fn headers(&self) -> usize {
        self.headers
    }

    /// Whether the caller may see them.
    pub(super) fn shows_figures(&self) -> bool {
        self.figures
    }

    pub(super) fn streaming(&self) -> bool {
        self.out.is_some()
    }

    pub(super) fn head(&mut self, response: Response<HyperOutgoingBody>) {
        let (parts, body) = response.into_parts();
        let none = parts.status == StatusCode::NO_CONTENT || parts.status == StatusCode::NOT_MODIFIED;
        self.headers = parts.headers.len();
        // A head that is no answer must never be sent, so it is not sent before the end either.
        self.bodiless |= none || !is_final(parts.status) || self.headers > self.most_headers;
        self.status = Some(parts.status);
        if self.checks_length && !self.bodiless {
            let length = parts.headers.get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
            self.length = length.and_then(|v| v.parse().ok());
        }
        let kind = parts.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        let socket = kind == WEBSOCKET;
        // An event that waits for the next one would be late by as much as that one takes to come.
        self.live = socket || kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream");
        self.parts = Some(parts);
        self.body = Some(body);
        if socket && !self.bodiless {
            self.stream();
        }
    }

    /// One step: takes a chunk from the guest, or gives one to the connection. Pending while there is neither.
    pub(super) async fn step(&mut self) -> Result<(), Stop> {
        // All but the last chunk may go; the last one waits for the usage.
        let keep = usize::from(!self.live);
        if let Some(out) = self.out.as_ref().filter(|_| self.held.len() > keep) {
            let Ok(slot) = out.reserve().await else { return Err(Stop::Disconnect) };
            if let Some(chunk) = self.held.pop_front() {
                self.held_bytes -= chunk.len();
                slot.send(Ok(Frame::data(chunk)));
            }
            return Ok(());
        }
        let hold_until = self.hold_until.filter(|_| self.out.is_none() && !self.bodiless);
        let Some(body) = &mut self.body else { return std::future::pending().await };
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = sleep_until(hold_until.unwrap_or_else(Instant::now)), if hold_until.is_some() => {
                self.stream();
                return Ok(());
            }
        };
        self.take(frame)
    }

    fn take(&mut self, frame: Option<Result<Frame<Bytes>, wasmtime_wasi_http::Error>>) -> Result<(), Stop> {
        match frame {
            None => {
                self.body = None;
                self.broken |= self.length.is_some_and(|length| length != self.bytes);
            }
            Some(Err(_)) => {
                self.body = None;
                self.broken = true;
            }
            Some(Ok(frame)) => match frame.into_data() {
                Err(frame) => self.trailers = frame.into_trailers().ok(),
                Ok(data) => return self.data(data),
            },
        }
        Ok(())
    }

    fn data(&mut self, data: Bytes) -> Result<(), Stop> {
        self.bytes = self.bytes.saturating_add(data.len() as u64);
        if self.bytes > self.most {
            return Err(Stop::ResponseTooLarge(self.most));
        }
        if self.bodiless || data.is_empty() {
            return Ok(());
        }
        self.hold_until.get_or_insert_with(|| Instant::now() + self.hold_time);
        self.held_bytes += data.len();
        self.held.push_back(data);
        if self.out.is_none() && self.held_bytes > self.hold_bytes {
            self.stream();
        }
        Ok(())
    }

    /// Gives up holding: the head goes now, without the figures.
    fn stream(&mut self) {
        let (Some(mut parts), Some(reply)) = (self.parts.take(), self.reply.take()) else { return };
        let (out, chunks) = mpsc::channel(STREAM_CHUNKS);
        if self.figures {
            parts.headers.insert(http::header::TRAILER, http::HeaderValue::from_static(Figures::TRAILERS));
        }
        let answer = Ok(Response::from_parts(parts, ReplyBody::stream(chunks)));
        // If the caller has left, the cancel token says so.
        let _ = reply.send(Answer { answer, figures: None });
        self.out = Some(out);
    }

    /// Holds the body to the content-length of its head: of WASI 0.3, wasmtime's own look at it can get lost.
    pub(super) fn hold_to_length(&mut self) {
        self.checks_length = true;
    }

    /// The guest has ended, its store still lives: takes what there is of a body that only the guest could end. If no
    /// end is there, there will be none, though the death of the store would look like one.
    pub(super) fn guest_ended(&mut self) -> Option<Stop> {
        while let Some(body) = &mut self.body {
            match body.frame().now_or_never() {
                None => (self.body, self.broken) = (None, true),
                Some(frame) => {
                    if let Err(stop) = self.take(frame) {
                        return Some(stop);
                    }
                }
            }
        }
        None
    }

    /// After the store's death: the rest of the body, which the channel bounds.
    pub(super) async fn drain(&mut self) -> Option<Stop> {
        while let Some(body) = &mut self.body {
            let frame = body.frame().await;
            if let Err(stop) = self.take(frame) {
                return Some(stop);
            }
        }
        None
    }

    /// The usage is recorded: the caller may have the end.
    pub(super) async fn release(mut self, end: Result<(), Error>, figures: Option<Figures>) {
        let Some(reply) = self.reply.take() else {
            let Some(out) = self.out.take() else { return };
            let give = self.finish_stream(&out, end, figures.as_ref());
            // A caller that does not read keeps its connection, not this task.
            let _ = tokio::time::timeout(LAST_CHUNK, give).await;
            return;
        };
        let answer = match (end, self.parts.take()) {
            (Err(error), _) => Err(error),
            (Ok(()), None) => Err(Error::internal()),
            (Ok(()), Some(mut parts)) => {
                // The whole body is here: its length is what was written.
                if !self.bodiless {
                    parts.headers.remove(http::header::CONTENT_LENGTH);
                }
                Ok(Response::from_parts(parts, ReplyBody::whole(self.joined())))
            }
        };
        let _ = reply.send(Answer { answer, figures });
    }

    fn joined(&mut self) -> Bytes {
        if self.held.len() == 1 {
            return self.held.pop_front().unwrap_or_default();
        }
        let mut bytes = BytesMut::with_capacity(self.held_bytes);
        self.held.drain(..).for_each(|chunk| bytes.extend_from_slice(&chunk));
        bytes.freeze()
    }

    async fn finish_stream(
        &mut self,
        out: &mpsc::Sender<Chunk>,
        end: Result<(), Error>,
        figures: Option<&Figures>,
    ) {
        if let Err(error) = end {
            // The head is gone; only a body that breaks off can tell.
            let Error { kind, message, .. } = error;
            let _ = out.send(Err(BodyError::Failed { kind, message })).await;
            return;
        }
        while let Some(chunk) = self.held.pop_front() {
            if out.send(Ok(Frame::data(chunk))).await.is_err() {
                return;
            }
        }
        let mut trailers = self.trailers.take().unwrap_or_default();
        if let Some(figures) = figures {
            figures.write(&mut trailers);
        }
        if !trailers.is_empty() {
            let _ = out.send(Ok(Frame::trailers(trailers))).await;
        }
    }
}
