"""The reference of a bundle: how the predictions for its validation set are distributed.

The service compares the predictions of the last hour and of the last day with it (``serving/telemetry/drift.py``).
"""

from __future__ import annotations

import itertools
from typing import Annotated

import msgspec
from msgspec import Meta

from serving.contract import OUTCOMES

# The export writes at most nine edges. The service counts every prediction in these bins.
MAX_EDGES = 100

Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]


class Histogram(msgspec.Struct, frozen=True):
    """How many images of the validation set are in each bin."""

    edges: tuple[float, ...]
    """The bounds between two bins, in ascending order. A value on a bound belongs to the bin above it."""
    images: tuple[Count, ...]
    """Images in each bin, one more than there are edges. The first and the last bin have no end."""

    def check(self, name: str, images: int) -> None:
        """Check that the histogram has ``images`` images.

        Raises:
            ValueError: it has another number, or its bins do not fit its edges.
        """
        if len(self.edges) > MAX_EDGES:
            raise ValueError(f"Expected at most {MAX_EDGES} edges, got {len(self.edges)} - at `$.reference.{name}`")
        if any(first >= second for first, second in itertools.pairwise(self.edges)):
            raise ValueError(f"Expected edges in ascending order - at `$.reference.{name}`")
        if len(self.images) != len(self.edges) + 1:
            raise ValueError(f"Expected one bin more than edges, got {len(self.images)} - at `$.reference.{name}`")
        if sum(self.images) != images:
            raise ValueError(f"Expected {images} images, got {sum(self.images)} - at `$.reference.{name}`")


class Reference(msgspec.Struct, frozen=True):
    """The distribution of what the served file predicts for the images of the validation set."""

    labels: tuple[Count, ...]
    """Images by predicted label, in the order of the labels."""
    confidence: Histogram
    novelty: Histogram
    ink: Histogram
    """Mean brightness of the images, from 0 to 1."""
    reasons: dict[str, Count]
    """Images that are ``accepted``, and those rejected for each reason."""

    def edges(self) -> dict[str, tuple[float, ...]]:
        """Return the edges of the three histograms by their names."""
        return {"confidence": self.confidence.edges, "novelty": self.novelty.edges, "ink": self.ink.edges}

    def images(self) -> dict[str, tuple[int, ...]]:
        """Return the images in each bin, by what is counted."""
        return {
            "labels": self.labels,
            "confidence": self.confidence.images,
            "novelty": self.novelty.images,
            "ink": self.ink.images,
            "reasons": tuple(self.reasons.get(outcome, 0) for outcome in OUTCOMES),
        }

    def check(self, classes: int) -> None:
        """Check that the reference belongs to a model with this many classes, and counts the same images everywhere.

        Raises:
            ValueError: it does not.
        """
        if len(self.labels) != classes:
            raise ValueError(f"Expected {classes} numbers, got {len(self.labels)} - at `$.reference.labels`")
        images = sum(self.labels)
        for name in self.edges():
            histogram: Histogram = getattr(self, name)
            histogram.check(name, images)
        if unknown := self.reasons.keys() - set(OUTCOMES):
            raise ValueError(f"Expected {', '.join(OUTCOMES)}, got {min(unknown)!r:.40} - at `$.reference.reasons`")
        if sum(self.reasons.values()) != images:
            raise ValueError(f"Expected {images} images, got {sum(self.reasons.values())} - at `$.reference.reasons`")
