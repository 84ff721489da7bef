# remediator. The two commands: `make demo` and `make test`.

# One flavour of binaries for tests and images, so that everything is compiled once: static, of the profile below.
# An explicit target keeps the flags away from build scripts and procedural macros, which cannot be static.
PROFILE ?= dev
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
export CARGO_BUILD_TARGET := $(HOST)
export RUSTFLAGS := -C target-feature=+crt-static
export LAB_BIN := $(or $(CARGO_TARGET_DIR),target)/$(HOST)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))

# Of the simulation.
SEEDS ?= 2000
FROM ?= 0
SIM := $(or $(CARGO_TARGET_DIR),target)/$(HOST)/sim/remediator

.DEFAULT_GOAL := help
.PHONY: help setup build images up demo down test chaos test-package deb sim mutants crash bench fuzz coverage check-config generated fmt lint

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

demo: images ## start the lab, leak descriptors in one replica, and tell what happens
	@lab/demo

test: images ## everything: rules, configurations, units, and end to end on the real lab
	@$(MAKE) --no-print-directory check-config
	@PROMTOOL=$(CURDIR)/lab/promtool prometheus-rules/test.sh
	@if command -v cargo-nextest >/dev/null; then \
	    cargo nextest run --workspace --cargo-profile $(PROFILE); \
	else \
	    cargo test --workspace --profile $(PROFILE); \
	fi
	@packaging/test

chaos: images ## real deliveries under faults on the lab, and the sums: MINUTES=12, SEED of another run
	@SEED=$(SEED) MINUTES=$(MINUTES) cargo test --profile $(PROFILE) --test lab -- --ignored --nocapture --exact chaos::the_lab_under_faults

test-package: build ## install, run and remove the Debian package in a container with a real systemd
	@packaging/test

deb: build ## make the Debian package; PROFILE=release for one to keep
	@packaging/deb

sim: ## the simulation: SEEDS=100000 is the release figure, JOBS and FROM as wanted
	@cargo build --profile sim --bin remediator
	@$(SIM) sim --seeds $(SEEDS) --from $(FROM) $(if $(JOBS),--jobs $(JOBS))

mutants: ## switch every guard off in turn, in a build of its own, and see that the simulation notices
	@cargo build --profile sim --bin remediator --features mutants --target-dir $(or $(CARGO_TARGET_DIR),target)/mutants
	@$(or $(CARGO_TARGET_DIR),target)/mutants/$(HOST)/sim/remediator sim --mutants --seeds $(SEEDS) $(if $(JOBS),--jobs $(JOBS))

crash: ## kill and fail the real program at every change of a file and every call, once and twice; CRASH_JOBS, CRASH_ONLY
	@cargo test --profile $(PROFILE) --test crash -- --ignored --nocapture --test-threads 1

# The same for all three builds: a commit that is told to one and not to the other compiles everything again.
bench: export REMEDIATOR_COMMIT = $(shell git rev-parse HEAD)$(if $(shell git status --porcelain -- src bench Cargo.toml Cargo.lock build.rs), with changes)
bench: ## measure, print the table with its references, and write docs/BENCHMARKS.md; ROWS, ROUNDS and STORES as wanted
	@for tool in webhook jq awk curl; do command -v $$tool >/dev/null || { echo "apt-get install webhook jq mawk curl"; exit 1; }; done
	@cargo build --release --bin remediator
	@REMEDIATOR=$(abspath $(or $(CARGO_TARGET_DIR),target)/$(HOST)/release/remediator) BENCH_DIR=$(abspath $(or $(CARGO_TARGET_DIR),target)/bench) \
	    PAPER=$(CURDIR)/docs/BENCHMARKS.md cargo bench --profile measure -p remediator-bench --bench load -- $(ROWS)
	@cargo bench --profile measure -p remediator-bench --bench functions -- --quiet

fuzz: ## libFuzzer at every door: RUNS=10000000 in total, DOOR=payload for one, JOBS and KEEP=1 as fuzz/run says
	@fuzz/run

coverage: ## which branches of guard/, decide/, event.rs and act/recover.rs the tests take; fails where one of them is below 95 %, MISSES=1 names the others
	@tests/coverage

up: images ## start the lab and leave it alone
	@lab/lab up
	@lab/lab urls

down: ## stop the lab and remove all of it
	@lab/lab down

setup: ## install what is missing (as root), or say which command does
	@lab/setup

build: setup ## compile the binaries
	@cargo build --workspace --bins --profile $(PROFILE)

images: build ## build the lab's images
	@lab/images

check-config: ## check the configurations of Prometheus, Alertmanager, HAProxy and Compose with their own tools
	@lab/check-config

generated: build ## make again what the program writes: schema/, and the tables of toil-ledger.md
	@$(LAB_BIN)/remediator schema playbook >schema/playbook.schema.json
	@$(LAB_BIN)/remediator schema settings >schema/remediator.schema.json
	@perl -0pi -e 's{(<!-- remediator toil (.+?) -->\n).*?(?=<!-- end -->)}{$$1 . `$(LAB_BIN)/remediator toil $$2`}se' toil-ledger.md

fmt: ## format
	@cargo fmt --all

lint: ## what CI refuses
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --profile $(PROFILE) -- -D warnings
