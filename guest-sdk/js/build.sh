#!/bin/bash
# Makes a component of a function in JavaScript.
# usage: build.sh SOURCE.js OUT.wasm      Node.js is that of deploy/setup.sh, in the cache, or one on the PATH
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
node=${WASMETER_CACHE:-$HOME/.cache/wasmeter}/node/bin/node
[ -x "$node" ] || node=node
command -v "$node" >/dev/null || { echo "build.sh: no Node.js: run deploy/setup.sh of wasmeter, or install Node.js 20.19 or later" >&2; exit 1; }
exec "$node" "$here/build.mjs" "$@"
