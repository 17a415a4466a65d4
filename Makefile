# Every target makes its own virtual environment first.
PYTHON ?= python3
PYTEST_ARGS ?= -n 2 --dist worksteal
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: demo bench help test lint clean
demo: .venv/core
	$(BIN)/craik demo

bench: .venv/dev
	$(BIN)/python -m benchmarks.learning --suite

help:
	@echo "make demo   set up, learn to swing a pendulum up, show it"
	@echo "make bench  set up, then the learning benchmark (long)"
	@echo "make test   set up, lint, run the tests"
	@echo "make lint   set up, then ruff, pyright, import-linter"

.venv/core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "craik needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable . --constraint constraints.txt
	@touch $@

.venv/dev: .venv/core
	$(BIN)/python -m pip install --quiet --editable '.[dev,mujoco,serve]' --constraint constraints.txt
	@touch $@

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis
