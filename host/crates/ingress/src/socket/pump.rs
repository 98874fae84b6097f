use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WsError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;
use wasmeter_runtime::{BodyError, ReplyBody};
use wasmeter_types::{ErrorKind, WebsocketSection};

use super::frame::{Decoder, Piece, encode};

/// How long a guest may take to end after its client has closed, and a client to confirm a close.
const GRACE: Duration = Duration::from_secs(5);
/// Between two pings, so that nothing on the way forgets a quiet connection.
const PING: Duration = Duration::from_secs(20);
/// How long a client may take to take one message.
const TAKE: Duration = Duration::from_secs(30);
/// A close frame's reason (RFC 6455, section 5.5).
const MAX_REASON: usize = 123;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Carries messages between the client and the guest of one invocation until either ends.
pub(super) struct Pump {
    sink: SplitSink<Socket, Message>,
    stream: SplitStream<Socket>,
    /// The guest's answer; dropped, it stops the guest.
    body: ReplyBody,
    decoder: Decoder,
    /// The guest's request, at its end when this is dropped.
    input: Option<mpsc::Sender<Bytes>>,
    limits: WebsocketSection,
    usage: HeaderMap,
}

/// Why the connection ends.
struct End {
    code: u16,
    reason: String,
}

impl End {
    fn new(code: u16, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// The code of a failure is 4000 + the status that it would have had as an answer.
    fn failure(kind: ErrorKind, message: &str) -> Self {
        Self::new(4000 + kind.status(), message)
    }
}

impl Pump {
    pub(super) fn new(
        socket: Socket,
        body: ReplyBody,
        input: mpsc::Sender<Bytes>,
        limits: WebsocketSection,
    ) -> Self {
        let (sink, stream) = socket.split();
        let decoder = Decoder::new(limits.message.0);
        Self { sink, stream, body, decoder, input: Some(input), limits, usage: HeaderMap::new() }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let end = self.carry(&stop).await;
        // The guest's input is at its end now: a guest that takes notice ends and is answered for; one that does not,
        // is stopped when its body is dropped.
        let Some(mut end) = end else {
            // The confirmation of the client's close, which the library has made ready.
            let _ = timeout(GRACE, self.sink.close()).await;
            return drop(timeout(GRACE, self.rest()).await);
        };
        if let Ok(Some(own)) = timeout(GRACE, self.rest()).await
            && end.code == u16::from(CloseCode::Normal)
        {
            end = own;
        }
        if end.reason.is_empty() {
            end.reason = self.shown();
        }
        drop(self.body);
        let mut cut = end.reason.len().min(MAX_REASON);
        while !end.reason.is_char_boundary(cut) {
            cut -= 1;
        }
        let code = CloseCode::from(end.code);
        let code = if code.is_allowed() { code } else { CloseCode::Error };
        let frame = CloseFrame { code, reason: Utf8Bytes::from(&end.reason[..cut]) };
        let until = Instant::now() + GRACE;
        if let Ok(Ok(())) = timeout_at(until, self.sink.send(Message::Close(Some(frame)))).await {
            // Until the client confirms: a connection that is closed with bytes unread is reset, and the frame lost.
            while let Ok(Some(Ok(_))) = timeout_at(until, self.stream.next()).await {}
        }
    }

    /// None: the client has left, or closes and waits for no reason.
    async fn carry(&mut self, stop: &CancellationToken) -> Option<End> {
        let input = self.input.take()?;
        let mut ping = interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut quiet = Instant::now() + self.limits.idle.0;
        loop {
            // A guest that does not read is not read for: the client then feels it as TCP's back pressure.
            let from_client = async {
                let slot = input.reserve().await;
                (slot, self.stream.next().await)
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Some(End::new(CloseCode::Away.into(), "the host shuts down")),
                frame = self.body.frame() => {
                    quiet = Instant::now() + self.limits.idle.0;
                    match frame {
                        None => return Some(self.decoded_whole()),
                        Some(Err(error)) => return Some(broken(&error, stop)),
                        Some(Ok(frame)) => match frame.into_data() {
                            Err(frame) => self.usage = frame.into_trailers().unwrap_or_default(),
                            Ok(data) => {
                                self.decoder.push(&data);
                                if let Some(end) = self.tell_client().await {
                                    return end;
                                }
                            }
                        },
                    }
                }
                (slot, message) = from_client => {
                    let content = match message {
                        Some(Ok(Message::Text(text))) => encode(true, text.as_bytes()),
                        Some(Ok(Message::Binary(bytes))) => encode(false, &bytes),
                        // Answered by the library; a client that only pings is not idle to itself, but to us.
                        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                        Some(Ok(Message::Close(_))) | None => return None,
                        Some(Err(error)) => return refused(&error),
                    };
                    quiet = Instant::now() + self.limits.idle.0;
                    // A guest that has stopped reading will soon end; what it was sent is lost, as for any server.
                    if let Ok(slot) = slot {
                        slot.send(content);
                    }
                }
                () = sleep_until(quiet) => {
                    return Some(End::failure(ErrorKind::SlowRequest, &format!(
                        "no message in either direction for {}, its websocket.idle", self.limits.idle
                    )));
                }
                _ = ping.tick() => {
                    if !matches!(timeout(TAKE, self.sink.send(Message::Ping(Bytes::new()))).await, Ok(Ok(()))) {
                        return None;
                    }
                }
            }
        }
    }

    /// Sends what the guest has written; some if that ends the connection.
    async fn tell_client(&mut self) -> Option<Option<End>> {
        loop {
            let message = match self.decoder.next() {
                Ok(None) => return None,
                Ok(Some(Piece::Text(text))) => Message::text(text),
                Ok(Some(Piece::Binary(bytes))) => Message::binary(bytes),
                Ok(Some(Piece::Close(code, reason))) => return Some(Some(End::new(code, reason))),
                Err(error) => {
                    let message = format!("the function wrote {error}");
                    return Some(Some(End::failure(ErrorKind::GuestFailed, &message)));
                }
            };
            if !matches!(timeout(TAKE, self.sink.send(message)).await, Ok(Ok(()))) {
                return Some(None);
            }
        }
    }

    fn decoded_whole(&self) -> End {
        match self.decoder.end() {
            Ok(()) => End::new(CloseCode::Normal.into(), ""),
            Err(error) => End::failure(ErrorKind::GuestFailed, &format!("the function wrote {error}")),
        }
    }

    /// What the guest still says is not sent on, but its end, and what it used, is waited for.
    async fn rest(&mut self) -> Option<End> {
        while let Some(frame) = self.body.frame().await {
            match frame {
                Err(error) => return Some(broken(&error, &CancellationToken::new())),
                Ok(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.usage = trailers;
                    }
                }
            }
        }
        None
    }

    /// Usage as the reason of the close frame, for a caller who may know.
    fn shown(&self) -> String {
        let text = |name| self.usage.get(name).and_then(|v| v.to_str().ok());
        let (Some(fuel), Some(device_ns)) = (text("x-wasmeter-fuel"), text("x-wasmeter-device-ns")) else {
            return String::new();
        };
        let cost = text("x-wasmeter-cost").map_or_else(String::new, |c| format!(",\"cost\":\"{c}\""));
        format!("{{\"fuel\":{fuel},\"device_ns\":{device_ns}{cost}}}")
    }
}

/// The guest's answer broke off.
fn broken(error: &BodyError, stop: &CancellationToken) -> End {
    match error {
        _ if stop.is_cancelled() => End::new(CloseCode::Away.into(), "the host shuts down"),
        BodyError::Failed { kind, message } => End::failure(*kind, message),
        BodyError::TooLarge(_) | BodyError::Slow | BodyError::Broken(_) => {
            End::failure(ErrorKind::GuestFailed, &error.to_string())
        }
    }
}

/// The client's message cannot be taken.
fn refused(error: &WsError) -> Option<End> {
    match error {
        WsError::Capacity(CapacityError::MessageTooLong { .. }) => {
            Some(End::new(CloseCode::Size.into(), "the message is larger than websocket.message"))
        }
        WsError::Utf8(_) => Some(End::new(CloseCode::Invalid.into(), "a text message is not UTF-8")),
        WsError::Protocol(_) | WsError::Capacity(_) => {
            Some(End::new(CloseCode::Protocol.into(), "not as RFC 6455 says"))
        }
        _ => None,
    }
}
