#!/usr/bin/env bash
# An MLP 784-64-10 with JSON, through a function (HTTP, Wasm, wasi-nn, the device worker and back) against hyper and ONNX
# Runtime alone, in turn. Prints requests a second, their ratio, and the medians at 1 connection; keeps them in
# results/mlp.txt. Asked: at least 0.4 at 32 connections, at most 150 us more at 1.
#
#   BENCH_PROFILE   dist unless given;   BENCH_ROUNDS  3, BENCH_SECONDS  2
. "$(dirname "$0")/keep.sh"
profile=${BENCH_PROFILE:-dist}
bin=$target/$profile
functions/build.sh bench-nn >&2
[ -x "$bin/wasmeter" ] && [ -x "$bin/wasmeter-billing" ] && [ -x "$bin/examples/bare_mlp" ] ||
	cargo build --workspace --profile "$profile" --bins --example bare_mlp
. deploy/bench/servers.sh

start bare http://127.0.0.1:18121/ "$bin/examples/bare_mlp" 127.0.0.1:18121 functions/_fixtures/models/mlp.onnx
start_host ours 18122 /fn/dev/mlp/mlp "$bin/wasmeter"
deploy_mlp ours "$bin/wasmeter"
url[json]=${url[ours]%mlp}json
pid[json]=${pid[ours]}
for name in bare json ours; do answers "$name" '{"output":[*' --data-binary "@$work/body"; done
# The first seconds are a service's start: pages, branch predictors, and what the host finds out about a component's calls.
for name in bare json ours; do measure "$name" 32 -s "$work/mlp.lua" >/dev/null; done
run() {
	echo "profile $profile, durability process; $(wc -c <"$work/body") bytes of JSON a request"
	echo
	compare "1 32" "bare json ours" -s "$work/mlp.lua"
	awk '$1 == 1 { sum[$3] += $5; n[$3]++ } END {
		printf "\nadded at 1 connection: %.0f us at the median\n", sum["ours"] / n["ours"] - sum["bare"] / n["bare"]
		printf "of them with no model in the function: %.0f us\n", sum["json"] / n["json"] - sum["bare"] / n["bare"] }' "$work/figures"
}
keep mlp run
