#!/usr/bin/env bash
# Many functions on one host: what deploying one takes, how much of the host's memory each takes while nobody calls it,
# and how long the first call to one that is not in memory waits. Each function is the Rust hello (`echo`) with a custom
# section of its own: another component, another artifact. Keeps what it prints in results/density.txt.
#
#   FUNCTIONS=10000   how many; 10,000 take about 6 GB of disk and 15 minutes of two cores, nearly all of it the compiler's
#   COLD=1000         how many of them get a first call
#   DENSITY_DATA      a data directory that stays; what is deployed there already is not deployed again
source "$(dirname "${BASH_SOURCE[0]}")/keep.sh"
bin=$PWD/$target/${BENCH_PROFILE:-release}
[[ $target = /* ]] && bin=$target/${BENCH_PROFILE:-release}
components=functions/target/components
for file in "$bin/wasmeter" "$bin/wasmeter-billing" "$components/echo.wasm"; do
	[ -e "$file" ] || { echo "density.sh: $file is missing: run 'make build'" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
keep density python3 deploy/bench/density.py --wasmeter "$bin/wasmeter" --data "${DENSITY_DATA:-$work/data}" \
	--components "$components" --functions "${FUNCTIONS:-10000}" --cold "${COLD:-1000}"
