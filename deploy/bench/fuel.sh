#!/usr/bin/env bash
# What counting fuel costs the engine, kernel by kernel (kernels.rs): fuel off, fuel as the host has it, and epochs beside
# it, in turn; median of the rounds with the least and the most.
. "$(dirname "$0")/keep.sh"
toolchain=$(deploy/wasm-toolchain.sh "$WASMETER_CACHE/rust-wasm" | sed -n '$s/^RUSTUP_TOOLCHAIN=//p')
mkdir -p "$target/bench"
RUSTUP_TOOLCHAIN=${toolchain:-wasm} rustc --edition 2024 --target wasm32-unknown-unknown -O -C panic=abort \
	-C target-feature=+bulk-memory --crate-type cdylib -o "$target/bench/kernels.wasm" deploy/bench/kernels.rs
cargo build --release --workspace --example fuel_cost
keep fuel "$target/release/examples/fuel_cost" "$target/bench/kernels.wasm" "${BENCH_ROUNDS:-9}"
