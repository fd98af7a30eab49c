"""Run a request through a model: queue -> infer -> encode. A request whose deadline has passed does not run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from serving.contract import Images, ModelOutput
from serving.errors import DeadlineExceededError, OverloadedError
from serving.inference.batching import Batches
from serving.inference.numbers import NumberPrediction, Reading
from serving.inference.threads import ThreadPool
from serving.models.model import Model, Reasons
from serving.telemetry.predictions import NO_REASONS
from serving.telemetry.recorder import Recorder
from serving.telemetry.timing import Timing

T = TypeVar("T")

# A request with more images than this many batches runs on a thread. For a smaller request, switching to a thread
# would take as long as the work.
INLINE_BATCHES = 2


class Pipeline:
    """Runs models for the requests of one worker.

    Args:
        max_large: the largest number of large requests in flight.
    """

    def __init__(self, recorder: Recorder, max_large: int) -> None:
        self._recorder = recorder
        self._batches = Batches(recorder)
        self.threads = ThreadPool(max_large)

    async def read_numbers(
        self, reading: Reading, timing: Timing, deadline: float, encode: Callable[[list[NumberPrediction]], T]
    ) -> T:
        """Run the model of ``reading`` on its candidates and return ``encode(predictions)``, as :meth:`run` does."""
        if not len(reading.images):
            return encode(reading.predictions(None))
        return await self.run(
            reading.model,
            reading.images,
            timing,
            deadline,
            lambda output: encode(reading.predictions(output)),
            reading.chosen,
        )

    async def run(
        self,
        model: Model,
        images: Images,
        timing: Timing,
        deadline: float,
        encode: Callable[[ModelOutput], T],
        chosen: Sequence[int] | None = None,
        reasons: Reasons = NO_REASONS,
    ) -> T:
        """Run ``model`` on uint8 ``images [N, 28, 28]`` and return ``encode(output)``.

        Args:
            timing: its stage ``decode`` has ended; the later stages are timed here.
            deadline: in the time of ``time.monotonic``; infinity for none.
            chosen: the images that count as predictions, by their index; None: all. ``encode`` may fill it.
            reasons: the reasons that decoding has found, by the index of the image. They are only counted here.

        Raises:
            DeadlineExceededError: the deadline passed before inference began.
            OverloadedError: the request is large, and there are too many large requests.
        """
        try:
            with model:
                if len(images) > INLINE_BATCHES * model.batch_size:
                    return await self.threads.run(
                        lambda: self._run_on_thread(model, images, timing, deadline, encode, chosen, reasons)
                    )
                output = await self._batches.classify(model, images, timing, deadline)
                return self._encode(model, images, timing, encode, output, chosen, reasons)
        except (DeadlineExceededError, OverloadedError):
            raise
        except Exception:
            self._recorder.failed(model)
            raise

    def _run_on_thread(
        self,
        model: Model,
        images: Images,
        timing: Timing,
        deadline: float,
        encode: Callable[[ModelOutput], T],
        chosen: Sequence[int] | None,
        reasons: Reasons,
    ) -> T:
        timing.end("queue")
        if time.monotonic() > deadline:
            raise DeadlineExceededError
        output = model.classifier.classify(images)
        timing.end("infer")
        self._recorder.ran(model, timing.seconds["infer"])
        return self._encode(model, images, timing, encode, output, chosen, reasons)

    def _encode(
        self,
        model: Model,
        images: Images,
        timing: Timing,
        encode: Callable[[ModelOutput], T],
        output: ModelOutput,
        chosen: Sequence[int] | None,
        reasons: Reasons,
    ) -> T:
        encoded = encode(output)
        timing.end("encode")
        if chosen is not None:
            images, output = images[chosen], ModelOutput(*(tensor[chosen] for tensor in output))
        self._recorder.predicted(model, images, output, timing.seconds, reasons)
        return encoded
