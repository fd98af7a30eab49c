"""The JSON messages of the protocol."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
"""Header with the number of bytes of JSON at the start of a body. Binary tensors follow the JSON."""

DATATYPES = {"uint8": "UINT8", "float32": "FP32"}
"""The protocol's names of the data types that a manifest can name."""

Parameters = dict[str, Any]


class RequestInput(msgspec.Struct):
    """An input tensor of a request. ``data`` is unset if the values follow the JSON in binary form."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters = {}
    data: msgspec.Raw | UnsetType = UNSET


class RequestOutput(msgspec.Struct):
    """An output that the caller requests."""

    name: str
    parameters: Parameters = {}


class InferRequest(msgspec.Struct):
    """An inference request. Members that the protocol does not define are ignored."""

    inputs: list[RequestInput]
    id: str | UnsetType = UNSET
    parameters: Parameters = {}
    outputs: list[RequestOutput] = []


class ResponseOutput(msgspec.Struct, omit_defaults=True):
    """An output tensor of a response. ``data`` is unset if the values follow the JSON in binary form."""

    name: str
    datatype: str
    shape: list[int]
    parameters: Parameters = {}
    data: list[Any] | UnsetType = UNSET


class InferResponse(msgspec.Struct):
    """An inference response."""

    model_name: str
    model_version: str
    outputs: list[ResponseOutput]
    id: str | UnsetType = UNSET


class ServerMetadata(msgspec.Struct):
    """Name and version of the server, and the extensions of the protocol that it supports."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(msgspec.Struct):
    """An input or output of a model. An axis of -1 has any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    """Loaded versions, inputs and outputs of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(msgspec.Struct):
    """Whether a model can infer."""

    name: str
    ready: bool


class IndexRequest(msgspec.Struct):
    """Which versions to list: all of them, or only those that are ready."""

    ready: bool = False


class LoadRequest(msgspec.Struct):
    """A request to load a model. Triton's parameters ``config`` and ``file:<path>`` would bring another model along."""

    parameters: Parameters | None = None


class IndexEntry(msgspec.Struct):
    """A model version in the repository."""

    name: str
    version: str
    state: str
    reason: str
