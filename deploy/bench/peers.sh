#!/usr/bin/env bash
# Builds the peers that the benchmarks compare with, from crates.io, as a user who wants speed would: `wasmtime serve`
# of the version that the host is built on, with fat LTO and one codegen unit, and only what `serve` needs.
# They go to $WASMETER_CACHE/peers/bin; what is there is not built again. Takes 15 to 60 minutes, once.
set -euo pipefail
version=48.0.8
cache=${WASMETER_CACHE:-$HOME/.cache/wasmeter}
peer=$cache/peers/bin/wasmtime
if [ -x "$peer" ] && "$peer" --version | grep -qF " $version"; then exit 0; fi
echo "peers: wasmtime-cli $version with fat LTO (many minutes, once)" >&2
CARGO_TARGET_DIR=$cache/t-peer CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 \
  cargo install --locked ${PEER_JOBS:+-j "$PEER_JOBS"} wasmtime-cli --version "=$version" --root "$cache/peers" \
  --no-default-features \
  --features run,serve,component-model,component-model-async,cranelift,pooling-allocator,cache,parallel-compilation
