# What a developer and the CI run. Rust, a C compiler, Python 3 and make are all that has to be there.
.DEFAULT_GOAL := help
.PHONY: help build demo test lint bench soak fmt servers tools clean-servers

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
export HEADGATE_SERVERS ?= $(CURDIR)/.servers
export PATH := $(HEADGATE_SERVERS)/tools/bin:$(PATH)
FUZZ_SECONDS ?= 60
PROFILE ?= $(if $(CI),ci,default)

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the gateway for use
	cargo build --release --locked

demo: ## a shop on this machine whose changes you see arrive; the gateway is killed half way (DEMO_SECONDS=20 DEMO_DATABASE=postgres|mariadb|mysql)
	@scripts/servers --demo
	@scripts/demo

test: tools ## every test, against real servers, and a minute of each fuzz target
	cargo build --workspace --locked --examples
	cargo test --workspace --locked --doc
	cargo nextest run --workspace --locked --profile $(PROFILE)
	HEADGATE_POSTGRES_BIN=$(HEADGATE_SERVERS)/postgres-18/bin cargo nextest run --workspace --locked --profile $(PROFILE) \
	    -E 'package(headgate-postgres) and (binary(wire) or binary(values))'
	@if [ -x fuzz/run.sh ]; then \
	    for target in fuzz/fuzz_targets/*.rs; do fuzz/run.sh "$$(basename "$$target" .rs)" $(FUZZ_SECONDS); done; \
	fi

lint: tools ## formatting, clippy, licences and bans, documentation
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo deny --all-features check --hide-inclusion-graph bans licenses sources
	RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --locked --document-private-items

bench: servers ## the benchmarks
	cargo bench --workspace --locked

soak: tools ## fifty rounds of every fault, under load
	HEADGATE_FAULT_ROUNDS=50 cargo nextest run --locked --release --profile soak --test it faults::

fmt: ## format everything
	cargo fmt --all

servers: ## install the real servers that the rest needs into .servers
	@scripts/servers --no-tools

tools: ## the same for cargo-deny and cargo-nextest, where they are not on PATH
	@scripts/servers

clean-servers: ## remove them again
	@scripts/servers --remove
