"""Drift: how much the predictions of the last hour and of the last day differ from those for the validation set.

The measure is the population stability index (PSI), ``sum((q - p) * log(q / p))`` over the shares ``p`` of the
validation set and ``q`` of the window in each bin. By convention, less than 0.1 is no change, and more than 0.25 is a
large one.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from serving.telemetry.bins import Bins
from serving.telemetry.predictions import Predictions, RecordedModel
from serving.telemetry.samples import NOW, BinCounts, Version
from serving.telemetry.windows import WINDOWS, Windows

# Chance alone makes the index about (bins - 1) * (1 / N + 1 / M) for N and M images. With fewer images than these, it
# would often be as high as for inputs that really differ.
IMAGES_PER_BIN, MIN_IMAGES = 40, 200

# The share of an empty bin, whose logarithm would be infinite. These are the rules of the library evidently.
EMPTY, SMALL, PART_OF_SMALL = 1e-4, 1e-4, 1e-6


class Drift:
    """Counts the predictions of this worker in the bins of each version's reference. Threads may share it."""

    def __init__(self) -> None:
        self._windows = Windows()
        self._lock = threading.Lock()
        # By version. An array is replaced and never changed in place, so readers need no lock.
        self._counts: dict[str, npt.NDArray[np.intp]] = {}
        self._bins: WeakKeyDictionary[RecordedModel, Bins] = WeakKeyDictionary()
        self._models: Sequence[RecordedModel] = ()

    def count(self, model: RecordedModel, predictions: Predictions) -> None:
        """Count predictions, if the bundle of the model has a reference."""
        if model.reference is None:
            return
        bins = self._bins_of(model)
        counts, key = bins.count(predictions), _key(model, bins)
        with self._lock:
            before = self._counts.get(key)
            self._counts[key] = counts if before is None else before + counts

    def keep(self, models: Sequence[RecordedModel], dropped: Collection[Version]) -> None:
        """Forget all predictions but those of ``models``, which are loaded now, and of some dropped versions."""
        self._models = models
        keys = self._sizes().keys()
        prefixes = tuple(_prefix(*version) for version in dropped)
        with self._lock:
            self._counts = {
                key: counts for key, counts in self._counts.items() if key in keys or key.startswith(prefixes)
            }
            self._windows.keep({*keys, *self._counts})

    def note(self) -> None:
        """Move the windows of this worker. They are used if there are no other workers."""
        with self._lock:
            self._windows.note(self.now)

    def now(self) -> BinCounts:
        """Return the counts of this worker since its start, by version. Each loaded version has some."""
        found = {key: [0] * size for key, size in self._sizes().items()}
        return found | {key: counts.tolist() for key, counts in self._counts.copy().items()}

    def families(self, moments: Mapping[str, BinCounts] | None = None) -> Iterator[Metric]:
        """Yield the drift of every loaded model.

        Args:
            moments: the counts of all workers, as in a snapshot; None: those of this worker.
        """
        if moments is None:
            moments = {NOW: self.now(), **self._windows.beginnings()}
        index = GaugeMetricFamily(
            "mnist_drift_psi",
            "Population stability index: how much labels, confidence, novelty, ink or reasons differ from the "
            "validation set. It is missing while there are too few images.",
            labels=["model", "version", "of", "window"],
        )
        images = GaugeMetricFamily(
            "mnist_drift_images",
            "Images in the window of mnist_drift_psi.",
            labels=["model", "version", "window"],
        )
        for model in self._models:
            if model.reference is not None:
                expected = model.reference.images()
                for window, found in self._windows_of(model, moments):
                    labels = [model.name, model.version]
                    images.add_metric([*labels, window], sum(found["labels"]))
                    for of, counts in found.items():
                        if is_enough(expected[of]) and is_enough(counts):
                            index.add_metric([*labels, of, window], psi(expected[of], counts))
        yield from (index, images)

    def _windows_of(
        self, model: RecordedModel, moments: Mapping[str, BinCounts]
    ) -> Iterator[tuple[str, dict[str, Sequence[int]]]]:
        """Yield each window, and the images in it by what is counted."""
        bins = self._bins_of(model)
        key, zero = _key(model, bins), [0] * bins.size
        now = moments.get(NOW, {}).get(key, zero)
        for window in WINDOWS:
            before = moments.get(window, {}).get(key, zero)
            yield window, bins.split([max(0, late - early) for late, early in zip(now, before, strict=True)])

    def _sizes(self) -> dict[str, int]:
        """Return the number of bins of each loaded version with a reference."""
        pairs = ((model, self._bins_of(model)) for model in self._models if model.reference is not None)
        return {_key(model, bins): bins.size for model, bins in pairs}

    def _bins_of(self, model: RecordedModel) -> Bins:
        found = self._bins.get(model)
        if found is None:
            edges = model.reference.edges() if model.reference else {}
            found = self._bins[model] = Bins(len(model.labels), edges)
        return found


def _key(model: RecordedModel, bins: Bins) -> str:
    # A version may be replaced by one with the same number and other bins.
    return f"{_prefix(model.name, model.version)}{bins.digest:x}"


def _prefix(name: str, version: str) -> str:
    return f"{name}/{version}/"


def is_enough(images: Sequence[int]) -> bool:
    """Return whether there are so many images in the bins that chance hardly changes the index."""
    return sum(images) >= max(MIN_IMAGES, IMAGES_PER_BIN * len(images))


def psi(expected: Iterable[int], found: Iterable[int]) -> float:
    """Return the population stability index of two histograms with the same bins. Both must have an image."""
    used = [(one, other) for one, other in zip(expected, found, strict=True) if one or other]
    shares = zip(*(_shares(counts) for counts in zip(*used, strict=True)), strict=True)
    return math.fsum((other - one) * math.log(other / one) for one, other in shares)


def _shares(counts: Sequence[int]) -> list[float]:
    """Return the share of each bin, and a small one for each empty bin."""
    images = sum(counts)
    least = min(count for count in counts if count) / images
    empty = least * PART_OF_SMALL if least <= SMALL else EMPTY
    return [count / images if count else empty for count in counts]
