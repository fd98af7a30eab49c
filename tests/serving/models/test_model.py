"""One loaded version: the images that it rejects, the pieces of a large batch, and waiting for its requests."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from serving.contract import ModelOutput
from serving.models import repository
from serving.models.classifier import IMAGES_PER_RUN
from serving.settings import RELEASE


@pytest.fixture(scope="module")
def model():
    return repository.load(RELEASE, "mnist")


def test_judge_gives_the_first_reason_that_holds(model):
    threshold = model.bundle.manifest.novelty.threshold
    images = np.zeros((5, 28, 28), np.uint8)
    images[1:, 14, 14] = 255
    novelty = np.array([0, 0, threshold, threshold + 1, threshold + 1], np.float32)
    output = ModelOutput(np.zeros((5, 10), np.float32), np.zeros((5, 10), np.float32), novelty)
    reasons = model.judge(images, output, {0: "several", 1: None, 4: "several"})
    assert reasons == ["empty", None, None, "no digit", "several"]


def test_large_batch_gives_the_same_output_as_its_pieces(model):
    images = np.random.default_rng(0).integers(0, 256, (2 * IMAGES_PER_RUN + 3, 28, 28), np.uint8)
    whole = model.classifier.classify(images)
    assert [len(tensor) for tensor in whole] == [len(images)] * 3
    for begin, end in ((0, 5), (IMAGES_PER_RUN - 1, IMAGES_PER_RUN + 1), (len(images) - 1, len(images))):
        alone = model.classifier.classify(images[begin:end])
        for expected, actual in zip(whole.slice(begin, end), alone, strict=True):
            np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_drain_waits_for_the_requests_that_use_the_model(model):
    drained = threading.Event()

    def drain():
        assert model.drain(30)
        drained.set()

    with model, model:
        assert not model.drain(0.01)
        thread = threading.Thread(target=drain)
        thread.start()
        assert not drained.wait(0.05)
    thread.join(30)
    assert drained.is_set()
