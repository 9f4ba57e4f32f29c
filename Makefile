# Thin: sets up what a fresh machine lacks, then calls plain cargo.

BIN := target/debug/placet
REQUESTS := policies/requests

.DEFAULT_GOAL := help
.PHONY: help setup run test lint bench fuzz simulate soak trace guests check-guests twins build

help: ## Tell what the targets do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what the tests need: a C compiler, rustfmt, clippy, a wasm target, SoftHSM, Python libraries
	@.ci/setup test

build:
	@.ci/setup build
	cargo build --locked --package placet

run: build ## Start a server on this machine with the reference policies; its state is in run/
	@mkdir -p run
	@exec $(BIN) serve --bundle policies/reference --facts policies/reference/facts.yaml \
	    --store run/placet.db --keys run/keys \
	    --try $(REQUESTS)/lease-permitted.json --try $(REQUESTS)/lease-denied.json

test: setup lint ## Run everything that the CI runs
	cargo test --locked --workspace
	$(BIN) test policies/reference
	.ci/check-guests

lint: ## Check format, lints, documentation and dependencies
	cargo fmt --all --check
	cargo fmt --check --manifest-path policies/guests/isolation/Cargo.toml
	cargo fmt --check --manifest-path policies/guests/residency/Cargo.toml
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --locked --workspace --no-deps
	.ci/check-dependencies

bench: ## Measure evaluation, signing, commits, the log, round trips and what hostile neighbours do to them
	cargo bench --locked --workspace --bench signing --bench evaluate --bench wasm --bench commit \
	    --bench log --bench ledger --bench roundtrip --bench neighbours

fuzz: ## Run the fuzz targets under libFuzzer: make fuzz TIME=600 TARGETS="rego facts" JOBS=2
	@.ci/setup fuzz
	@TIME="$(TIME)" TARGETS="$(TARGETS)" JOBS="$(JOBS)" fuzz/run

simulate: ## Run the simulation of the ledger on any seeds: make simulate SEEDS=10000 SEED=1000, or SEED=7
	@.ci/setup build
	@SEEDS="$(SEEDS)" SEED="$(SEED)" cargo test --locked --package placet-fuzz --test simulation -- \
	    --ignored --exact --nocapture any_seeds

soak: setup ## Kill a server under load and audit what is left: make soak CYCLES=500 SEED=1 FORMAT=json
	@SOAK_CYCLES="$(CYCLES)" SOAK_SEED="$(SEED)" SOAK_FORMAT="$(FORMAT)" cargo test --locked --package placet \
	    --test it -- --exact --ignored --nocapture soak::as_many_kills_as_asked_for

trace: setup build ## Run a real cluster trace through a server, and draw it: make trace DATA=directory KEEP=yes
	@test -n "$(DATA)" || { echo "hint: make trace DATA=<directory of the trace>" >&2; exit 64; }
	examples/trace.sh "$(DATA)"

guests: build ## Build the Wasm components of the shipped policies anew
	@.ci/setup-wasm
	$(BIN) build policies/guests/isolation --output policies/reference/isolation/isolation.wasm
	$(BIN) build policies/guests/residency --output policies/reference/residency/residency.wasm

twins: ## Put any inputs through policies and their twins: make twins INPUTS=1000000 SEED=1
	@.ci/setup build
	TWINS_INPUTS="$(INPUTS)" TWINS_SEED="$(SEED)" cargo test --locked --release --package placet-policy \
	    --test it -- --exact --ignored --nocapture twins::as_many_as_asked_for

check-guests: setup build ## Build them anew, elsewhere, and hold them equal to their twins on all cases
	.ci/check-guests
