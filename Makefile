# wasmeter: `make demo` from a fresh clone shows the product, `make test` proves it. `make` alone lists the targets.
#
# Everything that can be used again lies in $(WASMETER_CACHE), outside the clone.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

WASMETER_CACHE ?= $(HOME)/.cache/wasmeter
override WASMETER_CACHE := $(abspath $(WASMETER_CACHE))
CARGO_TARGET_DIR ?= $(WASMETER_CACHE)/target
export WASMETER_CACHE CARGO_TARGET_DIR
# The wheel of ONNX Runtime would start a telemetry thread in every process that loads it.
export ORT_DISABLE_TELEMETRY := 1
export PATH := $(WASMETER_CACHE)/bin:$(PATH)

# Flags for every cargo command that resolves dependencies; CI says --locked.
CARGO_FLAGS ?=
# One profile and all members at once in every target: another selection would build third-party crates again.
WORKSPACE := --release --workspace $(CARGO_FLAGS)
# Workspaces of their own, since they are built for Wasm; their unit tests and lints run natively.
GUESTS := guest-sdk functions
IN_GUESTS := CARGO_TARGET_DIR="$(WASMETER_CACHE)/target-wasm"
# Their release profile is for small components; test programs need not wait for it.
NO_LTO := CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
# A rule for a crate that nobody uses yet is no fault.
DENY := -A unused-wrapper bans licenses sources

.PHONY: help setup build dist host functions demo test soak lint fmt clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

setup: ## bring the engines, the models and the Wasm toolchain into the cache
	@deploy/setup.sh

build: setup host functions ## build wasmeter, wasmeter-billing and the functions

dist: setup ## build the programs as they are shipped, with a profile of real calls; up to an hour, needs wrk
	@deploy/dist.sh

host:
	cargo build $(WORKSPACE) --bins

functions: setup
	$(IN_GUESTS) functions/build.sh

demo: build ## start the platform, call real functions, show what they cost (DEMO_EXIT=1: and stop)
	@deploy/demo.sh

test: ## all tests: units and integration, models, functions and billing against python, the demo once
	@deploy/setup.sh nextest
	@$(MAKE) --no-print-directory build
	if cargo nextest --version >/dev/null 2>&1; then cargo nextest run $(WORKSPACE); else cargo test $(WORKSPACE) --all-targets; fi
	cargo test $(WORKSPACE) --doc --quiet
	"$(WASMETER_CACHE)/venv/bin/python" deploy/models/check.py
	"$(WASMETER_CACHE)/venv/bin/python" deploy/models/golden.py
	"$(WASMETER_CACHE)/venv/bin/python" deploy/billing/check_stripe.py
	"$(WASMETER_CACHE)/venv/bin/python" deploy/monitoring/check.py
	for guests in $(GUESTS); do $(IN_GUESTS) $(NO_LTO) cargo test $(WORKSPACE) --quiet --manifest-path $$guests/Cargo.toml; done
	$(IN_GUESTS) functions/test.sh
	DEMO_EXIT=1 deploy/demo.sh

soak: build ## kill everything at random under load and count the money (SOAK=rounds, default 1000)
	@deploy/soak.sh $(SOAK)

lint: ## formatting, clippy without a warning, and what may depend on what
	@deploy/setup.sh deny
	cargo fmt --all --check
	cargo clippy $(WORKSPACE) --all-targets -- -D warnings
	for guests in $(GUESTS); do \
	  cargo fmt --all --check --manifest-path $$guests/Cargo.toml; \
	  $(IN_GUESTS) cargo clippy $(WORKSPACE) --manifest-path $$guests/Cargo.toml --all-targets -- -D warnings; \
	done
	cargo deny --config .cargo/deny.toml --workspace check $(DENY)
	cargo deny --config .cargo/deny.toml --workspace --manifest-path functions/Cargo.toml check $(DENY)

fmt: ## format all Rust code
	cargo fmt --all
	for guests in $(GUESTS); do cargo fmt --all --manifest-path $$guests/Cargo.toml; done

clean: ## remove what this clone holds; the shared cache stays
	rm -rf functions/target
	@echo "the cache in $(WASMETER_CACHE) stays: it serves every clone"
