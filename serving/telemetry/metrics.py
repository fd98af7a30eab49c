"""What the service tells Prometheus, and the statistics that the inference protocol asks for.

With several workers each writes into files of PROMETHEUS_MULTIPROC_DIR, and whichever is scraped adds
them all up.

What happens is noted at once and counted a little later, many at a time: after a model has run, the
caches of the core hold the model, and counting a single request then takes a tenth of its time.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from serving.contract import IMAGE_SIZE, Floats, Images
from serving.models.repository import Model

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STAGES = ("decode", "queue", "infer", "encode")

# Seconds. A small model answers within tens of microseconds; the usual first bucket of 5 ms hides it all.
SECONDS = (
    *(0.00005, 0.0001, 0.00015, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.002, 0.005),
    *(0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
INK = (0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3, 0.5)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

# So many requests are noted before they are counted; a batch of more images than this is counted at once.
NOTED = 64
# Seconds until what was noted is counted, whether or not anybody looks.
COUNTED_AFTER = 0.25

T = TypeVar("T")

# Images, probabilities, and the seconds of each stage.
_Prediction = tuple[Images, Floats, dict[str, float]]

METHODS = {"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"}


class Timing:
    """Where the time of a request went. Stages follow each other; each ends where the next begins."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._last = time.perf_counter()

    def end(self, stage: str) -> None:
        """What happened since the last call was ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now

    def header(self) -> tuple[bytes, bytes]:
        """``Server-Timing`` (W3C), in milliseconds."""
        decode, queue, infer, encode = (seconds * 1000 for seconds in self.seconds.values())
        return (
            b"server-timing",
            b"decode;dur=%.3f, queue;dur=%.3f, infer;dur=%.3f, encode;dur=%.3f" % (decode, queue, infer, encode),
        )


class _Distribution(Histogram):
    """A histogram that many values are put into at once."""

    def observe_all(self, values: npt.NDArray[Any]) -> None:
        """As ``observe`` of each of ``values [N]``."""
        self._sum.inc(float(values.sum()))
        # The first bucket whose bound is not below the value.
        buckets = np.bincount(np.searchsorted(self._upper_bounds, values))
        for bucket in buckets.nonzero()[0].tolist():
            self._buckets[bucket].inc(int(buckets[bucket]))


@dataclass(frozen=True)
class _ModelSeries:
    """A version's own series: looking them up by label for each prediction would take longer than counting."""

    stages: dict[str, Counter]
    inference: _Distribution
    batch: _Distribution
    last: Gauge
    confidence: _Distribution
    ink: _Distribution
    labels: list[Counter]


class Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        self.in_flight = 0
        """Requests being answered."""
        self._noted_requests: deque[tuple[tuple[str, str, int], float]] = deque()
        self._noted_runs: deque[tuple[Model, float]] = deque()
        self._noted_predictions: deque[tuple[Model, Images, Floats, dict[str, float]]] = deque()
        self._request_series: dict[tuple[str, str, int], tuple[Counter, _Distribution]] = {}
        self._model_series: WeakKeyDictionary[Model, _ModelSeries] = WeakKeyDictionary()
        # When a series began is a series more for each, and nobody looks at it.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        version = ["model", "version"]
        self._requests = Counter(
            "mnist_http_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self._request_seconds = _Distribution(
            "mnist_http_request_seconds", "From request to answer.", ["route"], buckets=SECONDS, registry=registry
        )
        self._in_flight = Gauge(
            "mnist_http_requests_in_flight",
            "Requests being answered.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._refused = Counter(
            "mnist_refused_requests", "Requests not served, by status.", ["status"], registry=registry
        )
        self._inference_seconds = _Distribution(
            "mnist_inference_seconds",
            "One run of the model, for the images of one request or of several.",
            version,
            buckets=SECONDS,
            registry=registry,
        )
        self._stage_seconds = Counter(
            "mnist_stage_seconds",
            "Where the time of predictions went: decode, queue, infer, encode.",
            [*version, "stage"],
            registry=registry,
        )
        self._batch = _Distribution(
            "mnist_batch_images", "Images in one request.", version, buckets=BATCHES, registry=registry
        )
        self._failures = Counter(
            "mnist_prediction_failures", "Predictions that failed in the service.", version, registry=registry
        )
        self._last = Gauge(
            "mnist_last_prediction_timestamp_seconds",
            "When the model last answered.",
            version,
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._loaded = Gauge(
            "mnist_model_loaded",
            "Workers that have this version loaded.",
            version,
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._model_refused = Counter(
            "mnist_model_refused", "Versions that could not be proved and were not loaded.", version, registry=registry
        )
        self._labels = Counter("mnist_predictions", "Predictions by label.", ["model", "label"], registry=registry)
        self._confidence = _Distribution(
            "mnist_confidence_ratio",
            "Probability of the predicted label.",
            ["model"],
            buckets=SHARES,
            registry=registry,
        )
        self._ink = _Distribution(
            "mnist_ink_ratio", "Mean brightness of the 28x28 input.", ["model"], buckets=INK, registry=registry
        )

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._noted_requests.append(((route, method if method in METHODS else "other", status), seconds))
        if len(self._noted_requests) >= NOTED:
            self.count()

    def predicted(self, model: Model, images: Images, probabilities: Floats, seconds: dict[str, float]) -> None:
        """A model answered a request."""
        self._noted_predictions.append((model, images, probabilities, seconds))
        if len(self._noted_predictions) >= NOTED or len(images) > NOTED:
            self.count()

    def ran(self, model: Model, seconds: float) -> None:
        """A model was run once, for one request or for several together."""
        self._noted_runs.append((model, seconds))

    def count(self) -> None:
        """Count what was noted. Any thread may call it at any time: each note is taken by one of them."""
        self._in_flight.set(self.in_flight)
        requests: defaultdict[tuple[str, str, int], list[float]] = defaultdict(list)
        for key, spent in _taken(self._noted_requests):
            requests[key].append(spent)
        for key, seconds in requests.items():
            counter, histogram = self._series_of_requests(key)
            counter.inc(len(seconds))
            histogram.observe_all(np.array(seconds))
            if key[2] in (401, 403, 413, 429, 503, 504):
                self._refused.labels(key[2]).inc(len(seconds))
        runs: defaultdict[Model, list[float]] = defaultdict(list)
        for model, spent in _taken(self._noted_runs):
            runs[model].append(spent)
        for model, seconds in runs.items():
            self._series_of(model).inference.observe_all(np.array(seconds))
        predictions: defaultdict[Model, list[_Prediction]] = defaultdict(list)
        for model, images, probabilities, spent_in in _taken(self._noted_predictions):
            predictions[model].append((images, probabilities, spent_in))
        for model, noted in predictions.items():
            self._count_predictions(self._series_of(model), *zip(*noted, strict=True))

    @staticmethod
    def _count_predictions(
        series: _ModelSeries,
        images: Sequence[Images],
        probabilities: Sequence[Floats],
        seconds: Sequence[dict[str, float]],
    ) -> None:
        for stage in STAGES:
            series.stages[stage].inc(sum(spent[stage] for spent in seconds))
        series.batch.observe_all(np.array(list(map(len, images))))
        series.last.set(time.time())
        rows = np.concatenate(probabilities)
        series.confidence.observe_all(rows.max(axis=1))
        for digit, count in enumerate(np.bincount(rows.argmax(axis=1)).tolist()):
            series.labels[digit].inc(count)
        pixels = np.concatenate(images).reshape(len(rows), -1)
        series.ink.observe_all(pixels.sum(axis=1, dtype=np.uint32) / (255 * IMAGE_SIZE**2))

    def _series_of_requests(self, key: tuple[str, str, int]) -> tuple[Counter, _Distribution]:
        series = self._request_series.get(key)
        if series is None:
            series = self._requests.labels(*key), self._request_seconds.labels(key[0])
            self._request_series[key] = series
        return series

    def _series_of(self, model: Model) -> _ModelSeries:
        if series := self._model_series.get(model):
            return series
        name, version = model.name, model.version
        series = self._model_series[model] = _ModelSeries(
            stages={stage: self._stage_seconds.labels(name, version, stage) for stage in STAGES},
            inference=self._inference_seconds.labels(name, version),
            batch=self._batch.labels(name, version),
            last=self._last.labels(name, version),
            confidence=self._confidence.labels(name),
            ink=self._ink.labels(name),
            labels=[self._labels.labels(name, label) for label in model.labels],
        )
        return series

    def failed(self, model: Model) -> None:
        """A model's answer failed in the service."""
        self._failures.labels(model.name, model.version).inc()

    def model_loaded(self, name: str, version: str) -> None:
        """A version was loaded."""
        self._loaded.labels(name, version).set(1)

    def model_dropped(self, name: str, version: str) -> None:
        """A version is no longer loaded."""
        self._loaded.labels(name, version).set(0)

    def model_refused(self, name: str, version: str) -> None:
        """A version could not be proved."""
        self._model_refused.labels(name, version).inc()

    def text(self) -> bytes:
        """All metrics of all workers in Prometheus' text form."""
        return generate_latest(self._all())

    def _all(self) -> CollectorRegistry:
        self.count()
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return self.registry
        _forget_the_dead()
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry

    def totals(self) -> dict[tuple[str, ...], float]:
        """Return the sums of all workers by model, version, name of the sample, and stage, which may be empty."""
        totals: dict[tuple[str, ...], float] = defaultdict(float)
        for family in self._all().collect():
            for sample in family.samples:
                labels = sample.labels
                if "version" in labels and "le" not in labels:
                    key = (labels["model"], labels["version"], sample.name, labels.get("stage", ""))
                    totals[key] += sample.value
        return totals

    def statistics(self, models: Sequence[Model]) -> list[dict[str, object]]:
        """Statistics of the versions in the form of the inference protocol; times in nanoseconds."""
        totals = self.totals()

        def of(model: Model, name: str, stage: str = "") -> int:
            return round(totals[model.name, model.version, name, stage])

        def spent(model: Model, *stages: str) -> dict[str, int]:
            seconds = sum(totals[model.name, model.version, "mnist_stage_seconds_total", stage] for stage in stages)
            return {"count": of(model, "mnist_batch_images_count"), "ns": round(seconds * 1e9)}

        nothing = {"count": 0, "ns": 0}
        return [
            {
                "name": model.name,
                "version": model.version,
                "last_inference": round(
                    totals[model.name, model.version, "mnist_last_prediction_timestamp_seconds", ""] * 1000
                ),
                "inference_count": of(model, "mnist_batch_images_sum"),
                "execution_count": of(model, "mnist_inference_seconds_count"),
                "inference_stats": {
                    "success": spent(model, *STAGES),
                    "fail": {"count": of(model, "mnist_prediction_failures_total"), "ns": 0},
                    "queue": spent(model, "queue"),
                    "compute_input": spent(model, "decode"),
                    "compute_infer": spent(model, "infer"),
                    "compute_output": spent(model, "encode"),
                    "cache_hit": nothing,
                    "cache_miss": nothing,
                },
                "batch_stats": [],
            }
            for model in models
        ]


def _taken(notes: deque[T]) -> Iterator[T]:
    """Take one note after the other."""
    with contextlib.suppress(IndexError):
        while True:
            yield notes.popleft()


def _forget_the_dead() -> None:
    """What a killed worker had under way or loaded, it has no longer; what it counted, it counted."""
    for file in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob("gauge_live*_*.db"):
        process = int(file.stem.rpartition("_")[2])
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            mark_process_dead(process)  # type: ignore[no-untyped-call]
