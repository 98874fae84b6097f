//! Names of an ONNX file's inputs and outputs, and of their dimensions. OpenVINO forgets the latter, and of a port
//! that several names fit it tells any. Called after the gate, on bytes that it has let pass.

/// A port as the file describes it.
pub(super) struct NamedPort {
    pub(super) name: String,
    /// For each dimension its name, empty where it has none; `None` where the file gives no shape.
    pub(super) dims: Option<Vec<String>>,
}

/// Inputs that are not initialisers, and outputs, in the file's order; `None` where the bytes cannot be followed.
pub(super) fn read(model: &[u8]) -> Option<(Vec<NamedPort>, Vec<NamedPort>)> {
    let graph = messages(model, 7)?.into_iter().next_back()?;
    let mut constants = Vec::new();
    for tensor in messages(graph, 5)? {
        constants.extend(messages(tensor, 8)?.into_iter().next_back());
    }
    let inputs = messages(graph, 11)?.into_iter().map(port).collect::<Option<Vec<_>>>()?;
    let inputs = inputs.into_iter().filter(|port| !constants.contains(&port.name.as_bytes())).collect();
    let outputs = messages(graph, 12)?.into_iter().map(port).collect::<Option<Vec<_>>>()?;
    Some((inputs, outputs))
}

/// ValueInfoProto: name 1, type 2; TypeProto: tensor 1; its shape 2, of dimensions 1; each a size 1 or a name 2.
fn port(info: &[u8]) -> Option<NamedPort> {
    let last =
        |bytes, field| -> Option<Option<&[u8]>> { Some(messages(bytes, field)?.into_iter().next_back()) };
    let name = text(last(info, 1)?.unwrap_or_default());
    let shape = match last(info, 2)? {
        Some(kind) => match last(kind, 1)? {
            Some(tensor) => last(tensor, 2)?,
            None => None,
        },
        None => None,
    };
    let dims = match shape {
        Some(shape) => {
            let dims = messages(shape, 1)?.into_iter();
            Some(dims.map(|dim| Some(text(last(dim, 2)?.unwrap_or_default()))).collect::<Option<Vec<_>>>()?)
        }
        None => None,
    };
    Some(NamedPort { name, dims })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// All values of a field that holds bytes, in order.
fn messages(mut bytes: &[u8], wanted: u64) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let len = match tag & 7 {
            0 => {
                varint(&mut bytes)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (value, rest) = bytes.split_at_checked(len)?;
        bytes = rest;
        if tag >> 3 == wanted && tag & 7 == 2 {
            found.push(value);
        }
    }
    Some(found)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_a_real_file() {
        // Relative: cargo runs a test in the folder of its package.
        let path = "tests/models/identity-f32.onnx";
        let (inputs, outputs) = read(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!((inputs.len(), outputs.len()), (1, 1));
        assert_eq!(inputs[0].dims.as_deref(), Some(&["n".to_owned(), String::new()][..]));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }
    }
}
