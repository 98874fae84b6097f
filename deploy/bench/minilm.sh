#!/usr/bin/env bash
# MiniLM through a function, 32 connections, against the best that bare ONNX Runtime does in a Rust loop, in turn in one
# run. Prints the figures and keeps them in results/minilm.txt. Needs what deploy/setup.sh fetches.
. "$(dirname "$0")/keep.sh"
cargo build --release --workspace --bins --example minilm_bench --example bare_minilm
functions/build.sh bench-nn similar >&2
keep minilm "$target/release/examples/minilm_bench"
