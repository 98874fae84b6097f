#!/usr/bin/env bash
# An alias is swapped, given weights and rolled back again and again under load: not one call may fail. Keeps what it prints
# in results/swap.txt.
#
#   BENCH_PROFILE  release unless given;   CALLS  100000 calls at least
. "$(dirname "$0")/keep.sh"
calls=${CALLS:-100000}
profile=${BENCH_PROFILE:-release}
bin=$target/$profile
functions/build.sh echo >&2
[ -x "$bin/wasmeter" ] && [ -x "$bin/wasmeter-billing" ] || cargo build --workspace --profile "$profile" --bins
. deploy/bench/servers.sh
start_host ours 18161 /fn/dev/echo/hello "$bin/wasmeter"
# revision N: deploys the echo guest as its own revision and prints the id.
revision() {
	mkdir -p "$work/$1"
	printf '[function]\nname = "echo"\ncomponent = "%s"\npublic = true\n[limits]\nconcurrency = 512\n[env]\nN = "%s"\n' \
		"$PWD/functions/target/components/echo.wasm" "$1" >"$work/$1/wasmeter.toml"
	on ours "$bin/wasmeter" deploy --no-build --format json "$work/$1" 2>/dev/null | sed -n 's/.*"revision": *"\([0-9a-f]*\)".*/\1/p'
}
old=$(revision 1) new=$(revision 2)
run() {
	local swaps=0 made=0 failed=0 load
	while [ "$made" -lt "$calls" ]; do
		wrk -t2 -c32 -d5s "${url[ours]}" >"$work/wrk" &
		load=$!
		while kill -0 "$load" 2>/dev/null; do
			on ours "$bin/wasmeter" alias set echo live "$old=9" "$new=1" >/dev/null 2>&1
			on ours "$bin/wasmeter" alias set echo live "$new" >/dev/null 2>&1
			on ours "$bin/wasmeter" functions rollback echo >/dev/null 2>&1
			swaps=$((swaps + 3))
		done
		wait "$load"
		made=$((made + $(awk '/requests in/ { print $1 }' "$work/wrk")))
		failed=$((failed + $(awk '/Non-2xx/ { n += $NF } /Socket errors/ { gsub(",", ""); n += $4 + $6 + $8 + $10 } END { print n + 0 }' "$work/wrk")))
	done
	echo "$made calls at 32 connections, $swaps changes of the alias (weights, swap, rollback), $failed failed"
	[ "$failed" -eq 0 ]
}
keep swap run
