//! The steps of a wasi-nn call on the raw bindings, and what each answered.

use serde_json::{Value, json};
use wasmeter_guest::nn;
use wasmeter_guest::raw::wasi::nn::errors::Error;
use wasmeter_guest::raw::wasi::nn::graph::load_by_name;
use wasmeter_guest::raw::wasi::nn::tensor::{Tensor, TensorType};

/// Which step failed, and how.
pub(crate) struct Failure {
    pub(crate) step: &'static str,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

pub(crate) type Outcome = Result<Value, Failure>;

/// Turns the error of a step into what the answer shows.
pub(crate) fn at(step: &'static str) -> impl Fn(Error) -> Failure {
    move |error| {
        let error = nn::Error::from(error);
        Failure { step, code: error.code_name(), message: error.message().to_owned() }
    }
}

/// Loads, prepares, computes.
pub(crate) fn compute(model: &str, inputs: Vec<(String, Tensor)>) -> Result<Vec<(String, Tensor)>, Failure> {
    let graph = load_by_name(model).map_err(at("load-by-name"))?;
    let context = graph.init_execution_context().map_err(at("init-execution-context"))?;
    context.compute(inputs).map_err(at("compute"))
}

/// Names, shapes, types and the first bytes of outputs.
pub(crate) fn describe(outputs: &[(String, Tensor)]) -> Value {
    let describe = |(name, tensor): &(String, Tensor)| {
        let data = tensor.data();
        let mut described = json!({
            "name": name,
            "dimensions": tensor.dimensions(),
            "type": nn::Tensor::raw([0], tensor.ty(), Vec::new()).type_name(),
            "bytes": data.len(),
        });
        if matches!(tensor.ty(), TensorType::Fp32) {
            let values = data.as_chunks::<4>().0.iter().take(16).map(|b| f32::from_le_bytes(*b));
            described["values"] = values.collect();
        }
        described
    };
    outputs.iter().map(describe).collect()
}
