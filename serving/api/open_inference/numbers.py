"""Whole numbers in the protocol: a request with the parameter ``mode`` set to ``number``.

Its input is the same tensor, but with pages of any size, ``[N, H, W]``. Its outputs have one text for each page.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from serving.api.context import RequestContext
from serving.api.open_inference.messages import (
    InferRequest,
    InferResponse,
    OutputParameters,
    RequestOutput,
    ResponseOutput,
)
from serving.api.open_inference.tensors import encode_json, named_outputs, with_length
from serving.contract import Images
from serving.errors import InputError, InputTooLargeError, quoted
from serving.inference.numbers import NumberPrediction, Reading, check_reads_numbers
from serving.models.model import Model
from serving.telemetry.timing import Timing

TEXT, PREDICTION = OUTPUTS = ("text", "prediction")
"""The outputs: the digits of each page, and its prediction as JSON, as in the response of ``/predict?mode=number``."""


async def infer_numbers(
    context: RequestContext, model: Model, asked: InferRequest, pages: Images, timing: Timing, deadline: float
) -> tuple[bytes, bytes]:
    """Return the JSON of the response, and the binary tensors that follow it.

    Args:
        pages: uint8 ``[N, H, W]``.

    Raises:
        InputTooLargeError: the pages have too many pixels or too many candidates for digits.
        InputError: the request names another output.
        DeadlineExceededError: the deadline passed before inference began.
    """
    check_reads_numbers(model)
    service = context.service
    outputs = requested_outputs(asked)
    pixels, limit = pages.shape[1] * pages.shape[2], service.settings.max_pixels
    if pixels > limit:
        raise InputTooLargeError(f"a page has {pixels} pixels: must be at most {limit}; send smaller pages")
    read = await service.decoder.read_pages(pages, deadline)
    timing.end("decode")
    return await service.pipeline.read_numbers(
        Reading(model, read), timing, deadline, lambda predictions: encode(context, model, asked, outputs, predictions)
    )


def requested_outputs(asked: InferRequest) -> dict[str, bool]:
    """Return the names of the outputs that the response must have, and whether each is binary."""
    all_binary = bool(asked.parameters and asked.parameters.binary_data_output)
    outputs: dict[str, bool] = {}
    for output in named_outputs(asked) or [RequestOutput(name) for name in OUTPUTS]:
        name, given = output.name, output.parameters or OutputParameters()
        if name not in OUTPUTS:
            raise InputError(f"output {quoted(name)}: with mode number must be one of {', '.join(OUTPUTS)}")
        if name in outputs:
            raise InputError(f"output {name!r}: is named twice; name each output once")
        if given.classification:
            raise InputError(f"output {name!r}: is a text and has no classes; omit classification")
        outputs[name] = all_binary if given.binary_data is None else given.binary_data
    return outputs


def encode(
    context: RequestContext,
    model: Model,
    asked: InferRequest,
    outputs: dict[str, bool],
    predictions: list[NumberPrediction],
) -> tuple[bytes, bytes]:
    """Return the JSON of the response, and the binary tensors that follow it."""
    context.judged(prediction.reason for prediction in predictions)
    described, binary = [], []
    for name, is_binary in outputs.items():
        texts = [
            prediction.text if name == TEXT else msgspec.json.encode(prediction).decode() for prediction in predictions
        ]
        shape = [len(texts)]
        if is_binary:
            content = b"".join(map(with_length, texts))
            binary.append(content)
            described.append(ResponseOutput(name, "BYTES", shape, {"binary_data_size": len(content)}))
        else:
            described.append(ResponseOutput(name, "BYTES", shape, data=texts))
    response = InferResponse(model.name, model.version, described, UNSET if asked.id is None else asked.id)
    return encode_json(response), b"".join(binary)
