"""What a manifest says about a model beyond its totals: results by set of images and by class, and the time it takes.

Bundles of older versions say none of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=0)]

# With fewer test images, a percentage with two decimals says more than is known.
FEW_IMAGES = 1000


def accuracy_text(test: Mapping[str, Any]) -> str:
    """Return the accuracy in the results of a test set: in per cent, or as a count if there are few images.

    Args:
        test: ``result["test"]`` of a manifest, of which only ``accuracy`` is certain.
    """
    images, correct = test.get("images"), test.get("correct")
    if isinstance(images, int) and isinstance(correct, int) and images < FEW_IMAGES:
        return f"{correct} of {images}"
    return f"{test['accuracy']:.2%}"


def stated_accuracy(test: Mapping[str, Any]) -> str:
    """Return the accuracy with the set that it holds for, or that a manifest with these results does not state it."""
    return f"{accuracy_text(test)} on its test set" if "accuracy" in test else "not stated"


class SetResult(msgspec.Struct, frozen=True):
    """The results on one set of images. Each image is judged as the service judges it."""

    what: str
    """How the images were made."""
    images: Count
    correct: Count
    accepted: Count
    accepted_correct: Count
    """Images that are accepted and have the right label."""
    reasons: dict[str, Count]
    """How many images are rejected, by reason."""
    calibration_error: float
    """Expected calibration error, 0..1."""


class ClassResult(msgspec.Struct, frozen=True):
    """The results on the test images of one class."""

    images: Count
    correct: Count
    predicted: Count
    """Test images of all classes that get this label."""


class Mistake(msgspec.Struct, frozen=True):
    """How many test images of one class get the label of another. The classes are indices of the manifest's labels."""

    label: Count
    predicted: Count
    images: Count


class Latency(msgspec.Struct, frozen=True):
    """The time per image of the served file on one thread, measured at the export, in microseconds."""

    alone: float
    """One image at a time."""
    batch: float
    """In a batch."""
    cpu: str
    batch_size: Count = 16
    """Images in that batch."""
