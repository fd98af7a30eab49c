"""Batching: small requests that wait at the same time go through the model together.

A batch saves time in two ways. The network needs a fifth less time per image for eight images than for one. The CPU
caches save more: eight requests are decoded, then the model runs once, then eight responses are encoded, so the code of
each step stays in the caches. If each request ran alone, the model would push that code out of the caches every time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from typing import NamedTuple

import numpy as np

from serving.contract import Images, ModelOutput
from serving.errors import DeadlineExceededError
from serving.models.model import Model
from serving.telemetry.recorder import Recorder
from serving.telemetry.timing import Timing


class _Waiting(NamedTuple):
    images: Images
    timing: Timing
    deadline: float
    output: asyncio.Future[ModelOutput]


class Batches:
    """One queue of requests for each model. All belong to one event loop and block it for one batch at a time."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._queues: dict[Model, deque[_Waiting]] = {}

    def classify(self, model: Model, images: Images, timing: Timing, deadline: float) -> asyncio.Future[ModelOutput]:
        """Add a few uint8 ``images [N, 28, 28]`` to the queue, and return a future of the model's output for them.

        The stages ``queue`` and ``infer`` of ``timing`` are timed here.

        Raises (when awaited):
            DeadlineExceededError: the deadline, in the time of ``time.monotonic``, passed before inference began.
        """
        loop = asyncio.get_running_loop()
        queue = self._queues.get(model)
        if queue is None:
            queue = self._queues[model] = deque()
            # The loop calls _run after everything that is ready now. By then every request that has arrived is queued.
            loop.call_soon(self._run, model)
        output: asyncio.Future[ModelOutput] = loop.create_future()
        queue.append(_Waiting(images, timing, deadline, output))
        return output

    def _run(self, model: Model) -> None:
        """Run the first batch of the queue. The next batch waits until the event loop has done its other work."""
        queue = self._queues[model]
        batch = _next_batch(queue, model.batch_size)
        try:
            if batch:
                self._classify(model, batch)
        except Exception as error:
            for request in batch:
                if not request.output.done():
                    request.output.set_exception(error)
        finally:
            # Schedule the next batch only now, so that the responses of this batch are sent before it runs.
            if queue:
                asyncio.get_running_loop().call_soon(self._run, model)
            else:
                del self._queues[model]

    def _classify(self, model: Model, batch: list[_Waiting]) -> None:
        images = np.concatenate([request.images for request in batch]) if len(batch) > 1 else batch[0].images
        output = model.classifier.classify(images)
        for request in batch:
            request.timing.end("infer")
            request.timing.batch = len(images)
        self._recorder.ran(model, batch[0].timing.seconds["infer"])
        begin = 0
        for request in batch:
            end = begin + len(request.images)
            request.output.set_result(output.slice(begin, end) if len(batch) > 1 else output)
            begin = end


def _next_batch(queue: deque[_Waiting], images: int) -> list[_Waiting]:
    """Take requests from the front of the queue until they have at least ``images`` images together.

    Cancelled requests are dropped. Requests whose deadline has passed get a DeadlineExceededError.
    """
    batch: list[_Waiting] = []
    count = 0
    while queue and count < images:
        request = queue.popleft()
        request.timing.end("queue")
        if request.output.cancelled():
            continue
        if request.deadline < math.inf and time.monotonic() > request.deadline:
            request.output.set_exception(DeadlineExceededError())
            continue
        batch.append(request)
        count += len(request.images)
    return batch
