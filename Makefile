# Each command makes its own environment (.venv) and installs what it needs.
PYTHON ?= python3
BIN := .venv/bin

# The tests start many Python processes, and pip leaves the packages here without bytecode: with this variable each of
# them would compile torch and the others anew, which takes twice as long as all the rest of their start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: compare test test-fast test-floors coverage lint docs release-check clean

# What `make coverage` runs: a folder or file of tests, or options of pytest.
TESTS ?= tests

# A first look, in minutes. Without --quick: three seeds, more data and each detector's decisions.
compare: .venv/skood
	$(BIN)/python -m skood compare --quick

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Leaves out tests with the marker "slow": CONTRIBUTING.md says which they are.
test-fast: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not cuda"

coverage: .venv/installed
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -n 2 --dist worksteal $(TESTS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/python -m mypy

docs: .venv/installed
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build

# With the oldest versions that pyproject.toml allows, in an environment of its own.
test-floors:
	PYTHON=$(PYTHON) .ci/test-floors

# Builds the files of a release, and tries them as a user would, in new environments.
release-check:
	PYTHON=$(PYTHON) .ci/release-check

# A user's libraries, without those of the tests. Python compiles modules when they are first used: compiling all of
# torch here would take half a minute.
.venv/skood: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable ".[plot]"
	touch $@

.venv/installed: .venv/skood
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable ".[plot,test]"
	touch $@

clean:
	rm -rf .venv docs/_build docs/auto_examples docs/generated
