"""The JSON messages of the protocol."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from serving.open_inference.messages import MAX_ID

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
"""Header with the number of bytes of JSON at the start of a body. Binary tensors follow the JSON."""

# In a request, null means the same as an absent member. Members that the protocol or this service do not define are
# skipped without being stored, so that their number and size cost no memory.


class RequestParameters(msgspec.Struct):
    """The parameters of a request that this service knows."""

    timeout: int | float | str | None = None
    binary_data_output: bool | None = None
    mode: str | None = None


class InputParameters(msgspec.Struct):
    """The parameters of an input that this service knows."""

    binary_data_size: int | None = None


class RequestInput(msgspec.Struct):
    """An input tensor of a request. ``data`` is absent if the values follow the JSON in binary form."""

    name: str
    shape: tuple[int, int, int]
    datatype: str
    parameters: InputParameters | None = None
    data: msgspec.Raw | UnsetType = UNSET


class InferRequest(msgspec.Struct):
    """An inference request for a model with one input. The list of outputs stays JSON text at first."""

    inputs: tuple[RequestInput]
    id: Annotated[str, msgspec.Meta(max_length=MAX_ID)] | None = None
    parameters: RequestParameters | None = None
    outputs: msgspec.Raw | UnsetType = UNSET


def text_of(member: msgspec.Raw | UnsetType) -> bytes | None:
    """Return the JSON text of a member of a request, or None if it is absent or null."""
    text = None if member is UNSET else bytes(member)
    return None if text == b"null" else text


class ResponseOutput(msgspec.Struct, omit_defaults=True):
    """An output tensor of a response. ``data`` is unset if the values follow the JSON in binary form."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] = {}
    data: list[Any] | UnsetType = UNSET


class InferResponse(msgspec.Struct):
    """An inference response."""

    model_name: str
    model_version: str
    outputs: list[ResponseOutput]
    id: str | UnsetType = UNSET


class ModelReady(msgspec.Struct):
    """Whether a model can infer."""

    name: str
    ready: bool


class IndexRequest(msgspec.Struct):
    """Which versions to list: all of them, or only those that are ready."""

    ready: bool | None = None


class LoadRequest(msgspec.Struct):
    """A request to load a model. With Triton's parameters ``config`` and ``file:<path>``, it brings its own model."""

    parameters: dict[str, Any] | None = None
