"""Bodies of requests and responses: decode the images of a request, and encode the output tensors of a response.

In a body the tensors are JSON lists, or they follow the JSON as bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import msgspec
import numpy as np
from msgspec import UNSET

from serving.api.json_images import JSON_ERRORS, decode_whole, pixels_of, reason_of
from serving.api.open_inference.messages import (
    JSON_LENGTH_HEADER,
    InferRequest,
    InferResponse,
    InputParameters,
    RequestInput,
    RequestParameters,
    ResponseOutput,
    text_of,
)
from serving.contract import Images
from serving.errors import InputError, quoted
from serving.models.model import Model
from serving.open_inference.messages import OutputTensor, RequestOutput
from serving.open_inference.tensors import DATATYPE, INPUT, check_input, is_number_mode

# A flat list of numbers is decoded in pieces of about this many bytes.
FLAT_PIECE_BYTES = 1 << 16

# Bytes of JSON that the list of requested outputs may take. A model has a few outputs, and each may be named once.
MAX_OUTPUTS_TEXT = 16_384

# The place of the data of the only input, for error messages.
DATA_PATH = "$.inputs[0].data"

LENGTH = re.compile("[0-9]{1,15}")

# The start of JSON data that is nested like its shape.
NESTED = re.compile(rb"\[[ \t\r\n]*\[")

_decode_request = msgspec.json.Decoder(InferRequest).decode
_decode_outputs = msgspec.json.Decoder(list[RequestOutput]).decode
_decode_numbers = msgspec.json.Decoder(list[int]).decode
encode_json = msgspec.json.Encoder().encode


# Decode


def decode(body: bytes, json_length: str | None, max_batch: int) -> tuple[InferRequest, Images]:
    """Return the request in ``body``, and its images as uint8 ``[N, 28, 28]``, with mode number as ``[N, H, W]``.

    Args:
        json_length: the value of the header ``Inference-Header-Content-Length``, None if the whole body is JSON.
        max_batch: the largest N.

    Raises:
        InputTooLargeError: the input has more than ``max_batch`` images.
        InputError: the body is not an inference request, or its input has another name, datatype or shape than the
            model's input.
    """
    size = len(body) if json_length is None else _size_of_json(json_length, len(body))
    if json_length is not None and size == 0:
        asked, data = raw_request(body), None
    else:
        try:
            asked, data = decode_whole(_decode_request_and_data, memoryview(body)[:size])
        except JSON_ERRORS as error:
            raise InputError(
                f"the JSON is not an inference request: {reason_of(error, body)}; the model has exactly one input, "
                f"{INPUT.name!r} with the shape [N, 28, 28]"
            ) from error
    tensor = asked.inputs[0]
    as_numbers = is_number_request(asked)
    check_input(tensor.name, tensor.datatype, tensor.shape, max_batch, any_size=as_numbers)
    rest = memoryview(body)[size:]  # Not a copy, because it may be large.
    values: bytes | memoryview = (
        binary_values(tensor, rest) if data is None else json_values(tensor, data, rest, max_batch, any_size=as_numbers)
    )
    return asked, np.frombuffer(values, np.uint8).reshape(tensor.shape)


def _decode_request_and_data(text: bytes | memoryview) -> tuple[InferRequest, bytes | None]:
    asked = _decode_request(text)
    return asked, text_of(asked.inputs[0].data)


def _size_of_json(header: str, body_size: int) -> int:
    # int() alone would also accept signs, spaces, underscores and the digits of other scripts. For thousands of digits
    # it raises a ValueError.
    if LENGTH.fullmatch(header) and int(header) <= body_size:
        return int(header)
    raise InputError(
        f"{JSON_LENGTH_HEADER} {quoted(header)}: must be the number of bytes of JSON at the start of the body"
    )


def raw_request(body: bytes) -> InferRequest:
    """Return the request of a body without JSON. The body is one image, and all outputs come back in binary form."""
    _, height, width = INPUT.shape
    tensor = RequestInput(INPUT.name, (1, height, width), DATATYPE, InputParameters(len(body)))
    return InferRequest((tensor,), parameters=RequestParameters(binary_data_output=True))


def is_number_request(asked: InferRequest) -> bool:
    """Return whether the request asks for whole numbers, with its parameter ``mode``."""
    return is_number_mode(asked.parameters and asked.parameters.mode)


def binary_values(tensor: RequestInput, rest: memoryview) -> memoryview:
    """Return the pixels of a tensor whose values are the bytes after the JSON."""
    size = _binary_size(tensor)
    if size is None:
        raise InputError(f"input {tensor.name!r}: must have data, or the size of its bytes in binary_data_size")
    expected = math.prod(tensor.shape)
    if not size == len(rest) == expected:
        raise InputError(
            f"input {tensor.name!r}: shape {list(tensor.shape)} needs {expected} bytes, binary_data_size is {size}, "
            f"and {len(rest)} bytes follow the JSON: all three must be equal"
        )
    return rest


def _binary_size(tensor: RequestInput) -> int | None:
    return tensor.parameters.binary_data_size if tensor.parameters else None


def json_values(tensor: RequestInput, data: bytes, rest: memoryview, max_batch: int, *, any_size: bool) -> bytes:
    """Return the pixels of a tensor with JSON ``data``: nested like its shape, or flat in row-major order."""
    if rest:
        raise InputError(f"{len(rest)} bytes follow the JSON, but no input has a binary_data_size")
    if _binary_size(tensor) is not None:
        raise InputError(f"input {tensor.name!r}: must have either data or a binary_data_size, not both")
    expected = math.prod(tensor.shape)
    if any_size:
        # Without the brackets inside, nested data is flat.
        values = _flat_values(b"[%b]" % data.translate(None, b"[] \t\r\n"), expected + FLAT_PIECE_BYTES)
    elif NESTED.match(data):
        values = pixels_of(data, DATA_PATH, max_batch)
    else:
        values = _flat_values(data, expected + FLAT_PIECE_BYTES)
    if len(values) != expected:
        raise InputError(
            f"input {tensor.name!r}: data has {len(values)} numbers, but shape {list(tensor.shape)} needs {expected}"
        )
    return values


def _flat_values(data: bytes, limit: int) -> bytes:
    """Return the numbers in a flat list. Stop soon after ``limit`` numbers."""
    values = bytearray()
    try:
        for piece in _pieces(data):
            # bytes() checks the range of the numbers.
            values += bytes(_decode_numbers(piece))
            if len(values) > limit:
                break
        return bytes(values)
    except JSON_ERRORS as error:
        raise InputError(f"`{DATA_PATH}` is not a list of integers: {error}") from error
    except (ValueError, OverflowError) as error:
        raise InputError(f"`{DATA_PATH}` has a number out of range: must be in 0..255") from error


def _pieces(text: bytes) -> Iterator[bytes]:
    """Split a list of numbers, known to be valid JSON, into several shorter lists.

    Other threads run between two pieces. One call for the whole list would hold the interpreter lock until its end.
    """
    start = 0
    while (comma := text.find(b",", start + FLAT_PIECE_BYTES)) >= 0:
        yield (b"[" if start else b"") + text[start:comma] + b"]"
        start = comma + 1
    yield (b"[" if start else b"") + text[start:]


# Encode


def named_outputs(asked: InferRequest) -> list[RequestOutput]:
    """Return the outputs that the request names."""
    text = text_of(asked.outputs)
    if text is None:
        return []
    if len(text) > MAX_OUTPUTS_TEXT:
        raise InputError(f"`$.outputs` has {len(text)} bytes of JSON: must have at most {MAX_OUTPUTS_TEXT}")
    try:
        return _decode_outputs(text)
    except JSON_ERRORS as error:
        raise InputError(f"the outputs cannot be used: {str(error).replace('`$', '`$.outputs')}") from error


def encode(model: Model, asked: InferRequest, tensors: list[OutputTensor]) -> tuple[bytes, bytes]:
    """Return the JSON of the response, and the binary tensors that follow it."""
    all_binary = bool(asked.parameters and asked.parameters.binary_data_output)
    described, binary = [], []
    for tensor in tensors:
        output = ResponseOutput(tensor.asked.name, tensor.datatype, tensor.shape)
        is_binary = tensor.asked.parameters and tensor.asked.parameters.binary_data
        if all_binary if is_binary is None else is_binary:
            binary.append(tensor.to_bytes())
            output.parameters = {"binary_data_size": len(binary[-1])}
        else:
            output.data = tensor.values if isinstance(tensor.values, list) else tensor.values.ravel().tolist()
        described.append(output)
    response = InferResponse(model.name, model.version, described, UNSET if asked.id is None else asked.id)
    return encode_json(response), b"".join(binary)
