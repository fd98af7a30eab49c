# One word a use. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SERVE_VENV := .venv-serve
RUN ?= runs/cnn
MODELS ?= models

.DEFAULT_GOAL := help
.PHONY: help setup run serve test check bench examples

help:  ## list these targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

# The stamp is newer than what it was made from, so an up-to-date environment costs nothing.
$(VENV)/.complete: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(VENV)/.complete  ## the environment with everything, in .venv

# Trained with --resume, so that an interrupted `make run` goes on where it was.
$(RUN)/run.json: | setup
	$(BIN)/mnist-train --output $(RUN) --resume

# The stamp keeps a second `make run` from publishing the same run again.
$(MODELS)/.published: $(RUN)/run.json
	$(BIN)/mnist-export $(RUN) --repository $(MODELS)
	@touch $@

run: $(MODELS)/.published  ## train on MNIST, export, and serve the result on http://127.0.0.1:8000
	$(BIN)/mnist-serve --repository $(MODELS)

$(SERVE_VENV)/.complete: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(SERVE_VENV)
	$(SERVE_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt --editable .
	@touch $@

serve: $(SERVE_VENV)/.complete  ## serve the packaged model at once, without torch
	$(SERVE_VENV)/bin/mnist-serve

test: setup  ## the tests
	$(BIN)/pytest --numprocesses auto --dist loadgroup $(PYTEST_ARGS)

check: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup  ## every benchmark; each prints its conditions and a table
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.abuse

examples: setup  ## the tutorial's lessons, one after the other; pictures in runs/examples
	@mkdir -p runs/examples
	$(BIN)/python examples/autograd.py --save runs/examples/autograd.png
	$(BIN)/python examples/linear_regression.py --save runs/examples/linear_regression.png
	$(BIN)/python examples/optimizers.py --save runs/examples/optimizers.png --animate runs/examples/optimizers.gif
	$(BIN)/python examples/digits.py --output runs/examples/digits --save runs/examples/digits.png
