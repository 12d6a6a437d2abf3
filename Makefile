# Every target does its own set-up: the environment is made once and remade when pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := .venv-peers

.PHONY: setup demo test test-slurm lint type docs bench bench-peers check fix clean

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

# A Slurm of one node is installed (Debian's packages) and started for the tests; elsewhere they say why they are skipped.
test-slurm: $(READY)
	PATHPIPE_TEST_SLURM=1 $(BIN)/python -m pytest tests/slurm

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

# Peers live apart from pathpipe's own environment but see its packages (torch is 6 GB): their site-packages come first,
# then those of $(VENV) by a .pth file. torch is held at the version that is there.
$(PEERS)/.ready: benchmarks/peers.txt benchmarks/peers-alone.txt | $(READY)
	$(BIN)/python -m venv --clear $(PEERS)
	echo "import site; site.addsitedir('$$($(BIN)/python -c "import site; print(site.getsitepackages()[0])")')" \
	  > $$($(PEERS)/bin/python -c "import site; print(site.getsitepackages()[0])")/shared.pth
	$(BIN)/pip list --format=freeze --disable-pip-version-check | grep -E "^torch(vision)?==" > $(PEERS)/held.txt
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/peers-alone.txt
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check -c $(PEERS)/held.txt -r benchmarks/peers.txt
	touch $@

bench-peers: $(PEERS)/.ready
	OMP_NUM_THREADS=1 $(PEERS)/bin/python benchmarks/reading.py
	$(PEERS)/bin/python benchmarks/mil_training.py
	$(PEERS)/bin/python benchmarks/tiling.py --draw docs/images/tiling_peers.jpg
	$(BIN)/python benchmarks/drift.py

check: lint type test

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(PEERS) demo site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
