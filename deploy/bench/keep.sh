# What every benchmark here does; each sources this file. bash.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export ORT_DISABLE_TELEMETRY=1
export WASMETER_CACHE=${WASMETER_CACHE:-$HOME/.cache/wasmeter}
target=${CARGO_TARGET_DIR:-target}

# keep NAME COMMAND...: runs it, prints what it prints under the machine, the date and the commit, and keeps all of that
# in results/NAME.txt, if the command succeeds.
keep() {
	local out=deploy/bench/results/$1.txt commit
	shift
	commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
	git diff --quiet HEAD 2>/dev/null || commit="$commit and changes"
	mkdir -p "$(dirname "$out")"
	{
		printf '%s cores, %s; %s; commit %s\n\n' "$(nproc)" "$(sed -n 's/^model name[^:]*: //p;T;q' /proc/cpuinfo)" \
			"$(date -u +%Y-%m-%d)" "$commit"
		"$@"
	} | tee "$out.new" || { rm -f "$out.new"; return 1; }
	mv "$out.new" "$out"
}
