"""Tensors of the protocol: decode the input tensor to images, and encode the model's output to output tensors.

In a body the tensors are JSON lists, or they follow the JSON as bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import msgspec
import numpy as np
from msgspec import UNSET

from serving.api.json_images import JSON_ERRORS, decode_whole, pixels_of
from serving.api.open_inference.messages import (
    DATATYPES,
    JSON_LENGTH_HEADER,
    InferRequest,
    InferResponse,
    InputParameters,
    OutputParameters,
    RequestInput,
    RequestOutput,
    RequestParameters,
    ResponseOutput,
    text_of,
)
from serving.contract import Floats, Images, ModelOutput
from serving.errors import InputError, InputTooLargeError, quoted
from serving.inference.numbers import MODES, NUMBER_MODE
from serving.models.classifier import INPUTS
from serving.models.model import Model
from serving.pictures.header import MAX_SIDE

# The only input of every model.
INPUT = INPUTS[0]
DATATYPE = DATATYPES[INPUT.dtype]

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
                f"the JSON is not an inference request: {error}; the model has exactly one input, "
                f"{INPUT.name!r} with the shape [N, 28, 28]"
            ) from error
    tensor = asked.inputs[0]
    as_numbers = is_number_request(asked)
    check_tensor(tensor, max_batch, any_size=as_numbers)
    rest = body[size:]
    values = (
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
    mode = asked.parameters and asked.parameters.mode
    if mode not in (None, *MODES):
        raise InputError(f"parameter mode {quoted(mode)}: must be {' or '.join(MODES)}")
    return mode == NUMBER_MODE


def check_tensor(tensor: RequestInput, max_batch: int, *, any_size: bool = False) -> None:
    """Check that the tensor is declared as uint8 ``[N, 28, 28]`` with 1 to ``max_batch`` images.

    Args:
        any_size: allow pages of any height and width, ``[N, H, W]``.
    """
    name, shape = quoted(tensor.name), quoted(list(tensor.shape))
    if tensor.name != INPUT.name:
        raise InputError(f"input {name}: the model has exactly one input, {INPUT.name!r}")
    if tensor.datatype != DATATYPE:
        raise InputError(f"input {name}: datatype {quoted(tensor.datatype)}: must be {DATATYPE}")
    if any_size:
        if min(tensor.shape) < 1 or max(tensor.shape[1:]) > MAX_SIDE:
            raise InputError(f"input {name}: shape {shape}: must be [N, H, W] with H and W from 1 to {MAX_SIDE}")
    elif tensor.shape[1:] != INPUT.shape[1:] or tensor.shape[0] < 1:
        raise InputError(f"input {name}: shape {shape}: must be [N, 28, 28] with N at least 1")
    if tensor.shape[0] > max_batch:
        raise InputTooLargeError(f"input {name}: {tensor.shape[0]} images: must be at most {max_batch}")


def binary_values(tensor: RequestInput, rest: bytes) -> bytes:
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


def json_values(tensor: RequestInput, data: bytes, rest: bytes, max_batch: int, *, any_size: bool = False) -> bytes:
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


def requested_outputs(asked: InferRequest, model: Model) -> list[RequestOutput]:
    """Return the outputs that the response must have, each with its parameter ``binary_data``.

    Raises:
        InputError: the model has no such output, or its ``classification`` is not a number of classes.
    """
    known = {tensor.name: tensor for tensor in model.bundle.manifest.outputs}
    all_binary = bool(asked.parameters and asked.parameters.binary_data_output)
    outputs: dict[str, RequestOutput] = {}
    for output in named_outputs(asked) or [RequestOutput(name) for name in known]:
        name, given = output.name, output.parameters or OutputParameters()
        if name not in known:
            raise InputError(f"output {quoted(name)}: must be one of {', '.join(known)}")
        if name in outputs:
            raise InputError(f"output {name!r}: is named twice; name each output once")
        classes = given.classification or 0
        if classes < 0:
            raise InputError(f"output {name!r}: classification {classes}: must be a number of classes")
        if classes and len(known[name].shape) == 1:
            raise InputError(f"output {name!r}: has one number per image and no classes; omit classification")
        binary = all_binary if given.binary_data is None else given.binary_data
        outputs[name] = RequestOutput(name, OutputParameters(binary, classes))
    return list(outputs.values())


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


def encode(model: Model, asked: InferRequest, outputs: list[RequestOutput], output: ModelOutput) -> tuple[bytes, bytes]:
    """Return the JSON of the response, and the binary tensors that follow it."""
    values: dict[str, Floats] = output._asdict()
    described, binary = [], []
    for wanted in outputs:
        tensor = values[wanted.name]
        parameters = wanted.parameters or OutputParameters()
        classes = parameters.classification
        if classes:
            texts = classification(tensor, min(classes, len(model.labels)), model.labels)
            shape, datatype = [len(tensor), len(texts) // len(tensor)], "BYTES"
        else:
            texts, shape, datatype = [], list(tensor.shape), "FP32"
        if parameters.binary_data:
            content = b"".join(map(with_length, texts)) if classes else tensor.astype("<f4", copy=False).tobytes()
            binary.append(content)
            described.append(ResponseOutput(wanted.name, datatype, shape, {"binary_data_size": len(content)}))
        else:
            data = texts if classes else tensor.ravel().tolist()
            described.append(ResponseOutput(wanted.name, datatype, shape, data=data))
    return encode_json(
        InferResponse(model.name, model.version, described, UNSET if asked.id is None else asked.id)
    ), b"".join(binary)


def classification(tensor: Floats, classes: int, labels: tuple[str, ...]) -> list[str]:
    """Return ``value:index:label`` of the highest ``classes`` values of each row, highest first, row after row."""
    order = np.argsort(-tensor, axis=1, kind="stable")[:, :classes]
    return [
        f"{values[index]!s}:{index}:{labels[index]}" for values, row in zip(tensor, order, strict=True) for index in row
    ]


def with_length(text: str) -> bytes:
    """Return an element of a BYTES tensor: its length as four bytes, little-endian, then the text."""
    content = text.encode()
    return len(content).to_bytes(4, "little") + content
