//! The cases of both older versions; `crate::bindings` says which one.
//!
//! | case | what it does |
//! |---|---|
//! | `ok` (default) | set, compute, get through `identity-f32` by the names `x` and the output's index |
//! | `by-index` | the input by its index |
//! | `again` | a second compute after another input |
//! | `not-computed` | an output before a compute |
//! | `unknown-output`, `unknown-input`, `short-bytes` | wrong uses |
//! | `load`, `load-tensorflow`, `load-tpu`, `load-nothing` | `load` |
//! | `by-name` | a model that nobody has |
//! | `contexts` | as many execution contexts as it gets |

use serde_json::{Value, json};

use crate::bindings::wasi::nn::errors::Error;
use crate::bindings::wasi::nn::graph::{ExecutionTarget, GraphEncoding, load, load_by_name};
use crate::bindings::wasi::nn::inference::GraphExecutionContext;
use crate::bindings::wasi::nn::tensor::{Tensor, TensorType};

pub(crate) fn answer(case: &str) -> Value {
    match run(case) {
        Ok(value) => json!({ "case": case, "ok": true, "value": value }),
        Err(e) => {
            json!({ "case": case, "ok": false, "code": format!("{:?}", e.code()), "message": e.data() })
        }
    }
}

fn context(model: &str) -> Result<GraphExecutionContext, Error> {
    load_by_name(model)?.init_execution_context()
}

fn tensor(numbers: &[f32]) -> Tensor {
    let data: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    let columns = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
    Tensor::new(&[1, columns], TensorType::Fp32, &data)
}

fn output(context: &GraphExecutionContext, name: &str) -> Result<Value, Error> {
    let tensor = context.get_output(name)?;
    let data = tensor.data();
    let values: Vec<f32> = data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    Ok(json!({ "dimensions": tensor.dimensions(), "type": format!("{:?}", tensor.ty()), "values": values }))
}

fn refused(encoding: GraphEncoding, target: ExecutionTarget) -> Result<Value, Error> {
    load(&[vec![0; 16]], encoding, target).map(|_| Value::Null)
}

fn run(case: &str) -> Result<Value, Error> {
    let model = || context("identity-f32");
    match case {
        "ok" | "by-index" => {
            let context = model()?;
            context.set_input(if case == "ok" { "x" } else { "0" }, tensor(&[1.5, -2.0]))?;
            context.compute()?;
            output(&context, "0")
        }
        "again" => {
            let context = model()?;
            context.set_input("x", tensor(&[1.0]))?;
            context.compute()?;
            context.set_input("x", tensor(&[2.0, 3.0]))?;
            context.compute()?;
            output(&context, "0")
        }
        "not-computed" => output(&model()?, "0"),
        "unknown-output" => {
            let context = model()?;
            context.set_input("x", tensor(&[1.0]))?;
            context.compute()?;
            output(&context, "nonsense")
        }
        "unknown-input" => {
            let context = model()?;
            context.set_input("nonsense", tensor(&[1.0]))?;
            context.compute().map(|()| Value::Null)
        }
        "short-bytes" => {
            let tensor = Tensor::new(&[1, 2], TensorType::Fp32, &[0; 3]);
            model()?.set_input("x", tensor).map(|()| Value::Null)
        }
        "load" => refused(GraphEncoding::Onnx, ExecutionTarget::Cpu),
        "load-tensorflow" => refused(GraphEncoding::Tensorflow, ExecutionTarget::Cpu),
        "load-tpu" => refused(GraphEncoding::Onnx, ExecutionTarget::Tpu),
        "load-nothing" => load(&[], GraphEncoding::Onnx, ExecutionTarget::Cpu).map(|_| Value::Null),
        "by-name" => context("nobody-has-this").map(|_| Value::Null),
        "contexts" => {
            let graph = load_by_name("identity-f32")?;
            let mut kept = Vec::new();
            loop {
                match graph.init_execution_context() {
                    Ok(context) => kept.push(context),
                    Err(error) => {
                        return Ok(json!({ "count": kept.len(), "code": format!("{:?}", error.code()) }));
                    }
                }
            }
        }
        case => Ok(json!({ "no case": case })),
    }
}
