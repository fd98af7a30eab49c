"""One loaded version: the images that it rejects, the pieces of a large batch, and waiting for its requests."""

from __future__ import annotations

import dataclasses
import threading

import msgspec
import numpy as np
import pytest

from serving.contract import ModelOutput
from serving.models import repository
from serving.models.classifier import IMAGES_PER_RUN
from serving.models.model import Model
from serving.settings import RELEASE


@pytest.fixture(scope="module")
def model():
    return repository.load(RELEASE, "mnist")


def test_judge_gives_the_first_reason_that_holds(model):
    highest = model.bundle.manifest.novelty.threshold
    lowest = np.float32(model.bundle.manifest.confidence.threshold)
    images = np.zeros((7, 28, 28), np.uint8)
    images[1:, 14, 14] = 255
    novelty = np.array([0, 0, highest, highest + 1, highest + 1, 0, 0], np.float32)
    probabilities = np.zeros((7, 10), np.float32)
    probabilities[:, 3] = [0, 1, lowest + 1e-6, 0, 1, lowest - 1e-6, 0]
    output = ModelOutput(np.zeros((7, 10), np.float32), probabilities, novelty)
    reasons = model.judge(images, output, {0: "several", 1: None, 4: "several", 6: "several"})
    assert reasons == ["empty", None, None, "no digit", "several", "unsure", "several"]


def test_model_of_an_older_bundle_is_never_unsure(model):
    manifest = msgspec.structs.replace(model.bundle.manifest, confidence=None)
    older = Model(dataclasses.replace(model.bundle, manifest=manifest), model.classifier, model.batch_size)
    images = np.full((1, 28, 28), 255, np.uint8)
    output = ModelOutput(*(np.zeros(shape, np.float32) for shape in ((1, 10), (1, 10), (1,))))
    assert older.judge(images, output, {}) == [None]
    assert model.judge(images, output, {}) == ["unsure"]


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
