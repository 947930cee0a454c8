# `make demo` runs the main comparison, `make test` all tests; `make check` is the fast part for every change.
# All create .venv and install what they need into it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OLDEST ?= .venv-oldest
ARGS ?=
MUTANTS ?=
JOBS ?= 2
# Each test process uses one core; without this, JOBS processes would start JOBS x cores threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder

.PHONY: demo lint check test test-oldest mutants docs clean

demo: $(VENV)/.installed
	$(BIN)/python recipes/long_tail.py $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint
	$(PYTEST) -m "not slow and not gpu and not browser" $(ARGS)

test: lint
	$(PYTEST) $(ARGS)

# The documentation site; a warning is an error.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build
	@echo "docs/_build/index.html"

# The lowest versions that pyproject.toml allows, in an environment of its own.
test-oldest: $(OLDEST)/.installed-dev
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder $(ARGS)

# Breaks formulas one at a time, which takes a night; MUTANTS="--sample 300 --modules geometry" takes part of them.
mutants: $(VENV)/.installed-mutants
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutation/run_mutants.py $(MUTANTS)

$(OLDEST)/.installed-dev: pyproject.toml tests/support/oldest_versions.py
	$(PYTHON) -m venv $(OLDEST)
	$(PYTHON) tests/support/oldest_versions.py > $(OLDEST)/constraints.txt
	PYTHONWARNINGS=ignore $(OLDEST)/bin/python -m pip install --quiet --editable '.[dev]' --constraint $(OLDEST)/constraints.txt
	@touch $@

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nc_tools needs Python 3.11 or later, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing nc_tools with PyTorch into $(VENV): about 6 GB and a few minutes, once."
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing nc_tools with PyTorch and the development tools into $(VENV): about 6 GB and a few minutes, once."
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-mutants: pyproject.toml | $(VENV)/bin/python
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[dev,mutants]'
	@touch $(VENV)/.installed $(VENV)/.installed-dev $@

clean:
	rm -rf $(VENV) $(OLDEST) outputs docs/_build docs/api
