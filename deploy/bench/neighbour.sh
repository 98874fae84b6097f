#!/usr/bin/env bash
# A quiet tenant beside a neighbour that has fifty connections to its one, in five ways: endless loops, memory, log lines,
# big bodies, connections. Each beside its own calls alone, in turn, medians of the rounds. Asked: a 99th percentile of
# 1.3 times that alone and one turn of a guest (2 ms). Keeps what it prints in results/neighbour.txt.
#
#   BENCH_PROFILE  dist unless given;   BENCH_ROUNDS  3, BENCH_SECONDS  4
. "$(dirname "$0")/keep.sh"
profile=${BENCH_PROFILE:-dist}
bin=$target/$profile
components=$PWD/functions/target/components
functions/build.sh echo spin hostile log >&2
[ -x "$bin/wasmeter" ] && [ -x "$bin/wasmeter-billing" ] || cargo build --workspace --profile "$profile" --bins
. deploy/bench/servers.sh
start_host ours 18141 / "$bin/wasmeter"
for name in echo spin hostile log; do
	mkdir "$work/fn-$name"
	printf '[function]\nname = "%s"\ncomponent = "%s"\npublic = true\n[limits]\nfuel = 1_000_000_000_000\ndeadline = "1s"\n' \
		"$name" "$components/$name.wasm" >"$work/fn-$name/wasmeter.toml"
	on ours "$bin/wasmeter" deploy --no-build "$work/fn-$name" >/dev/null
done
token=$(cat "$work/ours/operator-token")
api=http://127.0.0.1:18141/api/v1/tenants/quiet
curl -sf -X PUT -H "authorization: Bearer $token" "$api" >/dev/null
curl -sf -X PUT -H "authorization: Bearer $token" -H 'content-type: application/wasm' --data-binary "@$components/echo.wasm" \
	"$api/functions/echo" >/dev/null
run() {
	echo "profile $profile; 200 calls a second of the quiet tenant"
	echo
	python3 deploy/bench/neighbour.py --address 127.0.0.1:18141 --token "$token" --rounds "${BENCH_ROUNDS:-3}" --seconds "${BENCH_SECONDS:-4}"
}
keep neighbour run
