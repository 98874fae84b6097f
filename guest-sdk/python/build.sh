#!/bin/bash
# Makes a component of a function in Python: the interpreter, started, with the module and what it imports in it.
# usage: build.sh MODULE.py OUT.wasm      modules are looked for beside MODULE.py; pure Python only
#
# componentize-py is that of deploy/setup.sh, in the cache, or one on the PATH.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${WASMETER_CACHE:-$HOME/.cache/wasmeter}

[ $# = 2 ] || { echo "usage: build.sh MODULE.py OUT.wasm" >&2; exit 2; }
tool=(componentize-py)
if [ -d "$cache/componentize-py" ]; then
  tool=(env PYTHONPATH="$cache/componentize-py" "$cache/venv/bin/python" -c "import componentize_py, sys; sys.exit(componentize_py.script())")
elif ! command -v componentize-py >/dev/null; then
  echo "build.sh: no componentize-py: run deploy/setup.sh of wasmeter, or pip install componentize-py" >&2
  exit 1
fi

folder=$(cd "$(dirname "$1")" && pwd)
new=$2.new.$$
log=$(mktemp)
trap 'rm -f "$new" "$log"' EXIT
# It prints all of what went wrong, and is silent otherwise.
"${tool[@]}" --quiet -d "$here/../../wit" -d "$here/wit" -w wasmeter:python/function \
  componentize "$(basename "$1" .py)" -p "$folder" -p "$here" -o "$new" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
mv "$new" "$2"
