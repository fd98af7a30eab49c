"""Run a request through a model: queue -> infer -> encode. A request whose deadline has passed does not run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from serving.contract import Images, ModelOutput, Reasons
from serving.errors import DeadlineExceededError, OverloadedError
from serving.inference.batching import Batches
from serving.inference.comparison import Comparison
from serving.inference.numbers import NumberPrediction, NumberReading
from serving.inference.threads import ThreadPool
from serving.models.model import Model
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
        self,
        reading: NumberReading,
        timing: Timing,
        deadline: float,
        encode: Callable[[list[NumberPrediction]], T],
        comparison: Comparison | None = None,
    ) -> T:
        """Run the model of ``reading`` on its candidates and return ``encode(predictions)``, as :meth:`run` does."""
        if not len(reading.images):
            return encode(reading.predictions(None))
        if comparison:
            comparison.reading = reading

        def encode_read(output: ModelOutput) -> tuple[T, list[int]]:
            predictions, digits = reading.read(output)
            return encode(predictions), digits

        return await self._run(reading.model, reading.images, timing, deadline, encode_read, comparison)

    async def run(
        self,
        model: Model,
        images: Images,
        timing: Timing,
        deadline: float,
        encode: Callable[[ModelOutput], T],
        comparison: Comparison | None = None,
        reasons: Reasons = NO_REASONS,
    ) -> T:
        """Run ``model`` on uint8 ``images [N, 28, 28]`` and return ``encode(output)``.

        Args:
            timing: its stage ``decode`` has ended; the later stages are timed here.
            deadline: in the time of ``time.monotonic``; infinity for none.
            comparison: gets the images and the output, to repeat the request with another version later.
            reasons: the reasons that decoding has found, by the index of the image. They are only counted here.

        Raises:
            DeadlineExceededError: the deadline passed before inference began.
            OverloadedError: the request is large, and there are too many large requests.
        """
        return await self._run(
            model, images, timing, deadline, lambda output: (encode(output), None), comparison, reasons
        )

    async def _run(
        self,
        model: Model,
        images: Images,
        timing: Timing,
        deadline: float,
        encode: Callable[[ModelOutput], tuple[T, Sequence[int] | None]],
        comparison: Comparison | None,
        reasons: Reasons = NO_REASONS,
    ) -> T:
        """Do what :meth:`run` does.

        Args:
            encode: also returns the images that count as predictions, by their index; None for all.
        """

        def finish(output: ModelOutput) -> T:
            encoded, counted = encode(output)
            timing.end("encode")
            if counted is None:
                self._recorder.predicted(model, images, output, timing.seconds, reasons)
            else:
                self._recorder.predicted(model, images[counted], output.take(counted), timing.seconds, reasons)
            return encoded

        def run_large() -> tuple[ModelOutput, T]:
            timing.end("queue")
            if time.monotonic() > deadline:
                raise DeadlineExceededError
            output = model.classifier.classify(images)
            timing.end("infer")
            timing.batch = len(images)
            self._recorder.ran(model, timing.seconds["infer"])
            return output, finish(output)

        timing.model, timing.images = (model.name, model.version), len(images)
        try:
            with model:
                if len(images) > INLINE_BATCHES * model.batch_size:
                    output, encoded = await self.threads.run(run_large)
                else:
                    output = await self._batches.classify(model, images, timing, deadline)
                    encoded = finish(output)
                if comparison:
                    comparison.ran(images, output, timing.seconds["infer"])
                return encoded
        except (DeadlineExceededError, OverloadedError):
            raise
        except Exception:
            self._recorder.failed(model)
            raise
