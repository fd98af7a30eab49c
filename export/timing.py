"""Measure how fast an ONNX file is."""

from __future__ import annotations

import time

import numpy as np

from serving.contract import Images
from serving.models.classifier import Classifier

ROUNDS = 7
TIMED_IMAGES = 200


def microseconds_per_image(classifier: Classifier, images: Images) -> float:
    """Return how many microseconds one image takes, in a batch of one image.

    Each round gives the median of :data:`TIMED_IMAGES` calls. The fastest round counts, because other programs may
    use the machine during the other rounds.
    """
    singles = [np.ascontiguousarray(image[None]) for image in images[:TIMED_IMAGES]]
    medians = []
    for _ in range(ROUNDS):
        times = []
        for single in singles:
            started = time.perf_counter()
            classifier.classify(single)
            times.append(time.perf_counter() - started)
        medians.append(float(np.median(times)) * 1e6)
    return min(medians)
