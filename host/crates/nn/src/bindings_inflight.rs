//! Generated from `wit/deps/wasmeter-nn`.
#![allow(missing_docs, unreachable_pub, reason = "generated")]

wasmtime::component::bindgen!({
    path: ["../../../wit/deps/io", "../../../wit/deps/nn", "../../../wit/deps/wasmeter-nn"],
    inline: "package wasmeter:host-nn; world inflight { import wasmeter:nn/inflight@0.1.0; }",
    world: "wasmeter:host-nn/inflight",
    imports: { default: async | trappable },
    with: {
        "wasi:io/poll": wasmtime_wasi_io::bindings::wasi::io::poll,
        "wasi:nn/tensor": crate::bindings::tensor,
        "wasi:nn/errors": crate::bindings::errors,
        "wasi:nn/inference": crate::bindings::inference,
        "wasmeter:nn/inflight.pending": crate::inflight::Pending,
    },
});

pub(crate) use wasmeter::nn::inflight::*;
