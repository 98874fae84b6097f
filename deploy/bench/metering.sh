#!/usr/bin/env bash
# What metering costs: the hello component at 64 connections on three hosts in turn, one that records no usage
# (--bench-without-metering), one as it comes (`durability = "process"`), that one while its billing is stopped, so that what
# is left is the cost of metering in the host alone, as where billing has processors of its own; one with "power"; in several
# rounds. Then the one as it comes without a pause, in slices, with the records that wait for billing after each.
#
#   BENCH_PROFILE   dist unless given;   BENCH_ROUNDS  5, BENCH_SECONDS  1, BENCH_SLICES  8
BENCH_SECONDS=${BENCH_SECONDS:-1} BENCH_ROUNDS=${BENCH_ROUNDS:-5}
. "$(dirname "$0")/keep.sh"
profile=${BENCH_PROFILE:-dist}
bin=$target/$profile
component=$PWD/functions/target/components/echo.wasm
[ -e "$component" ] || functions/build.sh echo
[ -x "$bin/wasmeter" ] && [ -x "$bin/wasmeter-billing" ] || cargo build --workspace --profile "$profile" --bins
. deploy/bench/servers.sh

start_host off 18111 /fn/dev/hello/hello "$bin/wasmeter" --bench-without-metering
start_host process 18113 /fn/dev/hello/hello "$bin/wasmeter" --durability process
start_host power 18115 /fn/dev/hello/hello "$bin/wasmeter" --durability power
for name in off process power; do
	deploy_hello "$name" "$bin/wasmeter"
	answers "$name" hello
done
port() { case $1 in off) echo 18112 ;; process) echo 18114 ;; power) echo 18116 ;; esac; }
unshipped() {
	curl -s "http://127.0.0.1:$(port "$1")/metrics" | awk '$1 == "wasmeter_spool_unshipped_records" { printf "%d", $2 }'
}
# Between two turns: what one host left for billing to do is not the next one's burden.
settled() {
	local name
	for name in process power; do
		while [ "$(unshipped "$name")" -gt 0 ]; do sleep 0.05; done
	done
}
# Processor time of all threads of this name in a host and its children, in clock ticks.
thread() { # HOST THREAD
	local of stat sum=0
	for of in "${pid[$1]}" $(cat /proc/"${pid[$1]}"/task/*/children); do
		for stat in /proc/"$of"/task/*/stat; do
			sum=$((sum + $(awk -v name="($2)" '{ at = index($0, name) } at { sub(/.*\) /, ""); print $12 + $13 }' "$stat" | grep . || echo 0)))
		done
	done
	echo "$sum"
}
# The same host while nothing is booked: its child that books stands still.
stopped() {
	local child billing=
	for child in $(cat /proc/"${pid[process]}"/task/*/children); do
		[ "$(cat "/proc/$child/comm")" = wasmeter-billin ] && billing=$child
	done
	kill -STOP "$billing"
	measure process 64
	kill -CONT "$billing"
}
run() {
	local round name rate median cpu bad slice
	echo "profile $profile, 64 connections, $rounds rounds of $seconds s, each host in turn with nothing left to book"
	echo
	for ((round = 0; round < rounds; round++)); do
		for name in off process host power; do
			settled
			if [ "$name" = host ]; then
				read -r rate median cpu bad < <(stopped)
			else
				read -r rate median cpu bad < <(measure "$name" 64)
			fi
			[ "$bad" = 0 ] || echo "# $name: refused or failed requests"
			echo "$round $name $rate $median $cpu"
		done
	done >"$work/rounds"
	grep '^#' "$work/rounds" | sort -u || true
	awk '!/^#/ { rate[$1, $2] = $3; sum[$2] += $3; median[$2] += $4; cpu[$2] += $5; if ($1 >= n) n = $1 + 1 }
	END {
		split("off process host power", name, " ")
		printf "%-9s %10s %10s %10s %25s\n", "metering", "requests/s", "median us", "cpu us", "it / off (least-most)"
		for (i = 1; i <= 4; i++) {
			s = name[i]; least = 1e9; most = 0; all = 0
			for (r = 0; r < n; r++) {
				x = rate[r, s] / rate[r, "off"]; all += x; if (x < least) least = x; if (x > most) most = x
			}
			printf "%-9s %10.0f %10.0f %10.1f %11.3f (%.3f-%.3f)\n", s, sum[s] / n, median[s] / n, cpu[s] / n, all / n, least, most
		}
	}' "$work/rounds"
	printf '\n"process" without a pause, %s s each: requests/s, processor us a request with billing, records that wait\n' "$seconds"
	settled
	local threads="spool-flush ledger-writer" name all=0
	local -A before
	for name in $threads; do before[$name]=$(thread process "$name"); done
	for ((slice = 0; slice < ${BENCH_SLICES:-8}; slice++)); do
		read -r rate median cpu bad < <(measure process 64)
		all=$((all + rate * seconds))
		printf '%8s %8s %8s\n' "$rate" "$cpu" "$(unshipped process)"
	done
	for name in $threads; do
		awk -v name="$name" -v ticks=$(($(thread process "$name") - before[$name])) -v n="$all" -v hz="$(getconf CLK_TCK)" \
			'BEGIN { printf "of that, thread %s: %.1f us a request\n", name, ticks / hz * 1e6 / n }'
	done
	local begun=$EPOCHREALTIME waiting
	waiting=$(unshipped process)
	settled
	awk -v n="$waiting" -v a="$begun" -v b="$EPOCHREALTIME" 'BEGIN { printf "%d records that waited were booked in %.1f s\n", n, b - a }'
}
keep metering run
