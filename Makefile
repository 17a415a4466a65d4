# Every target but clean creates the virtual environment first.
PYTHON ?= python3
PYTEST_ARGS ?= -n 2 --dist worksteal
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: demo bench docs help test lint clean
demo: .venv/core
	$(BIN)/craik demo

bench: .venv/dev
	$(BIN)/python -m benchmarks.learning --suite

docs: .venv/dev
	$(BIN)/python -m mkdocs build --strict
	@echo "the site is in build/site"

help:
	@echo "make demo   train an agent to swing up a pendulum, and show it"
	@echo "make bench  run the learning benchmark (hours)"
	@echo "make test   run the linters and all tests"
	@echo "make lint   run ruff, pyright and import-linter"
	@echo "make docs   build the site into build/site; every warning is an error"
	@echo "make clean  delete the virtual environment and caches"
	@echo "All targets but clean create the virtual environment .venv if needed."

.venv/core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "craik needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable . --constraint constraints.txt
	@touch $@

.venv/dev: .venv/core
	$(BIN)/python -m pip install --quiet --editable '.[dev,docs,mujoco,serve]' --constraint constraints.txt
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
