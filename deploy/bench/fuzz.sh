#!/usr/bin/env bash
# A million mutated executions of the router and of the upload, without a panic; `make test` runs the short form. Keeps how
# many there were, and what they took, in results/fuzz.txt.
# usage: fuzz.sh [executions] [seed]
. "$(dirname "$0")/keep.sh"
export WASMETER_FUZZ_RUNS=${1:-1000000} WASMETER_FUZZ_SEED=${2:-1}
run() {
	local began=$EPOCHSECONDS
	# The same selection as everywhere: another one would build third-party crates again.
	cargo test --release --workspace --lib -- --show-output takes_anything >&2
	echo "$WASMETER_FUZZ_RUNS executions of each, seed $WASMETER_FUZZ_SEED: no panic; $((EPOCHSECONDS - began)) s with the build"
}
keep fuzz run
