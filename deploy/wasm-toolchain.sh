#!/bin/bash
# Makes `cargo build --target wasm32-wasip2` work and says with which toolchain.
#
# usage: wasm-toolchain.sh [DIR]       the last line printed is RUSTUP_TOOLCHAIN=<name>
#   DIR             where a toolchain is built if one must be (default $WASMETER_CACHE/rust-wasm)
#   WASM_NO_RUSTUP  1: do not ask rustup's server (registry-only machines, and tests that prove the build)
#
# Where rustup reaches its server, the targets come from there. Elsewhere the standard library is built from Debian's
# package rust-web-src with Debian's rustc-web and linked as rustup's toolchain `wasm`, which borrows the Wasm linkers
# of the active toolchain. About 750 MB of packages and three minutes of CPU, once.
set -euo pipefail

cache=${WASMETER_CACHE:-$HOME/.cache/wasmeter}
dir=${1:-$cache/rust-wasm}
targets=(wasm32-wasip2 wasm32-wasip1 wasm32-unknown-unknown)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { echo "wasm-toolchain: $*" >&2; }
die() { say "$*"; exit 1; }
answer() { echo "RUSTUP_TOOLCHAIN=$1"; exit 0; }

command -v rustup >/dev/null || die "needs rustup (https://rustup.rs): only rustup can put a Wasm toolchain beside the native one"

# A caller's toolchain (cargo exports one to its children) must not decide what is looked at here.
unset RUSTUP_TOOLCHAIN
active() { rustup show active-toolchain | cut -d' ' -f1; }

# Does a compiler have the standard library of every target?
has_std() {
  local target libdir
  for target in "${targets[@]}"; do
    libdir=$("$@" --print target-libdir --target "$target" 2>/dev/null) || return 1
    compgen -G "$libdir/libstd-*.rlib" >/dev/null || return 1
  done
}

# A library works only with the very compiler that built it, and apt may have changed the compiler since.
same_compiler() {
  local version
  version=$(rustc +wasm --version 2>/dev/null) || return 1
  [ -f "$1/compiler" ] && [ "$(cat "$1/compiler")" = "$version" ] && return 0
  # No or another note: what counts is whether it compiles.
  # (Into a directory of its own: rustc renames its output into place, and root would replace /dev/null by a file.)
  local probe works=0
  probe=$(mktemp -d)
  echo 'fn main() {}' | rustc +wasm --target wasm32-wasip2 --emit=metadata --out-dir "$probe" - 2>"$probe/log" || works=1
  rm -rf "$probe"
  [ $works = 0 ] || return 1
  echo "$version" >"$1/compiler" || true
}

ready_default() { has_std rustc; }
ready_linked() { has_std rustc +wasm && same_compiler "$(rustc +wasm --print sysroot)"; }

ready_default && answer "$(active)"
ready_linked && answer wasm

if [ "${WASM_NO_RUSTUP:-}" != 1 ]; then
  say "adding the Wasm targets with rustup"
  if timeout 120 rustup target add "${targets[@]}" >&2 && ready_default; then answer "$(active)"; fi
  say "rustup could not add them, building the library from Debian's packages instead"
fi

mkdir -p "$(dirname "$dir")"
exec 8>"$dir.lock"
flock 8
ready_linked && answer wasm # another run was faster

needed=()
[ -f /usr/lib/rustlib/src/rust/library/std/Cargo.toml ] || needed+=(rust-web-src)
[ -x /usr/bin/rustc ] && [ ${#needed[@]} = 0 ] || needed+=(rustc-web)
[ -f /usr/lib/wasm32-wasi/libc.a ] || needed+=(wasi-libc)
[ ${#needed[@]} = 0 ] || "$here/packages.sh" "${needed[@]}"

host=$(rustc --version --verbose | sed -n 's/^host: //p')
native=$(rustc --print sysroot) # for cargo, rust-lld, wasm-component-ld
rm -rf "$dir".build-* # of runs that were killed: the lock says that none is alive
work=$(mktemp -d "$dir.build-XXXXXX")
trap 'rm -rf "$work"' EXIT
new=$work/toolchain

mkdir -p "$new/bin" "$new/lib/rustlib/$host" "$work/empty/src"
ln -s "$native/lib/rustlib/$host/bin" "$new/lib/rustlib/$host/bin"
ln -s "/usr/lib/rustlib/$host/lib" "$new/lib/rustlib/$host/lib"
ln -s "$native/bin/cargo" "$new/bin/cargo" # without one, rustup takes the cargo of any other toolchain
for tool in rustc rustdoc; do
  printf '#!/bin/sh\nexec /usr/bin/%s --sysroot "%s" "$@"\n' "$tool" "$dir" >"$new/bin/$tool"
  chmod +x "$new/bin/$tool"
done

: >"$work/empty/src/lib.rs"
printf '[package]\nname = "empty"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n' >"$work/empty/Cargo.toml"
for target in "${targets[@]}"; do
  say "building the standard library for $target (about a minute)"
  # Bitcode is embedded so that guests may be built with and without link-time optimisation.
  (cd "$work/empty" && RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Cembed-bitcode=yes \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 CARGO_TARGET_DIR="$work/target" \
    "$native/bin/cargo" build --quiet --release -Zbuild-std=std,panic_abort,proc_macro --target "$target") >&2 ||
    die "could not build the standard library for $target: see the messages above (needs the network for crates.io)"
  lib=$new/lib/rustlib/$target/lib
  mkdir -p "$lib/self-contained"
  find "$work/target/$target/release/deps" -name '*.rlib' ! -name 'libempty-*' -exec cp {} "$lib/" \;
  case $target in
    *wasi*) cp /usr/lib/wasm32-wasi/{crt1-command.o,crt1-reactor.o,libc.a} "$lib/self-contained/" ;;
  esac
done

/usr/bin/rustc --version >"$new/compiler"
rm -rf "$dir"
mv -T "$new" "$dir"
rustup toolchain link wasm "$dir" >&2
ready_linked || die "the toolchain in $dir was built but does not compile: remove it and run again"
answer wasm
