//! Protobuf's wire format, as far as a reader of untrusted bytes needs it: no allocation, no recursion.

use super::refused::{Kind, Refused};

/// One field's content. Groups are refused: ONNX has none, and readers skip them differently.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed32,
    Fixed64,
    Bytes(&'a [u8]),
}

/// The fields of a message, one after the other.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Refused> {
        if self.0.is_empty() {
            return Ok(None);
        }
        // A tag is a 32-bit number for every reader of protobuf; a longer one is read differently by each.
        let tag = u32::try_from(varint(&mut self.0)?).map_err(|_| broken())?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut self.0)?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let len = varint(&mut self.0)?;
                Value::Bytes(self.take(len)?)
            }
            5 => {
                self.take(4)?;
                Value::Fixed32
            }
            _ => return Err(broken()),
        };
        if tag >> 3 == 0 {
            return Err(broken());
        }
        Ok(Some((tag >> 3, value)))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Refused> {
        let len = usize::try_from(len).map_err(|_| broken())?;
        let (head, tail) = self.0.split_at_checked(len).ok_or_else(broken)?;
        self.0 = tail;
        Ok(head)
    }
}

/// Takes a varint off.
pub(super) fn varint(bytes: &mut &[u8]) -> Result<u64, Refused> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or_else(broken)?;
        *bytes = rest;
        if shift < 64 {
            value |= u64::from(byte & 0x7f) << shift;
        }
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(broken())
}

/// How many varints a packed field holds.
pub(super) fn packed_varints(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte < 0x80).count() as u64
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, Refused> {
    std::str::from_utf8(bytes).map_err(|_| broken())
}

pub(super) fn broken() -> Refused {
    Refused::new(
        Kind::Broken,
        "the file is not an ONNX model: its protobuf is broken",
        "export it again as ONNX",
    )
}
