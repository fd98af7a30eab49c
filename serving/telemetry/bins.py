"""The bins in which the predictions of one version are counted, to compare them with its validation set."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from serving.contract import OUTCOMES
from serving.telemetry.predictions import Predictions

# The place of each reason among the bins of reasons. None is an accepted prediction.
_PLACES = {reason: place for place, reason in enumerate((None, *OUTCOMES[1:]))}


class Bins:
    """The bins of labels, confidence, novelty, ink and reasons, one after the other, so that one count fills them all.

    Args:
        classes: number of classes of the model.
        edges: the bounds between the bins of ``confidence``, ``novelty`` and ``ink``, in ascending order. A value on a
            bound belongs to the bin above it.
    """

    def __init__(self, classes: int, edges: Mapping[str, Sequence[float]]) -> None:
        self._edges = {name: np.array(edges[name], np.float64) for name in ("confidence", "novelty", "ink")}
        sizes = {"labels": classes} | {name: len(found) + 1 for name, found in self._edges.items()}
        sizes["reasons"] = len(OUTCOMES)
        ends = list(itertools.accumulate(sizes.values()))
        self.size = ends[-1]
        self._slices = {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}
        self.digest = zlib.crc32(repr((classes, sorted((name, [*found]) for name, found in edges.items()))).encode())
        """Differs for other bins."""

    def count(self, predictions: Predictions) -> npt.NDArray[np.intp]:
        """Return the number of predictions in each bin, ``[size]``."""
        places = [predictions.labels]
        for name, edges in self._edges.items():
            found = np.searchsorted(edges, getattr(predictions, name), side="right")
            places.append(found + self._slices[name].start)
        first = self._slices["reasons"].start
        places.append(np.array([first + _PLACES[reason] for reason in predictions.reasons], np.intp))
        return np.bincount(np.concatenate(places), minlength=self.size)

    def split(self, counts: Sequence[int]) -> dict[str, Sequence[int]]:
        """Return the counts of all bins by what is counted."""
        return {name: counts[part] for name, part in self._slices.items()}
