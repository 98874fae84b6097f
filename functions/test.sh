#!/bin/bash
# Tests of the functions that need no host: the golden answers still are what the models in the cache answer, and
# every component builds. How the guests prepare and decide is tested natively: `cargo test` in this folder.
# usage: test.sh [BASE]     with BASE, e.g. http://127.0.0.1:8080/fn/dev, also posts the golden inputs to a running host
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export WASMETER_CACHE=${WASMETER_CACHE:-$HOME/.cache/wasmeter} PYTHONDONTWRITEBYTECODE=1

"$here/build.sh"
"$WASMETER_CACHE/venv/bin/python" "$here/reference/check.py"
if [ $# -gt 0 ]; then
  python3 "$here/reference/post.py" "$1"
fi
