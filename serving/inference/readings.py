"""Choose between several readings of one picture: the network says which one looks most like a digit."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from serving.errors import DeadlineExceededError
from serving.models.model import Model
from serving.pictures.mnist_form import Digit

# Confidence of another reading that outweighs a reason against the first one. It is the best of several readings, so it
# is accepted by chance more often than a lone reading. Parts of faces and of texts mostly stay below.
LEAST_CONFIDENCE = 0.9


def choose(model: Model, digits: Sequence[Digit], deadline: float = float("inf")) -> list[Digit]:
    """Return each digit in its reading with the lowest novelty score. Most digits have one reading only.

    Args:
        deadline: in the time of ``time.monotonic``.

    Raises:
        DeadlineExceededError: the deadline passed before all were chosen.
    """
    with model:
        return [_chosen(model, digit, deadline) if digit.others else digit for digit in digits]


def count_readings(digits: Sequence[Digit]) -> int:
    """Return the number of images that :func:`choose` gives to the network."""
    return sum(1 + len(digit.others) for digit in digits if digit.others)


def _chosen(model: Model, digit: Digit, deadline: float) -> Digit:
    if time.monotonic() > deadline:
        raise DeadlineExceededError
    readings = np.stack([digit.image, *digit.others])
    output = model.classifier.classify(readings)
    novelty = output.novelty
    # Other readings leave something out. Of a symbol of several pieces, that may be a part of the symbol.
    if model.allows_several or not model.digits:
        [rejection] = model.judge(readings[:1], output.slice(0, 1), {0: digit.reason})
        if rejection is None:
            return Digit(digit.image)
    if digit.reason is None or model.allows_several:
        return Digit(readings[novelty.argmin()])
    # Another reading must be accepted and sure to outweigh the reason against the first one.
    best = 1 + int(novelty[1:].argmin())
    [rejection] = model.judge(readings[best : best + 1], output.slice(best, best + 1), {})
    if rejection or output.probabilities[best].max() < LEAST_CONFIDENCE:
        return Digit(readings[novelty.argmin()], digit.reason)
    return Digit(readings[best])
