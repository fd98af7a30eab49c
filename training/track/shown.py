"""What trackers show of a run, and the error of a tracker."""

from __future__ import annotations

from typing import Any

# Plots of a finished run.
PLOTS = ("curves.png", "confusion.png", "mistakes.png", "reliability.png")

Row = dict[str, Any]


class TrackingError(Exception):
    """A tracker cannot be used. The message gives the reason and the way out."""


def scalars(row: Row) -> dict[str, float]:
    """Return the numbers of a row of ``metrics.jsonl``, except the epoch."""
    return {name: float(value) for name, value in row.items() if name != "epoch" and isinstance(value, int | float)}


def results(record: Row) -> dict[str, float]:
    """Return the results in ``run.json``, with the calibration temperature applied."""
    return {
        f"{part}/{name}": float(value)
        for part, summary in record["calibration"]["result"].items()
        for name, value in summary.items()
    }
