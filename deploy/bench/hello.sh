#!/usr/bin/env bash
# A hello component over HTTP with keep-alive, a fresh instance for each call, metering and spool on, against
# `wasmtime serve` as it comes and with its pool tuned (peers.sh), and against hyper alone; in turn, in several rounds.
# Prints requests a second, ratios with the least and the most of the rounds, and processor time a request of the whole
# process tree, billing included; keeps them in results/hello.txt. The access log is off, as `serve` has none.
#
#   BENCH_PROFILE   dist (fat LTO, as the peers) unless given; the programs of target/$BENCH_PROFILE are built if missing
#   BENCH_ROUNDS    3, BENCH_SECONDS  2
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export ORT_DISABLE_TELEMETRY=1 WASMETER_CACHE=${WASMETER_CACHE:-$HOME/.cache/wasmeter}
profile=${BENCH_PROFILE:-dist} rounds=${BENCH_ROUNDS:-3} seconds=${BENCH_SECONDS:-2}
bin=${CARGO_TARGET_DIR:-target}/$profile
component=$PWD/functions/target/components/echo.wasm
deploy/bench/peers.sh
[ -e "$component" ] || functions/build.sh echo
[ -x "$bin/wasmeter" ] && [ -x "$bin/wasmeter-billing" ] && [ -x "$bin/examples/bare_hello" ] ||
	cargo build --workspace --profile "$profile" --bins --example bare_hello
command -v wrk >/dev/null || { echo "hello.sh: needs wrk (Debian: apt-get install wrk)" >&2; exit 1; }

work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait "${pids[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT
declare -A pid url
start() { # NAME URL COMMAND...
	local name=$1
	url[$name]=$2
	shift 2
	"$@" >"$work/$name.log" 2>&1 &
	pid[$name]=$!
	pids+=($!)
}
answers() { # NAME
	local tries
	for ((tries = 0; tries < 200; tries++)); do
		[ "$(curl -s "${url[$1]}" || true)" = hello ] && return 0
		sleep 0.1
	done
	echo "hello.sh: $1 does not answer:" >&2
	tail -n 5 "$work/$1.log" >&2
	exit 1
}

serve=("$WASMETER_CACHE/peers/bin/wasmtime" serve -Scli)
tuned=(-O pooling-memory-keep-resident=4194304,pooling-table-keep-resident=65536,pooling-async-stack-keep-resident=65536,pooling-pagemap-scan=auto)
start hyper http://127.0.0.1:18101/hello "$bin/examples/bare_hello" 127.0.0.1:18101
start serve http://127.0.0.1:18102/hello "${serve[@]}" --addr 127.0.0.1:18102 "$component"
start tuned http://127.0.0.1:18103/hello "${serve[@]}" "${tuned[@]}" --addr 127.0.0.1:18103 "$component"
start ours http://127.0.0.1:18104/fn/dev/hello/hello env WASMETER_LOG=info,wasmeter::access=off \
	"$bin/wasmeter" serve --data "$work/data" --listen 127.0.0.1:18104 --admin-listen 127.0.0.1:18105 \
	--durability "${BENCH_DURABILITY:-process}"
mkdir "$work/hello"
printf '[function]\nname = "hello"\ncomponent = "%s"\npublic = true\n[limits]\nconcurrency = 512\n' "$component" >"$work/hello/wasmeter.toml"
for ((tries = 0; tries < 100; tries++)); do
	[ "$(curl -s http://127.0.0.1:18104/readyz || true)" = ready ] && break
	sleep 0.1
done
WASMETER_URL=http://127.0.0.1:18104 WASMETER_TOKEN=$(cat "$work/data/dev-token") "$bin/wasmeter" deploy --no-build "$work/hello" >/dev/null
for name in hyper serve tuned ours; do answers "$name"; done

# Processor time of a process and its children, in clock ticks.
ticks() {
	local children child sum
	sum=$(awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat")
	children=$(cat /proc/"$1"/task/*/children 2>/dev/null || true)
	for child in $children; do sum=$((sum + $(ticks "$child"))); done
	echo "$sum"
}
measure() { # NAME CONNECTIONS -> "requests/s median-us cpu-us bad"
	local before after
	before=$(ticks "${pid[$1]}")
	# One thread on the last processor, for all alike.
	taskset -c $(($(nproc) - 1)) wrk -t1 -c"$2" -d"${seconds}s" --latency "${url[$1]}" >"$work/wrk"
	after=$(ticks "${pid[$1]}")
	awk -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" '
		function us(t) { return t ~ /us$/ ? t + 0 : t ~ /ms$/ ? t * 1000 : t * 1000000 }
		$1 == "50%" { median = us($2) }
		$2 == "requests" && $3 == "in" { n = $1 }
		/^Requests\/sec/ { rate = $2 }
		/Non-2xx|Socket errors/ { bad = 1 }
		END { printf "%.0f %.0f %.1f %d\n", rate, median, ticks / hz * 1e6 / (n ? n : 1), bad }' "$work/wrk"
}
run() {
	local round connections name rate median cpu bad
	for connections in 1 16 64; do
		for ((round = 0; round < rounds; round++)); do
			for name in hyper serve tuned ours; do
				read -r rate median cpu bad < <(measure "$name" "$connections")
				[ "$bad" = 0 ] || echo "# $name at $connections connections: refused or failed requests"
				echo "$connections $round $name $rate $median $cpu"
			done
		done
	done >"$work/figures"
	grep '^#' "$work/figures" | sort -u || true
	awk '!/^#/ {
		rate[$1, $2, $3] = $4; sum[$1, $3] += $4; median[$1, $3] += $5; cpu[$1, $3] += $6; if ($2 >= n) n = $2 + 1
	}
	END {
		split("1 16 64", at, " "); split("hyper serve tuned ours", names, " ")
		printf "%-12s %-8s %10s %10s %10s %26s\n", "connections", "server", "requests/s", "median us", "cpu us", "ours / it (least-most)"
		for (a = 1; a <= 3; a++) for (i = 1; i <= 4; i++) {
			c = at[a]; s = names[i]; least = 1e9; most = 0; all = 0
			for (r = 0; r < n; r++) {
				x = rate[c, r, "ours"] / (rate[c, r, s] ? rate[c, r, s] : 1)
				all += x; if (x < least) least = x; if (x > most) most = x
			}
			printf "%-12d %-8s %10.0f %10.0f %10.1f %12.2f (%.2f-%.2f)\n", c, s, sum[c, s] / n, median[c, s] / n, cpu[c, s] / n, all / n, least, most
		}
	}' "$work/figures"
}

out=deploy/bench/results/hello.txt
{
	printf '%s cores, %s; %s; commit %s; profile %s, durability %s\n\n' "$(nproc)" \
		"$(sed -n 's/^model name[^:]*: //p;T;q' /proc/cpuinfo)" "$(date -u +%Y-%m-%d)" \
		"$(git rev-parse --short HEAD 2>/dev/null || echo unknown)" "$profile" "${BENCH_DURABILITY:-process}"
	run
} | tee "$out.new"
mv "$out.new" "$out"
