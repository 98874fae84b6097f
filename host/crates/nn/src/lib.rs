//! Host side of `wasi:nn@0.2.0-rc-2024-10-28` over [`wasmeter_inference`] handles.
//!
//! A guest loads models by name only, from its revision's allow-list; `compute` awaits the device and never
//! blocks a tokio worker. What a guest was charged, and a fault of ours that it met, stay in [`NnCtx`] until the
//! store dies.

mod bindings;
mod ctx;
mod errors;
mod graph;
mod inference;
mod tensor;

pub use ctx::{Fault, NnCtx, NnCtxView, NnLimits, NnView, Resolver, add_to_linker};
