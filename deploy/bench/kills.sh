#!/usr/bin/env bash
# 10,000 calls over HTTP with the device worker killed every second: no wrong answer, no hung call, account and receipts
# exact. The test of the same name does it small in CI. Prints the figures and keeps them in results/kills.txt.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=deploy/bench/results/kills.txt
mkdir -p "$(dirname "$out")"
{
	printf '%s cores, %s\n' "$(nproc)" "$(sed -n 's/^model name[^:]*: //p;T;q' /proc/cpuinfo)"
	WASMETER_KILLS=${WASMETER_KILLS:-10000,1000} cargo nextest run --release --workspace --no-capture \
		-E 'binary(crash_kills)' 2>&1 | sed -n 's/^ *\([0-9]* calls at .*\)/\1/p' | tee /dev/stderr | grep .
} >"$out.new"
mv "$out.new" "$out"
