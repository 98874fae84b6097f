#!/usr/bin/env bash
# The programs as they are shipped: fat LTO, and laid out by a profile of real calls (PGO). Builds them once with counters,
# puts some seconds of load on those, and builds them again. Takes twenty to sixty minutes on two cores; needs wrk, and rustup for
# llvm-profdata. They come to $CARGO_TARGET_DIR/dist, where the benchmarks look.
#
#   DIST_SECONDS  5 of each kind of load
# Processes that may not write files have no counts: how the compile child and the device worker are laid out is a guess.
. "$(dirname "$0")/bench/keep.sh"
command -v wrk >/dev/null || { echo "dist: needs wrk (Debian: apt-get install wrk)" >&2; exit 1; }
triple=$(rustc -vV | sed -n 's/^host: //p')
tools=$(rustc --print sysroot)/lib/rustlib/$triple/bin
made=$WASMETER_CACHE/t-dist
profile=$made/calls.profdata
[ -x "$tools/llvm-profdata" ] || rustup component add llvm-tools
functions/build.sh echo bench-nn >&2

# With a target named, build scripts and macros have no counters. A program with counters need not be linked as one: that takes
# as long as all the rest; but cargo must not know, since what LTO it asks for is part of all names of functions.
mkdir -p "$made"
cat >"$made/one-by-one" <<'END'
#!/usr/bin/env bash
args=("$@")
args=("${args[@]/#lto=fat/lto=off}")
exec "${args[@]/%linker-plugin-lto/linker-plugin-lto=no}"
END
chmod +x "$made/one-by-one"
build() { # RUSTFLAGS
	CARGO_TARGET_DIR=$made RUSTFLAGS=$1 cargo build --workspace --profile dist --target "$triple" --bins \
		--example bare_hello --example bare_guest --example bare_mlp
}

# Calls with and without a body and a model, many at a time and one.
train() ( # BIN
	export BENCH_SECONDS=${DIST_SECONDS:-5}
	. deploy/bench/servers.sh
	start_host ours 18131 /fn/dev/hello/hello "$1/wasmeter"
	deploy_hello ours "$1/wasmeter"
	deploy_mlp ours "$1/wasmeter"
	answers ours hello
	for connections in 1 64; do measure ours "$connections"; done
	for path in json mlp; do
		url[ours]=http://127.0.0.1:18131/fn/dev/mlp/$path
		answers ours '{"output":[*' --data-binary "@$work/body"
		for connections in 1 64; do measure ours "$connections" -s "$work/mlp.lua"; done
	done
)

echo "dist: 1 of 3, with counters" >&2
rm -rf "$made/counts" "$profile"
RUSTC_WRAPPER=$made/one-by-one build "-Cprofile-generate=$made/counts"
echo "dist: 2 of 3, load" >&2
train "$made/$triple/dist"
"$tools/llvm-profdata" merge -o "$profile" "$made"/counts/*.profraw
echo "dist: 3 of 3, with the profile" >&2
build "-Cprofile-use=$profile"
mkdir -p "$target/dist/examples"
cp "$made/$triple/dist"/{wasmeter,wasmeter-billing,wasmeter-device-worker} "$target/dist/"
cp "$made/$triple/dist/examples"/bare_{hello,guest,mlp} "$target/dist/examples/"
