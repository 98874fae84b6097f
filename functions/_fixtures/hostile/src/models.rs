//! wasi:nn without measure. The model is `mlp`: one row of 784 numbers in, ten out.

use std::mem::forget;

use wasmeter_guest::nn::{Error, Model, Tensor as Row};
use wasmeter_guest::raw::wasi::nn::graph::{Graph, load_by_name};
use wasmeter_guest::raw::wasi::nn::tensor::{Tensor, TensorType};

use crate::case::{Case, fail};

fn graph() -> Graph {
    load_by_name("mlp").unwrap_or_else(|_| fail("there is no mlp"))
}

/// A thousand, or as many as it gets.
pub(crate) fn graphs(case: Case) {
    let kept: Vec<_> = (0..1000).map_while(|_| load_by_name("mlp").ok()).collect();
    case.say(&format!("{} graphs\n", kept.len()));
}

pub(crate) fn contexts(case: Case) {
    let graph = graph();
    let kept: Vec<_> = (0..1000).map_while(|_| graph.init_execution_context().ok()).collect();
    case.say(&format!("{} contexts\n", kept.len()));
}

/// Megabytes that the host keeps: the guest has but one of them.
pub(crate) fn tensors() -> ! {
    let data = vec![0u8; 1 << 20];
    loop {
        forget(Tensor::new(&[1, 1 << 20], TensorType::U8, &data));
    }
}

/// Four bytes that are said to be terabytes.
pub(crate) fn tensor_lies(case: Case) {
    let Ok(context) = graph().init_execution_context() else { fail("no context") };
    let tensor = Tensor::new(&[u32::MAX, u32::MAX, u32::MAX], TensorType::Fp32, &[0; 4]);
    let error = context.compute(vec![("x".to_owned(), tensor)]).err();
    case.say(&format!("{}\n", error.map_or("computed".to_owned(), |e| format!("{:?}", e.code()))));
}

fn row() -> [(&'static str, Row); 1] {
    [("x", Row::f32([1, 784], &[0.0; 784]))]
}

pub(crate) fn compute_for_ever() {
    let Ok(model) = Model::load("mlp") else { fail("there is no mlp") };
    while model.compute(row()).is_ok() {}
    fail("a compute was refused");
}

/// As many as it gets, and leaves them behind.
pub(crate) fn in_flight(case: Case) {
    let started = || -> Result<usize, Error> {
        let model = Model::load("mlp")?;
        let kept: Vec<_> = (0..1000).map_while(|_| model.start(row()).ok()).collect();
        Ok(kept.len())
    };
    let text = started().map_or_else(|e| e.message().to_owned(), |n| format!("{n} under way\n"));
    case.say(&text);
}
