"""Statistics of models in the form of the protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from serving.models.repository import Model
from serving.telemetry.metrics import STAGES

Totals = Mapping[tuple[str, ...], float]
"""Sums of all workers since the service began. The key is model, version, name of the Prometheus sample, and stage; the
stage is empty for a sample that has none."""


def model_statistics(model: Model, totals: Totals) -> dict[str, object]:
    """Return the statistics of one model version. Durations are in nanoseconds, the last inference in milliseconds."""

    def total(sample: str, stage: str = "") -> float:
        return totals.get((model.name, model.version, sample, stage), 0.0)

    def duration(stages: Iterable[str]) -> dict[str, int]:
        seconds = sum(total("mnist_stage_seconds_total", stage) for stage in stages)
        return {"count": round(total("mnist_batch_images_count")), "ns": round(seconds * 1e9)}

    # The service keeps no cache of responses.
    unused = {"count": 0, "ns": 0}
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": round(total("mnist_last_prediction_timestamp_seconds") * 1000),
        "inference_count": round(total("mnist_batch_images_sum")),
        "execution_count": round(total("mnist_inference_seconds_count")),
        "inference_stats": {
            "success": duration(STAGES),
            # The durations of failed requests are not measured.
            "fail": {"count": round(total("mnist_prediction_failures_total")), "ns": 0},
            "queue": duration(["queue"]),
            "compute_input": duration(["decode"]),
            "compute_infer": duration(["infer"]),
            "compute_output": duration(["encode"]),
            "cache_hit": unused,
            "cache_miss": unused,
        },
        "batch_stats": [],
    }
