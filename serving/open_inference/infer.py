"""Inference: from the images and the requested outputs of a request to the output tensors of its response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from serving.contract import Images, ModelOutput
from serving.errors import InputTooLargeError
from serving.inference.numbers import NumberPrediction, NumberReading, check_reads_numbers
from serving.models.model import Model
from serving.open_inference import numbers, tensors
from serving.open_inference.messages import OutputTensor, RequestOutput
from serving.service.call import Call
from serving.telemetry.timing import Timing

T = TypeVar("T")

Encode = Callable[[list[OutputTensor]], T]
"""Makes the response from its output tensors."""


async def infer(
    call: Call,
    model: Model,
    images: Images,
    outputs: Sequence[RequestOutput],
    timing: Timing,
    deadline: float,
    encode: Encode[T],
) -> T:
    """Run ``model`` on uint8 ``images [N, 28, 28]`` and return ``encode(tensors)``.

    Args:
        outputs: the outputs that the request names.
        deadline: in the time of ``time.monotonic``.

    Raises:
        InputError: the request names another output.
        DeadlineExceededError: the deadline passed before inference began.
        OverloadedError: the request is large, and there are too many large requests.
    """
    asked = tensors.checked_outputs(outputs, model)
    timing.end("decode")

    def encode_output(output: ModelOutput) -> T:
        if call.trace:  # The response does not say what is accepted, so only a trace needs it.
            call.judged(model.judge(images, output, {}))
        return encode(tensors.output_tensors(model, asked, output))

    return await call.service.pipeline.run(model, images, timing, deadline, encode_output, comparison=call.comparison)


async def infer_numbers(
    call: Call,
    model: Model,
    pages: Images,
    outputs: Sequence[RequestOutput],
    timing: Timing,
    deadline: float,
    encode: Encode[T],
) -> T:
    """Read the numbers in uint8 ``pages [N, H, W]`` and return ``encode(tensors)``.

    Raises: as :func:`infer`.
        InputTooLargeError: the pages have too many pixels or too many candidates for digits.
    """
    check_reads_numbers(model)
    asked = numbers.checked_outputs(outputs)
    pixels, limit = pages.shape[1] * pages.shape[2], call.service.settings.max_pixels
    if pixels > limit:
        raise InputTooLargeError(f"a page has {pixels} pixels: must be at most {limit}; send smaller pages")
    read = await call.service.decoder.read_pages(pages, deadline)
    timing.end("decode")

    def encode_numbers(predictions: list[NumberPrediction]) -> T:
        call.judged(prediction.reason for prediction in predictions)
        return encode(numbers.output_tensors(asked, predictions))

    return await call.service.pipeline.read_numbers(
        NumberReading(model, read), timing, deadline, encode_numbers, call.comparison
    )
