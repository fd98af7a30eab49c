"""A histogram that observes many values at once. The only file that uses private parts of prometheus_client.

prometheus_client's ``Histogram`` observes one value at a time. Each call searches the buckets in a Python loop and
takes two locks. Observing 64 values together takes 7 µs instead of 48 µs (prometheus_client 0.26).

The private parts are ``_sum``, ``_buckets`` and ``_upper_bounds``. tests/serving/telemetry/test_histogram.py fails if a
new version of the library changes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client import Histogram
from prometheus_client.samples import Exemplar


class BatchHistogram(Histogram):
    """A histogram that observes the values of many requests together."""

    def observe_all(self, values: npt.NDArray[Any]) -> None:
        """Observe each of ``values [N]``. The result is the same as from N calls of ``observe``."""
        self._sum.inc(float(values.sum()))
        # A value belongs to the first bucket whose upper bound is not below the value.
        counts = np.bincount(np.searchsorted(self._upper_bounds, values))
        for bucket in counts.nonzero()[0].tolist():
            self._buckets[bucket].inc(int(counts[bucket]))

    def exemplify(self, value: float, labels: dict[str, str], timestamp: float) -> None:
        """Name a request with ``labels`` as the example of the bucket of ``value``, which has been observed."""
        bucket = self._buckets[int(np.searchsorted(self._upper_bounds, value))]
        bucket.set_exemplar(Exemplar(labels, value, timestamp))
