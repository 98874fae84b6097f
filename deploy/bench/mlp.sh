#!/usr/bin/env bash
# An MLP 784-64-10 with JSON, through a function (HTTP, Wasm, wasi-nn, the device worker and back) against hyper and ONNX
# Runtime alone, in turn. Prints requests a second, their ratio, and the medians at 1 connection; keeps them in
# results/mlp.txt. Asked: at least 0.4 at 32 connections, at most 150 us more at 1.
#
#   BENCH_PROFILE   dist unless given;   BENCH_ROUNDS  3, BENCH_SECONDS  2
. "$(dirname "$0")/keep.sh"
profile=${BENCH_PROFILE:-dist}
bin=$target/$profile
model=$PWD/functions/_fixtures/models/mlp.onnx
functions/build.sh bench-nn >&2
[ -x "$bin/wasmeter" ] && [ -x "$bin/wasmeter-billing" ] && [ -x "$bin/examples/bare_mlp" ] ||
	cargo build --workspace --profile "$profile" --bins --example bare_mlp
. deploy/bench/servers.sh

awk 'BEGIN {
	printf "wrk.method = \"POST\"\nwrk.headers[\"content-type\"] = \"application/json\"\nwrk.body = \"{\\\"input\\\":["
	for (i = 0; i < 784; i++) printf "%s%.3f", i ? "," : "", i % 255 / 255
	print "]}\""
}' >"$work/mlp.lua"
sed -n 's/^wrk.body = "\(.*\)"$/\1/p' "$work/mlp.lua" | tr -d '\\' >"$work/body"
start bare http://127.0.0.1:18121/ "$bin/examples/bare_mlp" 127.0.0.1:18121 "$model"
start_host ours 18122 /fn/dev/mlp/mlp "$bin/wasmeter"
mkdir "$work/mlp" "$work/model"
cp "$model" "$work/model/model.onnx"
printf '[model]\nname = "mlp"\nbackend = "onnx"\nfiles = ["model.onnx"]\ndevices = ["cpu:0"]\n[batching]\nmax-batch = 32\nmax-queue-delay = "0ms"\n[card]\nlicence = "Apache-2.0"\ntask = "digits"\nsource = "a fixture"\n' >"$work/model/model.toml"
printf '[function]\nname = "mlp"\ncomponent = "%s"\npublic = true\n[models]\nallow = ["mlp"]\n[limits]\nconcurrency = 512\n' \
	"$PWD/functions/target/components/bench-nn.wasm" >"$work/mlp/wasmeter.toml"
on ours "$bin/wasmeter" models push "$work/model" --own >/dev/null
on ours "$bin/wasmeter" deploy --no-build "$work/mlp" >/dev/null
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
