#!/usr/bin/env bash
# Host, device worker, billing and the stand-in for Stripe are killed at random under load; a client outside remembers
# each answer and finds it billed once, at the cost that it was shown. `make test` runs a dozen rounds of it.
#
#   deploy/soak.sh [ROUNDS]        1,000 if not given; WASMETER_SOAK_SEED=N runs the same kills again
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export WASMETER_SOAK=${1:-${WASMETER_SOAK:-1000}}
# Not through nextest, which ends a test after five minutes.
exec cargo test --release --workspace ${CARGO_FLAGS:-} --test crash_soak -- --nocapture
