#!/usr/bin/env bash
# An alias is swapped, given weights and rolled back again and again under load: not one call may fail.
#
#   CALLS=100000   how many calls at least
set -euo pipefail
cd "$(dirname "$0")/../.."
calls=${CALLS:-100000}
bin=${CARGO_TARGET_DIR:-${WASMETER_CACHE:-$HOME/.cache/wasmeter}/target}/release
command -v wrk >/dev/null || { echo "swap.sh: wrk is missing: apt-get install wrk" >&2; exit 1; }
for file in "$bin/wasmeter" functions/target/components/echo.wasm; do
	[ -e "$file" ] || { echo "swap.sh: $file is missing: run 'make build'" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'kill -TERM "$server" 2>/dev/null; wait "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
"$bin/wasmeter" serve --data "$work/data" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 2>"$work/log" &
server=$!
for _ in {1..100}; do
	url=$(sed -n 's/.*listening.*\(http:\/\/[0-9.:]*\).*/\1/p' "$work/log")
	[ -n "$url" ] && grep -q 'wasmeter is ready' "$work/log" && break
	sleep 0.1
done
export WASMETER_URL=$url WASMETER_TOKEN
WASMETER_TOKEN=$(cat "$work/data/dev-token")
# revision N: deploys the echo guest as its own revision and prints the id.
revision() {
	mkdir -p "$work/$1"
	cp functions/target/components/echo.wasm "$work/$1/echo.wasm"
	printf '[function]\nname = "echo"\ncomponent = "echo.wasm"\npublic = true\n[limits]\nconcurrency = 512\n[env]\nN = "%s"\n' "$1" >"$work/$1/wasmeter.toml"
	"$bin/wasmeter" deploy --no-build --format json "$work/$1" 2>/dev/null | sed -n 's/.*"revision": *"\([0-9a-f]*\)".*/\1/p'
}
old=$(revision 1) new=$(revision 2)
swaps=0 done_calls=0 failed=0
while [ "$done_calls" -lt "$calls" ]; do
	wrk -t2 -c32 -d5s "$url/fn/dev/echo/hello" >"$work/wrk" &
	load=$!
	while kill -0 "$load" 2>/dev/null; do
		"$bin/wasmeter" alias set echo live "$old=9" "$new=1" >/dev/null 2>&1
		"$bin/wasmeter" alias set echo live "$new" >/dev/null 2>&1
		"$bin/wasmeter" functions rollback echo >/dev/null 2>&1
		swaps=$((swaps + 3))
	done
	wait "$load"
	done_calls=$((done_calls + $(awk '/requests in/ { print $1 }' "$work/wrk")))
	failed=$((failed + $(awk '/Non-2xx/ { n += $NF } /Socket errors/ { gsub(",", ""); n += $4 + $6 + $8 + $10 } END { print n + 0 }' "$work/wrk")))
done
echo "$done_calls calls at 32 connections, $swaps changes of the alias (weights, swap, rollback), $failed failed"
[ "$failed" -eq 0 ]
