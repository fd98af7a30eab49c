"""The recorder: it notes each event at once, and adds the notes to the metrics a little later.

After a model has run, the CPU caches hold the model. Updating the metrics for a single request then takes a tenth of
the request's time. So the recorder only notes each request, and counts many notes together.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter as Tally
from collections import defaultdict, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from prometheus_client import Counter, Gauge

from serving.contract import OUTCOMES, Images, ModelOutput, Reasons
from serving.telemetry.histogram import BatchHistogram
from serving.telemetry.metrics import Metrics
from serving.telemetry.predictions import NO_REASONS, Predictions, RecordedModel, predictions_of
from serving.telemetry.samples import Snapshot, Version
from serving.telemetry.shadow import ShadowMetrics
from serving.telemetry.timing import STAGES
from serving.telemetry.totals import ModelTotals, totals_of

# Notes are counted when there are this many. A batch of more images than this is counted at once.
MAX_NOTES = 64
# Notes are counted at least this often, in seconds, so that a scrape of another worker includes them.
COUNT_INTERVAL = 0.25
# A model may have a thousand classes, and its next version a thousand others. Each worker has its own series, and
# Prometheus keeps all of them. So this bound holds for all versions of a model together.
MAX_LABEL_SERIES, OTHER_LABELS = 100, "(other)"
# The series of this many dropped versions stay, so that their last values are scraped. A version has 50 to 500 series.
KEPT_VERSIONS = 4

# Any other method counts as "other", so that a client cannot create series by making up methods.
METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"})
REJECTED_STATUSES = frozenset({401, 403, 413, 429, 503, 504})
# A rejection takes nearly no time. If it were timed, the percentiles would fall while the overload rises. A request
# beyond its deadline is timed, because its client has waited.
UNTIMED_STATUSES = REJECTED_STATUSES - {504}

K = TypeVar("K")
V = TypeVar("V")


class _Prediction(NamedTuple):
    images: Images
    output: ModelOutput
    stage_seconds: dict[str, float]
    reasons: Reasons


@dataclass(frozen=True)
class _ModelSeries:
    """The series of one version. Finding them by their labels for each prediction would take longer than counting."""

    stage_seconds: dict[str, Counter]
    inference_seconds: BatchHistogram
    images: BatchHistogram
    last_prediction: Gauge
    confidence: BatchHistogram
    ink: BatchHistogram
    novelty: BatchHistogram
    predictions: list[Counter]
    """By the index of the label."""
    judged: dict[str | None, Counter]
    """By the reason of the rejection; None: accepted."""


class Recorder:
    """Records what happens in one application. Threads may share it."""

    in_flight: int
    """Requests in flight."""
    shadow: ShadowMetrics
    """The series that compare the candidate of a rollout. They are counted at once, away from the requests."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._metrics = Metrics()
        self.shadow = self._metrics.shadow
        self._requests: deque[tuple[tuple[str, str, int], float]] = deque()
        self._exemplars: deque[tuple[str, tuple[float, dict[str, str], float]]] = deque()
        self._runs: deque[tuple[RecordedModel, float]] = deque()
        self._predictions: deque[tuple[RecordedModel, _Prediction]] = deque()
        self._request_series: dict[tuple[str, str, int], tuple[Counter, BatchHistogram]] = {}
        self._model_series: WeakKeyDictionary[RecordedModel, _ModelSeries] = WeakKeyDictionary()
        # By the name of the model: the classes that have a series of their own.
        self._counted_labels: defaultdict[str, set[str]] = defaultdict(set)
        self._models: Sequence[RecordedModel] = ()
        self._others: set[Version] = set()
        self._dropped: list[Version] = []

    # Noting

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Note one request and the status of its response."""
        self._requests.append(((route, method if method in METHODS else "other", status), seconds))
        if len(self._requests) >= MAX_NOTES:
            self.count()

    def exemplar(self, route: str, status: int, seconds: float, trace_id: str, span_id: str) -> None:
        """Note that a request has a trace. If it is timed, the histogram links its bucket to this trace."""
        if status not in UNTIMED_STATUSES:
            self._exemplars.append((route, (seconds, {"trace_id": trace_id, "span_id": span_id}, time.time())))

    def ran(self, model: RecordedModel, seconds: float) -> None:
        """Note one run of a model, for one or more requests."""
        self._runs.append((model, seconds))

    def predicted(
        self,
        model: RecordedModel,
        images: Images,
        output: ModelOutput,
        stage_seconds: dict[str, float],
        reasons: Reasons = NO_REASONS,
    ) -> None:
        """Note the predictions of a model for one request, and the reasons that decoding has found to reject some."""
        self._predictions.append((model, _Prediction(images, output, stage_seconds, reasons)))
        if len(self._predictions) >= MAX_NOTES or len(images) > MAX_NOTES:
            self.count()

    # Counting at once, because these events are rare

    def failed(self, model: RecordedModel) -> None:
        """Count a prediction that failed because of a fault of the service."""
        self._metrics.failures.labels(model.name, model.version).inc()

    def closed(self, reason: str) -> None:
        """Count a connection that the server closed; ``reason`` is one of metrics.CLOSE_REASONS."""
        self._metrics.closed_connections.labels(reason).inc()

    def model_changed(self, kind: Literal["loaded", "dropped", "rejected"], name: str, version: str) -> None:
        """Count that a version was loaded, dropped, or rejected because it could not be verified."""
        if kind == "rejected":
            self._metrics.model_rejected.labels(name, version).inc()
        else:
            self._metrics.model_loaded.labels(name, version).set(1 if kind == "loaded" else 0)
        if kind == "dropped":
            self._dropped.append((name, version))

    def models_are(self, models: Sequence[RecordedModel], rejected: Collection[Version] = ()) -> None:
        """Report from now on these models, which are loaded, the rejected versions, and the last dropped ones.

        All other versions are forgotten.
        """
        present = {(model.name, model.version) for model in models}.union(rejected)
        self._dropped = [version for version in self._dropped if version not in present][-KEPT_VERSIONS:]
        others = {*rejected, *self._dropped}
        if (models, others) != (self._models, self._others):
            self._models, self._others = models, others
            self._metrics.keep(models, others)
            self._model_series = WeakKeyDictionary()

    def scanned(self, *, is_readable: bool) -> None:
        """Record that a scan of the repository has ended, and whether it could read all folders."""
        self._metrics.repository_scanned.set_to_current_time()
        if not is_readable:
            self._metrics.repository_errors.inc()

    def traced(self, spans: int, *, is_sent: bool) -> None:
        """Count spans that were sent to the collector, or dropped."""
        self._metrics.trace_spans.labels("sent" if is_sent else "dropped").inc(spans)

    def background_failed(self, task: str) -> None:
        """Count a failure of a background task."""
        self._metrics.background_failures.labels(task).inc()

    # Reading

    def snapshot(self) -> Snapshot:
        """Return the metrics of this worker as plain data."""
        self.count()
        return self._metrics.snapshot()

    def text(self, snapshots: Sequence[Snapshot] = ()) -> bytes:
        """Return the sums of ``snapshots`` in Prometheus' text format; without one, the metrics of this worker."""
        self.count()
        return self._metrics.text(snapshots)

    def openmetrics(self, snapshots: Sequence[Snapshot] = ()) -> bytes:
        """Return the same in the format OpenMetrics, with exemplars."""
        self.count()
        return self._metrics.openmetrics(snapshots)

    def totals(self, snapshots: Sequence[Snapshot] = ()) -> defaultdict[tuple[str, str], ModelTotals]:
        """Return the sums of each model version over ``snapshots``, or of this worker, by name and version."""
        self.count()
        return totals_of(self._metrics.families(snapshots))

    # Counting the notes

    def count(self) -> None:
        """Count all notes. Any thread may call this at any time: each note is counted once."""
        self._metrics.in_flight.set(self.in_flight)
        for key, seconds in _taken(self._requests).items():
            counter, histogram = self._series_of_requests(key)
            counter.inc(len(seconds))
            status = key[2]
            if status not in UNTIMED_STATUSES:
                histogram.observe_all(np.array(seconds))
            if status in REJECTED_STATUSES:
                self._metrics.rejected_requests.labels(status).inc(len(seconds))
        for route, examples in _taken(self._exemplars).items():
            for example in examples:
                self._metrics.request_seconds.labels(route).exemplify(*example)
        for model, seconds in _taken(self._runs).items():
            self._series_of(model).inference_seconds.observe_all(np.array(seconds))
        for model, predictions in _taken(self._predictions).items():
            counted = _count_predictions(model, self._series_of(model), predictions)
            self._metrics.drift.count(model, counted)
        self._metrics.drift.note()

    def _series_of_requests(self, key: tuple[str, str, int]) -> tuple[Counter, BatchHistogram]:
        series = self._request_series.get(key)
        if series is None:
            route = key[0]
            series = self._metrics.requests.labels(*key), self._metrics.request_seconds.labels(route)
            self._request_series[key] = series
        return series

    def _series_of(self, model: RecordedModel) -> _ModelSeries:
        if series := self._model_series.get(model):
            return series
        metrics, name, version = self._metrics, model.name, model.version
        series = self._model_series[model] = _ModelSeries(
            stage_seconds={stage: metrics.stage_seconds.labels(name, version, stage) for stage in STAGES},
            inference_seconds=metrics.inference_seconds.labels(name, version),
            images=metrics.images.labels(name, version),
            last_prediction=metrics.last_prediction.labels(name, version),
            confidence=metrics.confidence.labels(name),
            ink=metrics.ink.labels(name),
            novelty=metrics.novelty.labels(name),
            predictions=[
                metrics.predictions.labels(name, label)
                for label in series_labels(model.labels, self._counted_labels[name])
            ],
            judged={None: metrics.judged.labels(name, "true", "")}
            | {reason: metrics.judged.labels(name, "false", reason) for reason in OUTCOMES[1:]},
        )
        return series


def _taken(notes: deque[tuple[K, V]]) -> dict[K, list[V]]:
    """Take all notes, and return their values by key."""
    found: defaultdict[K, list[V]] = defaultdict(list)
    with contextlib.suppress(IndexError):
        while True:
            key, value = notes.popleft()
            found[key].append(value)
    return found


def _count_predictions(model: RecordedModel, series: _ModelSeries, predictions: Sequence[_Prediction]) -> Predictions:
    """Count predictions, and return what was counted of them."""
    for stage in STAGES:
        series.stage_seconds[stage].inc(sum(prediction.stage_seconds[stage] for prediction in predictions))
    series.images.observe_all(np.array([len(prediction.images) for prediction in predictions]))
    series.last_prediction.set(time.time())
    counted = _together(model, predictions)
    series.confidence.observe_all(counted.confidence)
    series.novelty.observe_all(counted.novelty)
    series.ink.observe_all(counted.ink)
    for label, count in enumerate(np.bincount(counted.labels).tolist()):
        series.predictions[label].inc(count)
    for reason, count in Tally(counted.reasons).items():
        series.judged[reason].inc(count)
    return counted


def _together(model: RecordedModel, predictions: Sequence[_Prediction]) -> Predictions:
    """Return what is counted of the predictions of several requests."""
    if len(predictions) == 1:
        [one] = predictions
        return predictions_of(model, one.images, one.output, one.reasons)
    reasons, begin = {}, 0
    for prediction in predictions:
        for i, reason in prediction.reasons.items():
            reasons[begin + i] = reason
        begin += len(prediction.images)
    output = ModelOutput.joined(prediction.output for prediction in predictions)
    return predictions_of(model, np.concatenate([prediction.images for prediction in predictions]), output, reasons)


def series_labels(labels: Sequence[str], counted: set[str]) -> list[str]:
    """Return the label of the series that counts each class. The classes after the first ones share a series.

    Args:
        counted: the classes that have a series already, to which this adds those that get one.
    """
    free = MAX_LABEL_SERIES - len(counted)
    counted.update([label for label in labels if label not in counted][: max(0, free)])
    return [label if label in counted else OTHER_LABELS for label in labels]
