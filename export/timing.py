"""Measure how fast an ONNX file is."""

from __future__ import annotations

import time

import numpy as np

from serving.contract import Images
from serving.models.classifier import Classifier

# The number of images is a multiple of the batch sizes.
ROUNDS, TIMED_IMAGES = 7, 192


def microseconds_per_image(classifier: Classifier, images: Images, batch: int = 1) -> float:
    """Return how many microseconds one image takes, in batches of ``batch`` images.

    It is a mean over :data:`TIMED_IMAGES` images, because a cascade takes longer for some of them. Of each call, the
    fastest round counts, because other programs may use the machine during the other rounds.
    """
    calls = np.split(np.resize(images, (TIMED_IMAGES, *images.shape[1:])), TIMED_IMAGES // batch)
    seconds = np.empty((ROUNDS, len(calls)))
    for row in seconds:
        for number, call in enumerate(calls):
            started = time.perf_counter()
            classifier.classify(call)
            row[number] = time.perf_counter() - started
    return float(seconds.min(axis=0).mean() / batch * 1e6)
