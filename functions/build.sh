#!/bin/bash
# Builds functions to components: target/components/<name>.wasm beside this file.
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
packages=()
for name in "${names[@]}"; do
  if [ -f "$here/$name/Cargo.toml" ]; then
    packages+=(-p "path+file://$here/$name")
  elif [ -f "$here/_fixtures/$name/Cargo.toml" ]; then
    packages+=(-p "path+file://$here/_fixtures/$name")
  else
    echo "build.sh: no function '$name' in $here or its _fixtures; give the name of a folder" >&2
    exit 2
  fi
done

# No path of this machine in a component: the same source gives the same bytes anywhere.
flags="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$(dirname "$here")=/wasmeter"
out=$WASMETER_CACHE/target-wasm
# Cargo's lines only when it compiles something.
( cd "$here" && RUSTUP_TOOLCHAIN=$WASMETER_WASM_TOOLCHAIN CARGO_TARGET_DIR=$out CARGO_BUILD_TARGET='' \
  CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS="$flags" CARGO_TERM_PROGRESS_WHEN=never \
  cargo build --locked --release --target wasm32-wasip2 "${packages[@]}" \
  2> >(grep -vE '^ *(Finished|Blocking) ' >&2) )

mkdir -p "$here/target/components"
for name in "${names[@]}"; do
  built=$out/wasm32-wasip2/release/${name//-/_}.wasm
  component=$here/target/components/$name.wasm
  if ! cmp -s "$built" "$component"; then
    # Whole or not at all: somebody may be reading the old one.
    cp "$built" "$component.new.$$" && mv "$component.new.$$" "$component"
    echo "built $name: $(stat -c %s "$component") bytes"
  fi
done
