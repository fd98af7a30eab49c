"""Sums of each model version since the service started, added up from the series of all workers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client import Metric

from serving.telemetry.timing import STAGES


@dataclass
class ModelTotals:
    """The sums of one version of a model."""

    requests: float = 0
    """Requests that got predictions."""
    images: float = 0
    runs: float = 0
    """Runs of the model, each for one or more requests."""
    failures: float = 0
    """Requests that failed because of a fault of the service."""
    last_prediction: float = 0
    """Seconds since 1970; 0 if there was no prediction."""
    stage_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))


# The field of ModelTotals that each sample of the series gives.
SUMS = {
    "mnist_batch_images_count": "requests",
    "mnist_batch_images_sum": "images",
    "mnist_inference_seconds_count": "runs",
    "mnist_prediction_failures_total": "failures",
    "mnist_last_prediction_timestamp_seconds": "last_prediction",
}
STAGE_SAMPLE = "mnist_stage_seconds_total"


def totals_of(families: Iterable[Metric]) -> defaultdict[tuple[str, str], ModelTotals]:
    """Return the sums by name and version of the model. A model that never ran has zeros."""
    totals: defaultdict[tuple[str, str], ModelTotals] = defaultdict(ModelTotals)
    for family in families:
        for sample in family.samples:
            labels = sample.labels
            if sample.name in SUMS:
                setattr(totals[labels["model"], labels["version"]], SUMS[sample.name], sample.value)
            elif sample.name == STAGE_SAMPLE:
                totals[labels["model"], labels["version"]].stage_seconds[labels["stage"]] = sample.value
    return totals
