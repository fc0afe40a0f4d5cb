# Each command makes its own environment (.venv) and installs what it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: compare test lint docs clean

compare: .venv/installed
	$(BIN)/python -m skood compare

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell

docs: .venv/installed
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[plot,test]"
	touch $@

clean:
	rm -rf .venv docs/_build docs/auto_examples docs/generated
