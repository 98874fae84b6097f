//! The model cases.

use serde_json::{Value, json};
use wasi_nn::{ExecutionTarget, Graph, GraphBuilder, GraphEncoding, TensorType};

use crate::raw;

type Outcome = Result<Value, String>;

/// The crate keeps its error enum to itself; its text names the code.
fn text(error: wasi_nn::Error) -> String {
    error.to_string()
}

fn model(name: &str) -> Result<Graph, String> {
    GraphBuilder::new(GraphEncoding::Onnx, ExecutionTarget::AUTO).build_from_cache(name).map_err(text)
}

fn load(encoding: GraphEncoding, target: ExecutionTarget) -> Outcome {
    let built = GraphBuilder::new(encoding, target).build_from_bytes([[0u8; 16]]);
    built.map(|_| Value::Null).map_err(text)
}

fn compute(name: &str, dims: &[usize], data: &[f32], outputs: usize) -> Outcome {
    let graph = model(name)?;
    let mut context = graph.init_execution_context().map_err(text)?;
    context.set_input(0, TensorType::F32, dims, data).map_err(text)?;
    context.compute().map_err(text)?;
    let mut output = vec![0f32; outputs];
    let bytes = context.get_output(0, &mut output).map_err(text)?;
    Ok(json!({ "bytes": bytes, "values": output }))
}

const A: [f32; 6] = [1.0, 2.0, 3.0, -4.0, 0.5, 8.0];
const B: [f32; 4] = [10.0, 20.0, 30.0, -40.0];

/// Inputs of `pair` one after the other on one context, and all that comes out: bytes by output, and the numbers in
/// buffers that are larger than needed.
fn pair(a: &[&[f32]], b: &[&[f32]]) -> Outcome {
    let graph = model("pair")?;
    let mut context = graph.init_execution_context().map_err(text)?;
    let mut told = Vec::new();
    for (a, b) in a.iter().zip(b) {
        let rows = a.len() / 3;
        context.set_input(1, TensorType::F32, &[rows, 2], b).map_err(text)?;
        context.set_input(0, TensorType::F32, &[rows, 3], a).map_err(text)?;
        context.compute().map_err(text)?;
        for output in 0..2 {
            let mut values = [0f32; 8];
            let bytes = context.get_output(output, &mut values).map_err(text)?;
            told.push(json!({ "bytes": bytes, "values": values }));
        }
    }
    Ok(Value::Array(told))
}

/// Counts until the host says no.
fn until_refused(mut one: impl FnMut() -> Result<(), wasi_nn::Error>) -> Outcome {
    for count in 0.. {
        if let Err(error) = one() {
            return Ok(json!({ "count": count, "error": error.to_string() }));
        }
    }
    Ok(Value::Null)
}

pub(crate) fn run(case: &str) -> Outcome {
    let zeros = [0f32; 784];
    match case {
        "ok" => compute("mlp", &[1, 784], &zeros, 10),
        "echo" => {
            let numbers: Vec<f32> = serde_json::from_reader(std::io::stdin()).map_err(|e| e.to_string())?;
            compute("identity-f32", &[1, numbers.len()], &numbers, numbers.len())
        }
        "steps" => {
            let graph = model("identity-f32")?;
            let mut context = graph.init_execution_context().map_err(text)?;
            context.set_input(0, TensorType::F32, &[1, 2], [1f32, 2.0]).map_err(text)?;
            context.set_input(0, TensorType::F32, &[1, 3], [3f32, 4.0, 5.0]).map_err(text)?;
            context.compute().map_err(text)?;
            // The input is still set.
            context.compute().map_err(text)?;
            let mut output = [0f32; 3];
            context.get_output(0, &mut output).map_err(text)?;
            Ok(json!({ "values": output }))
        }
        "load" => load(GraphEncoding::Onnx, ExecutionTarget::CPU),
        "load-tensorflow" => load(GraphEncoding::Tensorflow, ExecutionTarget::CPU),
        "load-tpu" => load(GraphEncoding::Onnx, ExecutionTarget::TPU),
        "load-auto" => load(GraphEncoding::Autodetec, ExecutionTarget::AUTO),
        "by-name" => model("nobody-has-this").map(|_| Value::Null),
        "wrong-shape" => compute("mlp", &[1, 783], &zeros[1..], 10),
        "small-buffer" => compute("mlp", &[1, 784], &zeros, 9),
        "no-input" => {
            let graph = model("mlp")?;
            let mut context = graph.init_execution_context().map_err(text)?;
            context.compute().map(|()| Value::Null).map_err(text)
        }
        "not-computed" => {
            let graph = model("mlp")?;
            let context = graph.init_execution_context().map_err(text)?;
            context.get_output(0, &mut [0f32; 10]).map(|_| Value::Null).map_err(text)
        }
        "no-output" => {
            let graph = model("mlp")?;
            let mut context = graph.init_execution_context().map_err(text)?;
            context.set_input(0, TensorType::F32, &[1, 784], zeros).map_err(text)?;
            context.compute().map_err(text)?;
            context.get_output(1, &mut [0f32; 10]).map(|_| Value::Null).map_err(text)
        }
        "graphs" => until_refused(|| GraphBuilder::default().build_from_cache("mlp").map(drop)),
        "contexts" => {
            let graph = model("mlp")?;
            until_refused(|| graph.init_execution_context().map(drop))
        }
        "pair" => pair(&[&A[..3]], &[&B[..2]]),
        "pair-rows" => pair(&[&A], &[&B]),
        // The second compute has other sizes.
        "pair-again" => pair(&[&A[..3], &A], &[&B[..2], &B]),
        "pair-wrong-type" => {
            let graph = model("pair")?;
            let mut context = graph.init_execution_context().map_err(text)?;
            context.set_input(0, TensorType::I64, &[1, 3], [1i64, 2, 3]).map_err(text)?;
            context.set_input(1, TensorType::F32, &[1, 2], &B[..2]).map_err(text)?;
            context.compute().map(|()| Value::Null).map_err(text)
        }
        "pair-unknown-input" => {
            let graph = model("pair")?;
            let mut context = graph.init_execution_context().map_err(text)?;
            context.set_input(2, TensorType::F32, &[1, 2], &B[..2]).map_err(text)?;
            context.compute().map(|()| Value::Null).map_err(text)
        }
        "load-ir" => load(GraphEncoding::Openvino, ExecutionTarget::CPU),
        case => raw::run(case).ok_or_else(|| format!("no case {case:?}"))?,
    }
}
