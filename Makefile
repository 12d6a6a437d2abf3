# Every target does its own set-up: the environment is made once and remade when pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test lint type docs bench check fix clean

setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	$(BIN)/python -c "import torch, timm, pathpipe"  # shows now what is broken, and compiles once for all test workers
	touch $@

demo: $(READY)
	$(BIN)/pathpipe demo -o demo

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: $(READY)
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[docs]"
	$(BIN)/python docs/reference.py
	$(BIN)/mkdocs build --strict

bench: $(READY)
	$(BIN)/python benchmarks/extraction.py
	$(BIN)/python benchmarks/startup.py

check: lint type test

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
