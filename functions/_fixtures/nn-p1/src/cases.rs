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
        case => raw::run(case).ok_or_else(|| format!("no case {case:?}"))?,
    }
}
