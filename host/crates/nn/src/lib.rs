//! Host side of wasi:nn over [`wasmeter_inference`] handles: `wasi:nn@0.2.0-rc-2024-10-28`, its release candidates
//! `2024-08-19` and `2024-06-25` as shims over the same, `wasi_ephemeral_nn` for core modules, and `wasmeter:nn/inflight`
//! for several computes under way.
//!
//! A guest loads models by name only, from its revision's allow-list; `compute` awaits the device and never
//! blocks a tokio worker. What a guest was charged, and a fault of ours that it met, stay in [`NnCtx`] until the
//! store dies.

mod bindings;
mod bindings_inflight;
mod call;
mod ctx;
mod errors;
mod graph;
mod inference;
mod inflight;
mod older;
mod purse;
mod quota;
mod steps;
mod tensor;
mod witx;

#[cfg(test)]
mod tests;

pub use ctx::{Fault, NnCtx, NnCtxView, NnLimits, NnView, Resolver, add_core_to_linker, add_to_linker};
pub use quota::{Quotas, TenantLimits};
