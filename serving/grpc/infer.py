"""ModelInfer: decode the input tensor, run the model, encode the outputs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from serving.contract import Images
from serving.errors import InputError, quoted
from serving.grpc import wire
from serving.grpc.messages import REQUESTS, RESPONSES, parsed
from serving.inference.threads import INLINE_BYTES
from serving.models.model import Model
from serving.open_inference.infer import infer, infer_numbers
from serving.open_inference.messages import MAX_ID, OutputParameters, OutputTensor, RequestOutput
from serving.open_inference.tensors import check_input, is_number_mode
from serving.service.call import Call
from serving.telemetry.timing import Timing

# Typed contents become bytes in pieces of this many numbers. Other threads run between two pieces.
PIECE = 8192
# A model has a few outputs, and each may be named once.
MAX_OUTPUTS = 64

_Response = RESPONSES["ModelInfer"]


class Inference(NamedTuple):
    """A decoded request."""

    id: str
    parameters: dict[str, Any]
    images: Images
    outputs: list[RequestOutput]
    is_raw: bool
    """Whether the pixels came as raw contents. The outputs then go back as raw contents too."""
    is_number: bool
    model: Model


async def model_infer(call: Call, message: bytes, timing: Timing) -> bytes:
    """Return the response with the outputs that the request names, or with all outputs if it names none."""
    service = call.service
    if len(message) <= INLINE_BYTES or wire.is_raw(message):
        asked = decode(call, message)
    else:
        asked = await service.pipeline.threads.run(lambda: decode_typed(call, message))
    deadline = call.deadline(asked.parameters.get("timeout"))
    run = infer_numbers if asked.is_number else infer
    return await run(
        call, asked.model, asked.images, asked.outputs, timing, deadline, lambda found: encode(asked, found)
    )


def decode_typed(call: Call, message: bytes) -> Inference:
    """Return the decoded request of a large message whose pixels are not raw contents."""
    wire.check(message)
    return decode(call, message)


def decode(call: Call, message: bytes) -> Inference:
    """Return the decoded request.

    Raises:
        ModelNotFoundError, ModelUnavailableError: its model is not loaded.
        InputTooLargeError: the input has too many images.
        InputError: the message is not a request, or its input has another name, data type or shape.
    """
    request = parsed(REQUESTS["ModelInfer"], message)
    model = call.route(request.model_name, request.model_version or None)
    if len(request.id) > MAX_ID:
        raise InputError(f"the id has {len(request.id)} characters: must have at most {MAX_ID}")
    if len(request.outputs) > MAX_OUTPUTS:
        raise InputError(f"the request names {len(request.outputs)} outputs: must name each output once")
    if len(request.inputs) != 1:
        raise InputError(f"the request has {len(request.inputs)} inputs: the model has exactly one, 'images'")
    parameters = values_of(request.parameters)
    is_number = is_number_mode(parameters.get("mode"))
    [tensor] = request.inputs
    check_input(tensor.name, tensor.datatype, tensor.shape, call.service.settings.max_batch, any_size=is_number)
    is_raw = len(request.raw_input_contents) > 0
    pixels = raw_pixels(request, tensor) if is_raw else typed_pixels(tensor)
    return Inference(
        request.id,
        parameters,
        np.frombuffer(pixels, np.uint8).reshape(tensor.shape),
        [requested_output(output) for output in request.outputs],
        is_raw,
        is_number,
        model,
    )


def raw_pixels(request: Any, tensor: Any) -> bytes:
    """Return the pixels of an input whose values are in ``raw_input_contents``."""
    if tensor.HasField("contents"):
        raise InputError(f"input {tensor.name!r}: must have either contents or raw_input_contents, not both")
    if len(request.raw_input_contents) != 1:
        raise InputError(
            f"raw_input_contents has {len(request.raw_input_contents)} entries: must be one for each input"
        )
    content: bytes = request.raw_input_contents[0]
    expected = math.prod(tensor.shape)
    if len(content) != expected:
        raise InputError(
            f"input {tensor.name!r}: shape {list(tensor.shape)} needs {expected} bytes, but raw_input_contents has "
            f"{len(content)}"
        )
    return content


def typed_pixels(tensor: Any) -> bytes:
    """Return the pixels of an input whose values are in its ``contents``."""
    values = tensor.contents.uint_contents
    expected = math.prod(tensor.shape)
    if len(values) != expected:
        raise InputError(
            f"input {tensor.name!r}: shape {list(tensor.shape)} needs {expected} numbers, but contents.uint_contents "
            f"has {len(values)}; the values of UINT8 belong there, or as bytes in raw_input_contents"
        )
    try:
        return b"".join(bytes(values[start : start + PIECE]) for start in range(0, expected, PIECE))
    except ValueError as error:
        raise InputError(f"input {tensor.name!r}: has a number out of range: must be in 0..255") from error


def values_of(parameters: Any) -> dict[str, Any]:
    """Return the values of parameters by name; a parameter without a value counts as absent."""
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    return {name: getattr(parameters[name], choice) for name, choice in chosen.items() if choice}


def requested_output(output: Any) -> RequestOutput:
    """Return what a request asks of one output.

    Raises:
        InputError: its parameter ``classification`` is not a number of classes.
    """
    classes = values_of(output.parameters).get("classification")
    if classes is not None and (isinstance(classes, bool) or not isinstance(classes, int)):
        raise InputError(f"output {quoted(output.name)}: classification {quoted(classes)}: must be a number of classes")
    return RequestOutput(output.name, OutputParameters(classification=classes))


def encode(asked: Inference, found: list[OutputTensor]) -> bytes:
    """Return the encoded response."""
    response = _Response(model_name=asked.model.name, model_version=asked.model.version, id=asked.id)
    for tensor in found:
        output = response.outputs.add(name=tensor.asked.name, datatype=tensor.datatype, shape=tensor.shape)
        if asked.is_raw:
            response.raw_output_contents.append(tensor.to_bytes())
        elif isinstance(tensor.values, list):
            output.contents.bytes_contents.extend(map(str.encode, tensor.values))
        else:
            output.contents.fp32_contents.extend(tensor.values.ravel().tolist())
    content: bytes = response.SerializeToString()
    return content
