# `make demo`: the whole pipeline on real DFT runs. `make test`: every test. Both make .venv first.

PYTHON ?= $(firstword $(foreach version,3.13 3.12 3.11,$(shell command -v python$(version))) python3)
BIN := .venv/bin

.PHONY: install demo test lint bench docs clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[mpi,tensorboard,dev,docs]'
	touch $@

demo: install
	bash demo/run.sh

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(BIN)/python $$benchmark || exit 1; done

docs: install
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv site demo/work
