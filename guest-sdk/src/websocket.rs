//! A WebSocket: one invocation, whose request body is the client's messages and whose response body is ours.

use std::io::Write as _;

use crate::raw::wasi::http::types::IncomingBody;
use crate::raw::wasi::io::streams::{InputStream, StreamError};
use crate::{BodyWriter, Error, Request, Response, Result};

/// The type of both bodies: each message is one byte of kind, four bytes of length (big endian), the content.
pub const WEBSOCKET: &str = "application/vnd.wasmeter.websocket";

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
/// Bytes asked for in one read.
const READ: u64 = 64 << 10;

/// A message of a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
}

/// The connection to the client. Messages come and go whole; the platform answers pings.
pub struct WebSocket<'a> {
    input: Input,
    buffer: Vec<u8>,
    out: &'a mut BodyWriter,
}

/// Its parts are children of each other: they must go in this order.
pub(crate) struct Input {
    stream: InputStream,
    _body: IncomingBody,
    _request: Request,
}

impl Input {
    pub(crate) fn new(body: IncomingBody, request: Request) -> Result<Self> {
        let stream = body.stream().map_err(|()| Error::bad_request("the messages could not be read"))?;
        Ok(Self { stream, _body: body, _request: request })
    }
}

/// The answer that takes the connection; `talk` then runs until it returns.
pub(crate) fn open(input: Input, talk: impl FnOnce(&mut WebSocket<'_>) -> Result<()> + 'static) -> Response {
    Response::stream(WEBSOCKET, move |out| {
        let mut socket = WebSocket { input, buffer: Vec::new(), out };
        match talk(&mut socket) {
            Ok(()) => Ok(()),
            Err(error) => {
                eprintln!("the WebSocket ends with {}: {}", error.status(), error.message());
                socket.close(4000 + error.status(), error.message())
            }
        }
    })
}

impl WebSocket<'_> {
    /// The client's next message; none when it has closed or left, or the host shuts down.
    ///
    /// # Errors
    /// 400 for messages that break off.
    pub fn receive(&mut self) -> Result<Option<Message>> {
        loop {
            if let Some((message, used)) = first(&self.buffer)? {
                self.buffer.drain(..used);
                return Ok(Some(message));
            }
            match self.input.stream.blocking_read(READ) {
                Ok(bytes) => self.buffer.extend_from_slice(&bytes),
                Err(StreamError::Closed) => return Ok(None),
                Err(StreamError::LastOperationFailed(_)) => return Ok(None),
            }
        }
    }

    /// Sends a message, at the client's pace.
    ///
    /// # Errors
    /// If the client has gone.
    pub fn send(&mut self, message: &Message) -> Result<()> {
        match message {
            Message::Text(text) => self.write(TEXT, &[text.as_bytes()]),
            Message::Binary(bytes) => self.write(BINARY, &[bytes]),
        }
    }

    /// Closes with a code of RFC 6455 (1000, 3000 to 4999) and a reason of at most 123 bytes. Without it, the return
    /// of the handler closes with 1000.
    ///
    /// # Errors
    /// If the client has gone.
    pub fn close(&mut self, code: u16, reason: &str) -> Result<()> {
        self.write(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()])
    }

    fn write(&mut self, kind: u8, content: &[&[u8]]) -> Result<()> {
        let length = content.iter().map(|part| part.len()).sum::<usize>();
        let length = u32::try_from(length).map_err(|_| Error::internal("a message of more than 4 GiB"))?;
        let mut message = vec![kind];
        message.extend_from_slice(&length.to_be_bytes());
        content.iter().for_each(|part| message.extend_from_slice(part));
        self.out.write_all(&message)?;
        Ok(self.out.flush()?)
    }
}

/// The first whole message of a buffer, and how many bytes it takes.
fn first(buffer: &[u8]) -> Result<Option<(Message, usize)>> {
    let Some((&[kind, a, b, c, d], rest)) = buffer.split_first_chunk::<5>() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let Some(content) = rest.get(..length) else { return Ok(None) };
    let message = match kind {
        TEXT => Message::Text(
            String::from_utf8(content.to_vec()).map_err(|_| Error::bad_request("a text is not UTF-8"))?,
        ),
        BINARY => Message::Binary(content.to_vec()),
        _ => return Err(Error::bad_request(format!("a message of unknown kind {kind}"))),
    };
    Ok(Some((message, 5 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_whole() {
        let bytes = [1, 0, 0, 0, 2, b'h', b'i', 2, 0, 0, 0, 1, 9];
        assert_eq!(first(&bytes[..6]).expect("half a message"), None);
        assert_eq!(first(&bytes).expect("a text"), Some((Message::Text("hi".to_owned()), 7)));
        assert_eq!(first(&bytes[7..]).expect("bytes"), Some((Message::Binary(vec![9]), 6)));
        assert!(first(&[7, 0, 0, 0, 0]).is_err());
        assert!(first(&[1, 0, 0, 0, 1, 0xff]).is_err());
    }
}
