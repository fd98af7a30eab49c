"""Recognise prepared images with one model, in this thread: choose a reading, run the model, judge the output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from serving.contract import Images, RejectionReason
from serving.inference.readings import choose
from serving.models.model import Model
from serving.pictures.mnist_form import Digit


class Recognised(NamedTuple):
    """What a model says about one image."""

    image: Images
    """The input of the model, uint8 ``[28, 28]``."""
    best: int
    """Index of the most probable class."""
    probabilities: list[float]
    """Probability of every class."""
    reason: RejectionReason | None
    """Why the prediction is not accepted, or None if it is."""


def recognise(model: Model, digits: Sequence[Digit]) -> list[Recognised]:
    """Return what ``model`` says about each image, in their order."""
    if not digits:
        return []
    chosen = choose(model, digits)
    images = np.stack([digit.image for digit in chosen])
    output = model.classifier.classify(images)
    reasons = model.judge(images, output, {i: digit.reason for i, digit in enumerate(chosen)})
    best = output.probabilities.argmax(axis=1).tolist()
    return [Recognised(*row) for row in zip(images, best, output.probabilities.tolist(), reasons, strict=True)]
