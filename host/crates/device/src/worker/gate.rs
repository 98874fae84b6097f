//! What a model file must not contain, found by walking its protobuf before the engine sees it.
//!
//! The one rule so far: no external data. An ONNX tensor may name a file and an offset, and engines then read
//! that file for it. The walk knows every place of the ONNX schema (onnx.proto3, IR version 12) where a
//! tensor can be; fields that it does not know are skipped, as the engine skips them.

/// The deepest nesting of messages that is followed; protobuf itself stops at 100.
const MAX_DEPTH: u32 = 64;

/// Checks an ONNX file.
pub(super) fn check(model: &[u8]) -> Result<(), String> {
    // ONNX Runtime's own format is recognised by this mark, whatever the file's name is; the walk below
    // does not understand it, so it must not reach the engine.
    if model.get(4..8) == Some(b"ORTM") {
        return Err("the file is in ONNX Runtime's own format; use ONNX".to_owned());
    }
    let mut has_graph = false;
    walk(model, Message::Model, 0, &mut has_graph)?;
    if has_graph { Ok(()) } else { Err("the file is not an ONNX model: it has no graph".to_owned()) }
}

/// The message types on the way to a tensor.
#[derive(Clone, Copy, PartialEq)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Function,
    Training,
    SparseTensor,
    Tensor,
}

impl Message {
    /// The type of a field that holds messages to look into.
    fn child(self, field: u64) -> Option<Message> {
        Some(match (self, field) {
            (Message::Model, 7) | (Message::Training, 1 | 2) | (Message::Attribute, 6 | 11) => Message::Graph,
            (Message::Model, 20) => Message::Training,
            (Message::Model, 25) => Message::Function,
            (Message::Graph, 1) | (Message::Function, 7) => Message::Node,
            (Message::Node, 5) | (Message::Function, 11) => Message::Attribute,
            (Message::Graph, 5) | (Message::Attribute, 5 | 10) | (Message::SparseTensor, 1 | 2) => {
                Message::Tensor
            }
            (Message::Graph, 15) | (Message::Attribute, 22 | 23) => Message::SparseTensor,
            _ => return None,
        })
    }
}

/// Fields of `TensorProto`.
const EXTERNAL_DATA: u64 = 13;
const DATA_LOCATION: u64 = 14;

fn walk(mut bytes: &[u8], message: Message, depth: u32, has_graph: &mut bool) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err("the model nests too deeply".to_owned());
    }
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        // A tag is a 32-bit number for every reader of protobuf; a longer one is read differently by each.
        if tag > u64::from(u32::MAX) {
            return Err(broken());
        }
        let field = tag >> 3;
        if message == Message::Tensor && (field == EXTERNAL_DATA || field == DATA_LOCATION) {
            let mut rest = bytes;
            let is_default = field == DATA_LOCATION && tag & 7 == 0 && varint(&mut rest)? == 0;
            if !is_default {
                return Err("the model keeps tensors in external files; store it as one file".to_owned());
            }
        }
        match tag & 7 {
            0 => drop(varint(&mut bytes)?),
            1 => drop(take(&mut bytes, 8)?),
            2 => {
                let len = varint(&mut bytes)?;
                let inner = take(&mut bytes, len)?;
                if let Some(child) = message.child(field) {
                    *has_graph |= message == Message::Model && child == Message::Graph;
                    walk(inner, child, depth + 1, has_graph)?;
                }
            }
            5 => drop(take(&mut bytes, 4)?),
            // Groups are unknown to ONNX, and a reader that skips them differently would see other fields.
            _ => return Err(broken()),
        }
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
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

fn take<'a>(bytes: &mut &'a [u8], len: u64) -> Result<&'a [u8], String> {
    let len = usize::try_from(len).map_err(|_| broken())?;
    let (head, tail) = bytes.split_at_checked(len).ok_or_else(broken)?;
    *bytes = tail;
    Ok(head)
}

fn broken() -> String {
    "the file is not an ONNX model: its protobuf is broken".to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(number: u8, inner: &[u8]) -> Vec<u8> {
        let mut tag = u32::from(number) << 3 | 2;
        let mut out = Vec::new();
        for mut value in [u64::from(std::mem::take(&mut tag)), inner.len() as u64] {
            loop {
                let byte = u8::try_from(value & 0x7f).unwrap();
                value >>= 7;
                if value == 0 {
                    out.push(byte);
                    break;
                }
                out.push(byte | 0x80);
            }
        }
        out.extend_from_slice(inner);
        out
    }

    /// A message nested along field numbers, from the model inwards.
    fn nested(path: &[u8], inner: &[u8]) -> Vec<u8> {
        path.iter().rev().fold(inner.to_vec(), |inner, number| field(*number, &inner))
    }

    #[test]
    fn external_data_is_found_everywhere() {
        let external = [0x70, 1];
        let entry = field(13, b"\x0a\x08location");
        for path in [
            &[7, 5][..],
            &[7, 1, 5, 5],
            &[7, 1, 5, 10],
            &[7, 1, 5, 6, 5],
            &[7, 1, 5, 11, 1, 5, 5],
            &[7, 15, 1],
            &[7, 15, 2],
            &[7, 1, 5, 22, 1],
            &[7, 1, 5, 23, 2],
            &[25, 7, 5, 5],
            &[25, 11, 5],
            &[20, 1, 5],
            &[20, 2, 1, 5, 5],
        ] {
            for tensor in [&external[..], &entry] {
                let mut model = nested(&[7], b"");
                model.extend(nested(path, tensor));
                assert!(check(&model).unwrap_err().contains("external files"), "{path:?}");
            }
        }
        assert_eq!(check(&nested(&[7, 5], &[0x70, 0])), Ok(()));
    }

    #[test]
    fn other_files_are_refused() {
        assert!(check(b"").unwrap_err().contains("no graph"));
        assert!(check(b"\x08\x09").unwrap_err().contains("no graph"));
        assert!(check(b"....ORTM").unwrap_err().contains("own format"));
        assert!(check(&[0x3b]).unwrap_err().contains("broken"));
        assert!(check(&[0xff; 40]).unwrap_err().contains("broken"));
        let deep = nested(&[[7].as_slice(), &[1, 5, 6].repeat(40)].concat(), b"");
        assert!(check(&deep).unwrap_err().contains("deeply"));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = check(&bytes);
            let _ = check(&nested(&[7, 1, 5], &bytes));
        }
    }
}
