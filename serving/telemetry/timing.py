"""How long each stage of one prediction took."""

from __future__ import annotations

import time

STAGES = ("decode", "queue", "infer", "encode")


class Timing:
    """A stopwatch for the stages of one request. Each stage begins when the previous one ends."""

    seconds: dict[str, float]
    """The time of each stage, 0 until it has ended."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._last = time.perf_counter()

    def end(self, stage: str) -> None:
        """End ``stage``: add the time since the previous stage ended to the time of this one."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now

    def header(self) -> tuple[bytes, bytes]:
        """Return the header ``Server-Timing`` (W3C), in milliseconds."""
        decode, queue, infer, encode = (seconds * 1000 for seconds in self.seconds.values())
        return (
            b"server-timing",
            b"decode;dur=%.3f, queue;dur=%.3f, infer;dur=%.3f, encode;dur=%.3f" % (decode, queue, infer, encode),
        )
