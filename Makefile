# One word a use. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
RUN ?= runs/cnn
MODELS ?= models

.DEFAULT_GOAL := help
.PHONY: help setup run serve test check bench

help:  ## list these targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

# The stamp is newer than what it was made from, so an up-to-date environment costs nothing.
$(VENV)/.complete: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(VENV)/.complete  ## the environment with everything, in .venv

test: setup  ## the tests
	$(BIN)/pytest --numprocesses auto $(PYTEST_ARGS)

check: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
