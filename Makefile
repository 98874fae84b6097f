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
export PATH := $(WASMETER_CACHE)/bin:$(PATH)

# Flags for every cargo command that resolves dependencies; CI says --locked.
CARGO_FLAGS ?=
# One profile and all members at once in every target: another selection would build third-party crates again.
WORKSPACE := --release --workspace $(CARGO_FLAGS)
# A rule for a crate that nobody uses yet is no fault.
DENY := -A unused-wrapper bans licenses sources

.PHONY: help setup build host functions demo test lint fmt clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

setup: ## bring the engine, the demo models and the Wasm toolchain into the cache
	@deploy/setup.sh

build: setup host functions ## build wasmeter, wasmeter-billing and the functions

host:
	cargo build $(WORKSPACE) --bins

functions: setup
	CARGO_TARGET_DIR="$(WASMETER_CACHE)/target-wasm" functions/build.sh

demo: build ## start the platform, call real functions, show what they cost (DEMO_EXIT=1: and stop)
	@deploy/demo.sh

test: ## all tests: units and integration, models and functions against python, the demo once
	@deploy/setup.sh nextest
	@$(MAKE) --no-print-directory build
	if cargo nextest --version >/dev/null 2>&1; then cargo nextest run $(WORKSPACE); else cargo test $(WORKSPACE) --all-targets; fi
	cargo test $(WORKSPACE) --doc --quiet
	"$(WASMETER_CACHE)/venv/bin/python" deploy/models/check.py
	CARGO_TARGET_DIR="$(WASMETER_CACHE)/target-wasm" functions/test.sh
	DEMO_EXIT=1 deploy/demo.sh

lint: ## formatting, clippy without a warning, and what may depend on what
	@deploy/setup.sh deny
	cargo fmt --all --check
	cargo fmt --all --check --manifest-path functions/Cargo.toml
	cargo clippy $(WORKSPACE) --all-targets -- -D warnings
	cargo deny --config .cargo/deny.toml --workspace check $(DENY)
	cargo deny --config .cargo/deny.toml --workspace --manifest-path functions/Cargo.toml check $(DENY)

fmt: ## format all Rust code
	cargo fmt --all
	cargo fmt --all --manifest-path functions/Cargo.toml

clean: ## remove what this clone holds; the shared cache stays
	rm -rf functions/target
	@echo "the cache in $(WASMETER_CACHE) stays: it serves every clone"
