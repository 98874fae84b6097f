//! Test only: runs guests on wasmtime's own wasi-nn (crate `wasmtime-wasi-nn`, OpenVINO on the processor), so that a
//! test can hold its answers against ours. A guest is what the host runs too: a component that handles HTTP, or a
//! `wasip1` command that is called like a CGI program. Nothing here is metered, limited or confined.

mod command;
mod component;
mod models;
mod outcome;
mod upstream;

pub use outcome::Outcome;
pub use upstream::Upstream;
