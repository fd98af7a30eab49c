"""Statistics of models in the format of the protocol."""

from __future__ import annotations

from serving.models.model import Model
from serving.telemetry.timing import STAGES
from serving.telemetry.totals import ModelTotals


def model_statistics(model: Model, totals: ModelTotals) -> dict[str, object]:
    """Return the statistics of one model version.

    Durations are in nanoseconds. The time of the last inference is in milliseconds since 1970.

    Args:
        totals: the sums of the version over all workers since the service started.
    """

    def duration(*stages: str) -> dict[str, int]:
        seconds = sum(totals.stage_seconds[stage] for stage in stages)
        return {"count": round(totals.requests), "ns": round(seconds * 1e9)}

    # The service keeps no cache of responses.
    unused = {"count": 0, "ns": 0}
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": round(totals.last_prediction * 1000),
        "inference_count": round(totals.images),
        "execution_count": round(totals.runs),
        "inference_stats": {
            "success": duration(*STAGES),
            # The durations of failed requests are not measured.
            "fail": {"count": round(totals.failures), "ns": 0},
            "queue": duration("queue"),
            "compute_input": duration("decode"),
            "compute_infer": duration("infer"),
            "compute_output": duration("encode"),
            "cache_hit": unused,
            "cache_miss": unused,
        },
        "batch_stats": [],
    }
