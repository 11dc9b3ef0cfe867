# Every target makes .venv from the lock by itself; a second run reuses it.
PYTHON ?= python3
BIN := .venv/bin
# Test processes; PROCESSES=N sets another number.
PROCESSES ?= 2
PARALLEL := --numprocesses $(PROCESSES) --dist worksteal
STAMP := .venv/.installed

.PHONY: demo test test-fast chaos mutants check up bench bench-claims gpu-check lock clean

demo: $(STAMP)
	$(BIN)/python -m demo run

# The whole suite. What measures closely runs alone afterwards.
test: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m "not serial"
	$(BIN)/python -m pytest -m serial

# Pure code: no database, no server, no training program.
test-fast: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m "unit and not slow"

# A deployment at work and a fault every few seconds: MINUTES=10, SEED=N to have an earlier run's faults again.
chaos: $(STAMP)
	$(BIN)/python -m tests.faults.chaos $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

# Break NUMBER=100 lines of PACKAGE=trainer, worker, store, api or intake, drawn by SEED=1, and see which tests notice.
mutants: $(STAMP)
	$(BIN)/python -m tests.mutants $(PACKAGE) $(if $(NUMBER),--number $(NUMBER)) $(if $(SEED),--seed $(SEED))

up: $(STAMP)
	$(BIN)/pairtune up

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m tests.schema
	$(BIN)/python -m api.openapi --check
	$(BIN)/python -m tests.docs.tables --check

bench: $(STAMP)
	$(BIN)/python -m benchmarks

# Whether the trainer does on this machine's GPU what it promises, in at most MINUTES=10: var/gpu-check/gpu-check.md.
gpu-check: $(STAMP)
	$(BIN)/python -m benchmarks.gpu_check $(if $(MINUTES),--minutes $(MINUTES))

# The paper's claims: runs what is missing of the kept results (nothing, as they stand) and writes docs/benchmark.md.
# QUICK=1: one domain, two methods, at most 15 minutes on two cores. FRESH=1: all anew in var/benchmark/fresh, about
# two hours on two cores. Interrupted, each goes on where it was.
bench-claims: $(STAMP)
	$(BIN)/python -m research $(if $(QUICK),--quick,$(if $(FRESH),--fresh))

.venv: $(STAMP)

# The clock starts here, so that the demo can tell what the installation took. The stamp is written last: an
# interrupted installation is made again. The lock comes first, every file checked against its hashes. Then pip finds
# all that pyproject.toml asks for installed but torch, of which it takes the CPU build where one is at hand.
$(STAMP): requirements.lock pyproject.toml
	@mkdir -p var && date +%s > var/install.started
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pairtune needs Python 3.11 or newer")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable ".[demo,dev]"
	@date +%s > var/install.finished
	@touch $(STAMP)

# Resolve pyproject.toml anew, for every platform, with the hashes of all files that the index has of each version.
# KEEP=1 leaves the versions that are locked now and changes only what pyproject.toml needs. torch and the libraries
# of its CUDA build stay out: docs/decisions/0002.
lock:
	$(PYTHON) -m venv --clear var/lock
	var/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(if $(KEEP),cp requirements.lock var/lock/compiled)
	var/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	  --strip-extras --no-header --no-emit-index-url --no-emit-find-links --no-emit-package torch --no-emit-package pairtune \
	  --extra demo --extra dev --output-file var/lock/compiled pyproject.toml
	(echo "# Made by 'make lock' from pyproject.toml. torch and its CUDA libraries are not in it: docs/decisions/0002."; \
	 awk '/^[a-z]/ {cuda = /^(cuda-|nvidia-|triton=)/} /^$$/ {exit} !cuda' var/lock/compiled) > var/lock/requirements.lock
	mv var/lock/requirements.lock requirements.lock
	rm -rf var/lock

clean:
	rm -rf .venv var
