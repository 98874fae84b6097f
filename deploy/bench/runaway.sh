#!/usr/bin/env bash
# Guests that never end: how long after the deadline each caller has its 504, with as many of them as there are guest
# threads and with sixty-four at once; a bare loop, a loop of host calls, and a sleep. Asked: 10 ms, for 999 of 1000 and
# for all of the sixty-four. Then the peak of the host's memory. Keeps what it prints in results/runaway.txt.
#
#   BENCH_PROFILE  dist unless given;   CALLS  1000 a loop;   CROWDS  10 of sixty-four;   DEADLINE  100 (ms)
. "$(dirname "$0")/keep.sh"
profile=${BENCH_PROFILE:-dist}
bin=$target/$profile
components=$PWD/functions/target/components
functions/build.sh spin hostile >&2
[ -x "$bin/wasmeter" ] && [ -x "$bin/wasmeter-billing" ] || cargo build --workspace --profile "$profile" --bins
. deploy/bench/servers.sh
deadline=${DEADLINE:-100}
start_host ours 18131 / "$bin/wasmeter"
for name in spin hostile; do
	mkdir "$work/fn-$name"
	printf '[function]\nname = "%s"\ncomponent = "%s"\npublic = true\n[limits]\nconcurrency = 512\nfuel = 1_000_000_000_000\ndeadline = "%sms"\n' \
		"$name" "$components/$name.wasm" "$deadline" >"$work/fn-$name/wasmeter.toml"
	on ours "$bin/wasmeter" deploy --no-build "$work/fn-$name" >/dev/null
done
rss() { sed -n "s/^$1:[^0-9]*\([0-9]*\) kB/\1/p" "/proc/${pid[ours]}/status"; }
run() {
	local before
	echo "profile $profile, $(nproc) guest threads"
	echo
	before=$(rss VmRSS)
	python3 deploy/bench/runaway.py --address 127.0.0.1:18131 --deadline-ms "$deadline" --few "$(nproc)" \
		--calls "${CALLS:-1000}" --crowds "${CROWDS:-10}" \
		/fn/dev/spin/ /fn/dev/hostile/loop-in-host /fn/dev/hostile/sleep
	echo
	echo "memory of the host: $before kB before, $(rss VmHWM) kB at most, $((($(rss VmHWM) - before) / 64)) kB for each of 64 at once"
}
keep runaway run
