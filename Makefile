# `make` alone lists the commands. Everything runs in .venv. Each command sets it up when it is missing or when
# constraints.txt has changed. Variables: PYTHON=python3.12 (read when .venv is made), ARGS="..." (passed on),
# BASE=origin/main (what `make quick` compares with).

PYTHON ?= python3
ARGS ?=
WORKERS ?= 3
BASE ?= main

VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo train test quick check format bench

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## make .venv with the versions that CI uses; does nothing when it is up to date

demo: $(READY) ## train the default model on OpenMoji and print the path of its report
	$(BIN)/python train.py

train: $(READY) ## train something else: make train ARGS="encoder=resnet fusion=concat"
	$(BIN)/python train.py $(ARGS)

# One thread a worker: workers with a thread pool each would fight for the cores. Three keep two cores busy, because some
# tests wait for processes that they start. A worker without tests takes those of another, so all end together.
test: $(READY) ## run the tests; some of them: make test ARGS="-k fusion"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

quick: $(READY) ## run the tests of what has changed since BASE, and a few of a run, while you work
	tests=$$($(BIN)/python scripts/changed_tests.py $(BASE)) && \
		OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $$tests $(ARGS)

check: $(READY) ## lint, formatting, types, imports and prose; changes nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy mmtrain
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/python scripts/check_prose.py

format: $(READY) ## fix what ruff can fix, and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY) ## compare the training loop's speed with a plain PyTorch loop
	$(BIN)/python scripts/benchmark.py $(ARGS)

# The stamp is removed first and written last, so a set-up that failed halfway is not mistaken for a complete one. The
# environment variables apply the pins to build tools too: the first one before pip 25.3, the second one after it.
# --no-compile: Python compiles a module when it is imported first, and most of the 23,000 files never are.
$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'mmtrain needs Python 3.11 or newer, as $(PYTHON); name another: make setup PYTHON=python3.11'; exit 1; }
	@rm -f $@
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
		$(BIN)/python -m pip install --no-compile -c constraints.txt -e '.[dev]'
	@touch $@
