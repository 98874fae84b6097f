//! The `wasmeter` binary.
fn main() {}
