#!/usr/bin/env bash
# Many functions on one host: what deploying one takes, how much of the host's memory each takes while nobody calls it,
# and how long the first call to one that is not in memory waits. Each function is the Rust hello (`echo`) with a custom
# section of its own: another component, another artifact. Keeps what it prints in results/density.txt.
#
#   FUNCTIONS=1000    how many; 10,000 are asked, and take about 6 GB of disk and 40 minutes of two cores, nearly all of it
#                     the compiler's
#   COLD=1000         how many of them get a first call
#   DENSITY_DATA      a data directory that stays; what is deployed there already is not deployed again
. "$(dirname "$0")/keep.sh"
profile=${BENCH_PROFILE:-release}
bin=$target/$profile
components=functions/target/components
functions/build.sh echo >&2
[ -x "$bin/wasmeter" ] && [ -x "$bin/wasmeter-billing" ] || cargo build --workspace --profile "$profile" --bins
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
keep density python3 deploy/bench/density.py --wasmeter "$bin/wasmeter" --data "${DENSITY_DATA:-$work/data}" \
	--components "$components" --functions "${FUNCTIONS:-1000}" --cold "${COLD:-1000}"
