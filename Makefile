# The few commands of this project. `make` alone sets up and builds. docs/install.md says more.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.PHONY: help setup setup-check build demo autoattack bundle gpu-check book bench test test-nodes slurm-test soak fuzz deny clean distclean

help: ## Print this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 21

setup: ## Install what the build needs and is missing; tell cargo where it is
	@scripts/setup

setup-check: ## List what set-up would fetch, its size and where it goes; install nothing
	@scripts/setup --check

build: setup ## Set up and build target/release/iad-launch (the default)
	@. scripts/env.sh; SECONDS=0; \
	cargo build --release --locked -p launcher; \
	echo "build: $$SECONDS s; the program is target/release/iad-launch"

demo: ## Train, distil and attack a small network on Fashion-MNIST, some minutes on two cores
	@scripts/setup --demo
	@$(MAKE) --no-print-directory build
	@scripts/demo

autoattack: ## AutoAttack on the demo's student and 256 images, some minutes on two cores
	@[ -f runs/fashion_mnist_iad1/evaluation.json ] || $(MAKE) --no-print-directory demo
	@$(MAKE) --no-print-directory build
	@. scripts/env.sh; \
	target/release/iad-launch eval runs/fashion_mnist_iad1 --suite natural,autoattack --images 256 --ranks 2

bundle: setup ## Pack the program for a machine with a GPU and torch: target/iad-gpu.tar.gz
	@scripts/bundle

gpu-check: build ## Check and time the GPU of this machine, some minutes
	@scripts/gpu-check

test: ## Everything that CI runs
	@scripts/check

test-nodes: build ## Only the runs over several nodes, which are network namespaces; as root
	@. scripts/env.sh; cargo test --workspace --release --locked --test nodes -- --include-ignored --nocapture

slurm-test: build ## Only the job scripts, on a Slurm of this machine that the test starts and ends; as root
	@scripts/check-slurm

soak: build ## Stop, kill and hang runs at many random moments, on failing disks too; hours. IAD_FAULT_SEED repeats a draw
	@. scripts/env.sh; export IAD_KILLS=$${IAD_KILLS:-400} IAD_STOPS=$${IAD_STOPS:-300} IAD_DISK=all IAD_LEAK_STEPS=$${IAD_LEAK_STEPS:-20000}; \
	cargo test --workspace --release --locked --test kill_matrix --test disk --test stops --test hangs --test faults --test leaks -- --nocapture --test-threads 1

fuzz: setup ## Give every reader damaged files, two million to the importers, new ones each time; some minutes
	@. scripts/env.sh; export IAD_FUZZ_INPUTS=$${IAD_FUZZ_INPUTS:-200000} IAD_FUZZ_SEED=$${IAD_FUZZ_SEED:-$$RANDOM}; \
	echo "fuzz: to repeat these inputs: make fuzz IAD_FUZZ_SEED=$$IAD_FUZZ_SEED IAD_FUZZ_INPUTS=$$IAD_FUZZ_INPUTS"; \
	cargo test --workspace --release --locked --lib --bins -- fuzz::

book: ## Put the pages of docs/ into a book with a search field: target/book/html
	@scripts/book

bench: ## Time the step beside PyTorch, some 20 minutes on two quiet cores; the records stand in benches/records
	@scripts/setup --tests
	@$(MAKE) --no-print-directory build
	@. scripts/env.sh; \
	torch=$$(sed -n "s/^LIBTORCH = '\(.*\)\/lib\/python.*/\1/p" .cargo/config.toml); \
	"$$torch/bin/python" benches/step/bench.py $(BENCH)

deny: ## Check licences, sources and versions of the dependencies
	@scripts/setup --tests
	@scripts/deny

clean: ## Remove what was built
	rm -rf target

distclean: clean ## Also remove what set-up wrote into this checkout; ~/.cache/iad stays
	rm -rf .cargo/config.toml .iad
