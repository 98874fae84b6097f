#!/bin/bash
# Builds functions to Wasm: target/components/<name>.wasm beside this file.
# usage: build.sh [name…]      a name is a folder here or in _fixtures/; without names, all of them
# WASMETER_CACHE (default ~/.cache/wasmeter) holds the build folder and the models' tables.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export WASMETER_CACHE=${WASMETER_CACHE:-$HOME/.cache/wasmeter}
script=$here/../deploy/wasm-toolchain.sh

if [ -z "${WASMETER_WASM_TOOLCHAIN:-}" ]; then
  if [ -x "$script" ]; then
    WASMETER_WASM_TOOLCHAIN=$("$script" "$WASMETER_CACHE/rust-wasm" | sed -n '$s/^RUSTUP_TOOLCHAIN=//p')
  else
    WASMETER_WASM_TOOLCHAIN=wasm
  fi
fi

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
  for manifest in "$here"/*/Cargo.toml "$here"/_fixtures/*/Cargo.toml; do
    [ ! -f "$manifest" ] || names+=("$(basename "$(dirname "$manifest")")")
  done
fi
components=()
commands=()
declare -A built
out=$WASMETER_CACHE/target-wasm
for name in "${names[@]}"; do
  if [ -f "$here/$name/Cargo.toml" ]; then
    dir=$here/$name
  elif [ -f "$here/_fixtures/$name/Cargo.toml" ]; then
    dir=$here/_fixtures/$name
  else
    echo "build.sh: no function '$name' in $here or its _fixtures; give the name of a folder" >&2
    exit 2
  fi
  # [package.metadata.wasmeter] target: a core module that is run as a command; all else is a component.
  if grep -q '^target = "wasm32-wasip1"' "$dir/Cargo.toml"; then
    commands+=(-p "path+file://$dir")
    built[$name]=$out/wasm32-wasip1/release/$name.wasm
  else
    components+=(-p "path+file://$dir")
    built[$name]=$out/wasm32-wasip2/release/${name//-/_}.wasm
  fi
done

# No path of this machine in a component: the same source gives the same bytes anywhere.
flags="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$(dirname "$here")=/wasmeter"
# Cargo's lines only when it compiles something.
build() { # TARGET PACKAGES...
  local target=$1
  shift
  [ $# -gt 0 ] || return 0
  ( cd "$here" && RUSTUP_TOOLCHAIN=$WASMETER_WASM_TOOLCHAIN CARGO_TARGET_DIR=$out CARGO_BUILD_TARGET='' \
    CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS="$flags" CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS="$flags" \
    CARGO_TERM_PROGRESS_WHEN=never cargo build --locked --release --target "$target" "$@" \
    2> >(grep -vE '^ *(Finished|Blocking) ' >&2) )
}
build wasm32-wasip2 "${components[@]}"
build wasm32-wasip1 "${commands[@]}"

mkdir -p "$here/target/components"
for name in "${names[@]}"; do
  component=$here/target/components/$name.wasm
  if ! cmp -s "${built[$name]}" "$component"; then
    # Whole or not at all: somebody may be reading the old one.
    cp "${built[$name]}" "$component.new.$$" && mv "$component.new.$$" "$component"
    echo "built $name: $(stat -c %s "$component") bytes"
  fi
done
