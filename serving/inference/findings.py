"""What the comparisons of one worker have found: counts that were not written yet, and a sample of disagreements."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from serving.feedback.records import Answer
from serving.inference.comparison import Comparison
from serving.models.rollout import Counts, Evidence, Pair
from serving.telemetry.recorder import Recorder, series_labels
from serving.telemetry.shadow import CANDIDATE, STABLE, Compared

# Disagreements that each worker keeps: a random sample of all.
MAX_SAMPLE = 50
# The label of all whole numbers in the series.
NUMBER_LABEL = "(number)"

Key = tuple[str, Pair]
"""The name of a model and two of its versions."""


class Disagreement(msgspec.Struct):
    """A prediction for which the two versions have different labels."""

    time: float
    """Seconds since 1970."""
    request_id: str
    stable: Answer
    candidate: Answer
    image: list[list[int]] | None
    """The 28x28 image that the responding version received. None for whole numbers."""


class Findings:
    """Counts what was found, also in the metrics. Threads may share it."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._lock = threading.Lock()
        self._evidence: defaultdict[Key, Evidence] = defaultdict(Evidence)
        # The classes of each model that have a series.
        self._counted: defaultdict[str, set[str]] = defaultdict(set)
        # By name of the model: two versions, the number of their disagreements, and the sample of them.
        self._samples: dict[str, tuple[Pair, int, list[Disagreement]]] = {}

    def take(self) -> dict[Key, Evidence]:
        """Return the evidence since the last call."""
        with self._lock:
            evidence, self._evidence = self._evidence, defaultdict(Evidence)
        return evidence

    def give_back(self, key: Key, evidence: Evidence) -> None:
        """Put evidence back that :meth:`take` returned, so that the next call returns it again."""
        with self._lock:
            self._evidence[key].add(evidence)

    def sample(self, name: str, pair: Pair) -> list[Disagreement]:
        """Return a random sample of the disagreements between two versions of a model."""
        with self._lock:
            kept, _, sample = self._samples.get(name, (None, 0, []))
            return list(sample) if kept == pair else []

    def skipped(self, comparison: Comparison) -> None:
        """Count a request that was not repeated."""
        name, pair = comparison.key
        with self._lock:
            self._evidence[name, pair].skipped += 1
        self._recorder.shadow.skipped(name, pair.candidate)

    def failed(self, comparison: Comparison) -> None:
        """Count a request that failed in the version that repeated it."""
        name, pair = comparison.key
        with self._lock:
            self._evidence[name, pair].failed += 1
        self._recorder.shadow.failed(name, pair.candidate)

    def compared(
        self,
        comparison: Comparison,
        stable: Sequence[Answer],
        candidate: Sequence[Answer],
        seconds: tuple[float, float],
    ) -> None:
        """Count the predictions of both versions for one request, and the seconds of inference in each."""
        name, pair = comparison.key
        labels = comparison.stable.labels
        # Several numbers may be one text, so a text is no label of a series.
        series = (
            {} if comparison.reading else dict(zip(labels, series_labels(labels, self._counted[name]), strict=True))
        )
        found = [
            Compared(
                series.get(first.label, NUMBER_LABEL),
                first.label != second.label,
                (first.accepted, second.accepted),
                (first.confidence, second.confidence),
            )
            for first, second in zip(stable, candidate, strict=True)
        ]
        with self._lock:
            evidence = self._evidence[name, pair]
            evidence.requests += 1
            evidence.seconds += seconds[0]
            evidence.seconds_of_candidate += seconds[1]
            for index, (label, differs, accepted, confidence) in enumerate(found):
                counts = Counts(1, int(differs), int(accepted[0]), int(accepted[1]), confidence[0], confidence[1])
                evidence.labels.setdefault(label, Counts()).add(counts)
                if differs:
                    self._keep(comparison, index, stable[index], candidate[index])
        times = {STABLE: seconds[0], CANDIDATE: seconds[1]}
        self._recorder.shadow.compared(name, pair.candidate, found, times)

    def _keep(self, comparison: Comparison, index: int, stable: Answer, candidate: Answer) -> None:
        """Add a disagreement to the sample. Each disagreement has the same chance to be in it (algorithm R)."""
        name, pair = comparison.key
        kept, count, sample = self._samples.get(name, (pair, 0, []))
        if kept != pair:
            count, sample = 0, []
        self._samples[name] = (pair, count + 1, sample)
        place = len(sample) if count < MAX_SAMPLE else random.randrange(count + 1)  # noqa: S311
        if place < MAX_SAMPLE:
            image = None if comparison.reading else comparison.images[index].tolist()
            sample[place : place + 1] = [Disagreement(time.time(), comparison.request_id, stable, candidate, image)]
