#!/usr/bin/env bash
# What a device worker adds to a call of a small model: MLP 784-64-10 through a worker against ONNX Runtime in the same
# process and run, idle and busy, with looking before sleeping on and off. Prints the figures and keeps them in
# results/worker.txt.
. "$(dirname "$0")/keep.sh"
cargo build --release --workspace --example worker_bench
keep worker "$target/release/examples/worker_bench" functions/_fixtures/models/mlp.onnx
