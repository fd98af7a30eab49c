"""Choose between several readings of one picture: the network says which one looks most like a digit."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from serving.contract import RejectionReason
from serving.errors import DeadlineExceededError
from serving.models.model import Model
from serving.pictures.mnist_form import Digit

# Confidence of another reading that outweighs a reason against the first one. It is the best of several readings, so it
# is accepted by chance more often than a lone reading. Parts of faces and of texts mostly stay below.
LEAST_CONFIDENCE = 0.9


def choose(model: Model, digits: Sequence[Digit], deadline: float = float("inf")) -> list[Digit]:
    """Return each digit in its reading with the lowest novelty score. Most digits have one reading only.

    If the picture around it makes the novelty score too high, its reason is "no digit".

    Args:
        deadline: in the time of ``time.monotonic``.

    Raises:
        DeadlineExceededError: the deadline passed before all were chosen.
    """
    with model:
        return [_chosen(model, digit, deadline) if _needs_network(digit) else digit for digit in digits]


def count_readings(digits: Sequence[Digit]) -> int:
    """Return the number of images that :func:`choose` gives to the network."""
    return sum(1 + len(digit.others) for digit in digits if _needs_network(digit))


def _needs_network(digit: Digit) -> bool:
    return bool(digit.others or (digit.reason is None and digit.properties.doubt()))


def _chosen(model: Model, digit: Digit, deadline: float) -> Digit:
    if time.monotonic() > deadline:
        raise DeadlineExceededError
    readings = (digit, *digit.others)
    images = np.stack([reading.image for reading in readings])
    output = model.classifier.classify(images)
    if model.digits:
        # Symbols of one's own may have many colours.
        doubts = np.array([reading.properties.doubt() for reading in readings], np.float32)
        output = output._replace(novelty=output.novelty + doubts)

    def judged(index: int, reason: RejectionReason | None = None) -> RejectionReason | None:
        return model.judge(images[index : index + 1], output.slice(index, index + 1), {0: reason})[0]

    # Other readings leave something out. Of a symbol of several pieces, that may be a part of the symbol.
    if (model.allows_several or not model.digits) and judged(0, digit.reason) is None:
        return Digit(digit.image)
    likely = int(output.novelty.argmin())
    if digit.reason is None or model.allows_several:
        return Digit(images[likely], "no digit" if judged(likely) == "no digit" else None)
    # Another reading must be accepted and sure to outweigh the reason against the first one.
    best = 1 + int(output.novelty[1:].argmin())
    if judged(best) or output.probabilities[best].max() < LEAST_CONFIDENCE:
        return Digit(images[likely], digit.reason)
    return Digit(images[best])
