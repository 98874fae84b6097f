#!/usr/bin/env bash
# Batches and fair shares on a mock device of 2 ms a batch, against no batching: functions of 8 tenants over 64 HTTP
# connections, and the former alone. Prints the figures and keeps them in results/batching.txt.
. "$(dirname "$0")/keep.sh"
cargo build --release --workspace --example batching --example batching_bench
functions/build.sh bench-nn >&2
both() {
	"$target/release/examples/batching_bench"
	printf '\n\nthe former alone, without HTTP and functions\n'
	"$target/release/examples/batching"
}
keep batching both
