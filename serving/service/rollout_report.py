"""The report on a rollout: what comparing both versions of a model has shown."""

from __future__ import annotations

from typing import Any

import msgspec

from serving.models.rollout import Counts


class OfEach(msgspec.Struct):
    """A value of the stable version and of its candidate; null if nothing was compared."""

    stable: float | None
    candidate: float | None


class LabelReport(msgspec.Struct):
    """What comparing both versions has shown for one label of the stable version, or for all."""

    compared: int
    """Predictions of both versions."""
    disagreements: int
    """Predictions for which the candidate has another label."""
    accepted: OfEach
    """Share of the predictions that are accepted."""
    confidence: OfEach
    """Mean confidence."""


class Report(LabelReport, kw_only=True):
    """The rollout of a model."""

    model: str
    stable: str
    """The version that responds."""
    candidate: str | None
    """The version that repeats the requests."""
    weight: float
    """Share of the requests to which the candidate responds."""
    dropped: list[str]
    """Versions that are no candidates."""
    seconds: OfEach
    """Mean time of inference for one request. The candidate works in the background, where it may have to wait."""
    skipped: int
    """Requests that were not repeated, because the service had no time for it."""
    failed: int
    """Requests that failed in the version that repeated them."""
    labels: dict[str, LabelReport]
    sample: list[dict[str, Any]]
    """Some of the disagreements, the latest first."""


def label_report(counts: Counts) -> LabelReport:
    """Return the report on the predictions in ``counts``: sums become means and shares."""
    compared = counts.compared
    return LabelReport(
        compared,
        counts.disagreed,
        means(counts.accepted, counts.accepted_by_candidate, compared),
        means(counts.confidence, counts.confidence_of_candidate, compared),
    )


def means(stable: float, candidate: float, count: int) -> OfEach:
    """Return the means of ``count`` values, whose sums are given for both versions."""
    return OfEach(stable / count, candidate / count) if count else OfEach(None, None)
