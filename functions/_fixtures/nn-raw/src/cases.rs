//! One function of few lines for each case.

use serde_json::{Value, json};
use wasmeter_guest::raw::wasi::nn::graph::{ExecutionTarget, GraphEncoding, load};
use wasmeter_guest::raw::wasi::nn::tensor::{Tensor, TensorType};
use wasmeter_guest::{Error, Request, Result};

use crate::pair;
use crate::step::{Outcome, at, compute, describe};

/// The request's parameters.
pub(crate) struct Query<'a> {
    pub(crate) req: &'a Request,
}

impl Query<'_> {
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.req.query_param(name)
    }

    pub(crate) fn number(&self, name: &str, default: u64) -> Result<u64> {
        match self.text(name) {
            Some(text) => text.parse().map_err(|_| Error::bad_request(format!("{name} is no number"))),
            None => Ok(default),
        }
    }
}

/// What a guest may name `usize` is 32 bits wide there.
fn size(number: u64) -> Result<usize> {
    usize::try_from(number).map_err(|_| Error::bad_request(format!("{number} is too large")))
}

/// Runs a case; `None` if there is none of this name.
pub(crate) fn run(case: &str, query: &Query<'_>) -> Result<Option<Outcome>> {
    let model = |default: &str| query.text("model").unwrap_or_else(|| default.to_owned());
    let row = |dimensions: &[u32], ty, bytes: usize| {
        vec![(
            query.text("input").unwrap_or_else(|| "x".to_owned()),
            Tensor::new(dimensions, ty, &vec![0; bytes]),
        )]
    };
    let on_mlp = |inputs| compute(&model("mlp"), inputs).map(|outputs| describe(&outputs));
    Ok(Some(match case {
        "ok" => on_mlp(row(&[1, 784], TensorType::Fp32, 784 * 4)),
        "wrong-shape" => on_mlp(row(&[1, 783], TensorType::Fp32, 783 * 4)),
        "wrong-rank" => on_mlp(row(&[1, 1, 784], TensorType::Fp32, 784 * 4)),
        "wrong-type" => on_mlp(row(&[1, 784], TensorType::I64, 784 * 8)),
        "short-bytes" => on_mlp(row(&[1, 784], TensorType::Fp32, 3)),
        "long-bytes" => on_mlp(row(&[1, 784], TensorType::Fp32, 785 * 4)),
        "zero-rows" => on_mlp(row(&[0, 784], TensorType::Fp32, 0)),
        "overflow" => on_mlp(row(&[u32::MAX; 4], TensorType::Fp64, 8)),
        "no-input" => on_mlp(Vec::new()),
        "unknown-input" => {
            on_mlp(vec![("nonsense".to_owned(), Tensor::new(&[1, 784], TensorType::Fp32, &[0; 784 * 4]))])
        }
        "twice-named" => {
            let mut inputs = row(&[1, 784], TensorType::Fp32, 784 * 4);
            inputs.extend(row(&[1, 784], TensorType::Fp32, 784 * 4));
            on_mlp(inputs)
        }
        "by-name" => compute(&model("nobody-has-this"), Vec::new()).map(|outputs| describe(&outputs)),
        "load" => loaded(1, GraphEncoding::Onnx, ExecutionTarget::Cpu),
        "load-ir" => loaded(2, GraphEncoding::Openvino, ExecutionTarget::Cpu),
        "load-nothing" => loaded(0, GraphEncoding::Openvino, ExecutionTarget::Cpu),
        "load-tpu" => loaded(2, GraphEncoding::Openvino, ExecutionTarget::Tpu),
        "load-tensorflow" => loaded(1, GraphEncoding::Tensorflow, ExecutionTarget::Cpu),
        "load-auto" => loaded(1, GraphEncoding::Autodetect, ExecutionTarget::Cpu),
        "echo" => echo(&model("identity-f32"), query.req)?,
        "huge" => {
            let elements = query.number("bytes", 64 << 20)? / 4;
            let dimension = u32::try_from(elements).map_err(|_| Error::bad_request("bytes is too large"))?;
            let inputs = row(&[1, dimension], TensorType::Fp32, size(elements * 4)?);
            compute(&model("identity-f32"), inputs).map(|outputs| describe(&outputs))
        }
        "slow" => {
            let number = |n: u64| Tensor::new(&[1], TensorType::I64, &n.to_le_bytes());
            let inputs = vec![
                ("size".to_owned(), number(query.number("size", 4096)?)),
                ("rounds".to_owned(), number(query.number("rounds", 2)?)),
            ];
            compute(&model("slow"), inputs).map(|outputs| describe(&outputs))
        }
        "many-tensors" => {
            let count = query.number("count", 100_000)?;
            let kept: Vec<_> = (0..count).map(|_| Tensor::new(&[1], TensorType::U8, &[0])).collect();
            Ok(json!({ "tensors": kept.len() }))
        }
        "all-types" => all_types(),
        "ramp" => {
            let ramp: Vec<u8> = (0..784u16).flat_map(|i| (f32::from(i) / 784.0).to_le_bytes()).collect();
            on_mlp(vec![("x".to_owned(), Tensor::new(&[1, 784], TensorType::Fp32, &ramp))])
        }
        "any" => any(&model("identity-f32"), query.req)?,
        case => return Ok(pair::run(case)),
    }))
}

/// `load` with so many parts that are no model.
fn loaded(parts: usize, encoding: GraphEncoding, target: ExecutionTarget) -> Outcome {
    load(&vec![vec![0; 16]; parts], encoding, target).map(|_| Value::Null).map_err(at("load"))
}

/// The body's numbers through an identity model.
fn echo(model: &str, req: &Request) -> Result<Outcome> {
    let numbers: Vec<f32> = req.json()?;
    let dimension = u32::try_from(numbers.len())?;
    let data: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    let inputs = vec![("x".to_owned(), Tensor::new(&[1, dimension], TensorType::Fp32, &data))];
    Ok(compute(model, inputs).map(|outputs| describe(&outputs)))
}

/// Name, type, dimensions and values; `null` is NaN.
type AnyTensor = (String, String, Vec<u32>, Vec<Option<f64>>);

/// The body's tensors, `[[name, "f32" or "i64", dimensions, values], …]`; a value that is null is NaN.
fn any(model: &str, req: &Request) -> Result<Outcome> {
    let tensors: Vec<AnyTensor> = req.json()?;
    let tensor = |(name, ty, dimensions, values): AnyTensor| {
        let values = values.into_iter().map(|value| value.unwrap_or(f64::NAN));
        let tensor = match ty.as_str() {
            "f32" => (TensorType::Fp32, values.flat_map(|v| (v as f32).to_le_bytes()).collect::<Vec<_>>()),
            "i64" => (TensorType::I64, values.flat_map(|v| (v as i64).to_le_bytes()).collect()),
            _ => return Err(Error::bad_request(format!("no type {ty:?}"))),
        };
        Ok((name, Tensor::new(&dimensions, tensor.0, &tensor.1)))
    };
    let inputs = tensors.into_iter().map(tensor).collect::<Result<Vec<_>>>()?;
    Ok(compute(model, inputs).map(|outputs| describe(&outputs)))
}

/// A pattern through the identity of each type; every byte must come back.
fn all_types() -> Outcome {
    let types = [
        ("f16", TensorType::Fp16, 2),
        ("bf16", TensorType::Bf16, 2),
        ("f32", TensorType::Fp32, 4),
        ("f64", TensorType::Fp64, 8),
        ("u8", TensorType::U8, 1),
        ("i32", TensorType::I32, 4),
        ("i64", TensorType::I64, 8),
    ];
    let mut results = serde_json::Map::new();
    for (name, ty, width) in types {
        // 2 x 6 elements; bytes below 0x70, so that no pattern is a NaN, whose bits an engine may change.
        let data: Vec<u8> = (0..12 * width).map(|i: u8| i.wrapping_mul(37) % 0x70).collect();
        let inputs = vec![("x".to_owned(), Tensor::new(&[2, 6], ty, &data))];
        let outputs = compute(&format!("identity-{name}"), inputs)?;
        let same = match outputs.as_slice() {
            [(_, back)] => back.data() == data && back.dimensions() == [2, 6] && back.ty() == ty,
            _ => false,
        };
        results.insert(name.to_owned(), Value::Bool(same));
    }
    Ok(Value::Object(results))
}
