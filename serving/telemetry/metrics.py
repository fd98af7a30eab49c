"""The series of the service for Prometheus, and their text format.

Each worker keeps its series in memory. With several workers, the one that is scraped adds the snapshots of the others.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, disable_created_metrics, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from serving.telemetry import process
from serving.telemetry.drift import Drift
from serving.telemetry.histogram import BatchHistogram
from serving.telemetry.predictions import RecordedModel
from serving.telemetry.samples import NOW, WORKER_DEATHS, Snapshot, Version, empty, sample_key, total, total_bins
from serving.telemetry.shadow import ShadowMetrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_CONTENT_TYPE = openmetrics.CONTENT_TYPE_LATEST

# A small model takes tens of microseconds. prometheus_client's own buckets begin at 5 ms.
SECONDS_BUCKETS = (
    *(0.00005, 0.0001, 0.00015, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.002, 0.005),
    *(0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
IMAGES_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CONFIDENCE_BUCKETS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
# Why the server closes a connection or rejects a request before it reaches the application.
CLOSE_REASONS = (
    *("malformed", "incomplete", "head_too_large", "body_too_large"),
    *("request_timeout", "write_timeout", "too_many_connections", "too_many_bytes", "tls"),
)
# A novelty score is the logarithm of odds, from -50 to 50. Of the packaged model, most digits have -20 to 0.
NOVELTY_BUCKETS = (-30, -20, -15, -10, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 10, 15, 20, 30)
INK_BUCKETS = (0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3, 0.5)


class Metrics:
    """The series of one application in this process."""

    def __init__(self) -> None:
        # By default each series gets a second series with the time of its creation.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram = partial(BatchHistogram, registry=registry)
        self.drift = Drift()
        version = ["model", "version"]
        self.requests = counter("mnist_http_requests", "Requests that got a response.", ["route", "method", "status"])
        self.request_seconds = histogram(
            "mnist_http_request_seconds",
            "Time to respond to a request. Rejected requests (401, 403, 413, 429, 503) are not timed.",
            ["route"],
            buckets=SECONDS_BUCKETS,
        )
        self.in_flight = gauge("mnist_http_requests_in_flight", "Requests in flight.")
        self.rejected_requests = counter(
            "mnist_rejected_requests", "Requests rejected with status 401, 403, 413, 429, 503 or 504.", ["status"]
        )
        self.closed_connections = counter(
            "mnist_closed_connections",
            "Connections that the server closed because of a limit or an invalid request, by reason.",
            ["reason"],
        )
        for reason in CLOSE_REASONS:
            self.closed_connections.labels(reason)
        self.inference_seconds = histogram(
            "mnist_inference_seconds",
            "Time of one run of the model, for the images of one or more requests.",
            version,
            buckets=SECONDS_BUCKETS,
        )
        self.stage_seconds = counter(
            "mnist_stage_seconds",
            "Time that predictions spent in each stage: decode, queue, infer, encode.",
            [*version, "stage"],
        )
        self.images = histogram(
            "mnist_batch_images",
            "Images in one request (several requests may run together).",
            version,
            buckets=IMAGES_BUCKETS,
        )
        self.failures = counter(
            "mnist_prediction_failures", "Predictions that failed because of a fault of the service.", version
        )
        self.last_prediction = gauge(
            "mnist_last_prediction_timestamp_seconds",
            "Time of the model's last prediction, in seconds since 1970.",
            version,
        )
        self.model_loaded = gauge("mnist_model_loaded", "Workers that have this version loaded.", version)
        self.model_rejected = counter(
            "mnist_model_rejected", "Versions that could not be verified and were not loaded.", version
        )
        self.repository_scanned = gauge(
            "mnist_repository_scan_timestamp_seconds",
            "Time of the last scan of the repository, in seconds since 1970; with several workers, the oldest time.",
        )
        self.repository_errors = counter(
            "mnist_repository_errors", "Scans that could not read the folder of the repository or of a model."
        )
        self.background_failures = counter(
            "mnist_background_failures",
            "Failures of background tasks (scan, count, keys, rollout, tls, traces, memory). A task that fails is "
            "tried again.",
            ["task"],
        )
        self.trace_spans = counter(
            "mnist_trace_spans",
            "Spans of traces that were sent, and that were dropped because the collector was away or slow.",
            ["outcome"],
        )
        for outcome in ("sent", "dropped"):
            self.trace_spans.labels(outcome)
        self.predictions = counter("mnist_predictions", "Predictions by label.", ["model", "label"])
        self.confidence = histogram(
            "mnist_confidence_ratio", "Probability of the predicted label.", ["model"], buckets=CONFIDENCE_BUCKETS
        )
        self.ink = histogram(
            "mnist_ink_ratio", "Mean brightness of a 28x28 image, from 0 to 1.", ["model"], buckets=INK_BUCKETS
        )
        self.novelty = histogram(
            "mnist_novelty",
            "Novelty score of the images: a higher score is less like a digit.",
            ["model"],
            buckets=NOVELTY_BUCKETS,
        )
        self.judged = counter(
            "mnist_judged_predictions",
            "Predictions by whether they are accepted, and by the reason if they are not.",
            ["model", "accepted", "reason"],
        )
        self.shadow = ShadowMetrics(registry, CONFIDENCE_BUCKETS, SECONDS_BUCKETS)
        self._of_versions = (
            *(self.inference_seconds, self.stage_seconds, self.images, self.failures, self.last_prediction),
            *(self.model_loaded, self.model_rejected, *self.shadow.of_versions),
        )
        # Only the supervisor counts this series. It stays 0 in every worker.
        counter(WORKER_DEATHS, "Workers that ended while the service was not stopping.")
        process.register(registry)

    def keep(self, models: Sequence[RecordedModel], others: Collection[Version]) -> None:
        """Forget the series of all versions but those of ``models``, which are loaded now, and ``others``."""
        self.drift.keep(models, others)
        kept = {(model.name, model.version) for model in models}.union(others)
        for metric in self._of_versions:
            for labels in {_labels(sample.labels) for family in metric.collect() for sample in family.samples}:
                if labels[:2] not in kept:
                    metric.remove(*labels)

    def snapshot(self) -> Snapshot:
        """Return the series of this worker as plain data."""
        result = empty()
        for family in self._registry.collect():
            values = result["gauges"] if family.type == "gauge" else result["counters"]
            for sample in family.samples:
                key = sample_key(family.name, sample.name, sample.labels)
                values[key] = sample.value
                if exemplar := sample.exemplar:
                    result["exemplars"][key] = exemplar.labels, exemplar.value, float(exemplar.timestamp or 0)
        result["bins"] = {NOW: self.drift.now()}
        return result

    def families(self, snapshots: Sequence[Snapshot]) -> Iterable[Metric]:
        """Return the sums of ``snapshots``; without one, the series of this worker."""
        families = self._registry.collect()
        if not snapshots:
            return [*families, *self.drift.families()]
        return [*_added_up(families, snapshots), *self.drift.families(total_bins(snapshots))]

    def text(self, snapshots: Sequence[Snapshot]) -> bytes:
        """Return the same as :meth:`families`, in Prometheus' text format."""
        return generate_latest(_Families(self.families(snapshots)))

    def openmetrics(self, snapshots: Sequence[Snapshot]) -> bytes:
        """Return the same in the format OpenMetrics, which also has exemplars."""
        families = _Families(map(_as_openmetrics, self.families(snapshots)))
        text: bytes = openmetrics.generate_latest(families)  # type: ignore[no-untyped-call]
        return text


def _labels(of_sample: Mapping[str, str]) -> tuple[str, ...]:
    """Return the labels of the metric of a sample, in their order. Those of versions begin with model and version."""
    return tuple(value for name, value in of_sample.items() if name != "le")


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _as_openmetrics(family: Metric) -> Metric:
    """Return the family without its counts if it has no sums: OpenMetrics wants both or neither.

    A histogram of values below 0, such as the novelty, has no sum, which might fall. Its last bucket has the count.
    """
    if family.type == "histogram" and not any(sample.name.endswith("_sum") for sample in family.samples):
        family.samples = [sample for sample in family.samples if not sample.name.endswith("_count")]
    return family


def _added_up(families: Iterable[Metric], snapshots: Sequence[Snapshot]) -> list[Metric]:
    """Return ``families`` with the sums of ``snapshots`` as their samples."""
    sums = total(snapshots)
    samples: defaultdict[str, list[tuple[str, dict[str, str], float, None, Exemplar | None]]] = defaultdict(list)
    for key, value in (sums["counters"] | sums["gauges"]).items():
        family, name, labels = json.loads(key)
        exemplar = sums["exemplars"].get(key)
        samples[family].append((name, labels, value, None, Exemplar(*exemplar) if exemplar else None))
    result = []
    for family in families:
        result.append(Metric(family.name, family.documentation, family.type))
        for sample in samples[family.name]:
            result[-1].add_sample(*sample)
    return result
