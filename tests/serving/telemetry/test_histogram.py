"""Observing many values at once is the same as observing one after the other, also in a new prometheus_client."""

from __future__ import annotations

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram

from serving.telemetry.histogram import BatchHistogram

BUCKETS = (0.1, 0.5, 1, 2)
# On each bound, between the bounds, below the first, above the last, and one bucket that stays empty.
VALUES = [0.0, 0.1, 0.1, 0.3, 0.5, 2.0, 1.5, 1000.0]


def samples(registry):
    return [(sample.name, sample.labels, sample.value) for family in registry.collect() for sample in family.samples]


@pytest.mark.parametrize("labels", [[], ["model"]])
def test_observe_all_equals_observe_of_each_value(labels):
    registries = [CollectorRegistry(), CollectorRegistry()]
    histograms = [
        kind("seconds", "Help.", labels, buckets=BUCKETS, registry=registry)
        for kind, registry in zip((BatchHistogram, Histogram), registries, strict=True)
    ]
    together, each = [histogram.labels("mnist") if labels else histogram for histogram in histograms]
    for batch in (VALUES, VALUES[:1]):
        together.observe_all(np.array(batch))
        for value in batch:
            each.observe(value)
    # The times at which the two series began differ.
    found, expected = [
        [sample for sample in samples(registry) if "_created" not in sample[0]] for registry in registries
    ]
    assert found == expected
    assert ("seconds_count", {"model": "mnist"} if labels else {}, len(VALUES) + 1) in found
