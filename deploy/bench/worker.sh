#!/usr/bin/env bash
# What a device worker adds to a call of a small model: MLP 784-64-10 through a worker against ONNX Runtime in the same
# process and run, idle and busy. Prints the figures and keeps them in results/worker.txt.
set -euo pipefail
cd "$(dirname "$0")/../.."
export ORT_DISABLE_TELEMETRY=1
out=deploy/bench/results/worker.txt
mkdir -p "$(dirname "$out")"
cargo build --release -p wasmeter-device --example worker_bench
target=${CARGO_TARGET_DIR:-target}
{
	printf '%s cores, %s\n' "$(nproc)" "$(sed -n 's/^model name[^:]*: //p;T;q' /proc/cpuinfo)"
	"$target/release/examples/worker_bench" functions/_fixtures/models/mlp.onnx
} | tee "$out.new"
mv "$out.new" "$out"
