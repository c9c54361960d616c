# The one list of commands: `make` alone prints it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test lint lint-docker fmt docs bench load image

TARGET := $(or $(CARGO_TARGET_DIR),target)
CONFIG ?= conf/portcullis.toml
# dev builds in minutes, release is what ships
PROFILE ?= dev
# the environment of the end-to-end tests' Python clients and servers
export PORTCULLIS_TEST_PYTHON ?= $(abspath $(TARGET))/python/bin/python3
# arguments for bench/load/run.py, such as LOAD="--only ours,nginx --seconds 5"
LOAD ?=

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build and start the gateway (CONFIG=conf/portcullis.toml PROFILE=dev)
	@.ci/setup build
	cargo run --locked --profile $(PROFILE) -- run -c $(CONFIG)

test: ## Run every test: documentation examples, then all others
	@.ci/setup build test
	@.ci/venv $(TARGET)/python tests/python/requirements.txt
	cargo test --locked --doc
	if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --locked; else cargo test --locked --lib --bins --tests; fi

lint: ## Check format, lints, documentation and dependencies
	@.ci/setup build tools
	cargo fmt --check
	.ci/dependencies
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --lib

lint-docker: ## Check the Dockerfile
	@.ci/setup tools
	@.ci/venv $(TARGET)/tools .ci/tools.txt
	$(TARGET)/tools/bin/hadolint Dockerfile

fmt: ## Format the source
	cargo fmt

docs: ## Build the documentation of the library
	@.ci/setup build
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --lib --document-private-items
	@echo "open $(TARGET)/doc/portcullis/index.html"

bench: ## Run the micro-benchmarks (criterion)
	@.ci/setup build
	cargo bench --locked

load: ## Compare CPU per request with nginx, HAProxy and Envoy (LOAD="--only ours,nginx")
	@.ci/setup build load
	@.ci/venv $(TARGET)/load bench/load/requirements.txt
	cargo build --locked --release
	PATH="$(abspath $(TARGET))/load/bin:$$PATH" python3 bench/load/run.py --binary $(TARGET)/release/portcullis $(LOAD)

image: ## Build the container image (needs a Docker engine)
	docker build --tag portcullis:$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1) .
