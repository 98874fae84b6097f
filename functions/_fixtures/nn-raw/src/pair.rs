//! Cases on `pair`, a model of two inputs and two outputs, whose answers are exact in any engine and precision.

use serde_json::{Value, json};
use wasmeter_guest::raw::wasi::nn::graph::load_by_name;
use wasmeter_guest::raw::wasi::nn::inference::GraphExecutionContext;
use wasmeter_guest::raw::wasi::nn::tensor::{Tensor, TensorType};

use crate::step::{Failure, Outcome, at, describe};

const A: [f32; 6] = [1.0, 2.0, 3.0, -4.0, 0.5, 8.0];
const B: [f32; 4] = [10.0, 20.0, 30.0, -40.0];

/// Rows of so many columns.
fn rows(columns: u32, values: &[f32]) -> Tensor {
    let rows = u32::try_from(values.len()).unwrap_or(u32::MAX) / columns;
    let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Tensor::new(&[rows, columns], TensorType::Fp32, &data)
}

fn context() -> Result<GraphExecutionContext, Failure> {
    // The graph is dropped here; the context lives on.
    let graph = load_by_name("pair").map_err(at("load-by-name"))?;
    graph.init_execution_context().map_err(at("init-execution-context"))
}

fn compute(context: &GraphExecutionContext, inputs: Vec<(&str, Tensor)>) -> Outcome {
    let inputs: Vec<_> = inputs.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
    Ok(describe(&context.compute(inputs).map_err(at("compute"))?))
}

/// One row.
fn one() -> Vec<(&'static str, Tensor)> {
    vec![("a", rows(3, &A[..3])), ("b", rows(2, &B[..2]))]
}

/// Two rows.
fn two() -> Vec<(&'static str, Tensor)> {
    vec![("a", rows(3, &A)), ("b", rows(2, &B))]
}

/// The outcome of each, one after the other; a failure ends none of them.
fn each(outcomes: Vec<Outcome>) -> Outcome {
    let told = |outcome: Outcome| match outcome {
        Ok(outputs) => outputs,
        Err(failure) => json!({ "failed": failure.step }),
    };
    Ok(Value::Array(outcomes.into_iter().map(told).collect()))
}

/// Runs a case; `None` if there is none of this name.
pub(crate) fn run(case: &str) -> Option<Outcome> {
    let on_pair = |inputs| compute(&context()?, inputs);
    Some(match case {
        "pair" => on_pair(one()),
        "pair-rows" => on_pair(two()),
        "pair-turned" => on_pair(one().into_iter().rev().collect()),
        "pair-index" => on_pair(vec![("0", rows(3, &A)), ("1", rows(2, &B))]),
        "pair-missing" => on_pair(one().into_iter().take(1).collect()),
        "pair-crossed" => on_pair(vec![("a", rows(2, &B)), ("b", rows(3, &A))]),
        "pair-uneven" => on_pair(vec![("a", rows(3, &A)), ("b", rows(2, &B[..2]))]),
        "pair-again" => context().and_then(|context| {
            each(vec![compute(&context, one()), compute(&context, two()), compute(&context, one())])
        }),
        // What one context is given is not another's.
        "pair-contexts" => context().and_then(|first| {
            let second = context()?;
            each(vec![compute(&first, two()), compute(&second, one()), compute(&first, one())])
        }),
        "pair-after-error" => context().and_then(|context| {
            each(vec![compute(&context, vec![("nonsense", rows(3, &A))]), compute(&context, one())])
        }),
        _ => return None,
    })
}
