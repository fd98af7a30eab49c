"""A cascade: a small network decides the images that it is sure about, and both networks decide the rest."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import export.onnx
from export.cascade import Cascade
from export.torchscript import export_torchscript, load_torchscript
from serving.models.classifier import Classifier
from tests.export.test_fuse import serving_graph


@pytest.fixture(scope="module")
def cascade(digits):
    """A cascade of random networks, whose first one is sure about half of the test's digits."""
    first, second = (serving_graph(name, with_maps=True) for name in ("cnn-first", "cnn"))
    with torch.inference_mode():
        _, probabilities, novelty = first(torch.from_numpy(digits[:64]))
    # Both limits lie between two images, so that rounding does not matter.
    limits = (float(each.quantile(0.3)) for each in (probabilities.amax(dim=1), torch.sigmoid(-novelty)))
    return Cascade(first, second, 0.25, *limits)


def test_first_network_or_both_decide_an_image(cascade, digits):
    images = torch.from_numpy(digits[:64])
    with torch.inference_mode():
        first, second, both = cascade.first(images), cascade.second(images), cascade(images)
        is_sure = cascade.is_sure(*first[1:])
    assert 0 < is_sure.sum() < len(images)
    means = [0.25 * of_first + 0.75 * of_second for of_first, of_second in zip(first, second, strict=True)]
    means[1] = means[0].softmax(dim=1)
    for of_first, mean, found in zip(first, means, both, strict=True):
        torch.testing.assert_close(found[is_sure], of_first[is_sure])
        torch.testing.assert_close(found[~is_sure], mean[~is_sure], rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def converted(cascade):
    """The ONNX models of both networks, which torch takes seconds to make."""
    return {graph: export.onnx._converted(graph, 18) for graph in (cascade.first, cascade.second)}


@pytest.mark.parametrize("sure", ["some", "all", "none"])
def test_both_files_give_the_same_numbers(cascade, converted, sure, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(export.onnx, "_converted", lambda graph, _: copy.deepcopy(converted[graph]))
    if sure != "some":
        cascade = Cascade(cascade.first, cascade.second, 0.25, *([1e-9, 1e-9] if sure == "all" else [1.1, 0.5]))
    export.onnx.export_onnx(cascade, tmp_path / "model.onnx", "0123456789")
    export_torchscript(cascade, tmp_path / "model.pt")
    classifier, script = Classifier(tmp_path / "model.onnx"), load_torchscript(tmp_path / "model.pt")
    with torch.inference_mode():
        expected = cascade(torch.from_numpy(digits[:64]))
        for size in 1, 3, 16:
            for start in range(0, 64 - size, size):
                images = digits[start : start + size]
                rows = [each[start : start + size].numpy() for each in expected]
                for found in classifier.classify(images), script(torch.from_numpy(images)):
                    for numbers, row in zip(found, rows, strict=True):
                        np.testing.assert_allclose(numbers, row, rtol=1e-4, atol=1e-4)
