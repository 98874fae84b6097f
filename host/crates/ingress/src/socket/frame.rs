//! How messages travel in the bodies between host and guest (`application/vnd.wasmeter.websocket`, wit/README.md): one
//! byte of kind, four bytes of length (big endian), the content.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const HEAD: usize = 5;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    Binary(Bytes),
    /// The guest's last word: code and reason (RFC 6455, section 7.1.5 and 7.1.6).
    Close(u16, String),
}

/// What a guest must not write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a message of {0} bytes, over websocket.message")]
    TooLarge(u64),
    #[error("a message of unknown kind {0}")]
    Kind(u8),
    #[error("a text message that is not UTF-8")]
    NotText,
    #[error("a close message that is not two bytes of code and UTF-8")]
    BadClose,
    #[error("half a message")]
    Cut,
}

/// A message for the guest.
pub(crate) fn encode(kind_is_text: bool, content: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD + content.len());
    bytes.put_u8(if kind_is_text { TEXT } else { BINARY });
    bytes.put_u32(u32::try_from(content.len()).unwrap_or(u32::MAX));
    bytes.extend_from_slice(content);
    bytes.freeze()
}

/// The guest's messages, from pieces of its body.
pub(crate) struct Decoder {
    buffer: BytesMut,
    most: u64,
}

impl Decoder {
    pub(crate) fn new(most: u64) -> Self {
        Self { buffer: BytesMut::new(), most }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, FrameError> {
        let Some(head) = self.buffer.get(..HEAD) else { return Ok(None) };
        let (kind, length) = (head[0], u32::from_be_bytes([head[1], head[2], head[3], head[4]]));
        if u64::from(length) > self.most {
            return Err(FrameError::TooLarge(length.into()));
        }
        if !matches!(kind, TEXT | BINARY | CLOSE) {
            return Err(FrameError::Kind(kind));
        }
        let length = usize::try_from(length).map_err(|_| FrameError::TooLarge(length.into()))?;
        if self.buffer.len() < HEAD + length {
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        let mut content = self.buffer.split_to(length).freeze();
        let text = |bytes: Bytes| String::from_utf8(bytes.into());
        Ok(Some(match kind {
            TEXT => Piece::Text(text(content).map_err(|_| FrameError::NotText)?),
            BINARY => Piece::Binary(content),
            _ if content.len() < 2 => return Err(FrameError::BadClose),
            _ => {
                let code = content.get_u16();
                Piece::Close(code, text(content).map_err(|_| FrameError::BadClose)?)
            }
        }))
    }

    /// At the end of the body.
    pub(crate) fn end(&self) -> Result<(), FrameError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(FrameError::Cut) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], step: usize) -> Result<Vec<Piece>, FrameError> {
        let mut decoder = Decoder::new(100);
        let mut pieces = Vec::new();
        for part in bytes.chunks(step) {
            decoder.push(part);
            while let Some(piece) = decoder.next()? {
                pieces.push(piece);
            }
        }
        decoder.end()?;
        Ok(pieces)
    }

    #[test]
    fn messages_survive_any_cut() {
        let mut bytes =
            [encode(true, "grüß".as_bytes()), encode(false, &[0, 255]), encode(true, b"")].concat();
        bytes.extend_from_slice(&[8, 0, 0, 0, 5, 0x0f, 0xa0, b'b', b'y', b'e']);
        let want = [
            Piece::Text("grüß".to_owned()),
            Piece::Binary(Bytes::from_static(&[0, 255])),
            Piece::Text(String::new()),
            Piece::Close(4000, "bye".to_owned()),
        ];
        for step in 1..bytes.len() {
            assert_eq!(all(&bytes, step).unwrap(), want, "{step}");
        }
    }

    #[test]
    fn refuses_what_a_guest_must_not_write() {
        assert_eq!(all(&[1, 0, 0, 0, 101], 5), Err(FrameError::TooLarge(101)));
        assert_eq!(all(&[3, 0, 0, 0, 0], 5), Err(FrameError::Kind(3)));
        assert_eq!(all(&[1, 0, 0, 0, 1, 0xff], 6), Err(FrameError::NotText));
        assert_eq!(all(&[8, 0, 0, 0, 1, 0], 6), Err(FrameError::BadClose));
        assert_eq!(all(&[1, 0, 0, 0, 2, b'x'], 6), Err(FrameError::Cut));
    }
}
