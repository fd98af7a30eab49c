"""One request's way through a model: on the event loop or off it, timed and counted."""

from __future__ import annotations

import asyncio
import time

from serving.classifier import Floats, Images
from serving.metrics import STAGES, Metrics
from serving.repository import Model

# More images than this are classified on a thread, so that they do not keep others' digits waiting;
# for fewer, the change of thread would cost as much as the work.
INLINE_IMAGES = 16


class Timing:
    """Where the time of a request went. Stages follow each other; each ends where the next begins."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def end(self, stage: str) -> None:
        """What happened since the last call was ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def header(self) -> str:
        """Value of ``Server-Timing`` (W3C), in milliseconds."""
        return ", ".join(f"{stage};dur={self.seconds.get(stage, 0.0) * 1000:.3f}" for stage in STAGES)


async def infer(model: Model, images: Images, timing: Timing, metrics: Metrics) -> tuple[Floats, Floats]:
    """Logits and probabilities ``[N, C]`` of uint8 ``images [N, 28, 28]``; ends the stages queue and infer."""

    def classify() -> tuple[Floats, Floats]:
        timing.end("queue")
        answer = model.classifier.classify(images)
        timing.end("infer")
        return answer

    try:
        with model.lease():
            return await asyncio.to_thread(classify) if len(images) > INLINE_IMAGES else classify()
    except Exception:
        metrics.failed(model)
        raise
