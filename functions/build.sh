#!/bin/bash
# Builds functions to Wasm: target/components/<name>.wasm beside this file.
# usage: build.sh [name…]      a name is a folder here or in _fixtures/; without names, all of them
# A folder with Cargo.toml is Rust; with function.js JavaScript, with function.py Python (guest-sdk/); with main.c C, a core
# module that is run as a command.
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
  for source in "$here"/*/{Cargo.toml,function.js,function.py} "$here"/_fixtures/*/{Cargo.toml,main.c}; do
    [ ! -f "$source" ] || names+=("$(basename "$(dirname "$source")")")
  done
fi
components=()
commands=()
declare -A built
out=$WASMETER_CACHE/target-wasm

# script NAME DIR SOURCE SDK: a function that is no Rust; made anew only if what goes into it has changed
script() {
  local key
  key=$(cd "$here/.." && find "${2#"$here/../"}" "guest-sdk/$4" wit deploy/pins.env -type f ! -path '*/node_modules/*' \
    ! -path '*/__pycache__/*' ! -name README.md ! -name wasmeter.toml -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-32)
  built[$1]=$out/script/$1-$key.wasm
  [ ! -f "${built[$1]}" ] || return 0
  echo "building $1 ($3)" >&2
  mkdir -p "$out/script"
  "$here/../guest-sdk/$4/build.sh" "$2/$3" "${built[$1]}"
  # Other checkouts may be at other versions, but not for ever.
  find "$out/script" -name "$1-*.wasm" ! -name "*-$key.wasm" -mtime +7 -delete
}

# c NAME DIR: the same for C, with the compiler of Zig, which brings wasi-libc
c() {
  local key zig=$WASMETER_CACHE/zig/zig
  [ -x "$zig" ] || { echo "build.sh: $zig is not there: run deploy/setup.sh" >&2; exit 2; }
  key=$(cat "$2/main.c" "$here/../deploy/pins.env" | sha256sum | cut -c1-32)
  built[$1]=$out/script/$1-$key.wasm
  [ ! -f "${built[$1]}" ] || return 0
  echo "building $1 (main.c)" >&2
  mkdir -p "$out/script" "$out/zig"
  (cd "$2" && ZIG_GLOBAL_CACHE_DIR=$out/zig ZIG_LOCAL_CACHE_DIR=$out/zig "$zig" cc -target wasm32-wasi -Os -s \
    -Wall -Wextra -Werror -o "${built[$1]}.new" main.c && mv "${built[$1]}.new" "${built[$1]}")
}

for name in "${names[@]}"; do
  if [ -f "$here/$name/Cargo.toml" ]; then
    dir=$here/$name
  elif [ -f "$here/_fixtures/$name/Cargo.toml" ]; then
    dir=$here/_fixtures/$name
  elif [ -f "$here/_fixtures/$name/main.c" ]; then
    c "$name" "$here/_fixtures/$name"
    continue
  elif [ -f "$here/$name/function.js" ]; then
    script "$name" "$here/../functions/$name" function.js js
    continue
  elif [ -f "$here/$name/function.py" ]; then
    script "$name" "$here/../functions/$name" function.py python
    continue
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
