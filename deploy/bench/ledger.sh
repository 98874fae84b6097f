#!/usr/bin/env bash
# How many records a second the ledger books, and how much of a processor 5,000 a second take: `wasmeter-billing serve` as
# it is shipped, over its socket, with a flush of the disk for each commit.
#
#   BENCH_PROFILE  release unless given;   BENCH_RECORDS  200000 a round;   BENCH_ROUNDS  3;   BENCH_SECONDS  8
. "$(dirname "$0")/keep.sh"
profile=${BENCH_PROFILE:-release}
cargo build --workspace --profile "$profile" --bins --example ledger_bench
keep ledger "$target/$profile/examples/ledger_bench" "$target/$profile/wasmeter-billing" "${BENCH_ROUNDS:-3}" \
	"${BENCH_RECORDS:-200000}" "${BENCH_SECONDS:-8}"
