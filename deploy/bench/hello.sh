#!/usr/bin/env bash
# A hello component over HTTP with keep-alive, a fresh instance for each call, metering and spool on, against
# `wasmtime serve` as it comes and with its pool tuned (peers.sh), and against two floors: hyper alone, and `guest`, hyper
# and wasmtime with the host's pool and nothing else; in turn, in several rounds.
# Prints requests a second, ratios with the least and the most of the rounds, and processor time a request of the whole
# process tree, billing included; keeps them in results/hello.txt. The access log is off, as `serve` has none.
#
#   BENCH_PROFILE   dist (fat LTO, as the peers) unless given; the programs of target/$BENCH_PROFILE are built if missing
#   BENCH_ROUNDS    3, BENCH_SECONDS  2
. "$(dirname "$0")/keep.sh"
profile=${BENCH_PROFILE:-dist}
bin=$target/$profile
component=$PWD/functions/target/components/echo.wasm
deploy/bench/peers.sh
[ -e "$component" ] || functions/build.sh echo
[ -x "$bin/wasmeter" ] && [ -x "$bin/wasmeter-billing" ] && [ -x "$bin/examples/bare_hello" ] &&
	[ -x "$bin/examples/bare_guest" ] ||
	cargo build --workspace --profile "$profile" --bins --example bare_hello --example bare_guest
. deploy/bench/servers.sh

serve=("$WASMETER_CACHE/peers/bin/wasmtime" serve -Scli)
tuned=(-O pooling-memory-keep-resident=4194304,pooling-table-keep-resident=65536,pooling-async-stack-keep-resident=65536,pooling-pagemap-scan=auto)
start hyper http://127.0.0.1:18101/hello "$bin/examples/bare_hello" 127.0.0.1:18101
start serve http://127.0.0.1:18102/hello "${serve[@]}" --addr 127.0.0.1:18102 "$component"
start tuned http://127.0.0.1:18103/hello "${serve[@]}" "${tuned[@]}" --addr 127.0.0.1:18103 "$component"
start guest http://127.0.0.1:18107/hello "$bin/examples/bare_guest" "$component" 127.0.0.1:18107
start_host ours 18104 /fn/dev/hello/hello "$bin/wasmeter" --durability "${BENCH_DURABILITY:-process}"
deploy_hello ours "$bin/wasmeter"
for name in hyper serve tuned guest ours; do answers "$name" hello; done
run() {
	echo "profile $profile, durability ${BENCH_DURABILITY:-process}"
	echo
	compare "1 16 64" "hyper serve tuned guest ours"
}
keep hello run
