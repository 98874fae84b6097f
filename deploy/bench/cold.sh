#!/usr/bin/env bash
# The first call to a deployed function that is not in memory: the Rust hello (`echo`) and the Python one (`hello-py`), the
# page cache warm, each call after the host has let go of every component; beside it the next call, which finds it. Asked:
# a 99th percentile of 3 ms and of 25 ms. Keeps what it prints in results/cold.txt.
#
#   BENCH_PROFILE  dist unless given;   CALLS  200 first calls of each;   RUST  20 functions, PYTHON  2
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
		--calls "${CALLS:-200}" --rust "${RUST:-20}" --python "${PYTHON:-2}"
}
keep cold run
