# One target for each task. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SERVE_VENV := .venv-serve
LOWEST_VENV := .venv-lowest
# Only with an older Python would pip say that no version of a requirement fits. `venv --clear` removes what an installation
# that failed has left: otherwise the folder would keep its link to the older Python.
MAKE_VENV = $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is \
    %d.%d; use make PYTHON=python3.12 $(MAKECMDGOALS)" % sys.version_info[:2])' \
    && $(PYTHON) -m venv $(if $(wildcard $@),,--clear)
RUN ?= runs/cnn
MODELS ?= models
# Files whose tests call torch, onnx, onnxruntime, Litestar, uvicorn, Pillow, numpy and grpcio in most of the ways in which
# the project does.
LOWEST_TESTS := $(addprefix tests/, \
    export/test_cascade.py export/test_export.py export/test_fuse.py export/test_reference.py \
    serving/api/test_app.py serving/api/test_bodies.py serving/api/test_document.py serving/api/test_forms.py \
    serving/api/test_json_images.py serving/api/test_methods.py serving/api/test_number_mode.py \
    serving/api/test_predict.py serving/api/open_inference/test_compression.py \
    serving/api/open_inference/test_open_inference.py serving/api/open_inference/test_tensors.py \
    serving/batch/test_inputs.py serving/batch/test_run.py serving/grpc/test_calls.py \
    serving/grpc/test_encryption.py serving/grpc/test_metadata.py serving/grpc/test_receiving.py \
    serving/grpc/test_sending.py serving/grpc/test_server.py serving/inference/test_batching.py \
    serving/inference/test_numbers.py serving/inference/test_threads.py serving/models/test_bundle.py \
    serving/models/test_malformed.py serving/models/test_model.py serving/models/test_repository.py \
    serving/pictures/test_colours.py serving/pictures/test_containers.py serving/pictures/test_decode.py \
    serving/pictures/test_header.py serving/pictures/test_mnist_form.py serving/pictures/test_morphology.py \
    serving/python serving/server/test_protocol.py serving/server/test_requests.py \
    serving/telemetry/test_histogram.py serving/telemetry/test_metrics.py serving/telemetry/test_recorder.py \
    training/augment/test_affine.py training/augment/test_scripts.py training/augment/test_style.py \
    training/data/test_digits.py training/data/test_own.py training/data/test_torchvision_sets.py \
    training/test_networks.py)

# Tests without a browser, a container engine, other servers, or the training of networks.
QUICK_TESTS := tests/test_architecture.py tests/serving/models tests/serving/pictures tests/serving/telemetry \
    tests/serving/api/test_app.py tests/serving/api/test_predict.py tests/training/augment tests/training/data \
    tests/training/test_checkpoint.py tests/training/test_command.py tests/training/test_config.py \
    tests/training/test_networks.py tests/training/loop/test_progress.py

.DEFAULT_GOAL := help
.PHONY: help setup run serve test test-quick fuzz check check-lowest bench bench-peers examples sbom

help:  ## list these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

# The stamp file lets make skip the installation while pyproject.toml and constraints.txt have not changed.
$(VENV)/.complete: pyproject.toml constraints.txt
	@$(MAKE_VENV) $(VENV)
	@echo "installing into $(VENV): 3 to 8 minutes, 2.6 GB (more if torch comes with CUDA)"
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Other targets need the environment too, but no next step.
setup: $(VENV)/.complete  ## make the environment .venv with everything
	@$(if $(filter $@,$(MAKECMDGOALS)),echo "Next: . $(BIN)/activate && mnist-predict tests/seven.png")

# --resume lets a second `make run` continue an interrupted training.
# Four epochs take half the time of the default eight. A run that was interrupted keeps its number of epochs.
$(RUN)/run.json: | setup
	$(BIN)/mnist-train --output $(RUN) $(if $(wildcard $(RUN)/last.pt),--resume,--epochs 4)

# The stamp file keeps a second `make run` from publishing the same run again.
$(MODELS)/.published: $(RUN)/run.json
	$(BIN)/mnist-export $(RUN) --repository $(MODELS)
	@touch $@

run: $(MODELS)/.published  ## train on MNIST, export, and serve the model on http://127.0.0.1:8000
	$(BIN)/mnist-serve --repository $(MODELS)

$(SERVE_VENV)/.complete: pyproject.toml constraints.txt
	@$(MAKE_VENV) $(SERVE_VENV)
	@echo "installing into $(SERVE_VENV): about 1 minute, 290 MB"
	$(SERVE_VENV)/bin/python -m pip --disable-pip-version-check install --constraint constraints.txt --editable .
	@touch $@

serve: $(SERVE_VENV)/.complete  ## serve the packaged model, without installing torch
	$(SERVE_VENV)/bin/mnist-serve

test: setup  ## run all tests, in 20 to 40 minutes on two cores
	$(BIN)/pytest --numprocesses auto --dist loadfile $(PYTEST_ARGS)

test-quick: setup  ## run the quick tests, in less than 2 minutes on two cores
	$(BIN)/pytest --numprocesses auto --dist loadfile $(PYTEST_ARGS) $(QUICK_TESTS)

# A target ends with an error as soon as an input fails. tests/fuzz/__main__.py says what to do with the input.
fuzz: setup  ## look for bytes that break a parser, with each target of tests/fuzz for a minute
	$(BIN)/python -m tests.fuzz $$(ls tests/fuzz/corpus | paste -sd,) -max_total_time=60

check: setup  ## run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(LOWEST_VENV)/.complete: pyproject.toml constraints.txt .ci/lowest
	@$(MAKE_VENV) $(LOWEST_VENV)
	$(PYTHON) .ci/lowest > $(LOWEST_VENV)/constraints.txt
	$(LOWEST_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --no-compile \
	    --constraint $(LOWEST_VENV)/constraints.txt --editable '.[export,grpc]' httpx pytest pytest-xdist scikit-image scikit-learn \
	    trustme
	@touch $@

# The lowest numpy and onnxruntime have wheels for Python 3.11 and 3.12 only.
check-lowest: $(LOWEST_VENV)/.complete  ## run some tests of export, serving and data with the lowest versions that pyproject.toml allows
	$(LOWEST_VENV)/bin/pytest --numprocesses auto --dist loadfile $(PYTEST_ARGS) $(LOWEST_TESTS)

# The wheel is installed into an environment of its own, so that only what it needs is listed. The image is listed if it
# was built: docker build --tag mnist-service .
sbom: setup  ## write the bills of materials of the wheel and of the image mnist-service to sbom/ (CycloneDX)
	@rm -rf sbom && mkdir sbom
	$(BIN)/python -m build --wheel --no-isolation --outdir sbom . >sbom/build.log
	@$(MAKE_VENV) --without-pip sbom/environment
	$(PIP) --python sbom/environment install --quiet --no-compile --constraint constraints.txt sbom/*.whl
	$(BIN)/python deploy/image/sbom sbom/environment sbom/wheel.cdx.json
	@if docker image inspect mnist-service >sbom/image.log 2>&1; then \
	    $(BIN)/python deploy/image/sbom --image mnist-service sbom/image.cdx.json; \
	else echo "no image mnist-service, so sbom/image.cdx.json is left out: docker build --tag mnist-service ."; fi

bench: setup  ## run the main benchmarks; each prints its conditions and a table
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.abuse
	$(BIN)/python -m benchmarks.batch

bench-peers: setup  ## measure the service beside FastAPI, LitServe, BentoML, MLServer, Ray Serve and Triton, in 10 minutes
	$(BIN)/python -m benchmarks.peers --save benchmarks/results/peers.md

examples: setup  ## run the examples; their plots go to runs/examples
	@mkdir -p runs/examples
	$(BIN)/python examples/autograd.py --save runs/examples/autograd.png
	$(BIN)/python examples/linear_regression.py --save runs/examples/linear_regression.png
	$(BIN)/python examples/optimizers.py --save runs/examples/optimizers.png --animate runs/examples/optimizers.gif
	$(BIN)/python examples/digits.py --output runs/examples/digits --save runs/examples/digits.png
