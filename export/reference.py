"""The reference histograms of a manifest: what the served file predicts for the images of the validation set.

The service compares the predictions of the last hour and of the last day with them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from serving.contract import OUTCOMES, Images
from serving.models.bundle import Bundle, Manifest
from serving.models.classifier import Classifier
from serving.models.model import Model
from serving.models.reference import Histogram, Reference
from serving.telemetry.bins import Bins
from serving.telemetry.drift import IMAGES_PER_BIN
from serving.telemetry.predictions import predictions_of

# Deciles are usual for this index.
MOST_BINS = 10
# Edges are rounded down to this many decimals. Outputs differ by less from CPU to CPU, so nearly every image is in the
# same bin everywhere. The confidences of many images differ from 1 by less: these are in one bin.
DECIMALS = 4


def reference_of(
    manifest: Manifest, classifier: Classifier, images: Images, edges: dict[str, tuple[float, ...]] | None = None
) -> Reference | None:
    """Return how the predictions for ``images`` are distributed; None if there are no images.

    Args:
        manifest: the manifest of the bundle, with its thresholds.
        classifier: the served file.
        images: the validation set, uint8 ``[N, 28, 28]``.
        edges: the edges of the histograms; by default they divide the images into parts of the same size.
    """
    if not len(images):
        return None
    model = Model(Bundle(Path(), manifest), classifier, 1)
    predictions = predictions_of(model, images, classifier.classify(images))
    edges = edges or {name: _edges(getattr(predictions, name)) for name in ("confidence", "novelty", "ink")}
    bins = Bins(len(manifest.labels), edges)
    counts = bins.split(bins.count(predictions).tolist())
    outcomes = Counter(reason or OUTCOMES[0] for reason in predictions.reasons)
    return Reference(
        labels=tuple(counts["labels"]),
        confidence=Histogram(edges["confidence"], tuple(counts["confidence"])),
        novelty=Histogram(edges["novelty"], tuple(counts["novelty"])),
        ink=Histogram(edges["ink"], tuple(counts["ink"])),
        reasons={outcome: outcomes[outcome] for outcome in OUTCOMES},
    )


def _edges(values: npt.NDArray[np.floating]) -> tuple[float, ...]:
    """Return edges between parts of nearly the same size, so few that each part has enough images."""
    parts = max(1, min(MOST_BINS, len(values) // IMAGES_PER_BIN))
    quantiles = np.quantile(values.astype(np.float64), np.arange(1, parts) / parts)
    step = 10.0**-DECIMALS
    # Most confidences may be exactly 1 here, and nearly 1 on another CPU.
    rounded = np.minimum(np.floor(quantiles / step), np.ceil(values.max() / step) - 1)
    return tuple(round(float(edge) * step, DECIMALS) for edge in np.unique(rounded))
