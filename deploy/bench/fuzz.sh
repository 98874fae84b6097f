#!/bin/bash
# A million mutated executions of the router and of the upload, without a panic. `make test` runs the short form.
# usage: fuzz.sh [executions] [seed]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export WASMETER_FUZZ_RUNS=${1:-1000000} WASMETER_FUZZ_SEED=${2:-1}
# The same selection as everywhere: another one would build third-party crates again.
time cargo test --release --workspace --lib -- --show-output takes_anything
echo "$WASMETER_FUZZ_RUNS executions of each, seed $WASMETER_FUZZ_SEED: no panic"
