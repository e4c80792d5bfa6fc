# The same commands for a person and for CI. Each makes its own .venv where there is none.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test test-all fuzz check bench docs docs-run clean

help:
	@echo "make demo      LeNet-5 learns MNIST, is evaluated, and reads a digit"
	@echo "make test      the fast tests, under 3 minutes on two cores"
	@echo "make test-all  every test, kills and corruption sweeps included"
	@echo "make fuzz      5000 mutants of every kind of file; N=… for another number, SEED=… for another draw"
	@echo "make check     ruff, mypy"
	@echo "make bench     speeds, side by side, with the ordinary ways"
	@echo "make docs      the reference pages, and the documentation site in site/; warnings are errors"
	@echo "make docs-run  run the commands of every page, and write their output into the pages"
	@echo "make clean     remove .venv and caches; runs/ stays"

demo: .venv/installed
	$(BIN)/dlkit train lenet5 --dataset mnist --epochs 3
	$(BIN)/dlkit eval --topk 5
	rm -rf runs/digits && $(BIN)/dlkit dataset unpack mnist runs/digits --limit 5 | $(BIN)/dlkit predict - --topk 1

test: .venv/installed-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test-all: .venv/installed-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -m "slow or not slow"

fuzz: N ?= 5000
fuzz: SEED ?= 0
fuzz: .venv/installed-dev
	@echo "make fuzz N=$(N) SEED=$(SEED)"
	DLKIT_FUZZ_EXAMPLES=$(N) $(BIN)/python -m pytest -n auto --maxprocesses 4 -m slow -rP --hypothesis-seed=$(SEED) tests/fuzz

check: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/installed-dev
	$(BIN)/python tests/benchmarks/train_speed.py
	$(BIN)/python tests/benchmarks/start_up.py
	$(BIN)/python tests/benchmarks/zoo_speed.py
	$(BIN)/python tests/benchmarks/recurrent_speed.py
	$(BIN)/python tests/benchmarks/tree_speed.py
	$(BIN)/python tests/benchmarks/forecast.py
	$(BIN)/python tests/benchmarks/kept_memory.py
	$(BIN)/python tests/benchmarks/scan_speed.py

docs: .venv/installed-docs
	$(BIN)/python docs/tools/reference.py
	$(BIN)/zensical build --strict --config-file mkdocs.yml

docs-run: .venv/installed-dev
	$(BIN)/python docs/tools/run_pages.py README.md $(shell find docs -name '*.md')

clean:
	rm -rf .venv site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@ .venv/installed

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@
