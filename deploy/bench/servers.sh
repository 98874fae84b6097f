# Servers beside each other and a load on each in turn, for the benchmarks over HTTP. Sourced after keep.sh. bash.
command -v wrk >/dev/null || { echo "bench: needs wrk (Debian: apt-get install wrk)" >&2; exit 1; }
rounds=${BENCH_ROUNDS:-3} seconds=${BENCH_SECONDS:-2}
work=$(mktemp -d)
pids=()
# A host that is told to end does so when billing has its usage.
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

# A host on this port and the next; the access log is off, as no peer has one.
start_host() { # NAME PORT PATH PROGRAM ARGUMENT...
	local name=$1 port=$2 path=$3 program=$4 tries
	shift 4
	start "$name" "http://127.0.0.1:$port$path" env WASMETER_LOG=info,wasmeter::access=off "$program" serve \
		--data "$work/$name" --listen "127.0.0.1:$port" --admin-listen "127.0.0.1:$((port + 1))" "$@"
	for ((tries = 0; tries < 200; tries++)); do
		[ "$(curl -s "http://127.0.0.1:$port/readyz" || true)" = ready ] && return 0
		sleep 0.1
	done
	echo "bench: $name is not ready:" >&2
	tail -n 5 "$work/$name.log" >&2
	exit 1
}

# `wasmeter ARGUMENT...` against a host that was started so.
on() { # NAME PROGRAM ARGUMENT...
	local name=$1
	shift
	WASMETER_URL=$(cat "$work/$name/url") WASMETER_TOKEN=$(cat "$work/$name/dev-token") "$@"
}

answers() { # NAME TEXT [CURL ARGUMENT...]
	local name=$1 text=$2 tries
	shift 2
	for ((tries = 0; tries < 200; tries++)); do
		[[ "$(curl -s "$@" "${url[$name]}" || true)" == $text ]] && return 0
		sleep 0.1
	done
	echo "bench: $name does not answer $text:" >&2
	tail -n 5 "$work/$name.log" >&2
	exit 1
}

# The hello component as /fn/dev/hello.
deploy_hello() { # NAME PROGRAM
	mkdir "$work/hello-$1"
	printf '[function]\nname = "hello"\ncomponent = "%s"\npublic = true\n[limits]\nconcurrency = 512\n' \
		"$PWD/functions/target/components/echo.wasm" >"$work/hello-$1/wasmeter.toml"
	on "$1" "$2" deploy --no-build "$work/hello-$1" >/dev/null
}

# An MLP 784-64-10, its function as /fn/dev/mlp, and a request for it: $work/body, and $work/mlp.lua for wrk.
deploy_mlp() { # NAME PROGRAM
	awk 'BEGIN {
		printf "wrk.method = \"POST\"\nwrk.headers[\"content-type\"] = \"application/json\"\nwrk.body = \"{\\\"input\\\":["
		for (i = 0; i < 784; i++) printf "%s%.3f", i ? "," : "", i % 255 / 255
		print "]}\""
	}' >"$work/mlp.lua"
	sed -n 's/^wrk.body = "\(.*\)"$/\1/p' "$work/mlp.lua" | tr -d '\\' >"$work/body"
	mkdir "$work/mlp" "$work/model"
	cp functions/_fixtures/models/mlp.onnx "$work/model/model.onnx"
	printf '[model]\nname = "mlp"\nbackend = "onnx"\nfiles = ["model.onnx"]\ndevices = ["cpu:0"]\n[batching]\nmax-batch = 32\nmax-queue-delay = "0ms"\n[card]\nlicence = "Apache-2.0"\ntask = "digits"\nsource = "a fixture"\n' >"$work/model/model.toml"
	printf '[function]\nname = "mlp"\ncomponent = "%s"\npublic = true\n[models]\nallow = ["mlp"]\n[limits]\nconcurrency = 512\n' \
		"$PWD/functions/target/components/bench-nn.wasm" >"$work/mlp/wasmeter.toml"
	on "$1" "$2" models push "$work/model" --own >/dev/null
	on "$1" "$2" deploy --no-build "$work/mlp" >/dev/null
}

# Processor time of a process and its children, in clock ticks.
ticks() {
	local children child sum
	sum=$(awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat")
	children=$(cat /proc/"$1"/task/*/children 2>/dev/null || true)
	for child in $children; do sum=$((sum + $(ticks "$child"))); done
	echo "$sum"
}

measure() { # NAME CONNECTIONS [WRK ARGUMENT...] -> "requests/s median-us cpu-us bad"
	local before after name=$1 connections=$2
	shift 2
	before=$(ticks "${pid[$name]}")
	# One thread on the last processor, for all alike.
	taskset -c $(($(nproc) - 1)) wrk -t1 -c"$connections" -d"${seconds}s" --latency "$@" "${url[$name]}" >"$work/wrk"
	after=$(ticks "${pid[$name]}")
	awk -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" '
		function us(t) { return t ~ /us$/ ? t + 0 : t ~ /ms$/ ? t * 1000 : t * 1000000 }
		$1 == "50%" { median = us($2) }
		$2 == "requests" && $3 == "in" { n = $1 }
		/^Requests\/sec/ { rate = $2 }
		/Non-2xx|Socket errors/ { bad = 1 }
		END { printf "%.0f %.0f %.1f %d\n", rate, median, ticks / hz * 1e6 / (n ? n : 1), bad }' "$work/wrk"
}

# Each server in turn, round after round; a table with the ratio of the last server to each.
compare() { # "CONNECTIONS..." "NAMES..." [WRK ARGUMENT...]
	local at=$1 names=$2 round connections name rate median cpu bad
	shift 2
	for connections in $at; do
		for ((round = 0; round < rounds; round++)); do
			for name in $names; do
				read -r rate median cpu bad < <(measure "$name" "$connections" "$@")
				[ "$bad" = 0 ] || echo "# $name at $connections connections: refused or failed requests"
				echo "$connections $round $name $rate $median $cpu"
			done
		done
	done >"$work/figures"
	grep '^#' "$work/figures" | sort -u || true
	awk -v at="$at" -v names="$names" '!/^#/ {
		rate[$1, $2, $3] = $4; sum[$1, $3] += $4; median[$1, $3] += $5; cpu[$1, $3] += $6; if ($2 >= n) n = $2 + 1
	}
	END {
		connections = split(at, ats, " "); count = split(names, name, " "); ours = name[count]
		printf "%-12s %-9s %10s %10s %10s %27s\n", "connections", "server", "requests/s", "median us", "cpu us", ours " / it (least-most)"
		for (a = 1; a <= connections; a++) for (i = 1; i <= count; i++) {
			c = ats[a]; s = name[i]; least = 1e9; most = 0; all = 0
			for (r = 0; r < n; r++) {
				x = rate[c, r, ours] / (rate[c, r, s] ? rate[c, r, s] : 1)
				all += x; if (x < least) least = x; if (x > most) most = x
			}
			printf "%-12d %-9s %10.0f %10.0f %10.1f %13.2f (%.2f-%.2f)\n", c, s, sum[c, s] / n, median[c, s] / n, cpu[c, s] / n, all / n, least, most
		}
	}' "$work/figures"
}
