"""Show a run while it trains: send its settings, its epochs and its results to TensorBoard or MLflow.

A tracker that fails never ends a training: what could not be sent is kept and sent later, at the latest at the end.
What was not sent by then is sent when the run is resumed: it begins with the epochs that it has finished.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from training.reasons import first_line
from training.track.shown import Row, TrackingError

# Seconds after a failure in which new epochs are kept and not sent. MLflow may need 20 s for an attempt, and the
# training waits meanwhile.
PAUSE = 60.0

PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow-skinny"}


class Tracker(Protocol):
    """Something that shows runs."""

    def epoch(self, row: Row) -> None:
        """Show one row of ``metrics.jsonl``."""

    def finish(self, record: Row, folder: Path) -> None:
        """Show the content of ``run.json``, and the plots in ``folder``."""

    def close(self, status: str) -> None:
        """End with ``FINISHED``, ``FAILED`` or ``KILLED``."""


class Tracking:
    """Sends a run to several trackers.

    Args:
        warn: prints a line. It is called once for a tracker that fails.
        clock: returns seconds that never fall.
    """

    def __init__(
        self, trackers: dict[str, Tracker], warn: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._trackers, self._warn, self._clock = trackers, warn, clock
        self._waiting: dict[str, list[tuple[str, tuple[Any, ...]]]] = {name: [] for name in trackers}
        # When each tracker failed the last time.
        self._failed: dict[str, float] = {}

    def begin(self, rows: Iterable[Row]) -> None:
        """Send the epochs that a resumed run has finished. A tracker passes over those that it has."""
        for row in rows:
            self.epoch(row)

    def epoch(self, row: Row) -> None:
        self._send("epoch", row)

    def finish(self, record: Row, folder: Path) -> None:
        self._send("finish", record, folder)

    def close(self, status: str) -> list[str]:
        """End all trackers, and return the names of those that have not got everything."""
        self._send("close", status)
        late = [name for name, waiting in self._waiting.items() if waiting]
        for name in late:
            # An earlier message failed, so the tracker never got "close". Its threads and files must be freed anyway.
            if self._waiting[name][0][0] != "close":
                with suppress(Exception):
                    self._trackers[name].close(status)
        return late

    def _send(self, what: str, *arguments: Any) -> None:
        for name, tracker in self._trackers.items():
            waiting = self._waiting[name]
            waiting.append((what, arguments))
            if what == "epoch" and name in self._failed and self._clock() < self._failed[name] + PAUSE:
                continue
            try:
                while waiting:
                    method, given = waiting[0]
                    getattr(tracker, method)(*given)
                    waiting.pop(0)
            except Exception as error:  # Each tracker has its own errors, and none is worth a training.
                if name not in self._failed:
                    self._warn(f"WARNING: --track {name}: {first_line(error)}; the training goes on")
                self._failed[name] = self._clock()


@contextmanager
def tracked(kinds: Sequence[str], config: Row, output: Path, warn: Callable[[str], None]) -> Iterator[Tracking]:
    """Yield what sends a run to the trackers of these kinds.

    Raises:
        TrackingError: a package is missing, or a server cannot be reached.
    """
    tracking = Tracking({kind: _tracker(kind, config, output) for kind in dict.fromkeys(kinds)}, warn)
    status = "FAILED"
    try:
        yield tracking
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        for kind in tracking.close(status):
            later = shlex.join(["mnist-train", "--output", str(output), "--resume", "--track", kind])
            warn(f"WARNING: --track {kind}: not everything could be sent; to send it later: {later}")


def _tracker(kind: str, config: Row, output: Path) -> Tracker:
    try:
        if kind == "tensorboard":
            from training.track.tensorboard import TensorBoard

            return TensorBoard(config, output)
        from training.track.mlflow import MLflow

        return MLflow(config, output)
    except ImportError as error:
        raise TrackingError(
            f"--track {kind}: {error.name} is missing; install it with: pip install {PACKAGES[kind]}"
        ) from error
    except Exception as error:
        raise TrackingError(f"--track {kind}: {first_line(error)}") from error
