"""The series of one worker as plain data, which workers send each other as JSON, and the sums over several workers.

This file imports no library, because the supervisor uses it and must need little memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

WORKER_DEATHS = "mnist_worker_deaths"

# Most gauges are added up over the running workers. Of a gauge in LATEST, the largest value counts, and workers that
# have ended count too. Of a gauge in OLDEST, the smallest value of the running workers counts.
LATEST = frozenset({"mnist_last_prediction_timestamp_seconds", "mnist_build_info", "mnist_memory_kills"})
OLDEST = frozenset({"mnist_repository_scan_timestamp_seconds", "process_start_time_seconds"})

NOW = "now"
"""The key of the counts until now in the bins of a snapshot. The other keys are the names of windows."""

BinCounts = dict[str, list[int]]
"""Predictions in each bin of telemetry/bins.py, by version."""

Version = tuple[str, str]
"""The name of a model, and one of its versions."""


class Snapshot(TypedDict):
    """The values of all samples of one or more workers, by :func:`sample_key`."""

    counters: dict[str, float]
    """Counters and histograms. They are added up, also over workers that have ended."""
    gauges: dict[str, float]
    """Values of this moment, such as the requests in flight, and points in time."""
    exemplars: dict[str, tuple[dict[str, str], float, float]]
    """A traced request of a bucket of a histogram: its labels, its value, and the seconds since 1970."""
    bins: dict[str, BinCounts]
    """Predictions in bins until now, which are added up as counters are. The supervisor adds those until the beginning
    of each window, by the name of the window."""


def empty() -> Snapshot:
    return {"counters": {}, "gauges": {}, "exemplars": {}, "bins": {}}


def sample_key(family: str, name: str, labels: Mapping[str, str]) -> str:
    """Return the key of a sample: JSON of its family, its name and its labels."""
    return json.dumps([family, name, labels], separators=(",", ":"))


def total(snapshots: Sequence[Snapshot]) -> Snapshot:
    """Return the sums of ``snapshots``."""
    result = empty()
    for snapshot in snapshots:
        for key, value in snapshot["counters"].items():
            result["counters"][key] = result["counters"].get(key, 0) + value
        for key, value in snapshot["gauges"].items():
            before = result["gauges"].get(key)
            result["gauges"][key] = value if before is None else _together(key, before, value)
        for key, exemplar in snapshot["exemplars"].items():
            if exemplar[2] >= result["exemplars"].get(key, exemplar)[2]:
                result["exemplars"][key] = exemplar
    return {**result, "bins": total_bins(snapshots)}


def total_bins(snapshots: Iterable[Snapshot]) -> dict[str, BinCounts]:
    """Return the sums of the predictions in bins, by moment."""
    result: dict[str, BinCounts] = {}
    for snapshot in snapshots:
        for moment, bins in snapshot["bins"].items():
            sums = result.setdefault(moment, {})
            for version, counts in bins.items():
                before = sums.get(version, [0] * len(counts))
                sums[version] = [one + other for one, other in zip(before, counts, strict=True)]
    return result


def lasting(snapshot: Snapshot) -> Snapshot:
    """Return what still counts when a worker has ended: counters with exemplars, bins, and the gauges in LATEST."""
    latest = {key: value for key, value in snapshot["gauges"].items() if _family(key) in LATEST}
    return {**snapshot, "gauges": latest}


def forgotten(before: Snapshot, after: Snapshot) -> Snapshot:
    """Return what still counts of the versions in a worker's snapshot that are missing in ``after``, its next one."""
    past, bins = lasting(before), after["bins"].get(NOW, {})
    missing = (past["counters"].keys() | past["gauges"].keys()) - after["counters"].keys() - after["gauges"].keys()
    gone = {key for key in missing if _version(key)}
    return {
        "counters": {key: value for key, value in past["counters"].items() if key in gone},
        "gauges": {key: value for key, value in past["gauges"].items() if key in gone},
        "exemplars": {},
        "bins": {NOW: {key: counts for key, counts in past["bins"].get(NOW, {}).items() if key not in bins}},
    }


def without_unknown(past: Snapshot, snapshots: Sequence[Snapshot]) -> Snapshot:
    """Return ``past`` without the versions that are in none of ``snapshots``."""
    versions = {_version(key) for snapshot in snapshots for key in (*snapshot["counters"], *snapshot["gauges"])}
    bins = {key for snapshot in snapshots for key in snapshot["bins"].get(NOW, {})}
    return {
        "counters": {key: value for key, value in past["counters"].items() if _version(key) in {None, *versions}},
        "gauges": {key: value for key, value in past["gauges"].items() if _version(key) in {None, *versions}},
        "exemplars": past["exemplars"],
        "bins": {NOW: {key: counts for key, counts in past["bins"].get(NOW, {}).items() if key in bins}},
    }


def deaths(count: int) -> Snapshot:
    """Return a snapshot with the number of workers that have died."""
    return {**empty(), "counters": {sample_key(WORKER_DEATHS, f"{WORKER_DEATHS}_total", {}): count}}


def _together(key: str, first: float, second: float) -> float:
    """Return the value of a gauge of two workers."""
    family = _family(key)
    if family in LATEST:
        return max(first, second)
    return min(first, second) if family in OLDEST else first + second


def _version(key: str) -> Version | None:
    """Return the version that a sample is about; None if it is about all."""
    labels = json.loads(key)[2]
    return (labels["model"], labels["version"]) if {"model", "version"} <= labels.keys() else None


def _family(key: str) -> str:
    return key[2 : key.index('"', 2)]
