#!/usr/bin/env bash
# The device suite on an accelerator, and MiniLM's texts a second over the size of the batch there; kept in
# results/gpu-DEVICE.txt. deploy/gpu.md says what the machine must have. With cpu:0 it proves everything but the device.
# usage: gpu.sh [DEVICE]      default cuda:0
# WASMETER_ENGINES__ONNXRUNTIME: the GPU build of libonnxruntime.so, if it is not in the set-up's own folder.
. "$(dirname "$0")/keep.sh"
device=${1:-cuda:0}
case $device in
cpu:0) ;;
cuda:*)
	command -v nvidia-smi >/dev/null || { echo "gpu.sh: no nvidia-smi, so no driver: see deploy/gpu.md" >&2; exit 1; }
	: "${WASMETER_ENGINES__ONNXRUNTIME:?is not set: the path of the GPU build of libonnxruntime.so; see deploy/gpu.md}"
	;;
*) echo "gpu.sh: $device is no device of ONNX Runtime: cpu:0 or cuda:N" >&2; exit 1 ;;
esac
deploy/setup.sh nextest
export PATH=$WASMETER_CACHE/bin:$PATH
# What a device computes; confinement and the other engine are tested where they always are.
WASMETER_REQUIRE_DEVICES=$device cargo nextest run --release --workspace --no-fail-fast \
	-E 'package(wasmeter-device) & (binary(engine) | binary(batch) | binary(references) | binary(service))'
cargo build --release --workspace --example curve_bench
curve() {
	local watcher=
	if [ "$device" != cpu:0 ]; then
		nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader --id="${device#cuda:}"
		nvidia-smi --query-gpu=utilization.gpu --format=csv,noheader,nounits --loop-ms=500 --id="${device#cuda:}" >"$use" &
		watcher=$!
	fi
	"$target/release/examples/curve_bench" "$device"
	[ -z "$watcher" ] || { kill "$watcher"; awk '{ sum += $1 } END { if (NR) printf "utilisation by nvidia-smi: %.0f %%\n", sum / NR }' "$use"; }
}
use=$(mktemp)
trap 'rm -f "$use"' EXIT
keep "gpu-${device/:/-}" curve
