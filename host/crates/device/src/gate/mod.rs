//! What a model file must not contain, found by reading it before an engine sees a byte.
//!
//! The readers here are our own and only parse: they take untrusted bytes, hold to the limits below, never
//! follow a path and never compute on tensors. They run inside the worker, and fuzzers can call them directly.
//! An ONNX tensor may name a file and an offset, and engines then read that file for it: hence the first rule,
//! no external data anywhere. The others keep an engine from spending memory or time on what cannot be a model.

mod check;
mod ir;
mod onnx;
mod protobuf;
mod refused;
mod rows;
mod tensor;

pub use refused::{Kind, Refused};
use wasmeter_inference::Batching;

/// The largest model file: where protobuf itself ends.
pub const MAX_BYTES: u64 = (2 << 30) - 1;
/// The most bytes that one tensor, or one declared shape, may stand for.
pub const MAX_TENSOR_BYTES: u64 = 2 << 30;
/// The most nodes, subgraphs and expanded functions included.
pub const MAX_NODES: usize = 100_000;
/// The most parts of any kind (names, attributes, numbers that are looked at) that are read of one model.
pub const MAX_PARTS: usize = 2_000_000;
/// The deepest nesting of graphs in attributes, and of functions in functions.
pub const MAX_GRAPH_DEPTH: usize = 8;
/// The longest name of a value, node, operator or domain, in bytes.
pub const MAX_STRING: usize = 4096;
/// The most dimensions of a tensor in a file.
pub const MAX_DIMS: usize = 32;

/// What the gate learned about a model that may pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Whether rows of several callers may share a run.
    pub batching: Batching,
    /// Nodes of all graphs together.
    pub nodes: usize,
}

/// Reads an ONNX file.
///
/// # Errors
/// [`Refused`] says what was found and what to do.
pub fn check_onnx(model: &[u8]) -> Result<Checked, Refused> {
    // ONNX Runtime's own format is recognised by this mark, whatever the file's name is; the reader
    // does not understand it, so it must not reach the engine.
    if model.get(4..8) == Some(b"ORTM") {
        let what = "the file is in ONNX Runtime's own format";
        return Err(Refused::new(Kind::Broken, what, "use ONNX"));
    }
    if model.len() as u64 > MAX_BYTES {
        let what = format!("the model has {} bytes, and ONNX ends at {MAX_BYTES}", model.len());
        return Err(Refused::new(Kind::Size, what, "quantise or split it"));
    }
    let mut reader = onnx::Reader::new(model.len());
    let model = reader.model(model)?;
    let nodes = check::check(&model)?;
    Ok(Checked { batching: rows::batching(&model), nodes })
}

/// Reads the XML of an OpenVINO IR whose weights have so many bytes.
///
/// # Errors
/// [`Refused`] says what was found and what to do.
pub fn check_ir(xml: &[u8], weights: usize) -> Result<(), Refused> {
    ir::check(xml, weights)
}

#[cfg(test)]
mod tests;
