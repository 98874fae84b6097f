#!/usr/bin/env bash
# Both engines on the same files, EfficientNet and MiniLM at batch 1: OpenVINO against ONNX Runtime, in turn in one run.
# Prints the figures and keeps them in results/engines.txt.
. "$(dirname "$0")/keep.sh"
cargo build --release --workspace --example engines_bench
keep engines "$target/release/examples/engines_bench"
