#!/usr/bin/env bash
# The batch former on a mock device of 2 ms a batch: mean batch, busy fraction, fair shares, against no batching.
# Prints the figures and keeps them in results/batching.txt.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=deploy/bench/results/batching.txt
mkdir -p "$(dirname "$out")"
cargo build --release -p wasmeter-inference --example batching
target=${CARGO_TARGET_DIR:-target}
{
	printf '%s cores, %s\n' "$(nproc)" "$(sed -n 's/^model name[^:]*: //p;T;q' /proc/cpuinfo)"
	"$target/release/examples/batching"
} | tee "$out.new"
mv "$out.new" "$out"
