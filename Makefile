# Everything here builds with one profile (--release), so that RocksDB is compiled
# once for `make demo`, `make test` and the shipped binary.

SHELL := /bin/bash
# ccache goes in by the search path. CC and CXX stay unset: RocksDB's build
# script would run again (13 minutes) whenever they change.
export PATH := /usr/lib/ccache:$(PATH)
CARGO_TARGET_DIR ?= target
export CARGO_TARGET_DIR

BINARY := $(CARGO_TARGET_DIR)/release/hashpact
# Arguments for `make demo`, such as DEMO_ARGS="--entries 100000 --keep".
DEMO_ARGS ?=
# Entries for `make bench`.
ENTRIES ?= 1000000
# Seeds for `make simulate`.
SEEDS ?= 1000
PYTHON ?= python3
# What tests leave out, for lack of a tool or a right.
SKIPS := $(abspath $(CARGO_TARGET_DIR))/skipped-tests

.DEFAULT_GOAL := help
.PHONY: help setup build demo test bench simulate nightly fmt lint check scripts

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

setup: ## Install what the build needs (Debian, Ubuntu), or say what it is
	@./.ci/setup

build: ## Build target/release/hashpact (the same selection as the tests: features, and so RocksDB, stay the same)
	cargo build --release --locked --workspace

demo: build ## Three members on this machine exchange real hash sets
	$(BINARY) demo $(DEMO_ARGS)

test: scripts ## Formatting, lints, then every test
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	@mkdir -p $(dir $(SKIPS)) && rm -f $(SKIPS)
	HASHPACT_SKIPS=$(SKIPS) cargo test --release --locked --workspace
	@if [ -s $(SKIPS) ]; then \
	  echo; echo "NOT TESTED HERE, since something was missing (HASHPACT_TESTS_SKIP=deny fails instead):"; \
	  sort -u $(SKIPS) | sed 's/^/  /'; \
	fi

# What can fail within seconds: the scripts that stand in the repository, and the
# second implementation of the proofs on its vectors.
scripts:
	set -e; for script in .ci/run .ci/setup certs/*.sh; do bash -n $$script; done
	certs/make-company-cert.sh --self-test
	$(PYTHON) tests/verify_proofs.py --self-test tests/vectors/capture.json
	$(PYTHON) tests/verify_proofs.py --merkle tests/vectors/merkle.json
	$(PYTHON) tests/verify_proofs.py --checkpoint tests/vectors/checkpoint.json
	$(PYTHON) tests/verify_proofs.py --feed tests/vectors/feed.json
	$(PYTHON) tests/verify_proofs.py --bundle tests/vectors/bundle.json
	$(PYTHON) tests/verify_proof_file.py --vectors tests/vectors/proof.json

bench: build ## Measure import, pull, watch, look-ups and a coalition (ENTRIES=1000000)
	set -e; for what in import pull watch lookup pdq mixed; do \
	  $(BINARY) bench $$what --entries $(ENTRIES) --json; \
	done
	$(BINARY) bench coalition --json

simulate: ## Play simulated coalitions, with hostile members too, from many seeds (SEEDS=1000)
	HASHPACT_SIM_SEEDS=$(SEEDS) cargo test --release --locked --workspace --lib -- \
	  sim::tests::members_end sim::foes::tests::no_hostile_member

# Hours: what is too long for every change.
nightly: ## 1,000 seeds of simulated coalitions, and a stolen key that takes back a million entries
	$(MAKE) simulate SEEDS=1000
	HASHPACT_STOLEN_ENTRIES=1000000 cargo test --release --locked --workspace --test integration -- stolen::

check: ## Type-check everything, without building it
	cargo check --release --locked --workspace --all-targets

fmt: ## Format the code
	cargo fmt --all

lint: ## Lints, and cargo-deny where it is installed
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then \
	  cargo deny --locked --all-features check; \
	else \
	  echo "cargo-deny is not installed, so licences and advisories were not checked:" \
	       "cargo install --locked cargo-deny"; \
	fi
