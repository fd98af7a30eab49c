"""How long each stage of one prediction took, and what ran meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterable

from serving.contract import RejectionReason

STAGES = ("decode", "queue", "infer", "encode")


class Timing:
    """A stopwatch for the stages of one request. Each stage begins when the previous one ends."""

    seconds: dict[str, float]
    """The time of each stage, 0 until it has ended."""
    started: float
    """When the first stage began, in the time of ``time.perf_counter``."""
    model: tuple[str, str] | None = None
    """Name and version of the model, once it is known."""
    images: int = 0
    """Images of this request that went to the model."""
    batch: int = 0
    """Images that went through the model together, also those of other requests; 0 if none did."""
    reasons: frozenset[str] | None = None
    """Why predictions of this request are not accepted; None if nobody asked."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.started = self._last = time.perf_counter()

    def end(self, stage: str) -> None:
        """End ``stage``: add the time since the previous stage ended to the time of this one."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now

    def judged(self, rejections: Iterable[RejectionReason | None]) -> None:
        """Keep the reasons why predictions are not accepted."""
        self.reasons = frozenset(reason for reason in rejections if reason)

    def header(self) -> tuple[bytes, bytes]:
        """Return the header ``Server-Timing`` (W3C), in milliseconds."""
        decode, queue, infer, encode = (seconds * 1000 for seconds in self.seconds.values())
        return (
            b"server-timing",
            b"decode;dur=%.3f, queue;dur=%.3f, infer;dur=%.3f, encode;dur=%.3f" % (decode, queue, infer, encode),
        )
