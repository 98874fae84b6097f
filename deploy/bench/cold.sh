#!/usr/bin/env bash
# The first call to a deployed function that is not in memory: the Rust hello (`echo`) and the Python one (`hello-py`), the
# page cache warm, each call after the host has let go of every component; beside it the next call, which finds it, and an
# empty loop of a first call's length: what the machine takes from whoever runs so long. Asked: a 99th percentile of 3 ms
# and of 25 ms. Keeps what it prints in results/cold.txt.
#
#   BENCH_PROFILE  dist unless given;   RUST  100 functions, RUST_CALLS  1000;   PYTHON  2, PYTHON_CALLS  200
. "$(dirname "$0")/keep.sh"
profile=${BENCH_PROFILE:-dist}
bin=$target/$profile
functions/build.sh echo hello-py >&2
[ -x "$bin/wasmeter" ] && [ -x "$bin/wasmeter-billing" ] || cargo build --workspace --profile "$profile" --bins
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
run() {
	echo "profile $profile"
	echo
	python3 deploy/bench/cold.py --wasmeter "$bin/wasmeter" --data "$work/data" --components functions/target/components \
		--rust "${RUST:-100}" --rust-calls "${RUST_CALLS:-1000}" --python "${PYTHON:-2}" --python-calls "${PYTHON_CALLS:-200}"
}
keep cold run
