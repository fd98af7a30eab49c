"""Other runtimes read an exported file and give its results. `python -m benchmarks.runtimes` tries more of them."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.runtimes.runtimes import (
    CURRENT_OPENCV,
    OLDEST_ONNXRUNTIME,
    OPENVINO,
    TRITON,
    WEB,
    RuntimeFailedError,
    install,
    run,
)
from export.graph import ServingGraph
from export.onnx import export_onnx
from serving.models.classifier import Classifier
from serving.settings import RELEASE
from tests.support import missing
from training.networks import build
from training.trust.calibrate import Calibration
from training.trust.novelty import Novelty


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The ONNX file of a network with random weights."""
    torch.manual_seed(3)
    network = build("cnn")
    graph = ServingGraph(network, Calibration(1.0, Novelty(network.head.in_features + 10), 0.0))
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    export_onnx(graph, path, tuple("0123456789"))
    return path


@pytest.mark.parametrize("runtime", [OLDEST_ONNXRUNTIME, CURRENT_OPENCV, OPENVINO, WEB], ids=lambda each: each.name)
def test_other_runtime_gives_the_results_of_the_service(runtime, model, tmp_path, digits):
    try:
        install(runtime, tmp_path)
    except RuntimeFailedError as error:
        missing(f"{runtime.requirements[0]} from a package index: {error}")
    images = digits[:100]
    _, outputs = run(runtime, tmp_path, model, images, classes=10)
    for found, expected in zip(outputs, Classifier(model).classify(images), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.xdist_group("triton")
def test_triton_serves_the_repository_beside_what_is_no_model_and_after_a_broken_version(tmp_path, digits):
    """The real server, with the arguments of the manifest. Only its backend for ONNX is a stand-in."""
    try:
        install(TRITON, tmp_path)
    except RuntimeFailedError as error:
        missing(f"{TRITON.requirements[0]} from a package index: {error}")
    repository = shutil.copytree(RELEASE, tmp_path / "models")
    (repository / "lost+found").mkdir()
    model = repository / "mnist"
    for other in ".export-3-1", ".retired-4":
        shutil.copytree(model / "1", model / other)
        (model / other / "model.onnx").write_text("no model")
    images = digits[:100]
    runtime = replace(TRITON, options=("--broken",))
    version, outputs = run(runtime, tmp_path, model / "1" / "model.onnx", images, classes=10)
    assert (model / "9").is_dir()
    assert version == "2.51.0"
    for found, expected in zip(outputs, Classifier(model / "1" / "model.onnx").classify(images), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_file_that_a_runtime_does_not_read_is_an_error_of_one_line(tmp_path, digits):
    (tmp_path / "model.onnx").write_text("no model")
    with pytest.raises(RuntimeFailedError) as raised:
        run(replace(OLDEST_ONNXRUNTIME, requirements=()), tmp_path, tmp_path / "model.onnx", digits[:1], classes=10)
    assert "\n" not in str(raised.value)
