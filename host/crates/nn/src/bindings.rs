//! Generated from `wit/deps/nn`.
#![allow(missing_docs, unreachable_pub, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../../../wit/deps/nn",
    world: "ml",
    imports: { default: async | trappable },
    with: {
        "wasi:nn/errors.error": crate::errors::NnError,
        "wasi:nn/tensor.tensor": crate::tensor::GuestTensor,
        "wasi:nn/graph.graph": crate::graph::Graph,
        "wasi:nn/inference.graph-execution-context": crate::inference::ExecutionContext,
    },
});

pub use wasi::nn::{errors, graph, inference, tensor};
