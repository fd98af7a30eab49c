"""The series that compare the candidate of a rollout with the version that responds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from prometheus_client import CollectorRegistry, Counter

from serving.telemetry.histogram import BatchHistogram

STABLE, CANDIDATE = ROLES = ("stable", "candidate")


class Compared(NamedTuple):
    """One prediction of both versions."""

    label: str
    """Label of the stable version, as the series name it."""
    differs: bool
    """Whether the candidate has another label."""
    accepted: tuple[bool, bool]
    """Whether the stable version and the candidate accept it."""
    confidence: tuple[float, float]


class ShadowMetrics:
    """The series of one application in this process. In all of them, ``version`` is the candidate.

    Args:
        confidence_buckets: those of the other histogram of the confidence.
        seconds_buckets: those of the other histograms of times.
    """

    def __init__(
        self, registry: CollectorRegistry, confidence_buckets: Sequence[float], seconds_buckets: Sequence[float]
    ) -> None:
        counter, histogram = partial(Counter, registry=registry), partial(BatchHistogram, registry=registry)
        version = ["model", "version"]
        self._predictions = counter(
            "mnist_shadow_predictions",
            "Predictions that a candidate was compared in, by label of the stable version.",
            [*version, "label"],
        )
        self._disagreements = counter(
            "mnist_shadow_disagreements",
            "Predictions for which a candidate has another label, by label of the stable version.",
            [*version, "label"],
        )
        self._accepted = counter(
            "mnist_shadow_accepted",
            "Compared predictions that each version accepts, by label of the stable version.",
            [*version, "role", "label"],
        )
        self._confidence = histogram(
            "mnist_shadow_confidence_ratio",
            "Probability of the label that each version predicts, in the compared predictions.",
            [*version, "role"],
            buckets=confidence_buckets,
        )
        self._seconds = histogram(
            "mnist_shadow_inference_seconds",
            "Time of inference of each version, in the compared requests.",
            [*version, "role"],
            buckets=seconds_buckets,
        )
        self._skipped = counter(
            "mnist_shadow_skipped", "Requests that were not repeated, because the service had no time for it.", version
        )
        self._failures = counter(
            "mnist_shadow_failures", "Requests that failed in the version that repeated them.", version
        )
        self.of_versions = (
            *(self._predictions, self._disagreements, self._accepted, self._confidence, self._seconds),
            *(self._skipped, self._failures),
        )
        """All of them."""

    def compared(self, name: str, version: str, predictions: Sequence[Compared], seconds: Mapping[str, float]) -> None:
        """Count the predictions of one request, which took ``seconds`` of inference by role."""
        for label, differs, accepted, _ in predictions:
            self._predictions.labels(name, version, label).inc()
            self._disagreements.labels(name, version, label).inc(differs)
            for role, is_accepted in zip(ROLES, accepted, strict=True):
                self._accepted.labels(name, version, role, label).inc(is_accepted)
        for index, role in enumerate(ROLES):
            confidence = np.array([prediction.confidence[index] for prediction in predictions])
            self._confidence.labels(name, version, role).observe_all(confidence)
            self._seconds.labels(name, version, role).observe(seconds[role])

    def skipped(self, name: str, version: str) -> None:
        """Count a request that was not repeated."""
        self._skipped.labels(name, version).inc()

    def failed(self, name: str, version: str) -> None:
        """Count a request that failed in the version that repeated it."""
        self._failures.labels(name, version).inc()
